//! Describes a connection to the requests that come by it.
//! Stage: registry.

use std::net::IpAddr;
use std::sync::Arc;

use super::guests::Guest;

/// The kind of requests that are answered at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Requests to a registry.
    Registry,
    /// Requests for `/healthz` and `/metrics` only, without TLS and passwords.
    Admin,
}

/// The state of a connection that its requests need.
pub struct Connection {
    /// The address of the other end.
    pub peer: IpAddr,
    /// The kind of requests that are answered.
    pub role: Role,
    /// The connection's entry in the list of open connections.
    pub guest: Arc<Guest>,
}
