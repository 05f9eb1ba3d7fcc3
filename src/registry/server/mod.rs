//! Serves image specs as a read-only registry (OCI distribution-spec 1.1), for one copy on a
//! loopback port or as a service. Layers are made on demand.
//! Stage: registry. Input: a [`Catalog`](crate::registry::catalog::Catalog) and the store. Output: HTTP responses.

mod answer;
mod cache;
mod connection;
mod connections;
mod for_parts;
mod guests;
mod handle;
mod impatient;
mod kept_layer;
mod layer_body;
mod map;
mod page;
mod parts;
mod permissions;
mod range;
mod referrers;
mod registry;
mod route;
mod shared;
mod start_page;
mod stored;
mod tls;
mod users;
mod watched_body;

pub use cache::Cache;
pub use connections::Limits;
pub use permissions::Permissions;
pub use registry::{Registry, ServerOptions};
pub use shared::Served;
pub use tls::{Certificate, read as read_tls};
pub use users::Users;
