//! The errors of writing an archive or a directory.
//! Stage: target. Output: messages.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::Hint;
use crate::outgoing::At;
use crate::{oci, outgoing};

/// Says why an archive could not be written.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// A layer could not be made, or a file not be written or read.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// The image can't be used.
    #[error(transparent)]
    Image(#[from] oci::Error),
    /// The file exists, and images are not added to an archive.
    #[error("{} exists, and images are not added to an archive", .0.display())]
    Exists(PathBuf),
    /// The path is that of a directory.
    #[error("{} is a directory, and an archive is a file", .0.display())]
    IsDirectory(PathBuf),
    /// The archive would be shown on a terminal.
    #[error("{} is a terminal: an image is binary data", .0.display())]
    Terminal(PathBuf),
    /// A file that is to be merged is not an archive of images.
    #[error("{}: not an archive of images: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason, for people.
        reason: String,
    },
}

impl At for ArchiveError {
    fn at(self, path: &Path) -> Self {
        match self {
            ArchiveError::Outgoing(error) => error.at(path).into(),
            other => other,
        }
    }
}

impl Hint for ArchiveError {
    fn hint(&self) -> Option<String> {
        match self {
            ArchiveError::Outgoing(error) => error.hint(),
            ArchiveError::Image(error) => error.hint(),
            ArchiveError::Exists(_) => Some("remove it first, or name another file".to_owned()),
            ArchiveError::IsDirectory(path) => Some(format!(
                "name a file in it, or write an image layout with `oci:{}`",
                path.display()
            )),
            ArchiveError::Terminal(_) => {
                Some("pipe it: `… | docker load`, or name a file".to_owned())
            }
            ArchiveError::Unreadable { .. } => None,
        }
    }
}

/// Says why a directory could not be written.
#[cfg(feature = "registry")]
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// A layer could not be made, or a file not be written or read.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// The path is that of a file.
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// The directory has other things in it.
    #[error("{} is neither empty nor {expected}", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// A description of the contents that are accepted.
        expected: &'static str,
    },
    /// A file of the directory does not have the format that its name says.
    #[error("{}: not {what}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The expected format, such as "an index of images".
        what: &'static str,
        /// The reason, for people.
        reason: String,
    },
}

#[cfg(feature = "registry")]
impl Hint for DirectoryError {
    fn hint(&self) -> Option<String> {
        match self {
            DirectoryError::Outgoing(error) => error.hint(),
            DirectoryError::NotDirectory(_) => Some(
                "`oci:` and `dir:` write directories; `oci-archive:` and `docker-archive:` write files".to_owned(),
            ),
            DirectoryError::NotEmpty { .. } => {
                Some("name a new directory: it will be made".to_owned())
            }
            DirectoryError::Unreadable { .. } => {
                Some("nothing was changed: repair the directory, or name a new one".to_owned())
            }
        }
    }
}
