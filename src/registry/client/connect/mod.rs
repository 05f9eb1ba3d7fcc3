//! Opens connections to registries, with certificates and through proxies.
//! Stage: registry. Input: options, and a registry's name. Output: ureq's [`Agent`].

mod absolute_form;
mod certificate_error;
mod certificates;
mod pem_files;
mod proxies;
mod proxy_login;
mod route;
mod socks;
mod tls;
mod tls_problem;
mod verifier;

use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;
use ureq::unversioned::transport::Connector;
use ureq::{Agent, Proxy, config::Config};

pub use certificate_error::CertificateError;
pub use certificates::Certificates;
pub use proxies::{Proxies, ProxyError};
pub use tls_problem::TlsProblem;

use crate::outgoing::RegistryName;
use route::{ProxyRoute, Resolver};
use tls::TlsConnector;

/// Makes connections to a registry, and to the hosts that the registry redirects to.
pub struct Network {
    tls: Arc<ClientConfig>,
    proxies: Arc<Proxies>,
}

impl Network {
    /// Reads the certificates that are trusted and presented. With `verify` false, any certificate
    /// of a server is accepted.
    ///
    /// # Errors
    /// Fails with [`CertificateError`] if a file can't be used.
    pub fn new(
        certificates: &Certificates,
        registry: &RegistryName,
        verify: bool,
        proxies: &Arc<Proxies>,
    ) -> Result<Self, CertificateError> {
        let tls = Arc::new(certificates.client_config(registry, verify)?);
        Ok(Self { tls, proxies: Arc::clone(proxies) })
    }

    /// Returns the proxies that requests go through.
    pub fn proxies(&self) -> &Arc<Proxies> {
        &self.proxies
    }

    /// Returns an agent that makes its connections in this way. `config` makes the configuration
    /// for a proxy, or for none.
    pub fn agent(&self, config: impl Fn(Option<Proxy>) -> Config) -> Agent {
        let direct = config(None);
        let route = ProxyRoute::new(&self.proxies, &config);
        let resolver = Resolver::new(&self.proxies);
        let connector = ().chain(route).chain(TlsConnector::new(&self.tls));
        Agent::with_parts(direct, connector, resolver)
    }
}
