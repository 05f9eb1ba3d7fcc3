//! Signatures in the form of cosign 2: a manifest under a tag of its own, each layer of which is a
//! signed document.
//! Stage: proof (pure). Input: an image's digest, and a key. Output: a manifest.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Refusal;
use super::key::{PublicKey, SigningKey};
use crate::digest::BlobDigest;
use crate::oci::{Blob, IMAGE_CONFIG, IMAGE_MANIFEST};

/// The media type of a signed document.
pub const SIMPLE_SIGNING_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const KIND: &str = "cosign container image signature";

/// A signed document with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimpleSignature {
    /// The signed document.
    pub payload: Blob,
    /// The signature, as base 64 of ASN.1.
    pub signature: String,
}

/// Writes the document that is signed: it says that `registry/repository` has the manifest with
/// this digest.
pub fn payload(name: &str, digest: &BlobDigest) -> Vec<u8> {
    Blob::json(&json!({
        "critical": {
            "identity": { "docker-reference": name },
            "image": { "docker-manifest-digest": digest },
            "type": KIND,
        },
        "optional": null,
    }))
    .bytes
}

impl SimpleSignature {
    /// Signs a manifest under a name.
    pub fn new(key: &SigningKey, name: &str, digest: &BlobDigest) -> Self {
        let payload = Blob::new(payload(name, digest));
        let signature = STANDARD.encode(key.sign(&payload.bytes));
        Self { payload, signature }
    }

    fn layer(&self) -> Value {
        json!({
            "mediaType": SIMPLE_SIGNING_TYPE,
            "digest": self.payload.digest,
            "size": self.payload.bytes.len(),
            "annotations": { SIGNATURE_ANNOTATION: self.signature },
        })
    }
}

/// Adds a signature to the manifest with earlier ones, if there is one. Returns the new manifest
/// and its configuration, or none if the manifest already has the signature.
pub fn with_signature(there: Option<&Value>, signature: &SimpleSignature) -> Option<(Blob, Blob)> {
    let mut layers =
        there.and_then(|there| there["layers"].as_array().cloned()).unwrap_or_default();
    let layer = signature.layer();
    let is_there = layers.iter().any(|there| {
        there["digest"] == layer["digest"]
            && there["annotations"][SIGNATURE_ANNOTATION]
                == layer["annotations"][SIGNATURE_ANNOTATION]
    });
    if is_there {
        return None;
    }
    layers.push(layer);
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = Blob::json(&json!({
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }));
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": config.descriptor(IMAGE_CONFIG.into()),
        "layers": layers,
    }));
    Some((manifest, config))
}

#[derive(Deserialize)]
struct PayloadJson {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: ImageJson,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageJson {
    docker_manifest_digest: BlobDigest,
}

/// Checks that a document is signed by a key and names a manifest.
///
/// # Errors
/// Fails with [`Refusal`].
pub fn signed_digest(
    payload: &[u8],
    signature: &str,
    key: &PublicKey,
    digest: &BlobDigest,
) -> Result<(), Refusal> {
    // As for cosign, the text may have lines, as the program base64 writes it.
    let decoded = STANDARD.decode(signature.replace(['\r', '\n'], ""));
    let decoded = decoded.map_err(|_| Refusal::Malformed("it is not base 64".to_owned()))?;
    if !key.verifies(payload, &decoded) {
        return Err(Refusal::OtherKey);
    }
    let parsed: PayloadJson = serde_json::from_slice(payload).map_err(|error| {
        Refusal::Malformed(format!("it signs something other than an image: {error}"))
    })?;
    if parsed.critical.kind != KIND {
        return Err(Refusal::Malformed("it signs something other than an image".to_owned()));
    }
    if parsed.critical.image.docker_manifest_digest != *digest {
        return Err(Refusal::OtherImage);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::key;
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn signatures_are_added_to_those_that_are_there() {
        let digest = BlobDigest::new(Digest::of(b"a"));
        let one = SimpleSignature::new(&key(), "example.test/app", &digest);
        let (manifest, _) = with_signature(None, &one).unwrap();
        let there: Value = serde_json::from_slice(&manifest.bytes).unwrap();
        assert_eq!(with_signature(Some(&there), &one), None);
        let two = SimpleSignature::new(&key(), "example.test/other", &digest);
        let (manifest, config) = with_signature(Some(&there), &two).unwrap();
        let both: Value = serde_json::from_slice(&manifest.bytes).unwrap();
        assert_eq!(both["layers"].as_array().unwrap().len(), 2);
        assert_eq!(both["layers"][0], there["layers"][0]);
        let config: Value = serde_json::from_slice(&config.bytes).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][1], two.payload.digest.to_string());
    }

    #[test]
    fn signatures_prove_what_they_are_of() {
        let (a, b) = (BlobDigest::new(Digest::of(b"a")), BlobDigest::new(Digest::of(b"b")));
        let SimpleSignature { payload, signature } =
            SimpleSignature::new(&key(), "example.test/app", &a);
        let public = key().public();
        assert_eq!(signed_digest(&payload.bytes, &signature, &public, &a), Ok(()));
        let in_lines = format!("{}\r\n{}\n", &signature[..40], &signature[40..]);
        assert_eq!(signed_digest(&payload.bytes, &in_lines, &public, &a), Ok(()));
        let refused = signed_digest(&payload.bytes, &signature, &public, &b);
        assert_eq!(refused, Err(Refusal::OtherImage));
        let refused = signed_digest(b"{}", &signature, &public, &a);
        assert_eq!(refused, Err(Refusal::OtherKey));
        let signed_else = STANDARD.encode(key().sign(b"{}"));
        let refused = signed_digest(b"{}", &signed_else, &public, &a);
        assert!(matches!(refused, Err(Refusal::Malformed(_))));
    }
}
