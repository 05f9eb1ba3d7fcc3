//! The thing that is copied: one image, or several for different platforms with their index.
//! Stage: oci. Input: the JSON of an image spec or an index spec. Output: [`Artifact`].

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Error;
use super::annotations::{Annotations, annotated};
use super::architecture::Architecture;
use super::artifact_file::{ArtifactFile, ReadParts};
use super::blob::{Form, LayerBlob};
use super::config::ContainerConfig;
use super::image::{Blob, Image, ManifestFormat};
use super::json_file;
use super::media_type::IMAGE_INDEX;
use super::platform::Platform;
use super::spec::ImageSpec;
use crate::digest::{DiffId, Digest};
use crate::store::Store;

/// The only version of the index spec. A reader refuses all others.
const VERSION: u32 = 1;
/// The name of the format, for messages.
pub(super) const INDEX_SPEC: &str = "an index spec";

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

/// An index spec: image specs by their files. Written as `index.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSpec {
    version: u32,
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    annotations: Annotations,
    images: Vec<IndexEntry>,
}

/// An entry of an index: one image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// The file with the image spec.
    pub spec: PathBuf,
    /// The annotations of the entry.
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
}

impl IndexSpec {
    /// Builds an index spec of annotations and images.
    pub fn new(annotations: Annotations, images: Vec<IndexEntry>) -> Self {
        Self { version: VERSION, annotations, images }
    }

    /// Reads and checks `index.json`.
    ///
    /// # Errors
    /// Fails with [`Error::Read`], [`Error::Json`] or [`Error::IndexVersion`].
    pub fn read(file: &Path) -> Result<Self, Error> {
        json_file::read::<Self>(file, INDEX_SPEC)?.checked(file)
    }

    /// Checks the version of an index spec that was read from `file`.
    pub(super) fn checked(self, file: &Path) -> Result<Self, Error> {
        if self.version == VERSION {
            return Ok(self);
        }
        Err(Error::IndexVersion { file: file.to_owned(), version: self.version })
    }

    /// Returns the files of the image specs.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.images.iter().map(|image| &*image.spec)
    }

    /// Returns the bytes of the file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("an index spec is JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the images.
    ///
    /// # Errors
    /// Fails with [`Error::EmptyIndex`] if there are no images, with [`Error::SamePlatform`] if two
    /// are for one platform, or if an image spec can't be read.
    pub fn load(self, store: &Store) -> Result<Artifact, Error> {
        self.load_parts(store, ReadParts::Outline)
    }

    pub(super) fn load_parts(self, store: &Store, parts: ReadParts) -> Result<Artifact, Error> {
        let image = |file: &Path| {
            let spec = ArtifactFile::open(store, &store.locate(file))?.image_spec(parts)?;
            Ok(Arc::new(spec))
        };
        let images = self.files().map(image).collect::<Result<Vec<_>, Error>>()?;
        self.check_platforms(images.iter().map(|image| image.platform()))?;
        let entries = self.images.into_iter().map(|entry| entry.annotations).collect();
        Ok(Artifact { images, index: Some(Index { annotations: self.annotations, entries }) })
    }

    /// Returns the file of the image for an architecture. Keeps nothing of the other images in
    /// memory.
    ///
    /// # Errors
    /// Fails with [`Error::NoSuchPlatform`] if no image is for the architecture, and with the errors
    /// of [`IndexSpec::load`].
    pub(super) fn file_for(
        &self,
        store: &Store,
        architecture: &Architecture,
    ) -> Result<&Path, Error> {
        let platform = |file| ArtifactFile::open(store, &store.locate(file))?.platform();
        let platforms = self.files().map(platform).collect::<Result<Vec<_>, Error>>()?;
        self.check_platforms(platforms.iter().cloned())?;
        let wanted = Platform::linux(architecture);
        let found = self.files().zip(&platforms).find(|(_, platform)| platform.is(&wanted));
        let (file, _) = found.ok_or_else(|| no_such_platform(&wanted, platforms.iter()))?;
        Ok(file)
    }

    /// Checks that there are images, of the given platforms, and no two for the same one.
    fn check_platforms(&self, platforms: impl Iterator<Item = Platform>) -> Result<(), Error> {
        let mut seen = BTreeMap::new();
        for (platform, file) in platforms.zip(self.files()) {
            let name = platform.to_string();
            if let Some(first) = seen.insert(platform, file) {
                let (first, second) = (first.to_owned(), file.to_owned());
                return Err(Error::SamePlatform { platform: name, first, second });
            }
        }
        if seen.is_empty() { Err(Error::EmptyIndex) } else { Ok(()) }
    }
}

fn no_such_platform(wanted: &Platform, there: impl Iterator<Item = impl Display>) -> Error {
    Error::NoSuchPlatform {
        wanted: wanted.to_string(),
        there: there.map(|platform| platform.to_string()).collect(),
    }
}

impl From<ImageSpec> for Artifact {
    fn from(spec: ImageSpec) -> Self {
        Self { images: vec![Arc::new(spec)], index: None }
    }
}

impl Artifact {
    /// Reads an image spec or an index spec: `file` itself, or the one that a script names.
    ///
    /// # Errors
    /// Fails with [`Error::Read`], [`Error::NotSpec`], [`Error::Json`], and those of
    /// [`IndexSpec::load`].
    pub fn read(store: &Store, file: &Path) -> Result<Self, Error> {
        ArtifactFile::open(store, file)?.parse(store, ReadParts::Outline)
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
        self.images
            .iter()
            .find(wanted)
            .ok_or_else(|| no_such_platform(&Platform::linux(architecture), self.platforms()))
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
