//! Why a registry did not take an image.
//! Stage: registry.

use std::fmt;

use thiserror::Error;

use super::credentials::{Credentials, Login, LookedIn};
use super::no_answer::NoAnswer;
use super::registries_conf::RegistriesError;
use crate::digest::BlobDigest;
use crate::error::Hint;
use crate::foreign::PublicUrl;
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
        /// The text as it was given.
        name: String,
        /// What the image's digest is.
        found: BlobDigest,
    },
    /// A request has no answer, although it was tried as often as makes sense.
    #[error("{url}: {reason}")]
    Unreachable {
        /// The address that was asked.
        url: PublicUrl,
        /// Why there is no answer.
        reason: NoAnswer,
    },
    /// Settings for registries forbid it, or can't be followed.
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    /// The registry said no.
    #[error("{registry} refuses {what}: {status} {message}{missing}")]
    Refused {
        /// Registry and repository, or the address of a service that gives tokens.
        registry: String,
        /// What it refuses: "a blob", "the manifest" …
        what: String,
        /// HTTP's status code.
        status: u16,
        /// The registry's own words.
        message: String,
        /// What would have been needed to be let in.
        missing: Box<Missing>,
    },
    /// The tag has another image, which the registry keeps.
    #[error(
        "{registry} refuses the manifest: {status} {message}; `{tag}` is there with another image, {found}"
    )]
    TagExists {
        /// Registry and repository.
        registry: String,
        /// The tag.
        tag: String,
        /// Digest of the manifest that the tag has.
        found: BlobDigest,
        /// HTTP's status code.
        status: u16,
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
        /// The reason, for people.
        reason: String,
    },
}

impl Hint for ClientError {
    fn hint(&self) -> Option<String> {
        match self {
            ClientError::Outgoing(error) => error.hint(),
            ClientError::Registries(error) => error.hint(),
            ClientError::OtherImage { .. } => {
                Some("a digest is what comes of a push: name a tag, such as `host/app:v1`".to_owned())
            }
            ClientError::Refused { status, missing, .. }
                if *status == 401 || matches!(**missing, Missing::Credentials { .. }) =>
            {
                Some(
                    "`docker login` or `skopeo login` stores credentials; `--dest-creds USER:PASSWORD` gives them".to_owned(),
                )
            }
            ClientError::Refused { status: 403, .. } => {
                Some("this user may not push there; some registries want the repository to be made first".to_owned())
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

/// Says what would have been needed to be let in, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// It is not known: this user may be known, and not be allowed to do it.
    #[default]
    Nothing,
    /// There are no credentials for the registry.
    Credentials {
        /// The registry.
        host: String,
        /// Where credentials were looked for.
        looked_in: LookedIn,
    },
    /// The credentials are not those of a user.
    Right {
        /// The user's name, if there is one.
        user: Option<String>,
    },
}

impl Missing {
    /// There are no credentials in any place.
    pub fn none_in(login: &Login) -> Self {
        Self::Credentials { host: login.host.clone(), looked_in: login.looked_in.clone() }
    }

    /// These are wrong.
    pub fn of(credentials: &Credentials) -> Self {
        let user = match credentials {
            // What has no password may be one.
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
            Self::Right { user: Some(user) } => {
                write!(f, "; the user name or the password of `{user}` is wrong")
            }
            Self::Right { user: None } => {
                write!(f, "; the token is not valid there, or not any more")
            }
        }
    }
}
