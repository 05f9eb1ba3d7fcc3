//! The image spec: the file that a build leaves in place of layers.
//! Stage: oci. Input: JSON. Output: [`ImageSpec`].

use std::io::{self, Write};
use std::path::Path;

use oci_spec::image::History;
use serde::{Deserialize, Serialize, Serializer};

use super::Error;
use super::annotations::Annotations;
use super::architecture::Architecture;
use super::config::ContainerConfig;
use super::created::Created;
use super::json_file;
use super::platform::{LINUX, Platform};
use super::recognise::{named, spec_file};
use super::sources::{NarSize, SourceInfo, WithoutReferences};
use super::spec_layer::SpecLayer;
use crate::store::StorePath;

/// The only version of the format. A reader refuses all others. The version must also be increased
/// when layers with the same contents get other bytes: the recorded digests would be wrong.
const VERSION: u32 = 1;

/// A complete description of an image except for its name: any of its bytes can be made from this
/// and the store. Written as `image.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ImageSpecJson<SpecLayer, SourceInfo>")]
pub struct ImageSpec {
    /// The architecture of the image's programs.
    pub architecture: Architecture,
    /// The variant of the architecture, if the base image has one.
    pub variant: Option<String>,
    /// The creation time that the image has.
    pub created: Created,
    /// The way in which the container runs.
    pub config: ContainerConfig,
    /// The annotations of its OCI manifest.
    pub annotations: Annotations,
    /// The history: one entry for each layer, from the bottom up.
    pub history: Vec<History>,
    /// The layers from the bottom up.
    pub layers: Vec<SpecLayer>,
    /// The information that Nix registered about every store path from which a layer is made,
    /// sorted by path.
    pub sources: Vec<SourceInfo>,
}

/// The JSON of an image spec. `L` and `S` are the parts of a layer and of a store path that the
/// caller needs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ImageSpecJson<L, S> {
    version: u32,
    platform: PlatformJson,
    created: Created,
    // The config may have keys of a base image that this program does not know.
    #[serde(deserialize_with = "ContainerConfig::deserialize_any_keys")]
    config: ContainerConfig,
    #[serde(default)]
    annotations: Annotations,
    history: Vec<History>,
    pub layers: Vec<L>,
    pub store_paths: Vec<S>,
}

/// An image spec whose store paths have no references.
#[derive(Deserialize)]
#[serde(try_from = "ImageSpecJson<SpecLayer, WithoutReferences>")]
pub(super) struct Outline(pub ImageSpec);

impl TryFrom<ImageSpecJson<SpecLayer, WithoutReferences>> for Outline {
    type Error = String;

    fn try_from(json: ImageSpecJson<SpecLayer, WithoutReferences>) -> Result<Self, String> {
        ImageSpec::try_from(json).map(Self)
    }
}

/// An image spec without the information about store paths: enough for documents and layers.
#[derive(Deserialize)]
#[serde(try_from = "ImageSpecJson<SpecLayer, NarSize>")]
pub(super) struct ForLayers(pub ImageSpec);

impl TryFrom<ImageSpecJson<SpecLayer, NarSize>> for ForLayers {
    type Error = String;

    fn try_from(json: ImageSpecJson<SpecLayer, NarSize>) -> Result<Self, String> {
        let (spec, sizes) = json.into_spec()?;
        check_sizes(sizes.into_iter().map(|NarSize(size)| size))?;
        Ok(Self(spec))
    }
}

/// The JSON as it is written, with the fields in the order of reading.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageSpecOut<'s> {
    version: u32,
    platform: PlatformJson,
    created: &'s Created,
    config: &'s ContainerConfig,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: &'s Annotations,
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

/// The name of the format, for messages.
pub(super) const WHAT: &str = "an image spec";

impl Serialize for ImageSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { architecture, variant, created, config, annotations, history, layers, sources } =
            self;
        let (architecture, variant) = (architecture.clone(), variant.clone());
        let platform = PlatformJson { architecture, os: LINUX.to_owned(), variant };
        let store_paths = sources;
        let version = VERSION;
        ImageSpecOut {
            version,
            platform,
            created,
            config,
            annotations,
            history,
            layers,
            store_paths,
        }
        .serialize(serializer)
    }
}

impl<L, S> ImageSpecJson<L, S> {
    /// Checks that this is an image spec of the supported version, and not only JSON with the same
    /// fields.
    pub fn checked(self) -> Result<Self, String> {
        let Self { version, platform, history, layers, .. } = &self;
        if *version != VERSION {
            return Err(format!(
                "version {version} of the format, where this program knows {VERSION}"
            ));
        }
        if platform.os != LINUX {
            return Err(format!("`platform.os` is `{}`, not `{LINUX}`", platform.os));
        }
        let described =
            history.iter().filter(|entry| !entry.empty_layer().unwrap_or(false)).count();
        if described != layers.len() {
            return Err(format!("{described} entries in `history` for {} layers", layers.len()));
        }
        Ok(self)
    }
}

/// Checks that all sizes together are possible on a machine. Then sums of sizes can't overflow,
/// even over several images.
fn check_sizes(mut sizes: impl Iterator<Item = u64>) -> Result<(), String> {
    const MOST: u64 = 1 << 56;
    let total = sizes.try_fold(0_u64, u64::checked_add);
    match total.filter(|total| *total <= MOST) {
        Some(_) => Ok(()),
        None => Err("the sizes are more than 2^56 bytes together, which no machine has".to_owned()),
    }
}

impl<S> ImageSpecJson<SpecLayer, S> {
    /// Checks the JSON. Returns the image spec without the information about store paths, and that
    /// information as it was read.
    fn into_spec(self) -> Result<(ImageSpec, Vec<S>), String> {
        let Self { platform, created, config, annotations, history, layers, store_paths, .. } =
            self.checked()?;
        let PlatformJson { architecture, variant, .. } = platform;
        check_sizes(layers.iter().flat_map(SpecLayer::sizes))?;
        let sources = Vec::new();
        let spec = ImageSpec {
            architecture,
            variant,
            created,
            config,
            annotations,
            history,
            layers,
            sources,
        };
        Ok((spec, store_paths))
    }
}

impl<S: Into<SourceInfo>> TryFrom<ImageSpecJson<SpecLayer, S>> for ImageSpec {
    type Error = String;

    fn try_from(json: ImageSpecJson<SpecLayer, S>) -> Result<Self, String> {
        let (spec, store_paths) = json.into_spec()?;
        let sources: Vec<SourceInfo> = store_paths.into_iter().map(Into::into).collect();
        check_sizes(sources.iter().map(|source| source.nar_size))?;
        Ok(Self { sources, ..spec })
    }
}

impl ImageSpec {
    /// Returns the platform that the image is for.
    pub fn platform(&self) -> Platform {
        Platform { variant: self.variant.clone(), ..Platform::linux(&self.architecture) }
    }

    /// Reads and checks `image.json`, or that of a script which streams the image.
    ///
    /// # Errors
    /// Fails with [`Error::Read`], [`Error::NotSpec`] or [`Error::Json`].
    pub fn read(file: &Path) -> Result<Self, Error> {
        json_file::read(&spec_file(file)?, WHAT).map_err(named)
    }

    /// Reads like [`ImageSpec::read`], but without the references of store paths, which are half of
    /// the file and do not affect the image.
    ///
    /// # Errors
    /// Fails with [`Error::Read`], [`Error::NotSpec`] or [`Error::Json`].
    pub fn read_outline(file: &Path) -> Result<Self, Error> {
        let read = json_file::read(&spec_file(file)?, WHAT).map(|Outline(spec)| spec);
        read.map_err(named)
    }

    /// Writes `image.json`. Equal specs give equal bytes.
    ///
    /// # Errors
    /// Returns the errors of `out`.
    pub fn write_json(&self, out: impl Write) -> io::Result<()> {
        json_file::write(self, out)
    }

    /// Returns the bytes of `image.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_json(&mut bytes).expect("an image spec is JSON");
        bytes
    }

    /// Returns the number of bytes of all layers, uncompressed.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Returns the information that Nix registered about a store path of this image.
    pub fn source(&self, path: &StorePath) -> Option<&SourceInfo> {
        self.sources.binary_search_by(|info| info.path.cmp(path)).ok().map(|at| &self.sources[at])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::spec_layer::LAYER_MEDIA_TYPE;
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

    #[test]
    fn sizes_are_those_of_a_machine() {
        let parse = |json: Value| {
            serde_json::from_value::<ImageSpec>(json).map_err(|error| error.to_string())
        };
        for (size, count, expected) in [
            (1_u64 << 49, 127, None),
            (
                1 << 50,
                127,
                Some("the sizes are more than 2^56 bytes together, which no machine has"),
            ),
            (1 << 63, 8, Some("the sizes are more than 2^56 bytes together, which no machine has")),
        ] {
            let mut json = minimal();
            json["layers"][0]["size"] = size.into();
            for key in ["layers", "history"] {
                json[key] = vec![json[key][0].clone(); count].into();
            }
            assert_eq!(parse(json).err().as_deref(), expected, "{count} of {size}");
        }
        let path = |digit: char| {
            json!({
                "path": format!("/nix/store/{}-a", digit.to_string().repeat(32)),
                "narHash": format!("sha256:{}", "0".repeat(52)),
                "narSize": u64::MAX / 2,
                "references": [],
            })
        };
        let mut json = minimal();
        json["storePaths"] = json!([path('0'), path('1'), path('2')]);
        assert!(parse(json).unwrap_err().contains("2^56"));
    }

    fn on_a_base() -> Value {
        let mut json = minimal();
        let digest = format!("sha256:{}", "1".repeat(64));
        json["platform"]["variant"] = "v7".into();
        json["config"] = json!({"x-Key": null});
        json["annotations"] = json!({"org.example.key": "", "a": "b"});
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
        for (key, value, message) in [
            ("checksum", json!(format!("xxh128:{}", "0".repeat(32))), "layers that are made here"),
            ("contents", json!({"storePaths": []}), "a layer that is kept is not compressed"),
        ] {
            let mut json = on_a_base();
            json["layers"][0][key] = value;
            let error = serde_json::from_value::<ImageSpec>(json).unwrap_err().to_string();
            assert!(error.contains(message), "{key}: {error}");
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
            ("an annotation that is no text", "/annotations", json!({"a": 1}), "expected a string"),
            (
                "a file without its digest",
                "/layers/0/compressedFile",
                json!("/nix/store/a"),
                "layers with `compressed`",
            ),
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
                None if pointer == "/annotations" => json["annotations"] = value,
                None if pointer.ends_with("compressedFile") => {
                    json["layers"][0]["compressedFile"] = value;
                }
                None => json["history"][0]["empty_layer"] = value,
            }
            let error = serde_json::from_value::<ImageSpec>(json).unwrap_err().to_string();
            assert!(error.contains(message), "{why}: {error}");
        }
    }
}
