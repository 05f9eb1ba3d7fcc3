//! The errors of an object storage.
//! Stage: registry. Output: messages, without credentials or signed addresses.

use thiserror::Error;

use super::answer::{StorageAnswer, Verdict};
use crate::error::Hint;
use crate::outgoing;

/// Says why an object storage did not give or take something.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The text is not the address of a storage.
    #[error("`{url}` is no object storage: {reason}")]
    Url {
        /// The address as it was given, without what could be a secret.
        url: String,
        /// The reason.
        reason: String,
    },
    /// Environment variables for the storage can't be used.
    #[error("cannot use {storage}: {reason}")]
    Settings {
        /// The storage's address.
        storage: String,
        /// The reason.
        reason: String,
    },
    /// The bucket, container or directory does not exist.
    #[error("{storage}: there is no such bucket, container or directory")]
    NoBucket {
        /// The storage's address.
        storage: String,
    },
    /// The storage does not accept the credentials, or they do not allow the request.
    #[error("{storage} does not let this program {what}: {reason}")]
    Denied {
        /// The storage's address.
        storage: String,
        /// The request, such as "write probe".
        what: String,
        /// The storage's own message.
        reason: String,
    },
    /// The storage is full, or its quota is used up.
    #[error("{storage} has no space left to {what}: {reason}")]
    Full {
        /// The storage's address.
        storage: String,
        /// The request, such as "write blobs/sha256/…".
        what: String,
        /// The storage's own message.
        reason: String,
    },
    /// The storage did not answer, although it was asked several times.
    #[error("{storage} does not answer the request to {what}: {reason}")]
    Unreachable {
        /// The storage's address.
        storage: String,
        /// The request, such as "read images/…".
        what: String,
        /// The reason.
        reason: String,
    },
    /// The storage refused the request for another reason.
    #[error("{storage} refuses to {what}: {reason}")]
    Refused {
        /// The storage's address.
        storage: String,
        /// The request, such as "read images/…".
        what: String,
        /// The storage's own message.
        reason: String,
    },
    /// An object does not have the contents that its name says.
    #[error("{object} in {storage} is damaged: expected {expected}, found {found}")]
    Damaged {
        /// The storage's address.
        storage: String,
        /// The object's name.
        object: String,
        /// The expected digest, or "a pointer to an image".
        expected: String,
        /// The digest or the text that was found.
        found: String,
    },
    /// A layer could not be made, or differs from what was built. It is not stored.
    #[error(transparent)]
    Layer(#[from] outgoing::Error),
}

impl StorageError {
    /// Builds the error for the answer of a storage that was asked to do `what`.
    pub(super) fn new(storage: &str, what: String, error: &object_store::Error) -> Self {
        let storage = storage.to_owned();
        let StorageAnswer { verdict, reason } = StorageAnswer::of(error);
        match verdict {
            Verdict::NoBucket => Self::NoBucket { storage },
            Verdict::Denied => Self::Denied { storage, what, reason },
            Verdict::Full => Self::Full { storage, what, reason },
            Verdict::Unusable => Self::Settings { storage, reason },
            Verdict::Silent => Self::Unreachable { storage, what, reason },
            Verdict::Missing | Verdict::Refused => Self::Refused { storage, what, reason },
        }
    }

    pub(super) fn damaged(
        storage: &str,
        object: &str,
        expected: &impl ToString,
        found: &impl ToString,
    ) -> Self {
        Self::Damaged {
            storage: storage.to_owned(),
            object: object.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

impl Hint for StorageError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Url { .. } => Some(
                "name it by `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:///DIRECTORY`"
                    .to_owned(),
            ),
            Self::NoBucket { storage } => Some(format!(
                "make it first{}",
                if storage.starts_with("s3:") { "; AWS_ENDPOINT and AWS_REGION say where it is" } else { "" }
            )),
            Self::Denied { storage, .. } => Some(match storage.split(':').next() {
                Some("s3") => {
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are the credentials (files of profiles are not read); \
                     they need s3:GetObject and s3:PutObject of its objects, and s3:ListBucket, without which S3 \
                     doesn't say that an object is missing"
                }
                Some("gs") => "GOOGLE_APPLICATION_CREDENTIALS names the file with the credentials",
                Some("az") => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY are the credentials",
                _ => "this user must be able to read and write there",
            }
            .to_owned()),
            Self::Full { .. } => Some(
                "images that are stored can still be pulled; remove objects, or raise the quota".to_owned(),
            ),
            Self::Settings { reason, .. } if reason.contains("URL scheme is not allowed") => {
                Some("for an endpoint without TLS, set AWS_ALLOW_HTTP=true".to_owned())
            }
            Self::Unreachable { reason, .. } if reason.contains("certificate") => {
                Some("SSL_CERT_FILE names a file with the certificates to trust".to_owned())
            }
            Self::Unreachable { storage, .. } if storage.starts_with("s3:") => {
                Some("AWS_ENDPOINT says where it is, if that isn't Amazon".to_owned())
            }
            Self::Refused { storage, reason, .. }
                if storage.starts_with("s3:") && reason.contains("egion") =>
            {
                Some("AWS_REGION says which region the bucket is in".to_owned())
            }
            Self::Damaged { .. } => {
                Some("remove the object: it is stored again with the next image that has it".to_owned())
            }
            Self::Layer(error) => error.hint(),
            _ => None,
        }
    }
}
