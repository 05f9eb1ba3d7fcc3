//! The errors of a base image: the file, the layer, and the reason.
//! Stage: oci.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::error::Hint;
use crate::layer::{BadLink, DATABASE, DATABASE_DIR, DatabaseError, LayerBudget, LinkProblem};
use crate::oci::config::ConfigError;
use crate::oci::media_type::MediaTypeError;
use crate::oci::platform::Platform;
use crate::oci::unpack::TarError;

/// Says why an image can't be a base, or can't be read.
#[derive(Debug, Error)]
#[error("{} {}{}", role.noun(), file.display(), place(layer))]
pub struct Error {
    /// The part that the image has in the command.
    pub role: ImageRole,
    /// The image, as the user named it.
    pub file: PathBuf,
    /// The number of the layer, from 1 at the bottom, and the number of layers, if the error is in
    /// a layer.
    pub layer: Option<(usize, usize)>,
    /// The reason.
    #[source]
    pub problem: Box<Problem>,
}

/// The part of an image in a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageRole {
    /// Another image is built on this one.
    Base,
    /// The image is read for its own sake.
    Subject,
}

impl ImageRole {
    fn noun(self) -> &'static str {
        match self {
            Self::Base => "base image",
            Self::Subject => "image",
        }
    }
}

impl Error {
    /// Returns the error for an image that is read for its own sake.
    #[must_use]
    pub fn of_subject(self) -> Self {
        Self { role: ImageRole::Subject, ..self }
    }
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

/// Says what is wrong with a base image.
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
    /// The path has neither an archive nor a directory in a known format.
    #[error("is no image: {0}")]
    NotAnImage(String),
    /// An archive ends too early.
    #[error("is cut short: {0}")]
    Truncated(String),
    /// An archive or a layer can't be unpacked.
    #[error("is not a complete {what}")]
    Unpack {
        /// The format, such as "tar archive" or "gzip stream".
        what: &'static str,
        /// The error of the reader.
        source: io::Error,
    },
    /// An archive or a layer has a member that is not valid.
    #[error("can't be unpacked: {0}")]
    Archive(TarError),
    /// The links of a layer can't be followed.
    #[error("can't be unpacked: {0}")]
    Layer(LinkProblem),
    /// The image has more layers than containers can have.
    #[error("has {0} layers, and {max} is the most that image tools take", max = LayerBudget::MAX)]
    TooManyLayers(usize),
    /// A file that the image's documents name is missing.
    #[error("`{0}` is missing")]
    Missing(String),
    /// A file that the image's documents name is outside of the image's directory.
    #[error("`{0}` is not in the image's directory, but leads out of it")]
    Outside(String),
    /// A file has a name that JSON can't hold.
    #[error("the name of {} is not UTF-8", .0.display())]
    OddName(PathBuf),
    /// A document is not valid.
    #[error("`{name}` is no {what}: {reason}")]
    Document {
        /// The document's name in the archive or directory.
        name: String,
        /// The expected document, such as "image manifest" or "image configuration".
        what: &'static str,
        /// The reason.
        reason: String,
    },
    /// The manifest names a layer that can't be used.
    #[error(transparent)]
    MediaType(#[from] MediaTypeError),
    /// Bytes do not have the recorded digest or size.
    #[error("{what} has {found}, but {by} says {expected}")]
    Mismatch {
        /// The bytes: "the blob", "the uncompressed layer", "`manifest.json`" …
        what: String,
        /// Digest or size as recorded.
        expected: String,
        /// Digest or size of the bytes.
        found: String,
        /// The document that recorded it.
        by: &'static str,
    },
    /// The base has no image for the platform.
    #[error("is for {found}, not for {wanted}")]
    Platform {
        /// The platforms that it has images for.
        found: String,
        /// The platform that was asked for.
        wanted: Platform,
    },
    /// The base has several images for the platform.
    #[error("holds {count} images{}: which one is meant?", platform.as_ref().map(|platform| format!(" for {platform}")).unwrap_or_default())]
    Ambiguous {
        /// The number of images.
        count: usize,
        /// The platform, if one was asked for.
        platform: Option<Platform>,
    },
    /// The base has images, but none with the name that was asked for.
    #[error("has no image `{reference}`: {}", named(there))]
    NoReference {
        /// The name that was asked for.
        reference: String,
        /// The names that its images have.
        there: Vec<String>,
    },
    /// An image of stowage can't be read.
    #[error(transparent)]
    Own(Box<crate::oci::Error>),
    /// The links on the way to the Nix database of the base lead to no path.
    #[error(transparent)]
    Links(#[from] BadLink),
    /// The Nix database of the base can't be read, and the image's own would replace it.
    #[error("its Nix database ({DATABASE_DIR}/{DATABASE}) can't be used")]
    NixDatabase(#[from] DatabaseError),
    /// The `config` of the base can't be inherited.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        Some(match &*self.problem {
            Problem::NotAnImage(_) if self.role == ImageRole::Subject => {
                "an image may be what `buildImage` or `buildIndex` made, an image spec, a docker-archive or an OCI \
                 archive (plain, gzip or zstd), an OCI layout, or a directory by `skopeo copy … dir:`"
                    .to_owned()
            }
            Problem::NotAnImage(_) => {
                "a base may be what `buildImage`, `buildIndex` or `pullImage` made, an image spec, \
                 a docker-archive or an OCI archive (plain, gzip or zstd), an OCI layout, \
                 or a directory by `skopeo copy … dir:`; what `buildLayer` made goes to `layers`"
                    .to_owned()
            }
            Problem::Own(error) => return error.hint(),
            Problem::NixDatabase(_) => {
                "an image on it that has a database would replace this one: leave \
                 `initializeNixDatabase` or `includeNixDB` out, or take a base whose Nix works"
                    .to_owned()
            }
            Problem::Platform { wanted, .. } if self.role == ImageRole::Subject => {
                format!("take the image for {wanted}")
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
