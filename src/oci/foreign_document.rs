//! Reads manifests, indexes and configurations that other programs wrote, as far as they are valid.
//! Stage: oci (pure). Input: bytes. Output: typed fields.
//!
//! Each field is checked when it is asked for, so that a field which nothing needs may be anything.
//! `checked` is a second step for [`base`](super::base), which is stricter: it checks all fields of a
//! document before it uses any of them.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::platform::Platform;
use super::unpack::parse_json;
use crate::digest::{BlobDigest, DiffId, ParseDigestError};

/// A manifest or an index of manifests (image-spec, manifest.md and image-index.md; Docker's schema 2
/// has the same fields).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForeignDocument(Value);

impl ForeignDocument {
    /// Parses a document of any shape. The number of its bytes and of its values is limited.
    ///
    /// # Errors
    /// Fails with a message for the user if the bytes are not JSON, or too many.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        parse_json(bytes).map(Self)
    }

    /// Returns the whole document.
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// Checks all fields that `T` has, and returns them.
    ///
    /// # Errors
    /// Fails with a message for the user if a field is missing or not valid.
    pub fn checked<T: DeserializeOwned>(&self) -> Result<T, String> {
        checked(&self.0)
    }

    /// Returns the version of the document's shape, if it names one.
    pub fn schema_version(&self) -> Option<u64> {
        self.0["schemaVersion"].as_u64()
    }

    /// Returns the media type that the document names as its own. An index of OCI need not name one.
    pub fn media_type(&self) -> Option<&str> {
        self.0["mediaType"].as_str()
    }

    /// Returns the entries of an index, or `None` if this is no index.
    pub fn manifests(&self) -> Option<Vec<ForeignDescriptor<'_>>> {
        self.list("manifests")
    }

    /// Returns the layers from the bottom up, or `None` if this has no list of them.
    pub fn layers(&self) -> Option<Vec<ForeignDescriptor<'_>>> {
        self.list("layers")
    }

    /// Returns the configuration, or `None` if this has none.
    pub fn config(&self) -> Option<ForeignDescriptor<'_>> {
        Some(&self.0["config"]).filter(|config| config.is_object()).map(ForeignDescriptor)
    }

    fn list(&self, field: &str) -> Option<Vec<ForeignDescriptor<'_>>> {
        Some(self.0[field].as_array()?.iter().map(ForeignDescriptor).collect())
    }
}

/// A descriptor of other bytes (image-spec, descriptor.md).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForeignDescriptor<'d>(&'d Value);

impl<'d> ForeignDescriptor<'d> {
    /// Takes a descriptor from a list.
    pub fn of(descriptor: &'d Value) -> Self {
        Self(descriptor)
    }

    /// Returns the whole descriptor.
    pub fn as_value(self) -> &'d Value {
        self.0
    }

    /// Returns the media type; it is empty if the descriptor has none.
    pub fn media_type(self) -> &'d str {
        self.0["mediaType"].as_str().unwrap_or_default()
    }

    /// Returns the digest as it is written; it is empty if the descriptor has none.
    pub fn digest_text(self) -> &'d str {
        self.0["digest"].as_str().unwrap_or_default()
    }

    /// Returns the digest.
    ///
    /// # Errors
    /// Fails if the descriptor has none, or one of another algorithm.
    pub fn digest(self) -> Result<BlobDigest, ParseDigestError> {
        self.digest_text().parse()
    }

    /// Returns the number of the bytes, if the descriptor has it.
    pub fn size(self) -> Option<u64> {
        self.0["size"].as_u64()
    }

    /// Returns the platform of an image in an index, if the descriptor names one.
    pub fn platform(self) -> Option<Platform> {
        Platform::of(&self.0["platform"])
    }

    /// Returns the text of an annotation, if the descriptor has it.
    pub fn annotation(self, key: &str) -> Option<&'d str> {
        self.0["annotations"][key].as_str()
    }
}

/// The configuration of an image (image-spec, config.md).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForeignConfig(Value);

impl ForeignConfig {
    /// Parses a configuration of any shape. The number of its bytes and of its values is limited.
    ///
    /// # Errors
    /// Fails with a message for the user if the bytes are not JSON, or too many.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        parse_json(bytes).map(Self)
    }

    /// Checks all fields that `T` has, and returns them.
    ///
    /// # Errors
    /// Fails with a message for the user if a field is missing or not valid.
    pub fn checked<T: DeserializeOwned>(&self) -> Result<T, String> {
        checked(&self.0)
    }

    /// Returns the whole document.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// Returns the platform of the image, if the configuration names one.
    pub fn platform(&self) -> Option<Platform> {
        Platform::of(&self.0)
    }

    /// Returns the diff IDs of all layers, or `None` if one of them is not valid.
    pub fn diff_ids(&self) -> Option<Vec<DiffId>> {
        let diff_ids = self.0["rootfs"]["diff_ids"].as_array()?;
        diff_ids.iter().map(|diff_id| diff_id.as_str()?.parse().ok()).collect()
    }
}

fn checked<T: DeserializeOwned>(document: &Value) -> Result<T, String> {
    T::deserialize(document).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::digest::Digest;

    fn read(value: &Value) -> ForeignDocument {
        ForeignDocument::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn each_field_is_read_by_itself() {
        let digest = BlobDigest::new(Digest::of(b"x"));
        let manifest = read(&json!({
            "schemaVersion": "two",
            "mediaType": "application/x",
            "config": {"digest": digest, "size": -1},
            "layers": [
                {"digest": digest, "size": 3, "mediaType": "a/b", "annotations": {"k": "v", "n": 7}},
                {"digest": "sha512:00", "size": "3", "mediaType": 1, "annotations": null},
                7,
            ],
        }));
        assert_eq!(manifest.media_type(), Some("application/x"));
        assert_eq!(manifest.manifests(), None);
        let config = manifest.config().unwrap();
        assert_eq!((config.digest().unwrap(), config.size()), (digest, None));
        let layers = manifest.layers().unwrap();
        assert_eq!((layers[0].digest().unwrap(), layers[0].size()), (digest, Some(3)));
        assert_eq!((layers[0].annotation("k"), layers[0].annotation("n")), (Some("v"), None));
        assert_eq!(layers[0].media_type(), "a/b");
        for odd in &layers[1..] {
            assert!(odd.digest().is_err());
            assert_eq!((odd.size(), odd.media_type(), odd.annotation("k")), (None, "", None));
        }
        assert_eq!(layers[1].digest_text(), "sha512:00");
        let index = read(&json!({"manifests": [
            {"digest": digest, "platform": {"os": "linux", "architecture": "arm", "variant": 7}},
            {"digest": digest},
        ]}));
        let platforms: Vec<_> =
            index.manifests().unwrap().into_iter().map(ForeignDescriptor::platform).collect();
        assert_eq!(platforms[0].as_ref().unwrap().to_string(), "linux/arm");
        assert_eq!((&platforms[1], index.layers(), index.config()), (&None, None, None));
    }

    #[test]
    fn diff_ids_are_valid_together() {
        let diff_id = DiffId::new(Digest::of(b"x"));
        for (rootfs, count) in [
            (json!({"diff_ids": [diff_id, diff_id]}), Some(2)),
            (json!({"diff_ids": []}), Some(0)),
            (json!({"diff_ids": [diff_id, "sha256:0"]}), None),
            (json!({"diff_ids": [diff_id, 7]}), None),
            (json!({"diff_ids": null}), None),
            (json!(7), None),
        ] {
            let config = json!({"os": "linux", "architecture": "amd64", "rootfs": rootfs});
            let config = ForeignConfig::parse(config.to_string().as_bytes()).unwrap();
            assert_eq!(config.diff_ids().map(|it| it.len()), count, "{rootfs}");
            assert_eq!(config.platform(), Some(Platform::default()));
        }
    }

    #[test]
    fn documents_have_a_limit() {
        let long = format!("[{}0]", "0,".repeat(200_000));
        assert!(ForeignDocument::parse(long.as_bytes()).unwrap_err().contains("values"));
        assert!(ForeignConfig::parse(b"{").is_err());
    }

    proptest! {
        /// Checks that no document makes an accessor panic.
        #[test]
        fn any_document_is_read(text in "(\\{|\\}|\\[|\\]|,|:|\"(config|layers|manifests|digest|size|annotations|platform)\"|7|null){0,12}") {
            if let Ok(document) = ForeignDocument::parse(text.as_bytes()) {
                let lists = [document.manifests(), document.layers()].into_iter().flatten().flatten();
                for descriptor in lists.chain(document.config()) {
                    let _ = (descriptor.digest(), descriptor.size(), descriptor.platform());
                    let _ = (descriptor.annotation("k"), descriptor.media_type());
                }
            }
        }
    }
}
