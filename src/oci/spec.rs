//! The image spec: what a build leaves behind in place of layers.
//! Stage: oci. Input: JSON. Output: [`ImageSpec`].

use std::io::{self, Read, Write};
use std::path::Path;

use oci_spec::image::History;
use serde::{Deserialize, Serialize, Serializer};

use super::Error;
use super::blob::LayerBlob;
use super::config::ContainerConfig;
use super::json_file;
use super::options::{Architecture, Created};
use super::sources::{self, SourceInfo};
use super::stored::StoredBlob;
use crate::digest::DiffId;
use crate::layer::{Layer, LayerContents};
use crate::store::StorePath;

/// The one version of the format there is. A reader refuses all others. It goes up as well
/// when layers that are made of the same come to have other bytes: digests would be wrong.
const VERSION: u32 = 1;
/// image-spec, layer.md: a tar that is not compressed.
pub const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// Everything about an image but its name: any of its bytes can be made from this
/// and the store. Written as `image.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ImageSpecJson")]
pub struct ImageSpec {
    /// What its programs run on.
    pub architecture: Architecture,
    /// Which of the architecture's variants, if the base image says it.
    pub variant: Option<String>,
    /// When it was made, by its own account.
    pub created: Created,
    /// How its container runs.
    pub config: ContainerConfig,
    /// One entry a layer, from the bottom up.
    pub history: Vec<History>,
    /// The layers from the bottom up.
    pub layers: Vec<SpecLayer>,
    /// What Nix registered of every store path that a layer is made of, sorted by path.
    pub sources: Vec<SourceInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ImageSpecJson {
    version: u32,
    platform: PlatformJson,
    created: Created,
    // It may have keys of a base image that this program doesn't know.
    #[serde(deserialize_with = "ContainerConfig::deserialize_any_keys")]
    config: ContainerConfig,
    history: Vec<History>,
    layers: Vec<SpecLayer>,
    #[serde(deserialize_with = "sources::deserialize")]
    store_paths: Vec<SourceInfo>,
}

/// What is written of it, in the same order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageSpecOut<'s> {
    version: u32,
    platform: PlatformJson,
    created: &'s Created,
    config: &'s ContainerConfig,
    history: &'s [History],
    layers: &'s [SpecLayer],
    store_paths: &'s [SourceInfo],
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PlatformJson {
    architecture: Architecture,
    os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

/// For messages.
const WHAT: &str = "an image spec";
/// Containers of Nix packages are Linux containers.
const OS: &str = "linux";

/// One layer of an image spec.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SpecLayerJson")]
pub struct SpecLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub size: u64,
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
        let SpecLayerJson { diff_id, size, media_type, contents, blob, compressed } = json;
        let source = match (contents, blob) {
            (Some(contents), None) => match media_type.as_deref() {
                Some(LAYER_MEDIA_TYPE) => LayerSource::Made(contents),
                Some(other) => return Err(format!("unknown `mediaType` `{other}`")),
                None => return Err("a layer with `contents` needs a `mediaType`".to_owned()),
            },
            (Some(contents), Some(blob)) => LayerSource::Kept(contents, blob),
            (None, Some(blob)) => LayerSource::Stored(blob),
            (None, None) => return Err("a layer has `contents` or a `blob`".to_owned()),
        };
        let made_from_stored = matches!(source, LayerSource::Stored(_)) && compressed.is_some();
        if made_from_stored || compressed.is_some_and(|blob| blob.media_type.compression.is_none())
        {
            return Err(
                "`compressed` is for layers that are made here, and by a compressor".to_owned()
            );
        }
        Ok(Self { diff_id, size, source, compressed })
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

    /// Has its store paths in the memory of those that sources have, which are sorted.
    fn share_paths(&mut self, sources: &[SourceInfo]) {
        let (LayerSource::Made(contents) | LayerSource::Kept(contents, _)) = &mut self.source
        else {
            return;
        };
        let shared = |path: StorePath| {
            let place = sources.binary_search_by(|info| info.path.cmp(&path));
            place.map_or(path, |place| sources[place].path.clone())
        };
        let own = std::mem::take(&mut contents.store_paths);
        contents.store_paths = own.into_iter().map(shared).collect();
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

impl From<Layer> for SpecLayer {
    fn from(layer: Layer) -> Self {
        let Layer { contents, diff_id, size } = layer;
        Self { diff_id, size, source: LayerSource::Made(contents), compressed: None }
    }
}

impl Serialize for ImageSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { architecture, variant, created, config, history, layers, sources } = self;
        let (architecture, variant) = (architecture.clone(), variant.clone());
        let platform = PlatformJson { architecture, os: OS.to_owned(), variant };
        let store_paths = sources;
        ImageSpecOut { version: VERSION, platform, created, config, history, layers, store_paths }
            .serialize(serializer)
    }
}

impl TryFrom<ImageSpecJson> for ImageSpec {
    type Error = String;

    fn try_from(json: ImageSpecJson) -> Result<Self, String> {
        let ImageSpecJson {
            version,
            platform,
            created,
            config,
            history,
            mut layers,
            store_paths: sources,
        } = json;
        if version != VERSION {
            return Err(format!(
                "version {version} of the format, where this program knows {VERSION}"
            ));
        }
        if platform.os != OS {
            return Err(format!("`platform.os` is `{}`, not `{OS}`", platform.os));
        }
        let described =
            history.iter().filter(|entry| !entry.empty_layer().unwrap_or(false)).count();
        if described != layers.len() {
            return Err(format!("{described} entries in `history` for {} layers", layers.len()));
        }
        let PlatformJson { architecture, variant, .. } = platform;
        layers.iter_mut().for_each(|layer| layer.share_paths(&sources));
        Ok(Self { architecture, variant, created, config, history, layers, sources })
    }
}

impl ImageSpec {
    /// Reads and checks `image.json`.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Json`].
    pub fn read(file: &Path) -> Result<Self, Error> {
        json_file::read(file, WHAT)
    }

    /// [`ImageSpec::read`] for a file that is open.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Json`].
    pub(super) fn read_from(open: impl Read, file: &Path) -> Result<Self, Error> {
        json_file::read_from(open, file, WHAT)
    }

    /// Writes `image.json`: the same bytes for the same spec.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: impl Write) -> io::Result<()> {
        json_file::write(self, out)
    }

    /// The bytes of `image.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_json(&mut bytes).expect("an image spec is JSON");
        bytes
    }

    /// Bytes of all layers, uncompressed.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// What Nix registered of a store path of this image.
    pub fn source(&self, path: &StorePath) -> Option<&SourceInfo> {
        self.sources.binary_search_by(|info| info.path.cmp(path)).ok().map(|at| &self.sources[at])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn minimal() -> Value {
        json!({
            "version": 1,
            "platform": {"architecture": "amd64", "os": "linux"},
            "created": "1970-01-01T00:00:01Z",
            "config": {},
            "history": [{"created_by": "stowage"}],
            "layers": [{
                "diffId": format!("sha256:{}", "0".repeat(64)),
                "size": 1024,
                "mediaType": LAYER_MEDIA_TYPE,
                "contents": {"storePaths": ["/nix/store/00000000000000000000000000000000-a"]},
            }],
            "storePaths": [],
        })
    }

    fn on_a_base() -> Value {
        let mut json = minimal();
        let digest = format!("sha256:{}", "1".repeat(64));
        json["platform"]["variant"] = "v7".into();
        json["config"] = json!({"x-Key": null});
        json["layers"][0] = json!({
            "diffId": digest,
            "size": 2048,
            "blob": {
                "file": "/nix/store/00000000000000000000000000000000-base.tar.gz",
                "offset": 512,
                "archive": "gzip",
                "digest": digest,
                "size": 1000,
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            },
        });
        json
    }

    #[test]
    fn writes_what_it_reads() {
        for json in [minimal(), on_a_base()] {
            let spec: ImageSpec = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&spec.to_json()).unwrap(), json);
        }
    }

    #[test]
    fn refuses_blobs_that_it_would_misread() {
        for (pointer, value, message) in [
            ("/layers/0/blob/mediaType", json!("text/plain"), "text/plain"),
            ("/layers/0/blob/archive", json!("xz"), "xz"),
            ("/layers/0/blob", json!(null), "`contents` or a `blob`"),
        ] {
            let mut json = on_a_base();
            *json.pointer_mut(pointer).unwrap() = value;
            let error = serde_json::from_value::<ImageSpec>(json).unwrap_err().to_string();
            assert!(error.contains(message), "{pointer}: {error}");
        }
    }

    #[test]
    fn refuses_what_it_would_misread() {
        for (why, pointer, value, message) in [
            ("a newer format", "/version", json!(2), "version 2"),
            ("another system", "/platform/os", json!("windows"), "windows"),
            (
                "history for another image",
                "/history",
                json!([]),
                "0 entries in `history` for 1 layers",
            ),
            ("an empty layer's history", "/history/0/empty_layer", json!(true), "0 entries"),
            ("compressed layers", "/layers/0/mediaType", json!("x+gzip"), "x+gzip"),
            ("no digest", "/layers/0/diffId", json!("sha256:0"), "is not a digest"),
            (
                "a path below a store path",
                "/layers/0/contents/storePaths/0",
                json!("/nix/store/a/b"),
                "/nix/store/a/b",
            ),
        ] {
            let mut json = minimal();
            match json.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => json["history"][0]["empty_layer"] = value,
            }
            let error = serde_json::from_value::<ImageSpec>(json).unwrap_err().to_string();
            assert!(error.contains(message), "{why}: {error}");
        }
    }
}
