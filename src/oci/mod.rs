//! Images: configuration, manifest, and the spec from which every byte can be made.
//! Stage: oci. Input: layers. Output: [`ImageSpec`] and [`Image`].

mod build;
mod config;
mod image;
mod options;
mod previous;
mod spec;
mod validate;

use std::path::PathBuf;

use thiserror::Error;

pub use build::build_image;
pub use config::{ConfigError, ContainerConfig};
pub use image::{Blob, Image};
pub use options::{Architecture, BuildOptions, Created};
pub use previous::read_previous_plan;
pub use spec::{ImageSpec, SourceInfo, SpecLayer};
pub use validate::{Difference, Report, validate};

use crate::error::Hint;
use crate::{closure, layer};

/// Why there is no image.
#[derive(Debug, Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file isn't the JSON that it should be.
    #[error("{}: not {what}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// "an image spec", "build options" …
        what: &'static str,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// The closure can't be used.
    #[error(transparent)]
    Closure(#[from] closure::Error),
    /// `copyToRoot` names a path that is not in the closure.
    #[error("`copyToRoot`: {0} is not in the closure")]
    NotInClosure(String),
    /// A layer could not be made.
    #[error(transparent)]
    Layer(#[from] layer::Error),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::Closure(error) => error.hint(),
            Error::Layer(error) => error.hint(),
            Error::NotInClosure(path) => Some(format!(
                "make the registration with `closureInfo {{ rootPaths = [ {path} … ]; }}`"
            )),
            _ => None,
        }
    }
}
