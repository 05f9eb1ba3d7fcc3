//! Reads a certificate and its key.
//! Stage: registry. Input: PEM files. Output: a [`TlsAcceptor`].

use std::path::Path;
use std::sync::Arc;

pub use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::registry::error::SetupError;

/// Reads a chain of certificates, the server's own first, and the key.
///
/// # Errors
/// Fails with [`SetupError`], which names the file, if a file can't be used.
pub fn read(certificate: &Path, key: &Path) -> Result<TlsAcceptor, SetupError> {
    let wrong = |file: &Path, what: &'static str, reason: String| SetupError::Tls {
        file: file.to_owned(),
        what,
        reason,
    };
    let unreadable = |file: &Path, what, error| match error {
        pem::Error::Io(source) => SetupError::Read { path: file.to_owned(), source },
        pem::Error::NoItemsFound => wrong(file, what, "there is none in it".to_owned()),
        error => wrong(file, what, error.to_string()),
    };
    let no_certificate = |error| unreadable(certificate, "a certificate", error);
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(no_certificate)?;
    if chain.is_empty() {
        return Err(no_certificate(pem::Error::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, "a key", e))?;
    let of_certificate = |error: tokio_rustls::rustls::Error| {
        wrong(key, "the key of that certificate", error.to_string())
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(of_certificate)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
