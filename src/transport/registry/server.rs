//! The registry as a server on a port, from its start to its end.
//! Stage: transport. Input: [`Catalog`]. Output: [`Registry`].

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::answer::answer;
use super::catalog::Catalog;
use super::layer_body::Makers;
use crate::digest::BlobDigest;
use crate::store::Store;
use crate::transport::Error;

/// What was sent of each layer's blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Blobs that were asked for, with the number of bytes that were on their way.
    pub layers: BTreeMap<BlobDigest, u64>,
}

/// What every request finds.
pub struct Shared {
    /// What there is.
    pub catalog: Catalog,
    /// What layers are made of.
    pub store: Store,
    /// Who may make one.
    pub makers: Makers,
    served: Mutex<Served>,
    error: Mutex<Option<Error>>,
}

impl Shared {
    /// Notes that a layer is being sent.
    pub fn count(&self, digest: BlobDigest, bytes: u64) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        *served.layers.entry(digest).or_default() += bytes;
    }

    /// Keeps the first error, for who can do something about it.
    pub fn fail(&self, error: Error) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// A registry that answers until it is dropped.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    runtime: Option<Runtime>,
}

impl Registry {
    /// Begins to answer at an address; port 0 takes one that is free.
    ///
    /// # Errors
    /// If there is no listening there.
    pub fn start(catalog: Catalog, store: Store, address: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_io()
            .thread_name("registry")
            .build()?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            catalog,
            store,
            makers: Makers::new(rayon::current_num_threads()),
            served: Mutex::default(),
            error: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let listener = {
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let router = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        runtime.spawn(async move {
            let stopped = async {
                // Dropped is as good as sent.
                let _ = stopped.await;
            };
            // It only fails where it can't begin, and that was tried.
            let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
        });
        Ok(Self { address, shared, stop: Some(stop), runtime: Some(runtime) })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has sent up to now.
    pub fn served(&self) -> Served {
        self.shared.served.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first error that kept a layer from being sent.
    pub fn take_error(&self) -> Option<Error> {
        self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(runtime) = self.runtime.take() {
            // Who is still being sent something has no use for the rest.
            runtime.shutdown_background();
        }
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> axum::response::Response {
    answer(&shared, &request)
}
