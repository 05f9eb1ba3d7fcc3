//! Pointers: objects that say which manifest a name stands for, or that a repository has a
//! manifest. If there are keys, servers sign the pointers that they write, and ignore pointers
//! without a valid signature.
//! Stage: registry. Input: a pointer's bytes, and keys. Output: [`Pointer`].
//!
//! An attacker who can write to the storage but has no key can't make a pointer to another manifest
//! or for another name. The attacker can only restore an older pointer of the same name; that
//! pointer has the time at which it was signed.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::image_key::ImageKey;
use super::keys::StorageKeys;
use crate::digest::BlobDigest;
use crate::outgoing::RepositoryName;

/// The largest difference between the clocks of servers, in seconds.
const AHEAD: i64 = 300;
/// The beginning of every signed message.
const PURPOSE: &str = "stowage pointer 1";

/// The place of a pointer in the storage.
#[derive(Clone, Copy, Debug)]
pub enum PointerPlace<'a> {
    /// The pointer to the image of a name and a key, such as a tag.
    Image(&'a RepositoryName, &'a ImageKey),
    /// The pointer to one of the manifests of a repository.
    Manifest(&'a RepositoryName),
}

/// A pointer to a manifest.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pointer {
    /// The digest of the manifest.
    pub digest: BlobDigest,
    /// The media type of the manifest.
    pub media_type: String,
    /// The time when the pointer was written, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stored: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// Says why a pointer is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbelievable {
    /// The pointer has no signature.
    #[error("it is not signed")]
    Unsigned,
    /// The signature is made with another key, or for another pointer.
    #[error("its signature is by another key, or for another name")]
    Forged,
    /// The time of the signature is in the future.
    #[error("it was signed at a time in the future")]
    Early,
    /// The server has seen a newer pointer in this place.
    #[error("it is older than a pointer that was seen before")]
    Old,
    /// The media type is not valid.
    #[error("its media type is not valid")]
    MediaType,
}

impl Pointer {
    /// Makes a pointer with the current time, and signs it if there is a key.
    pub fn new(
        place: PointerPlace<'_>,
        digest: BlobDigest,
        media_type: String,
        keys: &StorageKeys,
    ) -> Self {
        let stored = Some(OffsetDateTime::now_utc().unix_timestamp());
        let mut pointer = Self { digest, media_type, stored, signature: None };
        pointer.signature = keys.sign(&pointer.message(place));
        pointer
    }

    /// Checks media type and signature. Returns the time when the pointer was signed, or `None` if
    /// there are no keys.
    ///
    /// # Errors
    /// Fails with [`Unbelievable`] if the pointer is to be ignored.
    pub fn check(
        &self,
        place: PointerPlace<'_>,
        keys: &StorageKeys,
    ) -> Result<Option<OffsetDateTime>, Unbelievable> {
        // The media type becomes the value of a header.
        if !is_media_type(&self.media_type) {
            return Err(Unbelievable::MediaType);
        }
        if keys.is_empty() {
            return Ok(None);
        }
        let signature = self.signature.as_deref().ok_or(Unbelievable::Unsigned)?;
        if !keys.verify(&self.message(place), signature) {
            return Err(Unbelievable::Forged);
        }
        let stored = self.stored.unwrap_or(0);
        if stored > OffsetDateTime::now_utc().unix_timestamp() + AHEAD {
            return Err(Unbelievable::Early);
        }
        OffsetDateTime::from_unix_timestamp(stored).map(Some).map_err(|_| Unbelievable::Forged)
    }

    /// Returns the bytes to sign: each field after its length, so that different fields never give
    /// equal bytes.
    fn message(&self, place: PointerPlace<'_>) -> Vec<u8> {
        let (kind, name, key) = match place {
            PointerPlace::Image(name, key) => ("image", name.as_str(), key.as_str()),
            PointerPlace::Manifest(name) => ("manifest", name.as_str(), ""),
        };
        let (digest, stored) = (self.digest.to_string(), self.stored.unwrap_or(0).to_string());
        let mut message = Vec::new();
        for field in [PURPOSE, kind, name, key, &digest, &self.media_type, &stored] {
            message.extend((field.len() as u64).to_be_bytes());
            message.extend(field.as_bytes());
        }
        message
    }
}

/// Returns whether a text is a media type without parameters (RFC 6838, 4.2).
pub fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        let in_names = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
        (1..=127).contains(&name.len())
            && name.as_bytes()[0].is_ascii_alphanumeric()
            && name.bytes().all(in_names)
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

    #[test]
    fn what_was_signed_is_believed_and_nothing_else() {
        use Unbelievable::{Early, Forged, MediaType, Unsigned};
        let digest = |text: &str| BlobDigest::new(Digest::of(text.as_bytes()));
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        let key = |tag: &str| ImageKey::new(&tag.parse().unwrap(), "");
        let (a, ab, v1, v2) = (name("a"), name("a/b"), key("v1"), key("v2"));
        let place = PointerPlace::Image(&ab, &v1);
        let new = |keys: &StorageKeys| Pointer::new(place, digest("one"), TYPE.to_owned(), keys);
        let (old, both, next) =
            (StorageKeys::of(b"a"), StorageKeys::of(b"ba"), StorageKeys::of(b"b"));
        fn check(
            pointer: &Pointer,
            place: PointerPlace<'_>,
            keys: &StorageKeys,
        ) -> Result<(), Unbelievable> {
            pointer.check(place, keys).map(|_| ())
        }
        let signed = new(&old);
        assert_eq!(check(&signed, place, &old), Ok(()));
        // If there are both keys, the new one signs, and signatures of the old one are still valid.
        assert_eq!(check(&signed, place, &both), Ok(()));
        assert_eq!(check(&signed, place, &next), Err(Forged));
        assert_eq!(check(&new(&both), place, &next), Ok(()));
        assert_eq!(check(&new(&StorageKeys::default()), place, &old), Err(Unsigned));
        assert_eq!(check(&new(&StorageKeys::default()), place, &StorageKeys::default()), Ok(()));
        for other in [
            PointerPlace::Image(&a, &v1),
            PointerPlace::Image(&ab, &v2),
            PointerPlace::Manifest(&ab),
        ] {
            assert_eq!(check(&signed, other, &old), Err(Forged), "{other:?}");
        }
        let mut changed = signed.clone();
        changed.digest = digest("two");
        assert_eq!(check(&changed, place, &old), Err(Forged));
        let mut changed = signed.clone();
        changed.stored = changed.stored.map(|stored| stored + 1);
        assert_eq!(check(&changed, place, &old), Err(Forged));
        for signature in ["", "0", "zz", "é"] {
            let mut changed = signed.clone();
            changed.signature = Some(signature.to_owned());
            assert_eq!(check(&changed, place, &old), Err(Forged), "{signature}");
        }
        let mut early = signed.clone();
        early.stored = early.stored.map(|stored| stored + 2 * AHEAD);
        early.signature = old.sign(&early.message(place));
        assert_eq!(check(&early, place, &old), Err(Early));
        for media_type in ["", "a", "a/", "/a", "a\r\nX-Evil: 1é", "a/b; c=d", "a/é", "a/b/c"] {
            let mut changed = signed.clone();
            changed.media_type = media_type.to_owned();
            assert_eq!(check(&changed, place, &StorageKeys::default()), Err(MediaType));
        }
    }
}
