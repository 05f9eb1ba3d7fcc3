//! Verifies that a server is the registry.
//! Stage: registry. Input: a server's certificates. Output: whether they are trusted.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::pem_files::certificates_of;

/// Trusts certificates that an authority has signed, and certificates that the user has named.
///
/// Docker's documentation sets up registries with one self-signed certificate, which users trust as
/// an authority. Such a certificate is marked as an authority's (`openssl req -x509` does this),
/// and webpki then refuses it as a server's.
#[derive(Debug)]
pub struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
    trusted: Vec<CertificateDer<'static>>,
    directories: Vec<PathBuf>,
    complete: OnceLock<Result<Complete, String>>,
}

/// The trusted certificates, with those in files of directories.
#[derive(Debug)]
struct Complete {
    /// Verifies certificates that authorities have signed.
    authorities: Arc<WebPkiServerVerifier>,
    /// Certificates that a user or an administrator has named.
    trusted: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Returns a verifier that trusts the certificates `trusted`, the compiled-in authorities if
    /// `with_compiled_in` is true, and the certificates in `directories`. The files of directories
    /// are read when the first server presents a certificate: a system has hundreds of them, and a
    /// registry without TLS needs none.
    pub fn new(
        provider: &Arc<CryptoProvider>,
        trusted: Vec<CertificateDer<'static>>,
        with_compiled_in: bool,
        directories: &[PathBuf],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        // Certificates that can't be parsed are not trusted.
        roots.add_parsable_certificates(trusted.iter().cloned());
        if with_compiled_in {
            roots.add_parsable_certificates(TLS_SERVER_ROOT_CERTS.iter().cloned());
        }
        Self {
            provider: Arc::clone(provider),
            roots,
            trusted,
            directories: directories.to_vec(),
            complete: OnceLock::new(),
        }
    }

    fn complete(&self) -> Result<&Complete, Error> {
        let complete = self.complete.get_or_init(|| {
            let (mut roots, mut trusted) = (self.roots.clone(), self.trusted.clone());
            let found = certificates_of(&self.directories);
            roots.add_parsable_certificates(found.iter().cloned());
            trusted.extend(found);
            let provider = Arc::clone(&self.provider);
            let builder =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let authorities = builder.map_err(|error| error.to_string())?;
            Ok(Complete { authorities, trusted })
        });
        complete.as_ref().map_err(|reason| Error::General(reason.clone()))
    }
}

/// Returns whether an error is webpki's for a server that presents an authority's certificate.
/// webpki has then already checked that the certificate is valid at present.
pub fn is_authority(error: &CertificateError) -> bool {
    match error {
        CertificateError::Other(OtherError(error)) => {
            matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
        }
        _ => false,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Complete { authorities, trusted } = self.complete()?;
        let verified = authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(Error::InvalidCertificate(error)) if is_authority(&error) => {
                if !trusted.iter().any(|trusted| trusted == end_entity) {
                    return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
                }
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts any certificate, as `--tls-verify=false` demands.
#[derive(Debug)]
pub struct Unverified(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
