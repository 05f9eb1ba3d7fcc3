//! Connects to a host, directly or through a proxy.
//! Stage: registry. Opens connections. Input: [`Proxies`]. Output: ureq's connections.

use std::sync::Arc;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{self, DefaultResolver, ResolvedSocketAddrs, Resolver as _};
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, SocksConnector, TcpConnector,
    Transport,
};
use ureq::{Agent, Error, Proxy};

use super::absolute_form::AbsoluteForm;
use super::proxies::{Named, Proxies};

/// Opens connections, each through the proxy that is chosen for it.
#[derive(Debug)]
pub struct ProxyRoute {
    proxies: Arc<Proxies>,
    /// A configuration for each proxy, by the name of the variable.
    configs: Vec<(String, Config)>,
    resolver: DefaultResolver,
}

impl ProxyRoute {
    /// Prepares a configuration for each proxy.
    pub fn new(proxies: &Arc<Proxies>, config: impl Fn(Option<Proxy>) -> Config) -> Self {
        let configs = proxies.all().filter_map(|Named { variable, proxy, .. }| {
            Some((variable.clone(), config(Some(proxy.clone().ok()?))))
        });
        Self {
            configs: configs.collect(),
            proxies: Arc::clone(proxies),
            resolver: DefaultResolver::default(),
        }
    }

    fn through(
        &self,
        named: &Named,
        details: &ConnectionDetails,
    ) -> Result<Option<Box<dyn Transport>>, Error> {
        let config = self.configs.iter().find(|(variable, _)| *variable == named.variable);
        let (Ok(_), Some((_, config))) = (&named.proxy, config) else {
            let reason = named.proxy.as_ref().err().copied().unwrap_or("it is not known");
            return Err(Error::Other(Box::new(named.failed(reason.to_owned()))));
        };
        let details = self.with(details, details.uri, details.addrs.clone(), config);
        let connection = named.connect(|| match &named.proxy {
            Ok(proxy) if named.passes_on() && !details.needs_tls() => {
                self.to_proxy(proxy, &details).map(|connection| {
                    let connection = AbsoluteForm::new(connection, &details, proxy, named);
                    Some(Box::new(connection) as _)
                })
            }
            _ => {
                let connector =
                    ().chain(SocksConnector::default()).chain(ConnectProxyConnector::default());
                let connection = connector.connect(&details, None);
                connection.map(|connection| connection.map(|connection| Box::new(connection) as _))
            }
        });
        connection.map_err(|error| Error::Other(Box::new(error)))
    }

    /// Connects to the proxy itself.
    fn to_proxy(
        &self,
        proxy: &Proxy,
        details: &ConnectionDetails,
    ) -> Result<Box<dyn Transport>, Error> {
        let direct = Agent::config_builder().proxy(None).build();
        let addrs = self.resolver.resolve(proxy.uri(), &direct, details.timeout)?;
        (details.run_connector)(&self.with(details, proxy.uri(), addrs, &direct))
    }

    /// Returns the details of a connection to another address, by another configuration. The
    /// resolver is this one's, which finds the address of the proxy itself.
    fn with<'d>(
        &'d self,
        details: &ConnectionDetails,
        uri: &'d Uri,
        addrs: ResolvedSocketAddrs,
        config: &'d Config,
    ) -> ConnectionDetails<'d> {
        ConnectionDetails {
            uri,
            addrs,
            resolver: &self.resolver,
            config,
            request_level: details.request_level,
            now: details.now,
            timeout: details.timeout,
            current_time: Arc::clone(&details.current_time),
            run_connector: Arc::clone(&details.run_connector),
            register_shutdown: Arc::clone(&details.register_shutdown),
        }
    }
}

impl Connector<()> for ProxyRoute {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(named) = self.proxies.for_address(&details.uri.to_string()) {
            return self.through(named, details);
        }
        let transport = Connector::<()>::connect(&TcpConnector::default(), details, None)?;
        Ok(transport.map(|transport| Box::new(transport) as _))
    }
}

/// Finds the addresses of hosts, except of hosts that a proxy resolves itself.
#[derive(Debug)]
pub struct Resolver {
    proxies: Arc<Proxies>,
    resolver: DefaultResolver,
}

impl Resolver {
    /// Returns a resolver that leaves names to proxies if these resolve them.
    pub fn new(proxies: &Arc<Proxies>) -> Self {
        Self { proxies: Arc::clone(proxies), resolver: DefaultResolver::default() }
    }
}

impl resolver::Resolver for Resolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let named = self.proxies.for_address(&uri.to_string());
        match named.map(|named| &named.proxy) {
            Some(Ok(proxy)) if proxy.resolve_target() => {}
            Some(_) => return Ok(self.empty()),
            None => {}
        }
        self.resolver.resolve(uri, config, timeout)
    }
}
