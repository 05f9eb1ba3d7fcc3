//! The documents of a base image, as far as they are read here.
//! Stage: oci (pure). Input: JSON. Output: descriptors and platforms.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::error::Problem;
use super::platform::Platform;
use crate::digest::{BlobDigest, DiffId, Digest};

/// Names other bytes (image-spec, descriptor.md; Docker's own are the same).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What they are.
    #[serde(default)]
    pub media_type: String,
    /// Of the bytes as they are.
    pub digest: BlobDigest,
    /// How many they are.
    pub size: u64,
    /// In an index: what the image runs on.
    pub platform: Option<Platform>,
    /// In an index: the type of what is no image, such as a list of packages or a signature.
    pub artifact_type: Option<String>,
    /// In an index: names of the image, among others.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A manifest, or an index of several: Docker's schema 2 and OCI's have the same shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Of an image: its configuration.
    pub config: Option<Descriptor>,
    /// Of an image: its layers, from the bottom up.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// Of an index: the manifests.
    pub manifests: Option<Vec<Descriptor>>,
    /// Of what is said about an image: that image's manifest.
    pub subject: Option<IgnoredAny>,
}

/// An entry of a docker-archive's `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    /// Name of the configuration's file.
    pub config: String,
    /// Names of the layers' files, from the bottom up.
    #[serde(default)]
    pub layers: Vec<String>,
    /// Names of the image. Docker writes null for none.
    pub repo_tags: Option<Vec<String>>,
}

/// Media types of image configurations.
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Media types of manifests and of their indexes.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Keys of annotations that name an image in its layout: image-spec's, and containerd's, which
/// Docker writes as well.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

impl Descriptor {
    /// Tells whether an index says by itself that this is no image and no index.
    pub fn is_something_else(&self) -> bool {
        self.artifact_type.is_some()
            || !(self.media_type.is_empty() || MANIFESTS.contains(&&self.media_type[..]))
    }

    /// Returns the names that the image has in its layout.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        NAMES.iter().filter_map(|key| Some(&**self.annotations.as_ref()?.get(*key)?))
    }

    /// That bytes are those that this names.
    ///
    /// # Errors
    /// [`Problem::Mismatch`].
    pub fn check(&self, name: &str, bytes: &[u8], by: &'static str) -> Result<(), Problem> {
        let found = BlobDigest::new(Digest::of(bytes));
        if found == self.digest {
            return Ok(());
        }
        let what = format!("`{name}`");
        let (expected, found) = (self.digest.to_string(), found.to_string());
        Err(Problem::Mismatch { what, expected, found, by })
    }
}

/// Parses a document.
///
/// # Errors
/// [`Problem::Document`], naming it.
pub fn parse<T: DeserializeOwned>(
    name: &str,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Problem::Document {
        name: name.to_owned(),
        what,
        reason: error.to_string(),
    })
}

impl Manifest {
    /// Parses a manifest or an index.
    ///
    /// # Errors
    /// [`Problem::Document`], also for those of schema 1.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problem> {
        const WHAT: &str = "image manifest";
        let error =
            |reason: String| Problem::Document { name: name.to_owned(), what: WHAT, reason };
        // Before the rest, which has another shape in schema 1.
        let value: Value = parse(name, WHAT, bytes)?;
        match value.get("schemaVersion").and_then(Value::as_u64) {
            Some(2) => {}
            Some(version) => {
                return Err(error(format!("schema version {version} is not supported")));
            }
            None => return Err(error("it has no `schemaVersion`".to_owned())),
        }
        serde_json::from_value(value).map_err(|source| error(source.to_string()))
    }

    /// Tells whether this is an image, or an index that may have some: not what is said about one.
    pub fn may_be_image(&self) -> bool {
        self.subject.is_none() && (self.manifests.is_some() || self.configuration("").is_ok())
    }

    /// The configuration's descriptor, of an image and nothing else.
    ///
    /// # Errors
    /// [`Problem::Document`].
    pub fn configuration(&self, name: &str) -> Result<&Descriptor, Problem> {
        let reason = match &self.config {
            Some(config) if CONFIGURATIONS.contains(&&config.media_type[..]) => return Ok(config),
            Some(config) => format!("its configuration is of the type `{}`", config.media_type),
            None => "it has no `config`".to_owned(),
        };
        Err(Problem::Document {
            name: name.to_owned(),
            what: "manifest of a container image",
            reason,
        })
    }
}

/// What must be known of an image configuration.
pub struct Configuration {
    /// What it runs on.
    pub platform: Platform,
    /// Digests of the uncompressed layers, from the bottom up.
    pub diff_ids: Vec<DiffId>,
    /// The whole document.
    pub document: Value,
}

impl Configuration {
    /// Parses an image configuration (image-spec, config.md).
    ///
    /// # Errors
    /// [`Problem::Document`].
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Json {
            #[serde(flatten)]
            platform: Platform,
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            // Docker's own has null for an image without layers.
            diff_ids: Option<Vec<DiffId>>,
        }
        const WHAT: &str = "image configuration";
        let Json { platform, rootfs } = parse(name, WHAT, bytes)?;
        let document = parse(name, WHAT, bytes)?;
        Ok(Self { platform, diff_ids: rootfs.diff_ids.unwrap_or_default(), document })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest() -> String {
        Digest::of(b"").to_string()
    }

    #[test]
    fn what_is_no_image_is_named() {
        let config =
            |media_type: &str| json!({"mediaType": media_type, "digest": digest(), "size": 0});
        for (manifest, message) in [
            (json!([]), "`m` is no image manifest: it has no `schemaVersion`"),
            (
                json!({"schemaVersion": 1, "fsLayers": []}),
                "`m` is no image manifest: schema version 1 is not supported",
            ),
            (
                json!({"schemaVersion": 2}),
                "`m` is no manifest of a container image: it has no `config`",
            ),
            (
                json!({"schemaVersion": 2, "config": config("application/vnd.cncf.helm.config.v1+json")}),
                "`m` is no manifest of a container image: its configuration is of the type `application/vnd.cncf.helm.config.v1+json`",
            ),
            (
                json!({"schemaVersion": 2, "layers": [{"digest": "sha512:00", "size": 1}]}),
                "`m` is no image manifest: `sha512:00` is not a digest: expected `sha256:` and 64 lower-case hex digits",
            ),
        ] {
            let problem = Manifest::parse("m", manifest.to_string().as_bytes())
                .and_then(|manifest| manifest.configuration("m").cloned())
                .unwrap_err();
            assert_eq!(problem.to_string(), message);
        }
    }

    #[test]
    fn configurations_have_a_platform_and_layers() {
        let parse = |json: Value| Configuration::parse("c", json.to_string().as_bytes());
        let platform = json!({"os": "linux", "architecture": "arm", "variant": "v7"});
        let mut whole = platform.clone();
        whole["rootfs"] = json!({"type": "layers", "diff_ids": [digest()]});
        let found = parse(whole.clone()).unwrap();
        assert_eq!(
            (found.platform.to_string(), found.diff_ids.len()),
            ("linux/arm/v7".to_owned(), 1)
        );
        assert_eq!(found.document, whole);
        whole["rootfs"]["diff_ids"] = json!(null);
        assert!(parse(whole).unwrap().diff_ids.is_empty());
        for incomplete in [platform, json!({"rootfs": {"diff_ids": []}})] {
            let problem = parse(incomplete).map(|_| ()).unwrap_err().to_string();
            assert!(
                problem.starts_with("`c` is no image configuration: missing field"),
                "{problem}"
            );
        }
    }
}
