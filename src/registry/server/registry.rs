//! Runs the registry as a server on a port.
//! Stage: registry. Input: [`Catalog`]. Output: [`Registry`].

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::cache::Cache;
use super::connections::{Connections, Limits};
use super::layer_body::Makers;
use super::shared::{Served, Shared};
use super::users::Users;
use crate::outgoing::Error;
use crate::registry::SetupError;
use crate::registry::catalog::Catalog;
use crate::registry::metrics::Metrics;
use crate::registry::on_demand::{OnDemand, OnDemandOptions};
use crate::registry::storage::ObjectStorage;
use crate::store::Store;

/// The options of a server. The defaults are those for one copy: every user, no TLS, no cache.
#[derive(Default)]
pub struct ServerOptions {
    /// The certificate and its key.
    pub tls: Option<TlsAcceptor>,
    /// The users that are allowed; none allows every client.
    pub users: Option<Users>,
    /// The cache for blobs.
    pub cache: Option<Arc<Cache>>,
    /// The options for images that are built on demand.
    pub on_demand: Option<OnDemandOptions>,
    /// Limits for clients.
    pub limits: Limits,
}

/// A registry that answers until it is dropped.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    places: Arc<Semaphore>,
    limits: Limits,
    runtime: Option<Runtime>,
}

impl Registry {
    /// Starts to answer at an address. If a name stands for several addresses, takes the first one
    /// that is free; port 0 takes any free port.
    ///
    /// # Errors
    /// Fails with [`SetupError`] if the storage can't be used, the address is not free, or there
    /// are no threads.
    pub fn start(
        catalog: Catalog,
        store: Store,
        address: impl ToSocketAddrs + fmt::Display,
        options: ServerOptions,
    ) -> Result<Self, SetupError> {
        let ServerOptions { tls, users, cache, on_demand, limits } = options;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            // There is one thread for the layer of each connection, and some for passwords.
            .max_blocking_threads(limits.connections + 8)
            .enable_io()
            .enable_time()
            .thread_name("registry")
            .build()
            .map_err(SetupError::Runtime)?;
        let listener = {
            let _guard = runtime.enter();
            listen(&address).map_err(|source| {
                let address = address.to_string();
                SetupError::Listen { address, source }
            })?
        };
        let address = listener.local_addr().map_err(SetupError::Runtime)?;
        let storage = on_demand.as_ref().and_then(|on_demand| on_demand.storage.as_deref());
        let storage = storage.map(|url| runtime.block_on(ObjectStorage::open(url))).transpose()?;
        let metrics: Arc<Metrics> = Arc::default();
        let on_demand = on_demand
            .map(|it| Arc::new(OnDemand::new(it, store.clone(), storage, Arc::clone(&metrics))));
        let shared = Arc::new(Shared {
            catalog: ArcSwap::from_pointee(catalog),
            on_demand,
            store,
            makers: Makers::new(rayon::current_num_threads()),
            cache,
            metrics,
            tls: ArcSwapOption::from_pointee(tls),
            users: ArcSwapOption::from_pointee(users),
            served: Mutex::default(),
            error: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let places = Arc::new(Semaphore::new(limits.connections));
        let connections = Connections {
            shared: Arc::clone(&shared),
            limits,
            places: Arc::clone(&places),
            stop: stopped,
        };
        runtime.spawn(connections.accept(listener));
        Ok(Self { address, shared, stop, places, limits, runtime: Some(runtime) })
    }

    /// Returns the address at which the server answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the images from now on. Requests that are under way go on with the images that they
    /// found.
    pub fn replace(&self, catalog: Catalog) {
        self.shared.catalog.store(Arc::new(catalog));
        self.shared.metrics.reloads.add(1);
        // Otherwise digests of replaced images would accumulate.
        *self.shared.served.lock().unwrap_or_else(PoisonError::into_inner) = Served::default();
    }

    /// Uses another certificate for new connections from now on.
    pub fn replace_tls(&self, tls: TlsAcceptor) {
        self.shared.tls.store(Some(Arc::new(tls)));
    }

    /// Replaces the users from now on.
    pub fn replace_users(&self, users: Users) {
        self.shared.users.store(Some(Arc::new(users)));
    }

    /// Returns counts of what was sent up to now.
    pub fn served(&self) -> Served {
        self.shared.served.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether any request has been answered.
    pub fn was_asked(&self) -> bool {
        self.shared.metrics.has_answered()
    }

    /// Returns the first error that kept a layer from being sent, and forgets it.
    pub fn take_error(&self) -> Option<Error> {
        self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Accepts no further connections, and waits at most `grace` until all requests are answered.
    /// Returns whether they were.
    pub fn stop(mut self, grace: Duration) -> bool {
        self.stop.send_replace(true);
        let Some(runtime) = self.runtime.take() else { return true };
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        let (places, waited) = (Arc::clone(&self.places), grace);
        let ended = runtime.block_on(async { timeout(waited, places.acquire_many(all)).await });
        if let Some(on_demand) = &self.shared.on_demand {
            on_demand.end();
        }
        runtime.shutdown_background();
        ended.is_ok()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            // A client that is still being sent something has no use for an incomplete answer.
            runtime.shutdown_background();
        }
    }
}

fn listen(address: impl ToSocketAddrs) -> io::Result<tokio::net::TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}
