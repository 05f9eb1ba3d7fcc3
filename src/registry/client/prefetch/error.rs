//! Why nothing can be said of an image in a registry.
//! Stage: registry.

use thiserror::Error;

use crate::error::Hint;
use crate::outgoing::{self, SkopeoError};
use crate::registry::client::error::ClientError;

/// Why nothing can be said of an image.
#[derive(Debug, Error)]
pub enum PrefetchError {
    /// The registry could not be asked.
    #[error(transparent)]
    Registry(#[from] ClientError),
    /// What would be pulled could not be hashed, or the work was ended.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// skopeo could not make the archive that is hashed.
    #[error(transparent)]
    Skopeo(#[from] SkopeoError),
    /// There is no such image.
    #[error("there is no {0}")]
    NoImage(String),
    /// None for the platform.
    #[error("{image} has no image for {os}/{arch}: it has {there}")]
    NoPlatform {
        /// Which.
        image: String,
        /// As asked for.
        os: String,
        /// As asked for.
        arch: String,
        /// What it is for.
        there: String,
    },
    /// A manifest can't be read.
    #[error("{image}: {reason}")]
    Manifest {
        /// Whose.
        image: String,
        /// The reason.
        reason: String,
    },
    /// Something is not what its digest says.
    #[error("{what} is not what its manifest says: expected {expected}, found {found}")]
    Changed {
        /// "blob sha256:…", and of what.
        what: String,
        /// Digest, or number of bytes.
        expected: String,
        /// What came.
        found: String,
    },
}

impl Hint for PrefetchError {
    fn hint(&self) -> Option<String> {
        match self {
            // Registries say so of images that are not there, too.
            PrefetchError::Registry(ClientError::Refused { status: 401 | 403, .. }) => Some(
                "is there such an image? `docker login` or `skopeo login` stores credentials for it; `--creds USER:PASSWORD` gives them".to_owned(),
            ),
            PrefetchError::Registry(ClientError::Unreachable { reason, .. }) => {
                reason.hint("--cert-dir", "--tls-verify")
            }
            PrefetchError::Registry(error) => error.hint(),
            PrefetchError::Outgoing(error) => error.hint(),
            PrefetchError::Skopeo(error) => error.hint(),
            PrefetchError::NoPlatform { .. } => {
                Some("`--os` and `--arch` choose a platform by Go's names, `--all` takes each".to_owned())
            }
            _ => None,
        }
    }
}
