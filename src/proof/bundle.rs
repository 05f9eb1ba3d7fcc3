//! Signed statements in Sigstore's bundles, which cosign 3 reads (in-toto Attestation Framework
//! 1.0; DSSE 1.0).
//! Stage: proof (pure). Input: a statement and a key. Output: a bundle, or what one proves.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Refusal;
use super::attachment::{Attachment, Subject};
use super::key::{PublicKey, SigningKey};
use crate::digest::BlobDigest;
use crate::oci::{Annotations, Blob};

/// Media type of a bundle.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The beginning of the media types of all versions of bundles.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
pub(super) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The predicate type of a signature: a statement that an image is signed, and nothing else.
pub const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
/// The predicate type of a statement that says how an image was built.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// The part of a statement that says something about an image, with its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    /// The URI of the type.
    pub predicate_type: String,
    /// The document, such as an SBOM.
    pub predicate: Value,
}

impl Predicate {
    /// Finds out the predicate of a document: an SBOM is recognised by its format, and a statement
    /// names its predicate. Returns none for other documents.
    pub fn of(document: Value) -> Option<Self> {
        let predicate_type = if document["spdxVersion"].is_string() {
            "https://spdx.dev/Document".to_owned()
        } else if document["bomFormat"] == "CycloneDX" {
            "https://cyclonedx.org/bom".to_owned()
        } else if document["_type"] == STATEMENT_TYPE {
            let predicate = document["predicate"].clone();
            let predicate_type = document["predicateType"].as_str()?.to_owned();
            return Some(Self { predicate_type, predicate });
        } else {
            return None;
        };
        Some(Self { predicate_type, predicate: document })
    }
}

/// Writes a statement about an image.
pub fn statement_of(digest: &BlobDigest, predicate_type: &str, predicate: &Value) -> Vec<u8> {
    Blob::json(&json!({
        "_type": STATEMENT_TYPE,
        "subject": [{ "digest": { "sha256": digest.digest().hex() } }],
        "predicateType": predicate_type,
        "predicate": predicate,
    }))
    .bytes
}

/// Writes the bytes that are signed: the payload with its type and their lengths (DSSE 1.0,
/// "Pre-Authentication Encoding").
fn authenticated(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Signs a statement about an image.
pub fn bundle(
    key: &SigningKey,
    subject: Subject,
    predicate_type: &str,
    predicate: &Value,
) -> Attachment {
    let payload = statement_of(&subject.digest, predicate_type, predicate);
    let signature = key.sign(&authenticated(PAYLOAD_TYPE, &payload));
    let document = Blob::json(&json!({
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": { "publicKey": { "hint": key.public().hint() } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "sig": STANDARD.encode(signature) }],
        },
    }));
    let annotations = Annotations::from([
        ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
        ("dev.sigstore.bundle.predicateType".to_owned(), predicate_type.to_owned()),
    ]);
    Attachment::new(subject, BUNDLE_TYPE, document.bytes, annotations)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundleJson {
    media_type: String,
    #[serde(default)]
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<SignatureJson>,
}

#[derive(Deserialize)]
struct SignatureJson {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatementJson {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(default)]
    subject: Vec<SubjectJson>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct SubjectJson {
    #[serde(default)]
    digest: std::collections::BTreeMap<String, String>,
}

/// Checks that a bundle is signed by a key and is about an image. Returns the type of the
/// statement's predicate. The predicate itself, such as an SBOM, is skipped.
///
/// # Errors
/// Fails with [`Refusal`].
pub fn verified_statement(
    bundle: &[u8],
    key: &PublicKey,
    digest: &BlobDigest,
) -> Result<String, Refusal> {
    let malformed = |reason: &str| Refusal::Malformed(reason.to_owned());
    let parsed: BundleJson = serde_json::from_slice(bundle)
        .map_err(|error| Refusal::Malformed(format!("it is not a bundle: {error}")))?;
    let envelope = parsed.dsse_envelope.filter(|_| parsed.media_type.starts_with(BUNDLE));
    let Envelope { payload, payload_type, signatures } =
        envelope.ok_or_else(|| malformed("it is not a bundle with a statement"))?;
    if payload_type != PAYLOAD_TYPE {
        return Err(malformed("it signs something other than a statement"));
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| malformed("it is not base 64"));
    let payload = decode(&payload)?;
    let signed = authenticated(&payload_type, &payload);
    let is_signed = signatures.iter().any(|signature| {
        decode(&signature.sig).is_ok_and(|signature| key.verifies(&signed, &signature))
    });
    if !is_signed {
        return Err(Refusal::OtherKey);
    }
    // Nothing of a payload is read before its signature is verified.
    let statement: StatementJson = serde_json::from_slice(&payload)
        .map_err(|error| Refusal::Malformed(format!("it is not a statement: {error}")))?;
    if statement.kind != STATEMENT_TYPE {
        return Err(malformed("it is a statement of another version"));
    }
    let hex = digest.digest().hex();
    if !statement.subject.iter().any(|subject| subject.digest.get("sha256") == Some(&hex)) {
        return Err(Refusal::OtherImage);
    }
    Ok(statement.predicate_type)
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::key;
    use super::*;
    use crate::digest::Digest;
    use crate::oci::IMAGE_MANIFEST;

    fn subject(text: &[u8]) -> Subject {
        Subject::new(IMAGE_MANIFEST, &Blob::new(text.to_vec()))
    }

    #[test]
    fn bundles_prove_what_they_are_about() {
        let made = bundle(&key(), subject(b"a"), SIGNED, &json!({}));
        assert_eq!(made, bundle(&key(), subject(b"a"), SIGNED, &json!({})));
        let (document, public) = (&made.blobs[0].bytes, key().public());
        let a = BlobDigest::new(Digest::of(b"a"));
        let kind = verified_statement(document, &public, &a).unwrap();
        assert_eq!(kind, SIGNED);
        let b = BlobDigest::new(Digest::of(b"b"));
        assert_eq!(verified_statement(document, &public, &b), Err(Refusal::OtherImage));
        let text = String::from_utf8(document.clone()).unwrap();
        let other = text.replace(&STANDARD.encode(b"{\"_type")[..4], "eyJg");
        assert_eq!(verified_statement(other.as_bytes(), &public, &a), Err(Refusal::OtherKey));
        for nonsense in ["", "{}", "[]", &text.replace("dsseEnvelope", "x")] {
            let refused = verified_statement(nonsense.as_bytes(), &public, &a);
            assert!(matches!(refused, Err(Refusal::Malformed(_))), "{nonsense}");
        }
    }

    /// Compares with the example in the specification of DSSE.
    #[test]
    fn payloads_are_encoded_as_specified() {
        let encoded = authenticated("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }
}
