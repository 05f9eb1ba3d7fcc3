//! What is said about an image and proved: signatures and attachments.
//! Stage: proof (pure). Input: digests, documents and keys. Output: documents that registries keep
//! beside an image.
//!
//! There is no clock in any of it, and nothing random: whoever signs the same image twice by the same
//! key has the same bytes.

mod attachment;
mod bundle;
mod encrypted_key;
mod key;
mod pem;
mod provenance;
mod simple_signing;

pub use attachment::{Attachment, Subject};
pub use bundle::{
    BUNDLE_TYPE, PROVENANCE, Predicate, SIGNED, bundle, statement_of, verified_statement,
};
pub use key::{KeyError, PublicKey, SigningKey};
pub use provenance::{Build, LockError, provenance};
pub use simple_signing::{
    SIGNATURE_ANNOTATION, SIMPLE_SIGNING_TYPE, SimpleSignature, payload, signed_digest,
    with_signature,
};

/// Why something that claims to prove an image does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another key made it, or what is signed was changed.
    #[error("it is not signed by this key")]
    OtherKey,
    /// It was made for another image.
    #[error("it is this key's, but of another image")]
    OtherImage,
    /// It can't be read.
    #[error("{0}")]
    Malformed(String),
}
