//! Keys of ECDSA on the curve P-256 with SHA-256, like those of cosign.
//! Stage: proof (pure). Input: PEM. Output: [`SigningKey`], [`PublicKey`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Signer;
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::encrypted_key;
use super::key_error::{KeyError, PRIVATE};
use super::pem::Pem;
use crate::digest::Digest;

/// The number of bytes of a point on the curve, uncompressed. A SubjectPublicKeyInfo ends with the
/// point.
const POINT: usize = 65;

/// A private key, which signs.
pub struct SigningKey(p256::ecdsa::SigningKey);

impl SigningKey {
    /// Parses a private key: PKCS#8, or a key that cosign has encrypted. Calls `password` only for
    /// an encrypted key.
    ///
    /// # Errors
    /// Fails with [`KeyError`].
    pub fn parse(
        text: &[u8],
        password: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<Self, KeyError> {
        let Pem { label, bytes } = Pem::parse(text).ok_or(KeyError::NotPem)?;
        let pkcs8 = match &*label {
            "PRIVATE KEY" => bytes,
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                encrypted_key::decrypt(&bytes, &password().ok_or(KeyError::NoPassword)?)?
            }
            _ => return Err(KeyError::Kind(label, PRIVATE)),
        };
        let secret = p256::SecretKey::from_pkcs8_der(&pkcs8).map_err(|_| KeyError::Algorithm)?;
        Ok(Self(secret.into()))
    }

    /// Signs a message. The nonce is derived from the key and the message (RFC 6979), so that equal
    /// messages get equal signatures. Returns the signature as ASN.1.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    /// Returns the public key, which verifies signatures of this key.
    pub fn public(&self) -> PublicKey {
        let key = p256::PublicKey::from(self.0.verifying_key());
        PublicKey::of(&key).expect("a key has an encoding")
    }
}

/// A public key, which verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The SubjectPublicKeyInfo of the key (RFC 5480).
    info: Vec<u8>,
}

impl PublicKey {
    /// Parses a public key (`-----BEGIN PUBLIC KEY-----`).
    ///
    /// # Errors
    /// Fails with [`KeyError`].
    pub fn parse(text: &[u8]) -> Result<Self, KeyError> {
        let Pem { label, bytes } = Pem::parse(text).ok_or(KeyError::NotPem)?;
        if label != "PUBLIC KEY" {
            return Err(KeyError::Kind(label, "a public key"));
        }
        let key = p256::PublicKey::from_public_key_der(&bytes).map_err(|_| KeyError::Algorithm)?;
        Self::of(&key).ok_or(KeyError::Algorithm)
    }

    fn of(key: &p256::PublicKey) -> Option<Self> {
        let info = key.to_public_key_der().ok()?.as_bytes().to_vec();
        (info.len() > POINT).then_some(Self { info })
    }

    /// Returns whether a signature of a message was made by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = &self.info[self.info.len() - POINT..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
    }

    /// Returns the digest by which bundles name this key.
    pub fn hint(&self) -> String {
        STANDARD.encode(Digest::of(&self.info).bytes())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A key that `openssl genpkey` made for these tests. Nothing else uses it.
    pub const KEY: &str = include_str!("../../tests/it/keys/test.key");
    pub const PUBLIC: &str = include_str!("../../tests/it/keys/test.pub");
    const OTHER: &str = include_str!("../../tests/it/keys/other.pub");
    /// The key above, encrypted by `cosign import-key-pair` with the password `secret`.
    const ENCRYPTED: &str = include_str!("../../tests/it/keys/test.cosign.key");

    pub fn key() -> SigningKey {
        SigningKey::parse(KEY.as_bytes(), || None).unwrap()
    }

    #[test]
    fn signatures_are_the_same_each_time_and_verify() {
        let public = PublicKey::parse(PUBLIC.as_bytes()).unwrap();
        assert_eq!(key().public(), public);
        let signature = key().sign(b"message");
        assert_eq!(signature, key().sign(b"message"));
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"massage", &signature));
        assert!(!PublicKey::parse(OTHER.as_bytes()).unwrap().verifies(b"message", &signature));
        for nonsense in [&b""[..], b"x", &[0; 70]] {
            assert!(!public.verifies(b"message", nonsense));
        }
    }

    #[test]
    fn encrypted_keys_are_decrypted() {
        let parse = |password: Option<&str>| {
            SigningKey::parse(ENCRYPTED.as_bytes(), || {
                password.map(|text| text.as_bytes().to_vec())
            })
        };
        assert_eq!(parse(Some("secret")).unwrap().public(), key().public());
        assert!(matches!(parse(Some("other")), Err(KeyError::Password)));
        assert!(matches!(parse(None), Err(KeyError::NoPassword)));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let parse = |text: &str| SigningKey::parse(text.as_bytes(), || None).err().unwrap();
        assert!(matches!(parse(""), KeyError::NotPem));
        assert!(matches!(parse("-----BEGIN PRIVATE KEY-----"), KeyError::NotPem));
        assert!(matches!(parse(PUBLIC), KeyError::Kind(..)));
        let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
        assert!(matches!(parse(empty), KeyError::Algorithm));
        assert!(matches!(PublicKey::parse(KEY.as_bytes()), Err(KeyError::Kind(..))));
    }

    /// Checks that the hint of a wrong key leads to the right one.
    #[test]
    fn hints_lead_to_the_right_key() {
        use crate::error::Hint;
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----");
        let hint = |error: KeyError| error.hint().unwrap();
        for (label, expected) in [
            ("EC PRIVATE KEY", "openssl pkcs8"),
            ("ENCRYPTED PRIVATE KEY", "openssl pkcs8"),
            ("PUBLIC KEY", "the private key of the pair"),
            ("CERTIFICATE", "cosign generate-key-pair"),
        ] {
            let error = SigningKey::parse(pem(label).as_bytes(), || None).err().unwrap();
            assert!(hint(error).contains(expected), "{label}");
        }
        for (label, expected) in [
            ("PRIVATE KEY", "openssl pkey -in FILE -pubout"),
            ("ENCRYPTED SIGSTORE PRIVATE KEY", "cosign public-key"),
            ("CERTIFICATE", "openssl x509"),
        ] {
            let error = PublicKey::parse(pem(label).as_bytes()).err().unwrap();
            assert!(hint(error).contains(expected), "{label}");
        }
    }
}
