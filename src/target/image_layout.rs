//! Reads and writes an image layout's own files (image-spec, image-layout.md).
//! Stage: target (pure).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::digest::BlobDigest;
use crate::oci::IMAGE_INDEX;
#[cfg(feature = "registry")]
use crate::oci::unpack::parse_json;
use crate::outgoing::RefName;
use oci_spec::image::Descriptor;

/// The file that marks a directory as an image layout.
pub const OCI_LAYOUT: &str = "oci-layout";
/// The file that names the images.
pub const INDEX: &str = "index.json";
/// The directory of the blobs.
pub const BLOBS: &str = "blobs/sha256";

/// Returns the bytes of [`OCI_LAYOUT`].
pub fn oci_layout() -> Vec<u8> {
    serde_json::to_vec(&json!({ "imageLayoutVersion": "1.0.0" })).expect("a value is JSON")
}

/// Returns the path of a blob's file.
pub fn blob_path(digest: &BlobDigest) -> String {
    format!("{BLOBS}/{}", digest.digest().hex())
}

/// Builds the entry of a manifest in an index.
pub fn descriptor(descriptor: Descriptor, annotations: &[(&str, &str)]) -> Value {
    let mut descriptor = serde_json::to_value(descriptor).expect("a descriptor is JSON");
    if !annotations.is_empty() {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), Value::from(*value));
        descriptor["annotations"] = annotations.iter().map(pair).collect::<Map<_, _>>().into();
    }
    descriptor
}

/// The contents of `index.json` (image-spec, image-index.md). Fields that this program does not
/// know are kept unchanged.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Index {
    manifests: Vec<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Index {
    /// Builds an index with these entries.
    pub fn new(manifests: Vec<Value>) -> Self {
        let rest = [("schemaVersion", json!(2)), ("mediaType", json!(IMAGE_INDEX))];
        Self {
            manifests,
            rest: rest.map(|(key, value)| (key.to_owned(), value)).into_iter().collect(),
        }
    }

    /// Parses an index, as far as is needed to add to it.
    ///
    /// # Errors
    /// Fails with a message for people if the bytes are not such an index.
    #[cfg(feature = "registry")]
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let index: Self = parse_json(bytes)?;
        if index.rest.get("schemaVersion") != Some(&json!(2)) {
            return Err("`schemaVersion` is not 2".to_owned());
        }
        if !index.manifests.iter().all(Value::is_object) {
            return Err("`manifests` holds what is no descriptor".to_owned());
        }
        Ok(index)
    }

    /// Adds an image or an index of images, and replaces the entry of the same name. An image
    /// without a name is added once.
    pub fn add(&mut self, added: Descriptor, name: Option<&RefName>) {
        let annotation = name.map(|name| (RefName::ANNOTATION, name.as_str()));
        let new = descriptor(added, annotation.as_slice());
        let manifests = &mut self.manifests;
        let name_of = |descriptor: &Value| {
            Some(descriptor.get("annotations")?.get(RefName::ANNOTATION)?.as_str()?.to_owned())
        };
        let same_digest = |other: &Value| other.get("digest") == new.get("digest");
        let name = name.map(RefName::as_str);
        let replaced = |other: &Value| match (name, name_of(other).as_deref()) {
            (Some(name), Some(other)) => name == other,
            // An entry without a name is replaced by the same image with a name.
            (Some(_), None) => same_digest(other),
            (None, _) => false,
        };
        if name.is_none() && manifests.iter().any(same_digest) {
            return;
        }
        let place = manifests.iter().position(replaced).unwrap_or(manifests.len());
        manifests.retain(|other| !replaced(other));
        manifests.insert(place, new);
    }

    /// Adds an entry without a name, unless the index names the same manifest.
    #[cfg(feature = "registry")]
    pub fn add_entry(&mut self, entry: Value) {
        if self.manifests.iter().all(|other| other.get("digest") != entry.get("digest")) {
            self.manifests.push(entry);
        }
    }

    /// Returns the bytes of [`INDEX`].
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an index is JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::oci::{Blob, Image, ManifestFormat};

    fn image(manifest: &str) -> Image {
        let blob = |bytes: &[u8]| Blob {
            digest: BlobDigest::new(Digest::of(bytes)),
            bytes: bytes.to_vec(),
        };
        Image {
            config: blob(b"config"),
            manifest: blob(manifest.as_bytes()),
            format: ManifestFormat::Oci,
        }
    }

    /// Returns the entries of an index: for each, a digit that stands for the manifest, and the
    /// name.
    fn entries(index: &Index) -> String {
        let entry = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let is = |manifest: &&str| image(manifest).manifest.digest.to_string() == digest;
            let manifest = ["1", "2", "3"].into_iter().find(is).unwrap();
            let name = descriptor["annotations"][RefName::ANNOTATION].as_str().unwrap_or("-");
            format!("{manifest}{name}")
        };
        index.manifests.iter().map(entry).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn images_are_added_by_name() {
        for (before, new, after) in [
            ("", "1-", "1-"),
            ("", "1a", "1a"),
            ("1a", "2b", "1a 2b"),
            ("1a 2b", "3a", "3a 2b"),
            ("1a", "1b", "1a 1b"),
            ("1a", "1a", "1a"),
            ("1a", "1-", "1a"),
            ("1- 2b", "1a", "1a 2b"),
            ("1-", "2-", "1- 2-"),
            ("1-", "1-", "1-"),
        ] {
            let mut index = Index::new(Vec::new());
            for entry in before.split_whitespace().chain([new]) {
                let (manifest, name) = entry.split_at(1);
                index.add(image(manifest).descriptor(), name.parse().ok().as_ref());
            }
            assert_eq!(entries(&index), after, "{before} + {new}");
        }
    }

    #[test]
    fn what_others_wrote_stays() {
        let text = r#"{"schemaVersion":2,"annotations":{"a":"b"},"manifests":[
            {"digest":"sha256:0","platform":{"os":"linux"},"x":1},
            {"digest":"sha256:1","annotations":null}]}"#;
        let mut index = Index::parse(text.as_bytes()).unwrap();
        index.add(image("1").descriptor(), "a".parse().ok().as_ref());
        let index: Value = serde_json::from_slice(&index.to_json()).unwrap();
        let before: Value = serde_json::from_str(text).unwrap();
        assert_eq!(index["annotations"], before["annotations"]);
        assert_eq!(index["manifests"][0], before["manifests"][0]);
        assert_eq!(index["manifests"][1], before["manifests"][1]);
        assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for (text, message) in [
            ("", "EOF"),
            ("7", "invalid type"),
            ("{}", "missing field `manifests`"),
            (r#"{"schemaVersion":1,"manifests":[]}"#, "`schemaVersion` is not 2"),
            (r#"{"schemaVersion":2,"manifests":{}}"#, "invalid type"),
            (r#"{"schemaVersion":2,"manifests":[1]}"#, "`manifests` holds what is no descriptor"),
        ] {
            let error = Index::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
