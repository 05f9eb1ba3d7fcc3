//! Prepares an artifact for answers: writes its documents once, for all names that it has.
//! Stage: registry (pure). Input: [`Artifact`]. Output: [`PreparedArtifact`].

use std::path::Path;
use std::sync::Arc;

use super::{Content, Manifest};
use crate::digest::BlobDigest;
use crate::oci::{Artifact, Blob, Form, Image, ImageSpec, ManifestFormat, Platform};
use crate::outgoing::SharedLayer;
use crate::proof::Subject;

/// An artifact with its documents. Repositories share it.
#[derive(Clone, Debug)]
pub struct PreparedArtifact {
    artifact: Artifact,
    form: Form,
    /// The index, if there is one, and the manifests.
    manifests: Vec<Manifest>,
    /// The configuration of each image.
    configs: Vec<Arc<Blob>>,
    /// The file with all that is known of the artifact, if there is one.
    file: Option<Box<Path>>,
}

impl PreparedArtifact {
    /// Writes the documents of an artifact.
    pub fn new(artifact: Artifact, form: Form) -> Self {
        let documents = artifact.documents(form, ManifestFormat::Oci);
        let top = documents.descriptor().media_type().to_string();
        let index = documents.index.map(|index| Manifest::new(index, top));
        let mut manifests: Vec<_> = index.into_iter().collect();
        let mut configs = Vec::new();
        for image in documents.images {
            let media_type = image.descriptor().media_type().to_string();
            let Image { config, manifest, .. } = image;
            manifests.push(Manifest::new(manifest, media_type));
            configs.push(Arc::new(config));
        }
        Self { artifact, form, manifests, configs, file: None }
    }

    /// Remembers the file that the artifact was read from.
    #[must_use]
    pub fn of_file(self, file: &Path) -> Self {
        Self { file: Some(file.into()), ..self }
    }

    /// Returns the file that the artifact was read from, if it was.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Forgets what is only needed for the documents.
    #[must_use]
    pub fn compact(self) -> Self {
        Self { artifact: self.artifact.into_layers(), ..self }
    }

    /// Returns the digest of the index or, without one, of the manifest.
    pub fn digest(&self) -> BlobDigest {
        self.manifests[0].blob.digest
    }

    /// Returns whether there is an index, which names the images' files.
    pub fn is_index(&self) -> bool {
        self.artifact.is_index()
    }

    /// Returns what documents about this artifact refer to.
    pub fn subject(&self) -> Subject {
        let Manifest { blob, media_type } = &self.manifests[0];
        Subject::new(media_type, blob)
    }

    /// Returns the index, if there is one, and the manifests.
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// Returns the platform of each image, and the number of bytes that a client pulls for it.
    pub fn platforms(&self) -> impl Iterator<Item = (Platform, u64)> {
        let size = |(spec, config): (&Arc<ImageSpec>, &Arc<Blob>)| {
            let layers = spec.layers.iter().map(|layer| layer.blob(self.form).size);
            layers.sum::<u64>() + config.bytes.len() as u64
        };
        let sizes = self.artifact.images().iter().zip(&self.configs).map(size);
        self.artifact.platforms().zip(sizes)
    }

    /// Returns the digests of all configurations and layers.
    pub fn blobs(&self) -> impl Iterator<Item = BlobDigest> {
        let layers = self.artifact.images().iter().flat_map(|spec| &spec.layers);
        let layers = layers.map(|layer| layer.blob(self.form).digest);
        self.configs.iter().map(|config| config.digest).chain(layers)
    }

    /// Returns the configuration or layer with that digest.
    pub fn blob(&self, digest: &BlobDigest) -> Option<Content> {
        if let Some(config) = self.configs.iter().find(|config| config.digest == *digest) {
            return Some(Content::Config(Arc::clone(config)));
        }
        let form = self.form;
        self.artifact.images().iter().find_map(|spec| {
            let index = spec.layers.iter().position(|it| it.blob(form).digest == *digest)?;
            let layer = SharedLayer { spec: Arc::clone(spec), index, form };
            let blob = layer.blob();
            Some(Content::Layer { layer, blob })
        })
    }

    /// Returns whether another artifact has the same documents and makes its layers in the same way.
    pub fn is_same(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.artifact.images().iter(), other.artifact.images().iter());
        self.digest() == other.digest()
            && self.form == other.form
            && ours.zip(theirs).all(|(ours, theirs)| ours.layers == theirs.layers)
    }
}
