//! State that every request of a server finds: images, users, blobs that are kept, and figures.
//! Stage: registry. Output: [`Shared`].

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio_rustls::TlsAcceptor;

use super::cache::Cache;
use super::layer_body::Makers;
use super::users::Users;
use crate::digest::BlobDigest;
use crate::outgoing::{Error, Hashing};
use crate::registry::catalog::Catalog;
use crate::registry::metrics::Metrics;
use crate::registry::on_demand::OnDemand;
use crate::store::Store;

/// Counts what was sent of the blob of each layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Blobs that were asked for, with the number of bytes that were on their way.
    pub layers: BTreeMap<BlobDigest, u64>,
}

/// The state that every request finds.
pub struct Shared {
    /// The images that the server has.
    pub catalog: ArcSwap<Catalog>,
    /// Builds images for names that the catalog hasn't.
    pub on_demand: Option<Arc<OnDemand>>,
    /// The store that layers are made from.
    pub store: Store,
    /// Limits how many layers are made at a time.
    pub makers: Makers,
    /// The cache for blobs.
    pub cache: Option<Arc<Cache>>,
    /// Figures of what was done.
    pub metrics: Arc<Metrics>,
    /// The certificate by which connections are opened, if by any.
    pub tls: ArcSwapOption<TlsAcceptor>,
    /// The users that may ask, if not everybody may.
    pub users: ArcSwapOption<Users>,
    /// Bytes that were sent of each layer.
    pub served: Mutex<Served>,
    /// The first error that kept a layer from being sent.
    pub error: Mutex<Option<Error>>,
}

impl Shared {
    /// How to compute a layer's digest just now: many clients keep all processors busy, and each
    /// is to cost little memory.
    pub fn hashing(&self) -> Hashing {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        if self.metrics.in_flight.get() <= processors as u64 {
            Hashing::Beside
        } else {
            Hashing::Within
        }
    }

    /// The catalog that has a repository, if there is one.
    pub fn catalog_with(&self, name: &str) -> Arc<Catalog> {
        let catalog = self.catalog.load_full();
        match &self.on_demand {
            Some(on_demand) if catalog.repository(name).is_none() => on_demand.catalog(),
            _ => catalog,
        }
    }

    /// Notes that a layer is being sent.
    pub fn count(&self, digest: BlobDigest, bytes: u64) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        *served.layers.entry(digest).or_default() += bytes;
    }

    /// Keeps the first error, for who can do something about it.
    pub fn fail(&self, error: Error) {
        tracing::error!(error = %crate::error::with_causes(&error), "cannot make a layer");
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}
