//! Explains why a request has no answer.
//! Stage: registry (pure). Input: ureq's errors. Output: [`NoAnswer`].

use std::io;

use thiserror::Error;
use ureq::Timeout;

use super::connect::{ProxyError, TlsProblem};
use crate::foreign::{PublicUrl, plain_text};

/// Says why a request has no answer. The message that contains it names the address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoAnswer {
    /// The host has no program that listens at the port.
    #[error("connection refused")]
    Refused,
    /// The host's name has no address.
    #[error("the name of the host can't be resolved")]
    NoHost,
    /// The host, or the network on the way to it, does not answer in time.
    #[error("{0}")]
    Silent(&'static str),
    /// The TLS connection could not be made.
    #[error(transparent)]
    Tls(TlsProblem),
    /// The proxy can't be used.
    #[error(transparent)]
    Proxy(ProxyError),
    /// The registry uses HTTPS, and names an address of plain HTTP.
    #[error(
        "{registry} uses HTTPS and redirects to {named}, which is plain HTTP: nothing is sent there"
    )]
    Insecure {
        /// The registry.
        registry: PublicUrl,
        /// The address that it names.
        named: PublicUrl,
    },
    /// The answer is longer than any known answer.
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
    /// The registry redirects too often.
    #[error("it redirects without end")]
    Redirections,
    /// The answer `100 Continue` came with headers, which ureq refuses.
    #[error("`100 Continue` came with headers")]
    Continue,
    /// The address is not valid for a request.
    #[error("this is not a valid address for a request")]
    Address,
    /// The answer of a token service has no token.
    #[error("the answer has no token")]
    NoToken,
    /// The token can't be the value of a header.
    #[error("the token for it has characters that no header may have")]
    BadToken,
    /// The answer does not name the address of the next step.
    #[error("the answer, a success, has no `Location`")]
    NoLocation,
    /// The connection broke, or the server does not speak HTTP.
    #[error("{0}")]
    Broken(String),
}

impl NoAnswer {
    /// Returns whether another attempt would fail in the same way.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Insecure { .. }
            | Self::TooLong(_)
            | Self::Redirections
            | Self::NoToken
            | Self::BadToken
            | Self::NoLocation
            | Self::Address => true,
            Self::Tls(problem) => problem.is_permanent(),
            Self::Proxy(error) => error.is_permanent,
            Self::Refused | Self::NoHost | Self::Silent(_) | Self::Continue | Self::Broken(_) => {
                false
            }
        }
    }

    /// Returns what the user can do about the problem. The arguments are the names of the command's
    /// options for certificates.
    pub fn hint(&self, cert_dir: &str, tls_verify: &str) -> Option<String> {
        match self {
            Self::Refused => Some("is the registry running, and is this its port?".to_owned()),
            Self::NoHost => Some("is the name of the registry spelled right?".to_owned()),
            Self::Silent(_) => Some(
                "is there a firewall between, or a proxy that has to be named by HTTPS_PROXY?"
                    .to_owned(),
            ),
            Self::Tls(problem) => Some(problem.hint(cert_dir, tls_verify)),
            Self::Proxy(error) => Some(error.hint()),
            Self::Insecure { .. } => Some(format!("`{tls_verify}=false` allows it")),
            _ => None,
        }
    }
}

impl From<ureq::Error> for NoAnswer {
    fn from(error: ureq::Error) -> Self {
        if let Some(problem) = TlsProblem::of(&error) {
            return Self::Tls(problem);
        }
        if let Some(error) = ProxyError::of(&error) {
            return Self::Proxy(error.clone());
        }
        match error {
            ureq::Error::Io(error) => of_io(&error),
            ureq::Error::HostNotFound => Self::NoHost,
            ureq::Error::Timeout(Timeout::Resolve) => Self::NoHost,
            ureq::Error::Timeout(Timeout::Connect) => Self::Silent("no connection within 30 s"),
            ureq::Error::Timeout(_) => Self::Silent("nothing came for 300 s"),
            ureq::Error::BodyExceedsLimit(limit) => Self::TooLong(limit),
            ureq::Error::LargeResponseHeader(_, limit) => Self::TooLong(limit as u64),
            ureq::Error::TooManyRedirects => Self::Redirections,
            ureq::Error::Protocol(error) if error.to_string().contains("100-continue") => {
                Self::Continue
            }
            // The messages of these errors contain the address, which may hold a secret.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RequireHttpsOnly(_) => {
                Self::Address
            }
            other => Self::Broken(plain_text(&other.to_string())),
        }
    }
}

impl From<ureq::http::Error> for NoAnswer {
    fn from(_: ureq::http::Error) -> Self {
        Self::Address
    }
}

fn of_io(error: &io::Error) -> NoAnswer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => NoAnswer::Refused,
        io::ErrorKind::TimedOut => NoAnswer::Silent("no connection, after a long wait"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            NoAnswer::Silent("there is no way to this host")
        }
        _ if error.to_string().contains("lookup address") => NoAnswer::NoHost,
        _ => NoAnswer::Broken(plain_text(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls;

    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let io = |kind: io::ErrorKind| ureq::Error::Io(kind.into());
        for (error, expected, is_permanent) in [
            (io(io::ErrorKind::ConnectionRefused), "connection refused", false),
            (io(io::ErrorKind::NetworkUnreachable), "no way", false),
            (io(io::ErrorKind::ConnectionReset), "reset", false),
            (ureq::Error::HostNotFound, "can't be resolved", false),
            (ureq::Error::Timeout(Timeout::Connect), "no connection within", false),
            (ureq::Error::Timeout(Timeout::RecvResponse), "nothing came", false),
            (ureq::Error::BodyExceedsLimit(9), "longer than 9 bytes", true),
            (ureq::Error::BadUri("http://u:p@h".to_owned()), "not a valid address", true),
            (
                ureq::Error::Io(io::Error::new(
                    io::ErrorKind::InvalidData,
                    rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer),
                )),
                "certificate is not trusted",
                true,
            ),
        ] {
            let reason = NoAnswer::from(error);
            let text = reason.to_string();
            assert!(text.contains(expected) && !text.contains("u:p"), "{text}");
            assert_eq!(reason.is_permanent(), is_permanent, "{text}");
        }
    }
}
