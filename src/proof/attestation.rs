//! Puts statements about an image beside it, into an index, as BuildKit does (BuildKit, "Attestation storage").
//! Stage: proof (pure). Input: an image's descriptor and predicates. Output: [`AttestedImage`].

use serde_json::{Value, json};

use super::attachment::{Subject, manifest_about};
use super::bundle::{PAYLOAD_TYPE, Predicate, statement_of};
use crate::oci::{Blob, IMAGE_INDEX, IMAGE_MANIFEST, Platform};

/// The `artifactType` of a manifest with statements.
const ATTESTATION: &str = "application/vnd.docker.attestation.manifest.v1+json";

/// The documents that put statements beside an image.
#[derive(Clone, Debug)]
pub struct AttestedImage {
    /// The index of the image and the statements.
    pub index: Blob,
    /// The manifest of the statements.
    pub manifest: Blob,
    /// The empty configuration, and the statements.
    pub blobs: Vec<Blob>,
}

impl AttestedImage {
    /// Writes the documents for an image of a platform. The statements are not signed.
    pub fn new(subject: &Subject, platform: &Platform, predicates: &[Predicate]) -> Self {
        let statements: Vec<_> = predicates
            .iter()
            .map(|Predicate { predicate_type, predicate }| {
                Blob::new(statement_of(&subject.digest, predicate_type, predicate))
            })
            .collect();
        let layers = predicates.iter().zip(&statements).map(|(predicate, statement)| {
            let mut layer = json!(statement.descriptor(PAYLOAD_TYPE.into()));
            layer["annotations"] = json!({ "in-toto.io/predicate-type": predicate.predicate_type });
            layer
        });
        let (manifest, config) = manifest_about(subject, ATTESTATION, &layers.collect::<Vec<_>>());
        let manifest = Blob::json(&manifest);
        let mut image = subject.to_json();
        image["platform"] = json!(platform);
        let index = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": IMAGE_INDEX,
            "manifests": [image, entry(&manifest, subject)],
        }));
        Self { index, manifest, blobs: [config].into_iter().chain(statements).collect() }
    }
}

/// Writes the index's entry of the statements. No machine has its platform, so that no engine pulls it.
fn entry(manifest: &Blob, subject: &Subject) -> Value {
    let mut entry = json!(manifest.descriptor(IMAGE_MANIFEST.into()));
    entry["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    entry["annotations"] = json!({
        "vnd.docker.reference.digest": subject.digest,
        "vnd.docker.reference.type": "attestation-manifest",
    });
    entry
}
