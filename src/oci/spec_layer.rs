//! One layer of an image spec.
//! Stage: oci. Input: JSON. Output: [`SpecLayer`].

use serde::{Deserialize, Serialize, Serializer};

use super::blob::LayerBlob;
use super::stored::StoredBlob;
use crate::digest::{Checksum, DiffId};
use crate::layer::{Layer, LayerContents};
use crate::store::StorePath;

/// image-spec, layer.md: a tar that is not compressed.
pub const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// One layer of an image spec.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SpecLayerJson")]
pub struct SpecLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub size: u64,
    /// Checksum of the uncompressed tar: none if others made it, or an earlier version wrote
    /// the spec.
    pub checksum: Option<Checksum>,
    /// Where its bytes are from.
    pub source: LayerSource,
    /// What it is when it is compressed, if the image's author wants that.
    pub compressed: Option<LayerBlob>,
}

/// Where a layer's bytes are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerSource {
    /// They are made whenever they are asked for, of this.
    Made(LayerContents),
    /// They were made of this once, and are in a file since then.
    Kept(LayerContents, StoredBlob),
    /// They are in a file, and nobody here made it: a base image's.
    Stored(StoredBlob),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpecLayerJson {
    diff_id: DiffId,
    size: u64,
    #[serde(default)]
    checksum: Option<Checksum>,
    /// Of the bytes that `contents` makes.
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    contents: Option<LayerContents>,
    #[serde(default)]
    blob: Option<StoredBlob>,
    #[serde(default)]
    compressed: Option<LayerBlob>,
}

/// What is written of it, in the same order.
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
        }
        .serialize(serializer)
    }
}

impl TryFrom<SpecLayerJson> for SpecLayer {
    type Error = String;

    fn try_from(json: SpecLayerJson) -> Result<Self, String> {
        let SpecLayerJson { diff_id, size, checksum, media_type, contents, blob, compressed } =
            json;
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
        Ok(Self { diff_id, size, checksum, source, compressed })
    }
}

impl SpecLayer {
    /// What it is made of; none for a base image's.
    pub fn contents(&self) -> Option<&LayerContents> {
        match &self.source {
            LayerSource::Made(contents) | LayerSource::Kept(contents, _) => Some(contents),
            LayerSource::Stored(_) => None,
        }
    }

    /// The blob that it is kept as, if it is.
    pub fn stored(&self) -> Option<&StoredBlob> {
        match &self.source {
            LayerSource::Made(_) => None,
            LayerSource::Kept(_, blob) | LayerSource::Stored(blob) => Some(blob),
        }
    }

    /// The store paths that it is made of; none for a base image's.
    pub fn sources(&self) -> impl Iterator<Item = &StorePath> {
        self.contents().into_iter().flat_map(LayerContents::sources)
    }

    /// What is in it, for messages: names of store paths, or the file that it is in.
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
        Self { diff_id, size, checksum, source, compressed: None }
    }
}
