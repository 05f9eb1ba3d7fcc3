//! A document that a registry or a layout keeps beside an image (image-spec 1.1, manifest.md, "Guidelines for
//! Artifact Usage").
//! Stage: proof (pure). Input: a document and what it is about. Output: [`Attachment`].

use serde_json::{Value, json};

use crate::digest::BlobDigest;
use crate::oci::unpack::parse_json;
use crate::oci::{Annotations, Blob, IMAGE_MANIFEST, annotated};
use crate::outgoing::Tag;
use crate::proof::AttachedDocument;

/// The annotation of a document with its name as a file (image-spec, annotations.md).
const TITLE: &str = "org.opencontainers.image.title";

/// Media type of a configuration where there is nothing to configure.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The manifest that a document refers to (`subject` in the image spec).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The media type of the manifest.
    pub media_type: String,
    /// The digest of the manifest's bytes.
    pub digest: BlobDigest,
    /// The number of the manifest's bytes.
    pub size: u64,
}

impl Subject {
    /// Names a manifest.
    pub fn new(media_type: &str, manifest: &Blob) -> Self {
        let (digest, size) = (manifest.digest, manifest.bytes.len() as u64);
        Self { media_type: media_type.to_owned(), digest, size }
    }

    pub(super) fn to_json(&self) -> Value {
        let Self { media_type, digest, size } = self;
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }

    /// Returns the tag of the list of documents that refer to this manifest, for registries without
    /// the referrers API (distribution-spec 1.1, "Referrers Tag Schema").
    pub fn fallback_tag(&self) -> Tag {
        self.tag("")
    }

    /// Returns the tag under which cosign 2 keeps the signatures of this manifest.
    pub fn signature_tag(&self) -> Tag {
        self.tag(".sig")
    }

    fn tag(&self, ending: &str) -> Tag {
        let tag = format!("sha256-{}{ending}", self.digest.digest().hex());
        tag.parse().expect("hex digits are a tag")
    }
}

/// A document with the manifest that refers to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The manifest.
    pub manifest: Blob,
    /// The document, and the empty configuration; empty if another place has them.
    pub blobs: Vec<Blob>,
    /// The manifest that the document is about.
    pub subject: Subject,
    artifact_type: String,
    annotations: Annotations,
}

impl Attachment {
    /// Makes the manifest of a document that was read from a file.
    pub fn of(subject: Subject, document: AttachedDocument) -> Self {
        let AttachedDocument { media_type, title, bytes } = document;
        let title = title.map(|title| (TITLE.to_owned(), title)).into_iter().collect();
        Self::with_title(subject, &media_type, bytes, &title, Annotations::default())
    }

    /// Makes the manifest of a document, which has no name as a file.
    pub fn new(
        subject: Subject,
        artifact_type: &str,
        document: Vec<u8>,
        annotations: Annotations,
    ) -> Self {
        let title = Annotations::default();
        Self::with_title(subject, artifact_type, document, &title, annotations)
    }

    fn with_title(
        subject: Subject,
        artifact_type: &str,
        document: Vec<u8>,
        title: &Annotations,
        annotations: Annotations,
    ) -> Self {
        let document = Blob::new(document);
        let layer = annotated(json!(document.descriptor(artifact_type.into())), title);
        let (manifest, config) = manifest_about(&subject, artifact_type, &[layer]);
        let manifest = Blob::json(&annotated(manifest, &annotations));
        let artifact_type = artifact_type.to_owned();
        let blobs = vec![document, config];
        Self { manifest, blobs, subject, artifact_type, annotations }
    }

    /// Forgets the document, which another place has.
    #[must_use]
    pub fn without_blobs(self) -> Self {
        Self { blobs: Vec::new(), ..self }
    }

    /// Wraps the manifest of a document that another place has. Returns `None` if the manifest does not refer to
    /// the image.
    pub fn of_manifest(image: BlobDigest, artifact_type: &str, manifest: Blob) -> Option<Self> {
        let found: Value = parse_json(&manifest.bytes).ok()?;
        let (media_type, size) = (&found["subject"]["mediaType"], &found["subject"]["size"]);
        let (media_type, size) = (media_type.as_str()?.to_owned(), size.as_u64()?);
        let subject = Subject { media_type, digest: image, size };
        if found["subject"] != subject.to_json() || found["artifactType"] != artifact_type {
            return None;
        }
        let (artifact_type, annotations) = (artifact_type.to_owned(), Annotations::default());
        Some(Self { manifest, blobs: Vec::new(), subject, artifact_type, annotations })
    }

    /// Returns the kind of the document.
    pub fn artifact_type(&self) -> &str {
        &self.artifact_type
    }

    /// Returns the descriptor of this document for a list of the documents that refer to the
    /// subject, or for the index of an image layout.
    pub fn entry(&self) -> Value {
        let entry = json!({
            "mediaType": IMAGE_MANIFEST,
            "artifactType": self.artifact_type,
            "digest": self.manifest.digest,
            "size": self.manifest.bytes.len(),
        });
        annotated(entry, &self.annotations)
    }
}
/// Writes the manifest of documents about another manifest (image-spec, "Guidelines for Artifact
/// Usage"). Returns it with its empty configuration.
pub(super) fn manifest_about(
    subject: &Subject,
    artifact_type: &str,
    layers: &[Value],
) -> (Value, Blob) {
    let config = Blob::new(b"{}".to_vec());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": artifact_type,
        "config": config.descriptor(EMPTY.into()),
        "layers": layers,
        "subject": subject.to_json(),
    });
    (manifest, config)
}
