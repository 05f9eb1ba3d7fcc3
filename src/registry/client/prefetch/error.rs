//! The errors of `stowage prefetch`.
//! Stage: registry.

use thiserror::Error;

use crate::error::Hint;
use crate::oci::Platform;
use crate::outgoing::{self, SkopeoError};
use crate::registry::client::error::ClientError;

/// Says why the arguments for an image could not be found out.
#[derive(Debug, Error)]
pub enum PrefetchError {
    /// The request to the registry failed.
    #[error(transparent)]
    Registry(#[from] ClientError),
    /// The image could not be hashed, or the command was ended.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// skopeo could not make the archive that is hashed.
    #[error(transparent)]
    Skopeo(#[from] SkopeoError),
    /// Neither a mirror nor the place after them has the image.
    #[error("no mirror has the image ({}), and neither has the registry", mirrors.join("; "))]
    AfterMirrors {
        /// The mirrors, each with its error.
        mirrors: Vec<String>,
        /// The error of the place that was asked last.
        #[source]
        last: Box<PrefetchError>,
    },
    /// The registry does not have the image.
    #[error("there is no {0}")]
    NoImage(String),
    /// The index has no image for the platform.
    #[error("{image} has no image for {wanted}: it has {there}")]
    NoPlatform {
        /// The image.
        image: String,
        /// The platform that was asked for.
        wanted: Platform,
        /// The platforms that the image is for.
        there: String,
    },
    /// A manifest can't be read.
    #[error("{image}: {reason}")]
    Manifest {
        /// The image.
        image: String,
        /// The reason.
        reason: String,
    },
    /// A blob or a manifest does not have the digest or the size that was named.
    #[error("{what} is not what its manifest says: expected {expected}, found {found}")]
    Changed {
        /// The kind and the digest: "blob sha256:…", and the image.
        what: String,
        /// The digest or the number of bytes that was named.
        expected: String,
        /// The digest or the number of bytes that was received.
        found: String,
    },
}

impl Hint for PrefetchError {
    fn hint(&self) -> Option<String> {
        match self {
            // Registries also answer this for images that do not exist.
            PrefetchError::Registry(ClientError::Refused { status: 401 | 403, .. }) => Some(
                "is there such an image? `docker login` or `skopeo login` stores credentials for it; `--creds USER:PASSWORD` gives them".to_owned(),
            ),
            PrefetchError::Registry(ClientError::Unreachable { reason, .. }) => {
                reason.hint("--cert-dir", "--tls-verify")
            }
            PrefetchError::Registry(error) => error.hint(),
            PrefetchError::AfterMirrors { last, .. } => last.hint(),
            PrefetchError::Outgoing(error) => error.hint(),
            PrefetchError::Skopeo(error) => error.hint(),
            PrefetchError::NoPlatform { .. } => {
                Some("`--os` and `--arch` choose a platform by Go's names, `--all` takes each".to_owned())
            }
            _ => None,
        }
    }
}
