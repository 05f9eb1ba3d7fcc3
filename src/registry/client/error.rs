//! Why a registry did not take an image.
//! Stage: registry.

use thiserror::Error;

use super::connect::{ProxyError, TlsProblem};
use super::credentials::LookedIn;
use crate::digest::BlobDigest;
use crate::error::Hint;
use crate::outgoing;

/// Says why a registry did not take or give an image.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A layer could not be made, or the copy was ended.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// Its digest is another one's.
    #[error("`{name}` names another manifest than the one to push, {found}")]
    OtherImage {
        /// As given.
        name: String,
        /// What the image's digest is.
        found: BlobDigest,
    },
    /// The registry was asked as often as makes sense.
    #[error("{url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What came of it.
        reason: String,
    },
    /// There is no TLS connection to the registry, and there will be none.
    #[error("{url}: {problem}")]
    Tls {
        /// What was asked for.
        url: String,
        /// What is wrong.
        problem: TlsProblem,
    },
    /// A proxy can't be used.
    #[error("{url}: {error}")]
    Proxy {
        /// What was asked for.
        url: String,
        /// What is wrong with the proxy.
        error: ProxyError,
    },
    /// The registry said no.
    #[error("{registry} refuses {what}: {status} {message}")]
    Refused {
        /// Registry and repository.
        registry: String,
        /// What was to be done.
        what: String,
        /// HTTP's status code.
        status: u16,
        /// The registry's own words.
        message: String,
    },
    /// The registry wants credentials, and there are none for it.
    #[error(
        "{host} refuses this user: 401 {message}; no credentials for {host} were found{looked_in}"
    )]
    NoCredentials {
        /// The registry.
        host: String,
        /// Where credentials were looked for.
        looked_in: LookedIn,
        /// The registry's own words.
        message: String,
    },
    /// It has something else than it was sent.
    #[error("the registry says that the manifest has the digest {found}, and it has {expected}")]
    OtherDigest {
        /// Ours.
        expected: BlobDigest,
        /// Theirs.
        found: String,
    },
    /// Who we are could not be found out.
    #[error("credentials: {0}")]
    Credentials(String),
    /// A file of certificates is none.
    #[error("{file}: {reason}")]
    Certificate {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Hint for ClientError {
    fn hint(&self) -> Option<String> {
        match self {
            ClientError::Outgoing(error) => error.hint(),
            ClientError::OtherImage { .. } => {
                Some("a digest is what comes of a push: name a tag, such as `host/app:v1`".to_owned())
            }
            ClientError::NoCredentials { .. } | ClientError::Refused { status: 401, .. } => Some(
                "`docker login` or `skopeo login` stores credentials; `--dest-creds USER:PASSWORD` gives them".to_owned(),
            ),
            ClientError::Refused { status: 403, .. } => {
                Some("this user may not push there; some registries want the repository to be made first".to_owned())
            }
            ClientError::Refused { status: 413, .. } => {
                Some("a proxy before the registry limits the size of requests".to_owned())
            }
            ClientError::Tls { problem, .. } => {
                Some(problem.hint("--dest-cert-dir", "--dest-tls-verify"))
            }
            ClientError::Proxy { error, .. } => Some(error.hint()),
            _ => None,
        }
    }
}
