//! The thing that is copied: one image, or several for different platforms with their index.
//! Stage: oci. Input: the JSON of an image spec or an index spec. Output: [`Artifact`].

use std::collections::BTreeMap;
use std::sync::Arc;

use oci_spec::image::Descriptor;
use serde_json::json;

use super::Error;
use super::annotations::{Annotations, annotated};
use super::architecture::Architecture;
use super::blob::Form;
use super::config::ContainerConfig;
use super::image::{Blob, Image, ManifestFormat};
use super::layer_blob::LayerBlob;
use super::media_type::IMAGE_INDEX;
use super::platform::Platform;
use super::spec::ImageSpec;
use crate::digest::{DiffId, Digest};

/// The thing that is copied: one image, or several images and their index.
#[derive(Clone, Debug)]
pub struct Artifact {
    images: Vec<Arc<ImageSpec>>,
    index: Option<Index>,
}

#[derive(Clone, Debug)]
struct Index {
    annotations: Annotations,
    /// The annotations of each image's entry.
    entries: Vec<Annotations>,
}

impl From<ImageSpec> for Artifact {
    fn from(spec: ImageSpec) -> Self {
        Self { images: vec![Arc::new(spec)], index: None }
    }
}

impl Artifact {
    /// Makes an index of images, each with the annotations of its entry.
    pub fn of_index(
        images: Vec<Arc<ImageSpec>>,
        entries: Vec<Annotations>,
        annotations: Annotations,
    ) -> Self {
        Self { images, index: Some(Index { annotations, entries }) }
    }

    /// Returns the artifact with its layers and platforms only: enough to make layers, when the
    /// documents have been made.
    #[must_use]
    pub fn into_layers(self) -> Self {
        let into_layers = |image: Arc<ImageSpec>| {
            let ImageSpec { architecture, variant, created, mut layers, .. } =
                Arc::unwrap_or_clone(image);
            layers.shrink_to_fit();
            Arc::new(ImageSpec {
                architecture,
                variant,
                created,
                config: ContainerConfig::default(),
                annotations: Annotations::default(),
                history: Vec::new(),
                layers,
                sources: Vec::new(),
            })
        };
        Self { images: self.images.into_iter().map(into_layers).collect(), index: self.index }
    }

    /// Returns whether there is an index, which may have only one image.
    pub fn is_index(&self) -> bool {
        self.index.is_some()
    }

    /// Returns the images.
    pub fn images(&self) -> &[Arc<ImageSpec>] {
        &self.images
    }

    /// Returns the platform of each image.
    pub fn platforms(&self) -> impl Iterator<Item = Platform> {
        self.images.iter().map(|image| image.platform())
    }

    /// Returns the single image, or the image of the index for an architecture.
    ///
    /// # Errors
    /// Fails with [`Error::NoSuchPlatform`] if the index has none.
    pub fn image_for(&self, architecture: &Architecture) -> Result<&Arc<ImageSpec>, Error> {
        if self.index.is_none() {
            return Ok(&self.images[0]);
        }
        let wanted = |image: &&Arc<ImageSpec>| image.architecture == *architecture;
        self.images.iter().find(wanted).ok_or_else(|| {
            Error::no_such_platform(&Platform::linux(architecture), self.platforms())
        })
    }

    /// Returns the artifact with these blobs as the compressed form of its layers.
    #[must_use]
    pub fn with_compressed(&self, blobs: &BTreeMap<DiffId, LayerBlob>) -> Self {
        let with_compressed = |image: &Arc<ImageSpec>| {
            let mut image = ImageSpec::clone(image);
            for layer in &mut image.layers {
                let blob = blobs.get(&layer.diff_id).filter(|_| layer.contents().is_some());
                if let Some(blob) = blob.filter(|blob| layer.compressed != Some(**blob)) {
                    layer.compressed = Some(*blob);
                    layer.compressed_file = None;
                }
            }
            Arc::new(image)
        };
        Self {
            images: self.images.iter().map(with_compressed).collect(),
            index: self.index.clone(),
        }
    }

    /// Returns the manifests, configurations and index.
    pub fn documents(&self, form: Form, format: ManifestFormat) -> Documents {
        let images: Vec<_> =
            self.images.iter().map(|spec| Image::in_form(spec, form, format)).collect();
        let index = self.index.as_ref().map(|index| self.index_document(index, &images));
        Documents { images, index }
    }

    /// Builds the index (image-spec, image-index.md).
    fn index_document(&self, index: &Index, images: &[Image]) -> Blob {
        let entries = self.images.iter().zip(images).zip(&index.entries);
        let entries = entries.map(|((spec, image), annotations)| {
            let mut entry = serde_json::to_value(image.descriptor()).expect("a descriptor is JSON");
            entry["platform"] = json!(spec.platform());
            annotated(entry, annotations)
        });
        let document = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE_INDEX,
            "manifests": entries.collect::<Vec<_>>(),
        });
        Blob::json(&annotated(document, &index.annotations))
    }
}

/// The manifests and configurations, and the index if there is one.
#[derive(Clone, Debug)]
pub struct Documents {
    /// The documents of each image.
    pub images: Vec<Image>,
    /// The index of the images.
    pub index: Option<Blob>,
}

impl From<Image> for Documents {
    fn from(image: Image) -> Self {
        Self { images: vec![image], index: None }
    }
}

impl Documents {
    /// Returns all documents, each after those that it names.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.images.iter().flat_map(|image| [&image.config, &image.manifest]).chain(&self.index)
    }

    /// Returns the document that names all others: the index, or the manifest.
    pub fn top(&self) -> &Blob {
        self.index.as_ref().unwrap_or(&self.images[0].manifest)
    }

    /// Returns the descriptor of the top document, for another index.
    pub fn descriptor(&self) -> Descriptor {
        match &self.index {
            Some(index) => index.descriptor(IMAGE_INDEX.into()),
            None => self.images[0].descriptor(),
        }
    }

    /// Returns the identity for the result of a copy: an image's ID, or an index's digest.
    pub fn id(&self) -> Digest {
        match &self.index {
            Some(index) => *index.digest.digest(),
            None => *self.images[0].id().digest(),
        }
    }
}
