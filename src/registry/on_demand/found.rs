//! Represents an image that was built here or found in a storage.
//! Stage: registry (pure). Output: its place in a [`Catalog`].

use std::sync::Arc;

use crate::oci::{Blob, Form, Image, ImageSpec};
use crate::outgoing::{RepositoryName, Tag};
use crate::proof::Subject;
use crate::registry::catalog::{Catalog, Manifest, PreparedArtifact};
use crate::registry::storage::StoredManifest;

/// An image that is available.
#[derive(Clone, Debug)]
pub enum FoundImage {
    /// The image was built here: its layers are made here.
    Here(Arc<PreparedArtifact>),
    /// The image is in the storage, with its blobs.
    Stored(Manifest),
}

impl FoundImage {
    /// Wraps an image whose layers are made here.
    pub fn here(spec: ImageSpec) -> Self {
        Self::Here(Arc::new(PreparedArtifact::new(spec.into(), Form::AsStored).compact()))
    }

    /// Wraps an image that was found in a storage.
    pub fn of(stored: StoredManifest) -> Self {
        let StoredManifest { digest, media_type, bytes, .. } = stored;
        Self::Stored(Manifest::new(Blob { digest, bytes: bytes.into() }, media_type))
    }

    /// Wraps an image that was just stored.
    pub fn of_spec(spec: &ImageSpec) -> Self {
        let image = Image::new(spec);
        let media_type = image.descriptor().media_type().to_string();
        Self::Stored(Manifest::new(image.manifest, media_type))
    }

    /// Returns what documents about the image refer to.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Here(artifact) => artifact.subject(),
            Self::Stored(Manifest { blob, media_type }) => Subject::new(media_type, blob),
        }
    }

    /// Adds the image to a catalog, under a tag or by its digest only.
    pub fn add_to(&self, catalog: &mut Catalog, name: &RepositoryName, tag: Option<&Tag>) {
        match self {
            Self::Here(artifact) => catalog.add_prepared(name, tag, artifact),
            Self::Stored(manifest) => catalog.add_manifest(name, tag, manifest.clone()),
        }
    }
}
