//! The errors of a registry's client.
//! Stage: registry.

use std::fmt;

use thiserror::Error;

use super::connect::CertificateError;
use super::credentials::{Credentials, CredentialsError, Login, LookedIn};
use super::no_answer::NoAnswer;
use super::registries_conf::RegistriesError;
use crate::digest::BlobDigest;
use crate::error::Hint;
use crate::foreign::{PublicUrl, plain_text};
use crate::outgoing::{self, Tag};

/// Says why a registry did not take or give an image.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A layer could not be made, or the copy was ended.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// The name has another digest than the image.
    #[error("`{name}` names another manifest than the one to push, {found}")]
    OtherImage {
        /// The name as it was given.
        name: String,
        /// The image's digest.
        found: BlobDigest,
    },
    /// Statements were given for an index of several images.
    #[error("attestations are about one image, and this is an index of images")]
    AttestedIndex,
    /// A request was not answered, although it was tried several times.
    #[error("{url}: {reason}")]
    Unreachable {
        /// The address of the request.
        url: PublicUrl,
        /// The reason.
        reason: NoAnswer,
    },
    /// The settings for registries forbid the copy, or can't be followed.
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    /// The registry refused a request.
    #[error("{registry} refuses {what}: {status} {message}{missing}")]
    Refused {
        /// The registry and the repository, or the address of a token service.
        registry: String,
        /// The thing that was refused: "a blob", "the manifest" …
        what: String,
        /// HTTP's status code.
        status: u16,
        /// The registry's own message.
        message: String,
        /// The credentials that are missing or wrong.
        missing: Box<Missing>,
    },
    /// The tag stands for another image, and the registry does not let it be replaced.
    #[error(
        "{registry} refuses the manifest: {status} {message}; `{tag}` already names another image, {found}"
    )]
    TagExists {
        /// Registry and repository.
        registry: String,
        /// The tag.
        tag: Tag,
        /// The digest of the manifest that the tag stands for.
        found: BlobDigest,
        /// HTTP's status code.
        status: u16,
        /// The registry's own message.
        message: String,
    },
    /// The registry does not have the image.
    #[error("there is no {0}")]
    NoImage(String),
    /// The list of the documents that refer to an image can't be read or written.
    #[error("{registry}: the list of documents that refer to {digest}: {reason}")]
    Referrers {
        /// The registry and the repository.
        registry: String,
        /// The digest of the image's manifest.
        digest: BlobDigest,
        /// The reason, for people.
        reason: String,
    },
    /// The image has no signature by the key.
    #[error(
        "{image} is not signed by this key: {}",
        match found {
            0 => "it has no signature".to_owned(),
            1 => format!("it has 1 signature, which {reason}"),
            _ => format!("it has {found} signatures, one of which {reason}"),
        }
    )]
    NotSigned {
        /// The image's name with its digest.
        image: String,
        /// The number of signatures that the image has.
        found: usize,
        /// The reason why one of them does not count.
        reason: String,
    },
    /// The registry stored a manifest with another digest than the one that was sent.
    #[error("the registry reports the digest {found} for the manifest, which has {expected}")]
    OtherDigest {
        /// The digest of the manifest that was sent.
        expected: BlobDigest,
        /// The digest that the registry reports.
        found: String,
    },
    /// The credentials could not be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A file of certificates can't be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Hint for ClientError {
    fn hint(&self) -> Option<String> {
        match self {
            ClientError::Outgoing(error) => error.hint(),
            ClientError::Registries(error) => error.hint(),
            ClientError::OtherImage { .. } => {
                Some("the digest is the result of a push: name a tag, such as `host/app:v1`".to_owned())
            }
            ClientError::AttestedIndex => {
                Some("push each image with its own attestations, or sign them: `stowage sign --attest FILE`".to_owned())
            }
            ClientError::Refused { missing, .. }
                if matches!(**missing, Missing::Right { .. } | Missing::Credentials { .. }) =>
            {
                Some(
                    "`docker login` or `skopeo login` stores credentials; `--dest-creds USER:PASSWORD` gives them".to_owned(),
                )
            }
            ClientError::Refused { missing, .. } if matches!(**missing, Missing::Way { .. }) => {
                Some("is this the registry's own address? a proxy or a login page may answer in its place".to_owned())
            }
            ClientError::Refused { status: 401 | 403, .. } => {
                Some("this user may not push there; in some registries the repository must be created first".to_owned())
            }
            ClientError::Refused { status: 413, .. } => {
                Some("a proxy before the registry limits the size of requests".to_owned())
            }
            ClientError::TagExists { .. } => Some(
                "where tags can't be overwritten, each push needs a new one".to_owned(),
            ),
            ClientError::Unreachable { reason, .. } => {
                reason.hint("--dest-cert-dir", "--dest-tls-verify")
            }
            _ => None,
        }
    }
}

/// Says which credentials are missing or wrong, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// The registry does not say what is missing: perhaps the user may not do this.
    #[default]
    Nothing,
    /// The places for credentials have none for the registry.
    Credentials {
        /// The registry.
        host: String,
        /// The places where credentials were looked for.
        looked_in: LookedIn,
    },
    /// The registry offers no way to authenticate that fits the credentials.
    Way {
        /// The ways that the registry offers, by their names in the answer.
        offered: Vec<String>,
    },
    /// The registry does not accept the credentials.
    Right {
        /// The user's name, if there is one.
        user: Option<String>,
    },
}

impl Missing {
    /// Says that no place has credentials.
    pub fn none_in(login: &Login) -> Self {
        Self::Credentials { host: login.host.clone(), looked_in: login.looked_in.clone() }
    }

    /// Says that these credentials are wrong.
    pub fn of(credentials: &Credentials) -> Self {
        let user = match credentials {
            // Without a password, the user name may be a secret token.
            Credentials::Password(user, password) if !password.is_empty() => Some(user.clone()),
            _ => None,
        };
        Self::Right { user }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Credentials { host, looked_in } => {
                write!(f, "; no credentials for {host} were found{looked_in}")
            }
            Self::Way { offered } if offered.is_empty() => {
                f.write_str("; the answer does not say how to authenticate")
            }
            Self::Way { offered } => {
                let offered = plain_text(&offered.join(", "));
                write!(f, "; it asks for {offered}, and the credentials are of another kind")
            }
            Self::Right { user: Some(user) } => {
                write!(f, "; the user name or the password of `{user}` is wrong")
            }
            Self::Right { user: None } => {
                write!(f, "; the token is not valid there, or not any more")
            }
        }
    }
}
