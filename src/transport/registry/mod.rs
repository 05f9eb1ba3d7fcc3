//! A read-only registry (OCI distribution-spec 1.1) over image specs: layers are made as they
//! are asked for.
//! Stage: transport. Input: a [`Catalog`] and the store. Output: HTTP responses.

mod answer;
mod catalog;
mod layer_body;
mod range;
mod route;
mod server;

pub use catalog::{Catalog, CatalogError};
pub use server::{Registry, Served};
