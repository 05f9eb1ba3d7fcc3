//! Runs the registry as a server on a port.
//! Stage: registry. Input: [`Catalog`]. Output: [`Registry`].

use std::fmt;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;

use super::cache::Cache;
use super::connection::Role;
use super::connections::{Connections, Limits};
use super::for_parts::CacheForParts;
use super::guests::Guests;
use super::layer_body::Makers;
use super::permissions::Permissions;
use super::shared::{Served, Shared};
use super::tls::Certificate;
use super::users::Users;
use crate::error::with_causes;
use crate::oci::ImageSpec;
use crate::outgoing::Error;
use crate::registry::catalog::Catalog;
use crate::registry::fair::{FairPlaces, Shares};
use crate::registry::metrics::Metrics;
use crate::registry::on_demand::{OnDemand, OnDemandOptions};
use crate::registry::storage::ObjectStorage;
use crate::registry::{IpNetwork, SetupError};
use crate::store::Store;

/// The time between two measurements of the storage. Each takes a request for every thousand
/// objects.
const MEASURED: Duration = Duration::from_secs(3600);
/// The number of connections that may be open at the address for monitoring.
const FOR_MONITORING: usize = 32;
/// The longest time for the headers of a request of monitoring.
const SOON: Duration = Duration::from_secs(5);

/// The options of a registry. The defaults are those for a single copy: all clients, no TLS, no
/// cache.
#[derive(Default)]
pub struct ServerOptions {
    /// A certificate and its key.
    pub tls: Option<Certificate>,
    /// The users that are allowed; none allows every client.
    pub users: Option<Users>,
    /// The rules for repositories; none allows every repository.
    pub permissions: Option<Permissions>,
    /// The proxies whose headers are trusted.
    pub trusted: Vec<IpNetwork>,
    /// The address that answers only monitoring, if there is one.
    pub admin: Option<String>,
    /// The cache for blobs.
    pub cache: Option<Arc<Cache>>,
    /// The options for images that are built on demand.
    pub on_demand: Option<OnDemandOptions>,
    /// Writes a page with the contents of an image, under a name; none if there are no such pages.
    pub explain: Option<fn(&ImageSpec, &str) -> String>,
    /// Limits for clients.
    pub limits: Limits,
}

/// A registry that answers until it is dropped.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    guests: Guests,
    admin: Option<SocketAddr>,
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
        let limits = options.limits;
        let runtime = runtime(limits)?;
        let listener = listen(&runtime, &address)?;
        let admin_listener =
            options.admin.as_deref().map(|address| listen(&runtime, &address)).transpose()?;
        let admin = admin_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let address = listener.local_addr().map_err(SetupError::Runtime)?;
        let shared = Arc::new(shared(&runtime, catalog, store, options)?);
        warn_of_unknown_users(&shared);
        let (stop, stopped) = watch::channel(false);
        let guests = Guests::new(limits.open(), Arc::clone(&shared.metrics));
        let connections = Connections {
            shared: Arc::clone(&shared),
            role: Role::Registry,
            limits,
            guests: guests.clone(),
            stop: stopped,
        };
        if let Some(listener) = admin_listener {
            let guests = Guests::new(FOR_MONITORING, Arc::default());
            let limits = Limits { headers: limits.headers.min(SOON), ..limits };
            let admin = Connections { role: Role::Admin, limits, guests, ..connections.clone() };
            runtime.spawn(admin.accept(listener));
        }
        runtime.spawn(connections.accept(listener));
        Ok(Self { address, shared, stop, guests, admin, runtime: Some(runtime) })
    }

    /// Returns the address at which the server answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address that answers only monitoring, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Replaces the images from now on. Requests that are under way go on with the images that they
    /// found.
    pub fn replace(&self, catalog: Catalog) {
        self.shared.catalog.store(Arc::new(catalog));
        self.shared.metrics.reloads.inc();
        // Otherwise digests of replaced images would accumulate.
        *self.shared.served.lock().unwrap_or_else(PoisonError::into_inner) = Served::default();
    }

    /// Opens connections by another certificate from now on.
    pub fn replace_tls(&self, tls: Certificate) {
        self.shared.metrics.certificate_ends(tls.ends);
        self.shared.tls.store(Some(Arc::new(tls.acceptor)));
    }

    /// Replaces the users, the rules for repositories, or both from now on.
    pub fn replace_access(&self, users: Option<Users>, permissions: Option<Permissions>) {
        if let Some(users) = users {
            self.shared.users.store(Some(Arc::new(users)));
        }
        if let Some(permissions) = permissions {
            self.shared.permissions.store(Some(Arc::new(permissions)));
        }
        warn_of_unknown_users(&self.shared);
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
        let ended = runtime.block_on(async { timeout(grace, self.guests.all_gone()).await });
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
        self.shared.for_parts.close();
    }
}

/// Measures the size of a storage again and again, for the metrics.
async fn measure(storage: ObjectStorage, metrics: Arc<Metrics>) {
    loop {
        match storage.size().await {
            Ok(size) => metrics.storage_bytes.set(size.cast_signed()),
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "cannot measure the storage");
            }
        }
        tokio::time::sleep(MEASURED).await;
    }
}

/// Makes the threads of a server.
fn runtime(limits: Limits) -> Result<Runtime, SetupError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // There is one thread for the layer of each connection, and some for passwords.
        .max_blocking_threads(limits.connections + 8)
        .enable_io()
        .enable_time()
        .thread_name("registry")
        .build()
        .map_err(SetupError::Runtime)
}

/// Opens the storage, and makes the state that all connections share.
fn shared(
    runtime: &Runtime,
    catalog: Catalog,
    store: Store,
    options: ServerOptions,
) -> Result<Shared, SetupError> {
    let ServerOptions {
        tls, users, permissions, trusted, cache, on_demand, explain, limits, ..
    } = options;
    let metrics: Arc<Metrics> = Arc::default();
    metrics.certificate_ends(tls.as_ref().and_then(|certificate| certificate.ends));
    let on_demand = match on_demand {
        Some(options) => {
            let storage = storage(runtime, &options, &metrics)?;
            let metrics = Arc::clone(&metrics);
            Some(Arc::new(OnDemand::new(options, store.clone(), storage, metrics)))
        }
        None => None,
    };
    Ok(Shared {
        catalog: ArcSwap::from_pointee(catalog),
        on_demand,
        store,
        explain,
        makers: Makers::new(rayon::current_num_threads()),
        cache,
        for_parts: CacheForParts::default(),
        metrics,
        tls: ArcSwapOption::from_pointee(tls.map(|certificate| certificate.acceptor)),
        users: ArcSwapOption::from_pointee(users),
        permissions: ArcSwapOption::from_pointee(permissions),
        trusted,
        places: FairPlaces::new(Shares {
            places: limits.connections,
            client_places: limits.client_connections.clamp(1, limits.connections.max(1)),
            queue: limits.connections,
            client_queue: limits.connections,
        }),
        served: Mutex::default(),
        error: Mutex::default(),
    })
}

/// Says which users the rules for repositories name although they can't log in.
fn warn_of_unknown_users(shared: &Shared) {
    let (users, permissions) = (shared.users.load(), shared.permissions.load());
    let Some(permissions) = permissions.as_deref() else { return };
    let unknown = permissions.unknown_users(users.as_deref());
    if let Some(first) = unknown.first() {
        let (first, count) = (first.escape_debug(), unknown.len());
        tracing::warn!(%first, count, "the permissions name users that the list of users does not have");
    }
}

/// Opens the storage that the options name, and begins to measure it.
fn storage(
    runtime: &Runtime,
    options: &OnDemandOptions,
    metrics: &Arc<Metrics>,
) -> Result<Option<ObjectStorage>, SetupError> {
    let Some(url) = options.storage.as_deref() else { return Ok(None) };
    let keys = options.storage_keys.clone();
    let storage = runtime.block_on(ObjectStorage::open_with(url, keys))?;
    runtime.spawn(measure(storage.clone(), Arc::clone(metrics)));
    Ok(Some(storage))
}

fn listen(
    runtime: &Runtime,
    address: &(impl ToSocketAddrs + fmt::Display),
) -> Result<tokio::net::TcpListener, SetupError> {
    let _guard = runtime.enter();
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    });
    listener.map_err(|source| SetupError::Listen { address: address.to_string(), source })
}
