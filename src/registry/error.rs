//! Why a registry does not begin to serve.
//! Stage: registry. Output: messages.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::catalog::CatalogError;
use crate::error::Hint;
use crate::oci;
use crate::registry::storage::StorageError;

/// Why a registry does not begin to serve.
#[derive(Debug, Error)]
pub enum SetupError {
    /// An image spec could not be read.
    #[error(transparent)]
    Spec(#[from] oci::Error),
    /// Not a name or tag for an image.
    #[error("{argument}")]
    Name {
        /// The text as it was given.
        argument: String,
        /// The reason.
        source: CatalogError,
    },
    /// Two images by one name.
    #[error("{reference} is two images: {} and {}", first.display(), second.display())]
    Twice {
        /// Name and tag.
        reference: String,
        /// One image spec.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file with users' passwords is none.
    #[error("{}, line {line}: {reason}", file.display())]
    Users {
        /// Which.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// A file with users' passwords is empty.
    #[error("{}: there is no user in it", .0.display())]
    NoUsers(PathBuf),
    /// A certificate or key can't be used.
    #[error("{}: not {what}: {reason}", file.display())]
    Tls {
        /// Which.
        file: PathBuf,
        /// "a certificate" …
        what: &'static str,
        /// The reason.
        reason: String,
    },
    /// Blobs can't be kept there.
    #[error("cannot keep blobs in {}", directory.display())]
    Cache {
        /// Which.
        directory: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// What is served can't be kept from being collected.
    #[error("cannot keep links in {}", directory.display())]
    Links {
        /// Where the links would be.
        directory: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Nix isn't there to build images.
    #[error("cannot find `{program}`, by which images are built, in PATH ({path})")]
    NoNix {
        /// The program.
        program: &'static str,
        /// The directories in which it isn't.
        path: String,
    },
    /// Images can't be kept in an object storage.
    #[error(transparent)]
    Storage(Box<StorageError>),
    /// There are no threads, or no sockets.
    #[error("cannot begin to serve")]
    Runtime(#[source] io::Error),
    /// There is no listening at the address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which, as it was given.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
}

impl From<StorageError> for SetupError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Box::new(error))
    }
}

impl Hint for SetupError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Spec(error) => error.hint(),
            Self::Storage(error) => error.hint(),
            Self::Name { .. } => Some("name it by `NAME:TAG=FILE`".to_owned()),
            Self::Users { .. } | Self::NoUsers(_) => Some(
                "`htpasswd -B FILE USER` writes a line for a user, with a bcrypt hash".to_owned(),
            ),
            Self::Links { .. } => Some("`--roots DIR` names another directory for them".to_owned()),
            Self::NoNix { .. } => {
                Some("install Nix, or set PATH to where its programs are".to_owned())
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("name another address by `--listen`; port 0 is any that is free".to_owned())
            }
            _ => None,
        }
    }
}
