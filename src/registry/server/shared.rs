//! Holds the state that all requests of a server share: images, users, kept blobs, and metrics.
//! Stage: registry. Output: [`Shared`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio_rustls::TlsAcceptor;

use super::cache::Cache;
use super::for_parts::CacheForParts;
use super::layer_body::Makers;
use super::permissions::Permissions;
use super::users::Users;
use crate::digest::BlobDigest;
use crate::oci::ImageSpec;
use crate::outgoing::{Error, Hashing, RepositoryName};
use crate::registry::IpNetwork;
use crate::registry::catalog::Catalog;
use crate::registry::fair::FairPlaces;
use crate::registry::metrics::Metrics;
use crate::registry::on_demand::OnDemand;
use crate::store::Store;

/// Counts of what was sent of each layer's blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The blobs that were asked for, with the number of bytes that were sent.
    pub layers: BTreeMap<BlobDigest, u64>,
}

/// The state that all requests share.
pub struct Shared {
    /// The images that the server has.
    pub catalog: ArcSwap<Catalog>,
    /// Builds images for names that the catalog does not have.
    pub on_demand: Option<Arc<OnDemand>>,
    /// The store that layers are made from.
    pub store: Store,
    /// Writes a page with the contents of an image, under a name.
    pub explain: Option<fn(&ImageSpec, &str) -> String>,
    /// The limit on the number of layers that are made at a time.
    pub makers: Makers,
    /// The cache for blobs.
    pub cache: Option<Arc<Cache>>,
    /// The cache for layers of which parts are read, if there is no other.
    pub for_parts: CacheForParts,
    /// The metrics of the server.
    pub metrics: Arc<Metrics>,
    /// The certificate for connections; none for plain HTTP.
    pub tls: ArcSwapOption<TlsAcceptor>,
    /// The users that are allowed; none allows every client.
    pub users: ArcSwapOption<Users>,
    /// The rules for repositories; none allows every repository.
    pub permissions: ArcSwapOption<Permissions>,
    /// The proxies whose headers are trusted.
    pub trusted: Vec<IpNetwork>,
    /// The places for requests, which clients share.
    pub places: FairPlaces<IpAddr>,
    /// Counts of the bytes that were sent of each layer.
    pub served: Mutex<Served>,
    /// The first error that kept a layer from being sent.
    pub error: Mutex<Option<Error>>,
}

impl Shared {
    /// Returns the thread on which a layer's digest is computed at present. With many clients all
    /// processors are busy, and each request must take little memory.
    pub fn hashing(&self) -> Hashing {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        if self.metrics.in_flight.get() <= processors as i64 {
            Hashing::Beside
        } else {
            Hashing::Within
        }
    }

    /// Returns the catalog that has a repository. If none has it, returns the catalog of built
    /// images.
    pub fn catalog_with(&self, name: &RepositoryName) -> Arc<Catalog> {
        let catalog = self.catalog.load_full();
        match &self.on_demand {
            Some(on_demand) if catalog.repository(name).is_none() => on_demand.catalog(),
            _ => catalog,
        }
    }

    /// Counts bytes of a layer that are sent.
    pub fn count(&self, digest: BlobDigest, bytes: u64) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        *served.layers.entry(digest).or_default() += bytes;
    }

    /// Logs an error, and keeps the first one for `Registry::take_error`.
    pub fn fail(&self, error: Error) {
        tracing::error!(error = %crate::error::with_causes(&error), "cannot make a layer");
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}
