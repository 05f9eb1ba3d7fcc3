//! Errors of making and writing an image's bytes.
//! Stage: outgoing. Output: messages.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::Hint;
use crate::layer;

/// Says why a layer could not be made or written, for any target.
///
/// Each target has an error type of its own, with this one as a variant.
#[derive(Debug, Error)]
pub enum Error {
    /// A layer could not be made.
    #[error("layer {number} of {count}")]
    Layer {
        /// The layer's number, from 1 at the bottom.
        number: usize,
        /// The number of the image's layers.
        count: usize,
        /// The reason.
        source: layer::Error,
    },
    /// A layer differs from what was recorded when the image was built.
    #[error(
        "layer {number} of {count} ({names}) is not what it was: expected {expected}, found {found}"
    )]
    LayerChanged {
        /// The layer's number, from 1 at the bottom.
        number: usize,
        /// Layers of the image.
        count: usize,
        /// The layer's contents, by name.
        names: String,
        /// The layer's digest, checksum or size as recorded in the image spec.
        expected: String,
        /// The digest, checksum or size that was found instead.
        found: String,
    },
    /// The receiver of the bytes failed.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    /// A file of the target could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The final name of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Something that is no file has the place of a file of the target.
    #[error("{} is {kind}, where the image has a file", path.display())]
    Occupied {
        /// The place of the file.
        path: PathBuf,
        /// A description of what is there, such as "a directory".
        kind: &'static str,
    },
    /// A file of the target could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Lets an error name the file that was being written.
pub trait At {
    /// Names the file at `path` if the error is that writing failed.
    #[must_use]
    fn at(self, path: &Path) -> Self;
}

impl At for Error {
    fn at(self, path: &Path) -> Self {
        match self {
            Error::Write(source) => Error::File { path: path.to_owned(), source },
            other => other,
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::Layer { source, .. } => source.hint(),
            Error::LayerChanged { .. } => Some(
                "a store path changed after the image was built: `stowage verify` on the image spec names it".to_owned(),
            ),
            Error::Occupied { .. } => {
                Some("move or remove it, and copy once more: the file is then made".to_owned())
            }
            _ => None,
        }
    }
}
