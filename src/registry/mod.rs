//! Registries (OCI distribution-spec 1.1): the client, the server, images that are built on demand,
//! and the object storage that servers share.
//! Stage: registry.
//!
//! ```text
//! client/     image → a registry; or an image there → the arguments of `pullImage`
//! catalog/    image specs → which image a name and a tag stand for
//! storage/    image spec → objects that several servers share
//! on_demand/  names of packages → Nix → catalog
//! server/     requests → answers from the catalog, the storage or a build
//! ```

pub mod catalog;
pub mod client;
mod client_address;
mod error;
mod fair;
mod fingerprint;
mod headers;
mod metrics;
pub mod on_demand;
mod parallel;
mod pem;
mod reread;
pub mod server;
pub mod storage;

pub use client_address::{IpNetwork, ParseNetworkError};
pub use error::SetupError;
pub use reread::Reread;
