//! Images: configuration, manifest, and the spec from which every byte can be made.
//! Stage: oci. Input: layers. Output: [`ImageSpec`] and [`Image`].

mod annotations;
mod any_image;
mod architecture;
mod archive_reader;
mod artifact;
mod artifact_file;
pub mod base;
mod blob;
mod build;
mod chunked;
mod compression;
mod compressor;
mod config;
mod created;
pub mod dir_format;
mod flatten;
mod foreign_document;
mod image;
mod index_spec;
mod json_file;
mod layer_blob;
mod layer_compression;
mod layer_reader;
mod media_type;
mod parallel;
mod platform;
mod recognise;
mod sources;
mod spec;
mod spec_layer;
mod stored;
pub mod unpack;

use std::fmt::Display;
use std::path::PathBuf;

use thiserror::Error;

pub use annotations::{AnnotationError, Annotations, annotated, check_annotation};
pub use any_image::image_of;
pub use architecture::Architecture;
pub use artifact::{Artifact, Documents};
pub use artifact_file::ArtifactFile;
pub use blob::Form;
pub use build::{
    BuildOptions, Built, LAYER_SET_FILE, LayerSet, Metadata, NixState, RECORD, SystemEntry,
    SystemError, SystemFiles, SystemOptions, Warning, build_image, build_layer_set, nix_state,
    read_layering_hints, read_popularity, read_previous_plan, system_files,
};
#[cfg(test)]
pub use chunked::noise;
pub use chunked::{ChunkedCompressor, LOOKAHEAD, Piece, TocPlace, first_piece};
pub use compression::Compression;
pub use compressor::Compressor;
pub use config::{ConfigError, ContainerConfig};
pub use created::Created;
pub use flatten::{RootProblem, flatten};
pub use foreign_document::{ForeignConfig, ForeignDescriptor, ForeignDocument};
pub use image::{Blob, Image, ManifestFormat};
pub use index_spec::{IndexEntry, IndexSpec};
pub use json_file::write as write_json;
pub use layer_blob::LayerBlob;
pub use layer_compression::LayerCompression;
pub use layer_reader::read_tar;
pub use media_type::{
    Family, IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST, LayerMediaType, MediaTypeError,
};
pub use platform::Platform;
pub use recognise::{GivenFile, ImageScript, recognise, spec_file};
pub use sources::SourceInfo;
pub use spec::ImageSpec;
pub use spec_layer::{LayerSource, SpecLayer};
pub use stored::{BlobPlace, StoredBlob};

use crate::error::Hint;
use crate::{closure, layer};

/// Says why an image can't be built or read.
#[derive(Debug, Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file is not JSON of the expected form.
    #[error("{}: not {what}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// The expected contents, such as "an image spec" or "build options".
        what: &'static str,
        /// The reason, with line and column.
        source: serde_json::Error,
    },
    /// A file is not JSON that an image is made from.
    #[error("{} is {found}, not an image spec", file.display())]
    NotSpec {
        /// The file that the user gave.
        file: PathBuf,
        /// The kind of the file: "an archive", "a script" …
        found: &'static str,
    },
    /// The closure can't be used.
    #[error(transparent)]
    Closure(#[from] closure::Error),
    /// The base image can't be used.
    #[error(transparent)]
    Base(#[from] base::Error),
    /// `copyToRoot` names a path that is not in the closure.
    #[error("`copyToRoot`: {0} is not in the closure")]
    NotInClosure(String),
    /// A layer of `buildLayer` that is kept in a file would need other bytes on this base image.
    #[error(
        "a layer of `buildLayer {{ reproducible = false; … }}` ({names}) has directories that the base image has too, with other attributes or as links: it would hide them"
    )]
    KeptLayerOnBase {
        /// The names of the layer's contents.
        names: String,
    },
    /// A layer had other bytes when it was made a second time.
    #[error("a layer ({names}) changed while it was built")]
    Unsteady {
        /// The names of the layer's contents.
        names: String,
    },
    /// An index has no images.
    #[error("an index needs one image at least")]
    EmptyIndex,
    /// An index has several images for the same platform.
    #[error("two images of an index are for {platform}: {} and {}", first.display(), second.display())]
    SamePlatform {
        /// The operating system, the architecture and the variant.
        platform: String,
        /// The image spec that came first.
        first: PathBuf,
        /// The image spec that came second.
        second: PathBuf,
    },
    /// The target takes one image, and the index has none for this machine.
    #[error("there is no image for {wanted}, only for {}", there.join(", "))]
    NoSuchPlatform {
        /// The platform of this machine.
        wanted: String,
        /// The platforms of the index.
        there: Vec<String>,
    },
    /// An index spec was written by another version of this program.
    #[error("{}: the index spec has version {version}, and this program reads version 1", file.display())]
    IndexVersion {
        /// The file.
        file: PathBuf,
        /// The version of the file's format.
        version: u32,
    },
    /// The image would have more layers than containers can have.
    #[error("the image would have {0} layers, and {max} is the most that image tools take", max = layer::LayerBudget::MAX)]
    TooManyLayers(usize),
    /// The base image and other layers use up `maxLayers`, so that no layer is left for store
    /// paths.
    #[error(
        "`maxLayers` is {max_layers}, of which the base image has {base} and others are {others}: no layer is left for store paths"
    )]
    NoLayersLeft {
        /// The budget that the author set.
        max_layers: layer::LayerBudget,
        /// The number of the base image's layers.
        base: usize,
        /// The number of layers that come from `buildLayer` or go on top.
        others: usize,
    },
    /// A layer can't be part of a root file system.
    #[error("layer {layer} of {count}: {problem}")]
    Flatten {
        /// The number of the layer, from 1 at the bottom.
        layer: usize,
        /// The number of the image's layers.
        count: usize,
        /// The reason.
        problem: flatten::RootProblem,
    },
    /// The declared accounts and files can't be made.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A layer could not be made.
    #[error(transparent)]
    Layer(#[from] layer::Error),
}

impl Error {
    /// Says that there is no image for a platform, only for others.
    fn no_such_platform(wanted: &Platform, there: impl Iterator<Item = impl Display>) -> Self {
        Self::NoSuchPlatform {
            wanted: wanted.to_string(),
            there: there.map(|platform| platform.to_string()).collect(),
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::Closure(error) => error.hint(),
            Error::Layer(error) => error.hint(),
            Error::Base(error) => error.hint(),
            Error::System(error) => error.hint(),
            Error::KeptLayerOnBase { .. } => Some(
                "leave `reproducible` out: a layer that is made for the image obeys its base".to_owned(),
            ),
            Error::NotSpec { found: recognise::INDEX, .. } => Some(
                "give it one of the images: the `spec` of one of `buildIndex`'s `images`".to_owned(),
            ),
            Error::NotSpec { .. } => Some(
                "give it the script that `buildImage` leaves, or the image's `spec`: \
                 `nix build .#NAME.spec`, or `nix-build -A NAME.spec`"
                    .to_owned(),
            ),
            Error::TooManyLayers(_) => Some(
                "give `maxLayers` a smaller number, here or in the `buildLayer`s below, or take a base image of fewer".to_owned(),
            ),
            Error::NoLayersLeft { .. } => Some("give `maxLayers` a larger number, or take a base image of fewer layers".to_owned()),
            Error::NotInClosure(path) => Some(format!(
                "make the registration with `closureInfo {{ rootPaths = [ {path} … ]; }}`"
            )),
            _ => None,
        }
    }
}
