//! What is copied: one image, or several for different platforms with their index.
//! Stage: oci. Input: the JSON of an image spec or an index spec. Output: [`Artifact`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::Descriptor;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Error;
use super::architecture::Architecture;
use super::blob::{Form, LayerBlob};
use super::image::{Blob, Image, ManifestFormat};
use super::json_file;
use super::spec::ImageSpec;
use crate::digest::DiffId;
use crate::store::Store;

/// The one version of the index spec there is. A reader refuses all others.
const VERSION: u32 = 1;
/// image-spec, image-index.md.
const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// Annotations by key (image-spec, annotations.md).
pub type Annotations = BTreeMap<String, String>;

/// Images, and what makes them one thing.
#[derive(Clone, Debug)]
pub struct Artifact {
    images: Vec<Arc<ImageSpec>>,
    index: Option<Index>,
}

#[derive(Clone, Debug)]
struct Index {
    annotations: Annotations,
    /// Of each image's entry.
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

/// One image of an index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// The file with its image spec.
    pub spec: PathBuf,
    /// What the index says of it.
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
}

impl IndexSpec {
    /// Of images and annotations.
    pub fn new(annotations: Annotations, images: Vec<IndexEntry>) -> Self {
        Self { version: VERSION, annotations, images }
    }

    /// The bytes of its file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("an index spec is JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the images.
    ///
    /// # Errors
    /// [`Error::EmptyIndex`], [`Error::SamePlatform`], or whatever keeps one from being read.
    pub fn load(self, store: &Store) -> Result<Artifact, Error> {
        let mut images: Vec<Arc<ImageSpec>> = Vec::new();
        let mut entries = Vec::new();
        for IndexEntry { spec: file, annotations } in &self.images {
            let spec = ImageSpec::read_outline(&store.locate(file))?;
            if let Some(other) = images.iter().position(|image| platform(image) == platform(&spec))
            {
                return Err(Error::SamePlatform {
                    platform: platform(&spec),
                    first: self.images[other].spec.clone(),
                    second: file.clone(),
                });
            }
            images.push(Arc::new(spec));
            entries.push(annotations.clone());
        }
        if images.is_empty() {
            return Err(Error::EmptyIndex);
        }
        Ok(Artifact { images, index: Some(Index { annotations: self.annotations, entries }) })
    }
}

/// `linux/arm/v7`, as engines print it.
fn platform(spec: &ImageSpec) -> String {
    let variant = spec.variant.as_ref().map(|variant| format!("/{variant}"));
    format!("linux/{}{}", spec.architecture, variant.unwrap_or_default())
}

/// What can be read twice: a file, or all that came out of a pipe.
enum Rereadable {
    File(File),
    Bytes(Cursor<Vec<u8>>),
}

impl Rereadable {
    fn open(file: &Path) -> io::Result<Self> {
        let mut open = File::open(file)?;
        if open.metadata()?.is_file() {
            return Ok(Self::File(open));
        }
        let mut bytes = Vec::new();
        open.read_to_end(&mut bytes)?;
        Ok(Self::Bytes(Cursor::new(bytes)))
    }

    fn rewind(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.rewind(),
            Self::Bytes(bytes) => bytes.rewind(),
        }
    }
}

impl Read for Rereadable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Bytes(bytes) => bytes.read(buffer),
        }
    }
}

impl From<ImageSpec> for Artifact {
    fn from(spec: ImageSpec) -> Self {
        Self { images: vec![Arc::new(spec)], index: None }
    }
}

impl Artifact {
    /// Reads an image spec or an index spec, whichever the file holds.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Json`], and those of [`IndexSpec::load`].
    pub fn read(store: &Store, file: &Path) -> Result<Self, Error> {
        let mut open = Rereadable::open(file)
            .map_err(|source| Error::Read { file: file.to_owned(), source })?;
        // Only an index has images in it.
        let is_index = json_file::read_from::<BTreeMap<String, IgnoredAny>>(&mut open, file, "")
            .is_ok_and(|json| json.contains_key("images"));
        open.rewind().map_err(|source| Error::Read { file: file.to_owned(), source })?;
        if !is_index {
            return ImageSpec::read_outline_from(open, file).map(Self::from);
        }
        let spec: IndexSpec = json_file::read_from(open, file, "an index spec")?;
        if spec.version != VERSION {
            return Err(Error::IndexVersion { file: file.to_owned(), version: spec.version });
        }
        spec.load(store)
    }

    /// Whether it is several images with their index, or made like that.
    pub fn is_index(&self) -> bool {
        self.index.is_some()
    }

    /// The images.
    pub fn images(&self) -> &[Arc<ImageSpec>] {
        &self.images
    }

    /// The one image that there is, or the one for an architecture.
    ///
    /// # Errors
    /// [`Error::NoSuchPlatform`].
    pub fn image_for(&self, architecture: &Architecture) -> Result<&Arc<ImageSpec>, Error> {
        if self.index.is_none() {
            return Ok(&self.images[0]);
        }
        let wanted = |image: &&Arc<ImageSpec>| image.architecture == *architecture;
        self.images.iter().find(wanted).ok_or_else(|| Error::NoSuchPlatform {
            wanted: format!("linux/{architecture}"),
            there: self.images.iter().map(|image| platform(image)).collect(),
        })
    }

    /// The same images, of layers that are these blobs when they are compressed.
    #[must_use]
    pub fn with_compressed(&self, blobs: &BTreeMap<DiffId, LayerBlob>) -> Self {
        let with_compressed = |image: &Arc<ImageSpec>| {
            let mut image = ImageSpec::clone(image);
            for layer in &mut image.layers {
                let blob = blobs.get(&layer.diff_id).filter(|_| layer.contents().is_some());
                layer.compressed = blob.copied().or(layer.compressed);
            }
            Arc::new(image)
        };
        Self {
            images: self.images.iter().map(with_compressed).collect(),
            index: self.index.clone(),
        }
    }

    /// The documents that make it whole.
    pub fn documents(&self, form: Form, format: ManifestFormat) -> Documents {
        let images: Vec<_> =
            self.images.iter().map(|spec| Image::in_form(spec, form, format)).collect();
        let index = self.index.as_ref().map(|index| self.index_document(index, &images));
        Documents { images, index }
    }

    /// image-spec, image-index.md.
    fn index_document(&self, index: &Index, images: &[Image]) -> Blob {
        let entries = self.images.iter().zip(images).zip(&index.entries);
        let entries = entries.map(|((spec, image), annotations)| {
            let mut entry = serde_json::to_value(image.descriptor()).expect("a descriptor is JSON");
            entry["platform"] = json!({ "architecture": spec.architecture, "os": "linux" });
            if let Some(variant) = &spec.variant {
                entry["platform"]["variant"] = json!(variant);
            }
            annotated(entry, annotations)
        });
        let document = json!({
            "schemaVersion": 2,
            "mediaType": INDEX_MEDIA_TYPE,
            "manifests": entries.collect::<Vec<_>>(),
        });
        Blob::json(&annotated(document, &index.annotations))
    }
}

fn annotated(mut document: Value, annotations: &Annotations) -> Value {
    if !annotations.is_empty() {
        document["annotations"] = json!(annotations);
    }
    document
}

/// Manifests and configurations, and the index if there is one.
#[derive(Clone, Debug)]
pub struct Documents {
    /// Of each image.
    pub images: Vec<Image>,
    /// The index of these.
    pub index: Option<Blob>,
}

impl From<Image> for Documents {
    fn from(image: Image) -> Self {
        Self { images: vec![image], index: None }
    }
}

impl Documents {
    /// All of them, what is named before what names it.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.images.iter().flat_map(|image| [&image.config, &image.manifest]).chain(&self.index)
    }

    /// The one that names all others.
    pub fn top(&self) -> &Blob {
        self.index.as_ref().unwrap_or(&self.images[0].manifest)
    }

    /// Names that one in another index.
    pub fn descriptor(&self) -> Descriptor {
        match &self.index {
            Some(index) => index.descriptor(INDEX_MEDIA_TYPE.into()),
            None => self.images[0].descriptor(),
        }
    }

    /// What stands for it in an account: an image's ID, or an index's digest.
    pub fn id(&self) -> String {
        match &self.index {
            Some(index) => index.digest.to_string(),
            None => self.images[0].id().to_string(),
        }
    }
}
