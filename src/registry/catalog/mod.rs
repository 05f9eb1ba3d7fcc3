//! Holds the contents of a registry: repositories, their tags, and the blob for each digest.
//! Stage: registry (pure). Input: image specs. Output: [`Catalog`].

mod sources;

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

pub use sources::{Source, Sources};

use crate::digest::BlobDigest;
use crate::oci::{Artifact, Blob, Form, Image, ImageSpec, LayerBlob, ManifestFormat};
use crate::outgoing::{RepositoryName, Tag};

/// Repositories by name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    repositories: BTreeMap<String, Repository>,
}

/// The contents of one repository.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    tags: BTreeMap<String, BlobDigest>,
    manifests: BTreeMap<BlobDigest, Manifest>,
    blobs: BTreeMap<BlobDigest, Content>,
}

/// A manifest's bytes and their media type.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Digest and bytes.
    pub blob: Arc<Blob>,
    /// The media type of the bytes.
    pub media_type: String,
}

/// The contents of a blob.
#[derive(Clone, Debug)]
pub enum Content {
    /// An image configuration.
    Config(Arc<Blob>),
    /// A layer.
    Layer {
        /// The image that has the layer.
        spec: Arc<ImageSpec>,
        /// The layer's index in the image.
        index: usize,
        /// The form of the layer's bytes.
        form: Form,
        /// Digest and size of the bytes.
        blob: LayerBlob,
    },
}

impl Content {
    /// Returns the size of the blob in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Config(blob) => blob.bytes.len() as u64,
            Self::Layer { blob, .. } => blob.size,
        }
    }
}

/// Says why an image can't be added to a catalog.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CatalogError {
    /// The name is not one that a client could ask for.
    #[error(
        "`{0}` is no name for a repository: components of lower-case letters and digits, with `.`, `_`, `-` between them, and slashes"
    )]
    Name(String),
    /// The tag is not one that a client could ask for.
    #[error("`{0}` is no tag: 1 to 128 letters, digits, `_`, `.` and `-`")]
    Tag(String),
}

impl Catalog {
    /// Adds an image, or several with their index, under a name and a tag, and replaces what had
    /// these before.
    ///
    /// # Errors
    /// Fails with [`CatalogError`] if the name or the tag is not valid.
    pub fn add(
        &mut self,
        name: &str,
        tag: &str,
        artifact: &Artifact,
        form: Form,
    ) -> Result<(), CatalogError> {
        check_reference(name, tag)?;
        let digest = self.add_untagged(name, artifact, form)?;
        let repository = self.repositories.entry(name.to_owned()).or_default();
        repository.tags.insert(tag.to_owned(), digest);
        Ok(())
    }

    /// Adds an image that is found by its digest alone: for clients that read its manifest by a tag
    /// which now stands for another image.
    ///
    /// # Errors
    /// Fails with [`CatalogError::Name`] if the name is not valid.
    pub fn add_untagged(
        &mut self,
        name: &str,
        artifact: &Artifact,
        form: Form,
    ) -> Result<BlobDigest, CatalogError> {
        if !RepositoryName::is_valid(name) {
            return Err(CatalogError::Name(name.to_owned()));
        }
        let documents = artifact.documents(form, ManifestFormat::Oci);
        let repository = self.repositories.entry(name.to_owned()).or_default();
        let digest = documents.top().digest;
        let top = documents.descriptor().media_type().to_string();
        if let Some(index) = documents.index {
            repository.add_manifest(index, top);
        }
        for (spec, image) in artifact.images().iter().zip(documents.images) {
            for (index, layer) in spec.layers.iter().enumerate() {
                let blob = layer.blob(form);
                let content = Content::Layer { spec: Arc::clone(spec), index, form, blob };
                repository.blobs.insert(blob.digest, content);
            }
            let media_type = image.descriptor().media_type().to_string();
            let Image { config, manifest, .. } = image;
            repository.blobs.insert(config.digest, Content::Config(Arc::new(config)));
            repository.add_manifest(manifest, media_type);
        }
        Ok(digest)
    }

    /// Adds a manifest whose blobs are elsewhere. Adds it under a name and a tag, and replaces what
    /// had these before; or by its digest alone.
    ///
    /// # Errors
    /// Fails with [`CatalogError`] if the name or the tag is not valid.
    pub fn add_manifest(
        &mut self,
        name: &str,
        tag: Option<&str>,
        manifest: Manifest,
    ) -> Result<(), CatalogError> {
        check_reference(name, tag.unwrap_or("latest"))?;
        let repository = self.repositories.entry(name.to_owned()).or_default();
        if let Some(tag) = tag {
            repository.tags.insert(tag.to_owned(), manifest.blob.digest);
        }
        repository.manifests.insert(manifest.blob.digest, manifest);
        Ok(())
    }

    /// Returns the names of all repositories that have tags, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let tagged = self.repositories.iter().filter(|(_, found)| !found.tags.is_empty());
        tagged.map(|(name, _)| name.as_str())
    }

    /// Returns the repository of that name.
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.get(name)
    }
}

impl Repository {
    fn add_manifest(&mut self, blob: Blob, media_type: String) {
        self.manifests.insert(blob.digest, Manifest { blob: Arc::new(blob), media_type });
    }

    /// Returns the tags, in order.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.keys().map(String::as_str)
    }

    /// Returns the manifest with that tag or digest.
    pub fn manifest(&self, reference: &str) -> Option<&Manifest> {
        let digest = match reference.parse() {
            Ok(digest) => digest,
            Err(_) => *self.tags.get(reference)?,
        };
        self.manifests.get(&digest)
    }

    /// Returns the blob with that digest. Manifests are blobs as well.
    pub fn blob(&self, digest: &BlobDigest) -> Option<Content> {
        let manifest =
            || self.manifests.get(digest).map(|found| Content::Config(Arc::clone(&found.blob)));
        self.blobs.get(digest).cloned().or_else(manifest)
    }
}

/// Checks that clients can ask for an image by this name and tag.
///
/// # Errors
/// Fails with [`CatalogError`] if the name or the tag is not valid.
pub fn check_reference(name: &str, tag: &str) -> Result<(), CatalogError> {
    if !RepositoryName::is_valid(name) {
        return Err(CatalogError::Name(name.to_owned()));
    }
    if !Tag::is_valid(tag) {
        return Err(CatalogError::Tag(tag.to_owned()));
    }
    Ok(())
}
