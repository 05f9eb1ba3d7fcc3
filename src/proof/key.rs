//! Keys: ECDSA on the curve P-256 with SHA-256, which cosign's are as well.
//! Stage: proof (pure). Input: PEM. Output: [`SigningKey`], [`PublicKey`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Signer;
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use thiserror::Error;

use super::encrypted_key;
use super::pem::Pem;
use crate::digest::Digest;
use crate::error::Hint;

/// Bytes of a point on the curve, not compressed: the end of its SubjectPublicKeyInfo.
const POINT: usize = 65;

/// Says why a text is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It is no PEM.
    #[error("it is no PEM: there is no `-----BEGIN …-----` with base 64 in it")]
    NotPem,
    /// It is something else.
    #[error("it is a `{0}`, and not {1}")]
    Kind(String, &'static str),
    /// It is a key for something else.
    #[error("it is no key of ECDSA on the curve P-256")]
    Algorithm,
    /// There is a password on it, and none is given.
    #[error("the key is encrypted, and no password is given")]
    NoPassword,
    /// The password is another.
    #[error("the key can't be decrypted: is it another password?")]
    Password,
    /// It is encrypted in another way.
    #[error("the key is encrypted in a way that is not known: {0}")]
    Encryption(String),
}

impl Hint for KeyError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPassword | Self::Password => {
                Some("the environment variable COSIGN_PASSWORD holds the password".to_owned())
            }
            Self::Kind(label, _) if label.contains("EC P") => Some(
                "`openssl pkcs8 -topk8 -nocrypt -in FILE` writes it as PKCS#8".to_owned(),
            ),
            _ => Some(
                "`cosign generate-key-pair` makes a pair, and so does `openssl genpkey -algorithm EC \
                 -pkeyopt ec_paramgen_curve:P-256`"
                    .to_owned(),
            ),
        }
    }
}

/// A key that signs.
pub struct SigningKey(p256::ecdsa::SigningKey);

impl SigningKey {
    /// Parses a private key: PKCS#8, or as cosign encrypts it. `password` is asked for one then.
    ///
    /// # Errors
    /// [`KeyError`].
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
            _ => return Err(KeyError::Kind(label, "a private key of PKCS#8 or cosign")),
        };
        let secret = p256::SecretKey::from_pkcs8_der(&pkcs8).map_err(|_| KeyError::Algorithm)?;
        Ok(Self(secret.into()))
    }

    /// Signs, by a nonce that is made of key and message (RFC 6979): the same bytes each time. Returns
    /// ASN.1's form of the signature.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    /// Returns the key that others verify by.
    pub fn public(&self) -> PublicKey {
        let key = p256::PublicKey::from(self.0.verifying_key());
        PublicKey::of(&key).expect("a key has an encoding")
    }
}

/// A key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// SubjectPublicKeyInfo (RFC 5480).
    info: Vec<u8>,
}

impl PublicKey {
    /// Parses a public key (`-----BEGIN PUBLIC KEY-----`).
    ///
    /// # Errors
    /// [`KeyError`].
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

    /// Tells whether this key's owner signed a message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = &self.info[self.info.len() - POINT..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
    }

    /// Returns the digest that bundles name it by.
    pub fn hint(&self) -> String {
        STANDARD.encode(Digest::of(&self.info).bytes())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Made by `openssl genpkey` for these tests, and used for nothing else.
    pub const KEY: &str = include_str!("../../tests/it/keys/test.key");
    pub const PUBLIC: &str = include_str!("../../tests/it/keys/test.pub");
    const OTHER: &str = include_str!("../../tests/it/keys/other.pub");
    /// The same key as `cosign import-key-pair` encrypts it, by the password `secret`.
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
}
