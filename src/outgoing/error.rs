//! Why the bytes of an image did not go out.
//! Stage: outgoing. Output: messages.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::Hint;
use crate::layer;

/// Says why a layer could not be made, or not be written, whichever the target.
///
/// Each target has an error type of its own, of which this is one variant.
#[derive(Debug, Error)]
pub enum Error {
    /// A layer could not be made.
    #[error("layer {number} of {count}")]
    Layer {
        /// The layer's number, from 1 at the bottom.
        number: usize,
        /// Layers of the image.
        count: usize,
        /// The reason.
        source: layer::Error,
    },
    /// A layer came out other than when the image was built.
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
        /// The file, by the name that it would have had.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
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

/// Error types that can name the file that was written to.
pub trait At {
    /// Names the file at `path`, if writing is what failed.
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
            _ => None,
        }
    }
}
