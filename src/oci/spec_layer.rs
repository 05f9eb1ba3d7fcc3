//! A layer of an image spec, and the source of its bytes.
//! Stage: oci. Input: JSON. Output: [`SpecLayer`].

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::layer_blob::LayerBlob;
use super::stored::StoredBlob;
use crate::digest::{Checksum, DiffId};
use crate::layer::{Layer, LayerContents};
use crate::store::StorePath;

/// The media type of a tar that is not compressed (image-spec, layer.md).
pub const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer of an image spec.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SpecLayerJson")]
pub struct SpecLayer {
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The number of bytes of the uncompressed tar.
    pub size: u64,
    /// The checksum of the uncompressed tar; none if another program made the tar, or an earlier
    /// version wrote the spec.
    pub checksum: Option<Checksum>,
    /// The source of the layer's bytes.
    pub source: LayerSource,
    /// The compressed blob, if the image's author wants compression.
    pub compressed: Option<LayerBlob>,
    /// The file that has the compressed blob, if the build kept it (`keepCompressed`).
    pub compressed_file: Option<PathBuf>,
}

/// The source of a layer's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerSource {
    /// Contents from which the layer is made on demand.
    Made(LayerContents),
    /// Contents from which the layer was made once, and the file with the result (`reproducible =
    /// false`).
    Kept(LayerContents, StoredBlob),
    /// A file that another program made: a base image's layer.
    Stored(StoredBlob),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpecLayerJson {
    diff_id: DiffId,
    size: u64,
    #[serde(default)]
    checksum: Option<Checksum>,
    /// The media type of the bytes that are made from `contents`.
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    contents: Option<LayerContents>,
    #[serde(default)]
    blob: Option<StoredBlob>,
    #[serde(default)]
    compressed: Option<LayerBlob>,
    #[serde(default)]
    compressed_file: Option<PathBuf>,
}

/// The JSON as it is written, with the fields in the order of reading.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpecLayerOut<'s> {
    diff_id: DiffId,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contents: Option<&'s LayerContents>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blob: Option<&'s StoredBlob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compressed: Option<LayerBlob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compressed_file: Option<&'s Path>,
}

impl Serialize for SpecLayer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_made = matches!(self.source, LayerSource::Made(_));
        SpecLayerOut {
            diff_id: self.diff_id,
            size: self.size,
            checksum: self.checksum,
            media_type: is_made.then_some(LAYER_MEDIA_TYPE),
            contents: self.contents(),
            blob: self.stored(),
            compressed: self.compressed,
            compressed_file: self.compressed_file.as_deref(),
        }
        .serialize(serializer)
    }
}

impl TryFrom<SpecLayerJson> for SpecLayer {
    type Error = String;

    fn try_from(json: SpecLayerJson) -> Result<Self, String> {
        let SpecLayerJson { diff_id, size, checksum, media_type, contents, blob, .. } = json;
        let SpecLayerJson { compressed, compressed_file, .. } = json;
        let source = match (contents, blob) {
            (Some(contents), None) => match media_type.as_deref() {
                Some(LAYER_MEDIA_TYPE) => LayerSource::Made(contents),
                Some(other) => return Err(format!("unknown `mediaType` `{other}`")),
                None => return Err("a layer with `contents` needs a `mediaType`".to_owned()),
            },
            (Some(_), Some(blob)) if !blob.media_type.compression.is_none() => {
                return Err("a layer that is kept is not compressed".to_owned());
            }
            (Some(contents), Some(blob)) => LayerSource::Kept(contents, blob),
            (None, Some(blob)) => LayerSource::Stored(blob),
            (None, None) => return Err("a layer has `contents` or a `blob`".to_owned()),
        };
        if matches!(source, LayerSource::Stored(_)) && (checksum.is_some() || compressed.is_some())
        {
            return Err("`checksum` and `compressed` are for layers that are made here".to_owned());
        }
        if compressed.is_some_and(|blob| blob.media_type.compression.is_none()) {
            return Err("`compressed` is for layers that a compressor makes".to_owned());
        }
        if compressed_file.is_some() && compressed.is_none() {
            return Err("`compressedFile` is for layers with `compressed`".to_owned());
        }
        Ok(Self { diff_id, size, checksum, source, compressed, compressed_file })
    }
}

impl SpecLayer {
    /// Returns all sizes and offsets that the image spec has for this layer.
    pub fn sizes(&self) -> impl Iterator<Item = u64> {
        let stored = self.stored().into_iter().flat_map(|blob| [blob.offset, blob.size]);
        [self.size].into_iter().chain(stored).chain(self.compressed.map(|blob| blob.size))
    }

    /// Returns the contents that the layer is made from; none for a base image's layer.
    pub fn contents(&self) -> Option<&LayerContents> {
        match &self.source {
            LayerSource::Made(contents) | LayerSource::Kept(contents, _) => Some(contents),
            LayerSource::Stored(_) => None,
        }
    }

    /// Returns the blob that the layer is stored as, if it is stored.
    pub fn stored(&self) -> Option<&StoredBlob> {
        match &self.source {
            LayerSource::Made(_) => None,
            LayerSource::Kept(_, blob) | LayerSource::Stored(blob) => Some(blob),
        }
    }

    /// Returns the store paths that the layer is made from; none for a base image's layer.
    pub fn sources(&self) -> impl Iterator<Item = &StorePath> {
        self.contents().into_iter().flat_map(LayerContents::sources)
    }

    /// Describes the layer for messages: the names of its store paths, or its file.
    pub fn names(&self) -> String {
        match &self.source {
            LayerSource::Made(contents) | LayerSource::Kept(contents, _) => {
                contents.names().join(", ")
            }
            LayerSource::Stored(blob) => blob.file.display().to_string(),
        }
    }
}

impl From<(LayerContents, Layer)> for SpecLayer {
    fn from((contents, layer): (LayerContents, Layer)) -> Self {
        let Layer { diff_id, size, checksum } = layer;
        let (checksum, source) = (Some(checksum), LayerSource::Made(contents));
        Self { diff_id, size, checksum, source, compressed: None, compressed_file: None }
    }
}
