//! The errors of starting a server.
//! Stage: registry. Output: messages.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::error::Hint;
use crate::oci;
use crate::outgoing::{ParseTaggedNameError, TaggedName};
use crate::registry::storage::{StorageError, StorageKeyError};

/// Says why a server can't start.
#[derive(Debug, Error)]
pub enum SetupError {
    /// An image spec could not be read.
    #[error(transparent)]
    Spec(#[from] oci::Error),
    /// The text is not a valid name and tag for an image.
    #[error("{argument}")]
    Name {
        /// The text as it was given.
        argument: String,
        /// The reason.
        source: ParseTaggedNameError,
    },
    /// A name belongs to several images.
    #[error("{name} is two images: {} and {}", first.display(), second.display())]
    Twice {
        /// The name.
        name: TaggedName,
        /// The image spec that came first.
        first: PathBuf,
        /// The image spec that came second.
        second: PathBuf,
    },
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file with users' passwords is not valid.
    #[error("{}, line {line}: {reason}", file.display())]
    Users {
        /// The file.
        file: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// A file with users' passwords is empty.
    #[error("{}: there is no user in it", .0.display())]
    NoUsers(PathBuf),
    /// A file with rules for repositories is not valid.
    #[error("{}, line {line}: {reason}", file.display())]
    Permissions {
        /// The file.
        file: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// A certificate or key can't be used.
    #[error("{}: not {what}: {reason}", file.display())]
    Tls {
        /// The file.
        file: PathBuf,
        /// The expected contents, such as "a certificate".
        what: &'static str,
        /// The reason.
        reason: String,
    },
    /// The directory can't be used to keep blobs.
    #[error("cannot keep blobs in {}", directory.display())]
    Cache {
        /// The directory.
        directory: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Links that protect images from garbage collection can't be made.
    #[error("cannot keep links in {}", directory.display())]
    Links {
        /// The directory for the links.
        directory: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The Nix program that builds images is missing.
    #[error("cannot find `{program}`, which builds images, in PATH ({path})")]
    NoNix {
        /// The program.
        program: &'static str,
        /// The directories that were searched.
        path: String,
    },
    /// A key for the object storage can't be used.
    #[error(transparent)]
    StorageKey(#[from] StorageKeyError),
    /// The object storage can't be used.
    #[error(transparent)]
    Storage(Box<StorageError>),
    /// The threads or sockets for the server could not be made.
    #[error("cannot start the server")]
    Runtime(#[source] io::Error),
    /// The server can't listen at the address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as it was given.
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
            Self::StorageKey(error) => error.hint(),
            Self::Name { .. } => Some("name it by `NAME:TAG=FILE`".to_owned()),
            Self::Users { .. } | Self::NoUsers(_) => Some(
                "`htpasswd -B FILE USER` writes a line for a user, with a bcrypt hash".to_owned(),
            ),
            Self::Permissions { .. } => {
                Some("each line is `REPOSITORIES: WHO…`, such as `team/*: ann bob`".to_owned())
            }
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
