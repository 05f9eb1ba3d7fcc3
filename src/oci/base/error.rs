//! What is wrong with a base image: the file, the layer, and why.
//! Stage: oci.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::platform::Platform;
use crate::error::Hint;
use crate::oci::config::ConfigError;
use crate::oci::media_type::MediaTypeError;

/// Why an image can't be the base of another.
#[derive(Debug, Error)]
#[error("base image {}{}", file.display(), place(layer))]
pub struct Error {
    /// The image, as it was named.
    pub file: PathBuf,
    /// Which layer from 1 at the bottom, and how many there are, if it is one's fault.
    pub layer: Option<(usize, usize)>,
    /// The reason.
    #[source]
    pub problem: Box<Problem>,
}

fn place(layer: &Option<(usize, usize)>) -> String {
    layer.map_or_else(String::new, |(number, count)| format!(": layer {number} of {count}"))
}

fn named(there: &[String]) -> String {
    if there.is_empty() {
        return "none of its images has a name".to_owned();
    }
    format!("it has `{}`", there.join("`, `"))
}

/// The reason, for people.
#[derive(Debug, Error)]
pub enum Problem {
    /// A file could not be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Neither an archive nor a directory that anybody writes images to.
    #[error("is no image: {0}")]
    NotAnImage(String),
    /// An archive that ends too early.
    #[error("is cut short: {0}")]
    Truncated(String),
    /// An archive or a layer that can't be unpacked.
    #[error("is no whole {what}")]
    Unpack {
        /// "tar archive", "gzip stream" …
        what: &'static str,
        /// What the reader says.
        source: io::Error,
    },
    /// A file that the image's documents name is not there.
    #[error("`{0}` is missing")]
    Missing(String),
    /// A file has a name that JSON can't hold.
    #[error("the name of {} is not UTF-8", .0.display())]
    OddName(PathBuf),
    /// A document isn't what it should be.
    #[error("`{name}` is no {what}: {reason}")]
    Document {
        /// Its name in the archive or directory.
        name: String,
        /// "image manifest", "image configuration" …
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The manifest lists a layer that can't be used.
    #[error(transparent)]
    MediaType(#[from] MediaTypeError),
    /// Bytes that are not those that were digested.
    #[error("{what} has {found}, but {expected} by {by}")]
    Mismatch {
        /// "the blob", "the uncompressed layer", "`manifest.json`" …
        what: String,
        /// Digest or size as recorded.
        expected: String,
        /// Digest or size of the bytes.
        found: String,
        /// The document that recorded it.
        by: &'static str,
    },
    /// It has none for the platform.
    #[error("is for {found}, not for {wanted}")]
    Platform {
        /// What is there.
        found: String,
        /// What was asked for.
        wanted: Platform,
    },
    /// It has more than one for the platform.
    #[error("holds {count} images{}: which one is meant?", platform.as_ref().map(|platform| format!(" for {platform}")).unwrap_or_default())]
    Ambiguous {
        /// How many.
        count: usize,
        /// Of this platform.
        platform: Option<Platform>,
    },
    /// None of its images has the name that was asked for.
    #[error("has no image `{reference}`: {}", named(there))]
    NoReference {
        /// The name that was asked for.
        reference: String,
        /// The names that its images have.
        there: Vec<String>,
    },
    /// Its `config` can't be inherited.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        Some(match &*self.problem {
            Problem::NotAnImage(_) => {
                "a base may be a docker-archive or an OCI archive (plain, gzip or zstd), an OCI layout, \
                 or a directory by `skopeo copy … dir:`, such as the functions `pullImage` make"
                    .to_owned()
            }
            Problem::Platform { wanted, .. } => format!(
                "pull the image for {wanted}, or give `arch` the name of the base's architecture"
            ),
            Problem::Ambiguous { .. } => {
                "name the one: `oci:DIRECTORY:REF`, `oci-archive:FILE:REF` or `docker-archive:FILE:NAME:TAG`".to_owned()
            }
            Problem::MediaType(MediaTypeError::Foreign(_)) => {
                "fetch it and make it part of the image: `skopeo copy` to a registry does".to_owned()
            }
            Problem::MediaType(MediaTypeError::Encrypted(_)) => {
                "decrypt the image first: `skopeo copy --decryption-key KEY … dir:DIRECTORY`".to_owned()
            }
            Problem::Truncated(_) | Problem::Unpack { .. } | Problem::Mismatch { .. } | Problem::Missing(_) => {
                "the copy is damaged or not whole: fetch the image again".to_owned()
            }
            _ => return None,
        })
    }
}
