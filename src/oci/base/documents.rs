//! Checks the documents of a base image, as far as they are needed.
//! Stage: oci (pure). Input: JSON. Output: descriptors and platforms.
//!
//! [`ForeignDocument`] and [`ForeignConfig`] parse the documents. The rules here are stricter than
//! theirs: a field that is needed must be valid before any part of the document is used.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::error::Problem;
use crate::digest::{BlobDigest, DiffId, Digest};
use crate::oci::foreign_document::{ForeignConfig, ForeignDocument};
use crate::oci::media_type::{IMAGE_CONFIG, IMAGE_INDEX, IMAGE_MANIFEST};
use crate::oci::platform::Platform;
use crate::oci::unpack::parse_json;

/// A descriptor of other bytes (image-spec, descriptor.md; Docker's own is the same).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the bytes.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: BlobDigest,
    /// The number of the bytes.
    pub size: u64,
    /// The platform of an image in an index.
    pub platform: Option<Platform>,
    /// The type of an entry of an index that is not an image, such as a list of packages or a
    /// signature.
    pub artifact_type: Option<String>,
    /// The annotations: of an entry of an index, some are names of the image; of a layer, some say
    /// where its table of contents is.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A manifest, or an index of several. Docker's schema 2 and OCI's manifests have the same shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// The configuration of an image.
    pub config: Option<Descriptor>,
    /// The layers of an image, from the bottom up.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifests of an index.
    pub manifests: Option<Vec<Descriptor>>,
    /// The image that an attached artifact, such as a signature, belongs to.
    pub subject: Option<IgnoredAny>,
}

/// An entry of a docker-archive's `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    /// The name of the configuration's file.
    pub config: String,
    /// The names of the layers' files, from the bottom up.
    #[serde(default)]
    pub layers: Vec<String>,
    /// The names of the image. Docker writes null if there are none.
    pub repo_tags: Option<Vec<String>>,
}

/// The media types of image configurations.
const CONFIGURATIONS: [&str; 2] = [IMAGE_CONFIG, "application/vnd.docker.container.image.v1+json"];

/// The media types of manifests and of their indexes.
const MANIFESTS: [&str; 4] = [
    IMAGE_MANIFEST,
    IMAGE_INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// The keys of annotations that name an image in its layout: image-spec's, and containerd's, which
/// Docker writes as well.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

impl Descriptor {
    /// Returns whether an index marks this entry as something other than an image or an index.
    pub fn is_something_else(&self) -> bool {
        self.artifact_type.is_some()
            || !(self.media_type.is_empty() || MANIFESTS.contains(&&self.media_type[..]))
    }

    /// Returns the names that the image has in its layout.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        NAMES.iter().filter_map(|key| Some(&**self.annotations.as_ref()?.get(*key)?))
    }

    /// Checks that bytes have the digest of this descriptor.
    ///
    /// # Errors
    /// Fails with [`Problem::Mismatch`] if they do not.
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

/// Parses a document that is neither a manifest nor a configuration.
///
/// # Errors
/// Fails with [`Problem::Document`], which names the document, if it is not valid.
pub fn parse<T: DeserializeOwned>(
    name: &str,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, Problem> {
    parse_json(bytes).map_err(|reason| Problem::Document { name: name.to_owned(), what, reason })
}

impl ImageManifest {
    /// Parses a manifest or an index.
    ///
    /// # Errors
    /// Fails with [`Problem::Document`] if it is not valid, or has schema 1.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problem> {
        const WHAT: &str = "image manifest";
        let error =
            |reason: String| Problem::Document { name: name.to_owned(), what: WHAT, reason };
        let document = ForeignDocument::parse(bytes).map_err(error)?;
        // Check this first: schema 1 has another shape.
        match document.schema_version() {
            Some(2) => {}
            Some(version) => {
                return Err(error(format!("schema version {version} is not supported")));
            }
            None => return Err(error("it has no `schemaVersion`".to_owned())),
        }
        document.checked().map_err(error)
    }

    /// Returns whether this is an image, or an index that may have images: an artifact that is
    /// attached to an image is neither.
    pub fn may_be_image(&self) -> bool {
        self.subject.is_none() && (self.manifests.is_some() || self.configuration("").is_ok())
    }

    /// Returns the configuration's descriptor, if this is the manifest of an image.
    ///
    /// # Errors
    /// Fails with [`Problem::Document`] if it is the manifest of something else.
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

/// The parts of an image configuration that are needed.
pub struct Configuration {
    /// The platform of the image.
    pub platform: Platform,
    /// The digests of the uncompressed layers, from the bottom up.
    pub diff_ids: Vec<DiffId>,
    /// The whole document.
    pub document: Value,
}

impl Configuration {
    /// Parses an image configuration (image-spec, config.md).
    ///
    /// # Errors
    /// Fails with [`Problem::Document`] if it is not valid.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Json {
            #[serde(flatten)]
            platform: Platform,
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            // Docker writes null for an image without layers.
            diff_ids: Option<Vec<DiffId>>,
        }
        const WHAT: &str = "image configuration";
        let error = |reason| Problem::Document { name: name.to_owned(), what: WHAT, reason };
        let document = ForeignConfig::parse(bytes).map_err(error)?;
        let Json { platform, rootfs } = document.checked().map_err(error)?;
        let diff_ids = rootfs.diff_ids.unwrap_or_default();
        Ok(Self { platform, diff_ids, document: document.into_value() })
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
            let problem = ImageManifest::parse("m", manifest.to_string().as_bytes())
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
