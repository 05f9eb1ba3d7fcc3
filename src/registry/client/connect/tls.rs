//! Encrypts connections with TLS.
//! Stage: registry. Input: a connection to a host. Output: the encrypted connection.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error as TlsError, SignatureScheme,
    StreamOwned,
};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

/// Encrypts connections to HTTPS addresses.
#[derive(Debug)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
}

impl TlsConnector {
    /// Verifies servers and presents certificates by `config`.
    pub fn new(config: &Arc<ClientConfig>) -> Self {
        Self { config: Arc::clone(config) }
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let transport = chained.ok_or(Error::ConnectionFailed)?;
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| Error::Tls("not the name of a host"))?;
        let wanted = Wanted::default();
        let mut config = ClientConfig::clone(&self.config);
        let resolver = Arc::clone(&config.client_auth_cert_resolver);
        config.client_auth_cert_resolver = Arc::new(Noting { resolver, wanted: wanted.0.clone() });
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let mut socket =
            TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        let mut stream = StreamOwned::new(connection, socket);
        let (connection, socket) = (&mut stream.conn, &mut stream.sock);
        connection.complete_io(socket).map_err(|error| wanted.explain(error))?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream, wanted })))
    }
}

/// Notes whether a server asked for a certificate and the client has none. A server may only break
/// the connection then, and with TLS 1.3 may do so after the handshake.
#[derive(Clone, Debug, Default)]
struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// Returns the error that a broken connection stands for.
    fn explain(&self, error: io::Error) -> io::Error {
        let inner = error.get_ref();
        let is_end = match inner.and_then(|inner| inner.downcast_ref::<TlsError>()) {
            Some(TlsError::AlertReceived(_)) => true,
            Some(_) => false,
            None => !matches!(
                inner.and_then(|inner| inner.downcast_ref::<Error>()),
                Some(Error::Timeout(_))
            ),
        };
        if self.0.load(Ordering::Relaxed) && is_end {
            return io::Error::other(TlsError::AlertReceived(
                AlertDescription::CertificateRequired,
            ));
        }
        error
    }

    /// Notes that the connection goes on without a client's certificate: errors from now on have other
    /// causes.
    fn is_over(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Noting {
    resolver: Arc<dyn ResolvesClientCert>,
    wanted: Arc<AtomicBool>,
}

impl ResolvesClientCert for Noting {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let found = self.resolver.resolve(root_hint_subjects, schemes);
        self.wanted.store(found.is_none(), Ordering::Relaxed);
        found
    }

    fn has_certs(&self) -> bool {
        self.resolver.has_certs()
    }
}

/// An encrypted connection.
pub struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    wanted: Wanted,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        Ok(self.stream.write_all(output).map_err(|error| self.wanted.explain(error))?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let read = self.stream.read(input);
        let amount = match read {
            Ok(0) => {
                let end = io::Error::from(io::ErrorKind::UnexpectedEof);
                let explained = self.wanted.explain(end);
                if explained.get_ref().is_some() {
                    return Err(explained.into());
                }
                0
            }
            read => read.map_err(|error| self.wanted.explain(error))?,
        };
        if amount > 0 {
            self.wanted.is_over();
        }
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}
