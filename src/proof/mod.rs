//! Signatures of images, and signed or unsigned documents about them.
//! Stage: proof (pure). Input: digests, documents and keys. Output: documents that registries keep
//! beside an image.
//!
//! Nothing here depends on the time or on random numbers: signing the same image with the same key
//! twice gives the same bytes.

mod attached_file;
mod attachment;
mod attestation;
mod bundle;
mod encrypted_key;
mod key;
mod key_error;
mod pem;
mod provenance;
mod simple_signing;

pub use attached_file::{AttachedDocument, AttachedFile, ParseAttachedFileError};
pub use attachment::{Attachment, Subject};
pub use attestation::AttestedImage;
pub use bundle::{
    BUNDLE_TYPE, PROVENANCE, Predicate, SIGNED, bundle, statement_of, verified_statement,
};
pub use key::{PublicKey, SigningKey};
pub use key_error::KeyError;
pub use provenance::{Build, LockError, provenance};
pub use simple_signing::{
    SIGNATURE_ANNOTATION, SIMPLE_SIGNING_TYPE, SimpleSignature, payload, signed_digest,
    with_signature,
};

/// Says why a signature or bundle does not prove anything about an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The signature is by another key, or the signed bytes were changed.
    #[error("is by another key, or was altered")]
    OtherKey,
    /// The signature is for another image.
    #[error("is by this key, but for another image")]
    OtherImage,
    /// The signature or bundle can't be read, for this reason.
    #[error("can't be read: {0}")]
    Malformed(String),
}
