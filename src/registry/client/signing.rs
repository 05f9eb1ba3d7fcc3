//! Signs images in registries, and verifies those that others signed.
//! Stage: registry. Input: an image's name and a key. Output: signatures, or what they prove.

use serde::Serialize;
use serde_json::json;

use super::error::ClientError;
use super::repository::{Access, Client, ClientOptions, MANIFESTS};
use crate::digest::{BlobDigest, Digest};
use crate::oci::{Blob, ForeignDescriptor, ForeignDocument, IMAGE_INDEX, IMAGE_MANIFEST};
use crate::outgoing::{Reference, TagOrDigest, Watch};
use crate::proof::{
    AttachedDocument, Attachment, Predicate, PublicKey, Refusal, SIGNATURE_ANNOTATION, SIGNED,
    SIMPLE_SIGNING_TYPE, SigningKey, SimpleSignature, Subject, bundle, signed_digest,
    verified_statement, with_signature,
};

/// The largest number of signatures that are read for an image.
const MOST: usize = 256;

/// The result of signing an image or attaching documents to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// Digest of the manifest that is signed.
    pub manifest_digest: BlobDigest,
    /// The number of documents that were sent. It is 0 if the registry had all of them.
    pub sent: usize,
}

/// The signatures of an image by a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The digest of the image's manifest.
    pub manifest_digest: BlobDigest,
    /// The number of the key's signatures in the form of cosign 2.
    pub signatures: usize,
    /// The number of the key's signatures in the form of cosign 3.
    pub bundles: usize,
}

/// Attaches documents to an image in a registry, signs the image and the predicates, or both.
/// `digest` is the image's digest if the caller knows it: the tag may already name another image.
///
/// # Errors
/// Fails with [`ClientError`].
pub fn attach_to_image(
    reference: &Reference,
    digest: Option<BlobDigest>,
    documents: &[AttachedDocument],
    signing: Option<(&SigningKey, &[Predicate])>,
    options: &ClientOptions,
    watch: &dyn Watch,
) -> Result<Signed, ClientError> {
    let location = options.registries.target(reference)?;
    let options = &options.at(reference, &location);
    let client = Client::connect(reference, Access::Push, options, watch)?;
    let subject = subject(&client, reference, digest)?;
    let mut sent = 0;
    for document in documents {
        let attachment = Attachment::of(subject.clone(), document.clone());
        sent += usize::from(client.attach(&attachment)?);
    }
    if let Some((key, predicates)) = signing {
        sent += usize::from(client.add_signature(key, &reference.name(), &subject)?);
        let bundle = self::bundle(key, subject.clone(), SIGNED, &json!({}));
        sent += usize::from(client.attach(&bundle)?);
        for Predicate { predicate_type, predicate } in predicates {
            let bundle = self::bundle(key, subject.clone(), predicate_type, predicate);
            sent += usize::from(client.attach(&bundle)?);
        }
    }
    Ok(Signed { manifest_digest: subject.digest, sent })
}

/// Reads the manifest of the image that a reference names.
fn subject(
    client: &Client<'_>,
    reference: &Reference,
    digest: Option<BlobDigest>,
) -> Result<Subject, ClientError> {
    // If there is a digest, it decides, and not the tag.
    let digest = digest.or(reference.digest());
    let name = digest.map_or_else(|| reference.tag_or_digest(), TagOrDigest::from);
    let bytes = client.get(&format!("manifests/{name}"), MANIFESTS)?;
    let bytes = bytes.ok_or_else(|| ClientError::NoImage(reference.to_string()))?;
    let document = ForeignDocument::parse(&bytes).unwrap_or_default();
    let manifest = Blob::new(bytes);
    if let Some(expected) = digest.filter(|digest| *digest != manifest.digest) {
        return Err(ClientError::OtherDigest { expected, found: manifest.digest.to_string() });
    }
    // An index of OCI need not name its own media type.
    let implied = if document.manifests().is_some() { IMAGE_INDEX } else { IMAGE_MANIFEST };
    Ok(Subject::new(document.media_type().unwrap_or(implied), &manifest))
}

/// Verifies that the image that a reference names is signed by a key.
///
/// # Errors
/// Fails with [`ClientError::NotSigned`], or what keeps it from being found out.
pub fn verify_signatures(
    reference: &Reference,
    key: &PublicKey,
    options: &ClientOptions,
    watch: &dyn Watch,
) -> Result<Verified, ClientError> {
    let mut last = ClientError::NoImage(reference.to_string());
    // A mirror that has the image may lack its signatures: then the next one is asked.
    for source in options.registries.sources(reference)? {
        let options = options.at(reference, &source);
        let verified = Client::connect(&source.reference, Access::Pull, &options, watch)
            .and_then(|client| client.verified(reference, key));
        match verified {
            Ok(verified) => return Ok(verified),
            Err(error @ ClientError::Outgoing(_)) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Client<'_> {
    /// Adds a signature to those under the tag of cosign 2. Returns whether it was sent.
    fn add_signature(
        &self,
        key: &SigningKey,
        name: &str,
        subject: &Subject,
    ) -> Result<bool, ClientError> {
        let tag = subject.signature_tag().into();
        let signature = SimpleSignature::new(key, name, &subject.digest);
        // Writes the manifest again if another client has overwritten it meanwhile.
        for sent in [false, true, true, true] {
            let there = self.get(&format!("manifests/{tag}"), MANIFESTS)?;
            let there = there.and_then(|bytes| ForeignDocument::parse(&bytes).ok());
            let there = there.as_ref().map(ForeignDocument::as_value);
            let Some((manifest, config)) = with_signature(there, &signature) else {
                return Ok(sent);
            };
            self.send_small(&signature.payload)?;
            self.send_small(&config)?;
            self.store_manifest(&tag, &manifest.bytes, IMAGE_MANIFEST, "the signature")?;
        }
        Err(ClientError::Referrers {
            registry: self.name(),
            digest: subject.digest,
            reason: "other clients keep overwriting its signatures".to_owned(),
        })
    }

    fn verified(&self, reference: &Reference, key: &PublicKey) -> Result<Verified, ClientError> {
        let subject = subject(self, reference, None)?;
        let digest = subject.digest;
        let mut refusals = Vec::new();
        let mut count = |checked: Vec<Result<(), Refusal>>| {
            let good = checked.iter().filter(|end| end.is_ok()).count();
            refusals.extend(checked.into_iter().filter_map(Result::err));
            good
        };
        let signatures = count(self.simple_signatures(&subject, key)?);
        let bundles = count(self.bundles(&subject, key)?);
        if signatures + bundles > 0 {
            return Ok(Verified { manifest_digest: digest, signatures, bundles });
        }
        let found = refusals.len();
        // A signature of this key for another image is the most helpful reason.
        let near = |refusal: &Refusal| *refusal == Refusal::OtherImage;
        let reason = refusals.iter().find(|refusal| near(refusal)).or(refusals.first());
        let reason = reason.map(ToString::to_string).unwrap_or_default();
        Err(ClientError::NotSigned { image: format!("{}@{digest}", self.name()), found, reason })
    }

    /// Checks each signature in the form of cosign 2.
    fn simple_signatures(
        &self,
        subject: &Subject,
        key: &PublicKey,
    ) -> Result<Vec<Result<(), Refusal>>, ClientError> {
        let tag = subject.signature_tag();
        let Some(bytes) = self.get(&format!("manifests/{tag}"), MANIFESTS)? else {
            return Ok(Vec::new());
        };
        let manifest = ForeignDocument::parse(&bytes).unwrap_or_default();
        let layers = manifest.layers().unwrap_or_default().into_iter();
        let is_signature = |layer: &ForeignDescriptor| layer.media_type() == SIMPLE_SIGNING_TYPE;
        let check = |layer: ForeignDescriptor| {
            let payload = match self.document(layer)? {
                Ok(payload) => payload,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let signature = layer.annotation(SIGNATURE_ANNOTATION).unwrap_or_default();
            Ok(signed_digest(&payload, signature, key, &subject.digest))
        };
        layers.filter(is_signature).take(MOST).map(check).collect()
    }

    /// Checks each bundle that refers to an image and claims to sign it.
    fn bundles(
        &self,
        subject: &Subject,
        key: &PublicKey,
    ) -> Result<Vec<Result<(), Refusal>>, ClientError> {
        let mut checked = Vec::new();
        // The types in the list are not reliable: cosign itself writes another one. So each
        // manifest is read.
        for entry in self.referrers(subject)?.entries.iter().take(MOST) {
            let Ok(digest) = ForeignDescriptor::of(entry).digest() else { continue };
            let Some(bytes) = self.get(&format!("manifests/{digest}"), MANIFESTS)? else {
                continue;
            };
            if BlobDigest::new(Digest::of(&bytes)) != digest {
                continue;
            }
            let manifest = ForeignDocument::parse(&bytes).unwrap_or_default();
            let layers = manifest.layers().unwrap_or_default();
            let is_bundle = |layer: &ForeignDescriptor| {
                layer.media_type().starts_with("application/vnd.dev.sigstore.bundle")
            };
            if let Some(layer) = layers.into_iter().find(is_bundle) {
                let end = match self.document(layer)? {
                    Ok(document) => verified_statement(&document, key, &subject.digest),
                    Err(refusal) => Err(refusal),
                };
                match end {
                    Ok(kind) if kind == SIGNED => {
                        checked.push(Ok(()));
                    }
                    // The bundle states something else about the image, such as its packages.
                    Ok(_) => {}
                    Err(refusal) => checked.push(Err(refusal)),
                }
            }
        }
        Ok(checked)
    }

    /// Reads a small blob and checks its digest.
    fn document(
        &self,
        descriptor: ForeignDescriptor,
    ) -> Result<Result<Vec<u8>, Refusal>, ClientError> {
        let malformed = |reason: &str| Ok(Err(Refusal::Malformed(reason.to_owned())));
        let Ok(digest) = descriptor.digest() else {
            return malformed("the signed document has no digest");
        };
        let Some(bytes) = self.get(&format!("blobs/{digest}"), "*/*")? else {
            return malformed("the signed document is missing");
        };
        if BlobDigest::new(Digest::of(&bytes)) != digest {
            return malformed("the signed document does not have its digest");
        }
        Ok(Ok(bytes))
    }
}
