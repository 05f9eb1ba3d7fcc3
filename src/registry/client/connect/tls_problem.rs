//! Explains why there is no TLS connection to a registry.
//! Stage: registry (pure). Input: rustls's errors. Output: [`TlsProblem`].

use thiserror::Error;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

use super::verifier::is_authority;

/// Says why there is no TLS connection, in words for users who did not set up the registry.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TlsProblem {
    /// The certificate is not signed by a trusted authority.
    #[error("its certificate is not trusted: it is signed by an unknown authority, or by itself")]
    UnknownAuthority,
    /// The certificate has expired.
    #[error("its certificate has expired")]
    Expired,
    /// The certificate is not valid yet.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// The certificate is for other names.
    #[error("its certificate is for another name{}", listed(.0))]
    OtherName(Vec<String>),
    /// The certificate can't be verified for another reason.
    #[error("its certificate can't be verified: {0}")]
    Certificate(String),
    /// The registry asks for a certificate, and the client has none.
    #[error("it demands a client certificate, and there is none for it")]
    ClientCertificateMissing,
    /// The registry refuses the certificate that the client presented.
    #[error("it refuses the certificate of this client: {0}")]
    ClientCertificateRefused(String),
    /// The other end speaks plain HTTP.
    #[error("it does not use HTTPS, but probably plain HTTP")]
    PlainHttp,
    /// Another error of the protocol.
    #[error("no TLS connection: {0}")]
    Protocol(String),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
}

impl TlsProblem {
    /// Returns the problem that kept a request from being sent, if the problem is one of TLS.
    pub fn of(error: &ureq::Error) -> Option<Self> {
        match error {
            ureq::Error::Rustls(error) => Some(error.into()),
            ureq::Error::Io(error) => {
                Some(error.get_ref()?.downcast_ref::<rustls::Error>()?.into())
            }
            _ => None,
        }
    }

    /// Returns whether the registry may use plain HTTP.
    pub fn may_be_plain_http(&self) -> bool {
        matches!(self, Self::PlainHttp)
    }

    /// Returns whether another attempt would fail in the same way.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Protocol(_))
    }

    /// Returns what the user can do about the problem. The arguments are the names of the command's
    /// options for certificates.
    pub fn hint(&self, cert_dir: &str, tls_verify: &str) -> String {
        match self {
            Self::UnknownAuthority | Self::Certificate(_) | Self::Protocol(_) => format!(
                "`{cert_dir} DIR` has certificates to trust (`ca.crt`), and so has `/etc/docker/certs.d/HOST:PORT/`; `{tls_verify}=false` does without"
            ),
            Self::Expired | Self::NotYetValid => format!(
                "the registry needs a new certificate, if this machine's clock is right; `{tls_verify}=false` does without"
            ),
            Self::OtherName(_) => format!(
                "name the registry as its certificate does; `{tls_verify}=false` does without"
            ),
            Self::ClientCertificateMissing | Self::ClientCertificateRefused(_) => format!(
                "`{cert_dir} DIR` has a certificate and its key (`client.cert`, `client.key`), and so has `/etc/docker/certs.d/HOST:PORT/`"
            ),
            Self::PlainHttp => {
                format!(
                    "`{tls_verify}=false` allows plain HTTP, and so does `insecure = true` in registries.conf"
                )
            }
        }
    }
}

impl From<&rustls::Error> for TlsProblem {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => of_certificate(error),
            // The beginning of an HTTP answer is not a valid TLS record.
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
                Self::PlainHttp
            }
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
                Self::ClientCertificateMissing
            }
            rustls::Error::AlertReceived(
                alert @ (AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::DecryptError),
            ) => Self::ClientCertificateRefused(format!("{alert:?}")),
            other => Self::Protocol(other.to_string()),
        }
    }
}

fn of_certificate(error: &CertificateError) -> TlsProblem {
    match error {
        // With a bad signature, the trusted authority has the name of the issuer but another key:
        // perhaps it was replaced.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            TlsProblem::UnknownAuthority
        }
        // The certificate is an authority's, signed by itself, and is not among the trusted ones.
        other if is_authority(other) => TlsProblem::UnknownAuthority,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsProblem::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsProblem::NotYetValid
        }
        CertificateError::NotValidForName => TlsProblem::OtherName(Vec::new()),
        CertificateError::NotValidForNameContext { presented, .. } => {
            TlsProblem::OtherName(presented.iter().take(8).map(|name| plain_name(name)).collect())
        }
        other => TlsProblem::Certificate(other.to_string()),
    }
}

/// Returns a name as users know it, without webpki's `DnsName("…")` around it.
fn plain_name(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{InvalidMessage, OtherError, PeerIncompatible};

    use super::*;

    #[test]
    fn problems_are_told_apart() {
        let certificate = rustls::Error::InvalidCertificate;
        let alert = rustls::Error::AlertReceived;
        let authority = OtherError(Arc::new(webpki::Error::CaUsedAsEndEntity));
        for (error, expected, is_plain) in [
            (certificate(CertificateError::UnknownIssuer), "unknown authority", false),
            (certificate(CertificateError::Other(authority)), "unknown authority", false),
            (certificate(CertificateError::Expired), "has expired", false),
            (certificate(CertificateError::NotValidYet), "not valid yet", false),
            (certificate(CertificateError::NotValidForName), "another name", false),
            (certificate(CertificateError::BadEncoding), "can't be verified", false),
            (alert(AlertDescription::CertificateRequired), "demands a client certificate", false),
            (alert(AlertDescription::UnknownCA), "refuses the certificate", false),
            (alert(AlertDescription::InternalError), "no TLS connection", false),
            (rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), "plain HTTP", true),
            (
                rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "no TLS connection",
                false,
            ),
        ] {
            let problem = TlsProblem::from(&error);
            let text = problem.to_string();
            assert!(text.contains(expected), "{text}");
            assert_eq!(problem.may_be_plain_http(), is_plain, "{text}");
            let hint = problem.hint("--dest-cert-dir", "--dest-tls-verify");
            assert!(hint.contains("--dest-"), "{hint}");
        }
    }

    #[test]
    fn names_are_plain() {
        for (name, expected) in [
            ("DnsName(\"reg.example\")", "reg.example"),
            ("IpAddress(10.0.0.1)", "10.0.0.1"),
            ("x", "x"),
        ] {
            assert_eq!(plain_name(name), expected);
        }
    }
}
