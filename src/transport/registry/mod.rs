//! A read-only registry (OCI distribution-spec 1.1) over image specs: layers are made as they
//! are asked for. For one copy on a loopback port, or as a service.
//! Stage: transport. Input: a [`Catalog`] and the store. Output: HTTP responses.

mod answer;
mod cache;
mod catalog;
mod connections;
mod error;
mod fingerprint;
mod impatient;
mod kept_layer;
mod layer_body;
mod metrics;
mod on_demand;
mod page;
mod range;
mod reread;
mod route;
mod server;
mod sources;
mod stored;
mod tls;
mod users;
mod watched_body;

pub use cache::Cache;
pub use catalog::{Catalog, CatalogError};
pub use connections::Limits;
pub use error::SetupError;
pub use on_demand::{
    NixBuild, OnDemandError, OnDemandOptions, PackageSource, ParseSourceError, PopularityFile,
};
pub use reread::Reread;
pub use server::{Registry, Served, ServerOptions};
pub use sources::{Source, Sources};
pub use tls::{TlsAcceptor, read as read_tls};
pub use users::Users;
