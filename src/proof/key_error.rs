//! The errors of reading keys.
//! Stage: proof (pure).

use thiserror::Error;

use crate::error::Hint;

/// The keys that sign.
pub(super) const PRIVATE: &str = "a private key of PKCS#8 or cosign";

/// Says why a text is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The text is not PEM.
    #[error("it is not PEM: it has no `-----BEGIN …-----` with base 64")]
    NotPem,
    /// The PEM has another label: the one that it has, and what was expected.
    #[error("it is a `{0}`, and not {1}")]
    Kind(String, &'static str),
    /// The key is for another algorithm or curve.
    #[error("it is not an ECDSA key on the curve P-256")]
    Algorithm,
    /// The key is encrypted, and there is no password.
    #[error("the key is encrypted, and no password is given")]
    NoPassword,
    /// The password does not decrypt the key.
    #[error("the key can't be decrypted: the password may be wrong")]
    Password,
    /// The key is encrypted in a way that is not supported, for this reason.
    #[error("the key is encrypted in a way that is not supported: {0}")]
    Encryption(String),
}

impl Hint for KeyError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPassword | Self::Password => {
                Some("the environment variable COSIGN_PASSWORD holds the password".to_owned())
            }
            Self::Kind(label, PRIVATE) if label == "PUBLIC KEY" => {
                Some("give the private key of the pair".to_owned())
            }
            Self::Kind(label, PRIVATE) if label.ends_with("PRIVATE KEY") => Some(
                "`openssl pkcs8 -topk8 -nocrypt -in FILE` writes it as PKCS#8, without a password"
                    .to_owned(),
            ),
            Self::Kind(label, _) if label.contains("SIGSTORE") || label.contains("COSIGN") => {
                Some("`cosign public-key --key FILE` prints its public key".to_owned())
            }
            Self::Kind(label, _) if label.ends_with("PRIVATE KEY") => {
                Some("`openssl pkey -in FILE -pubout` prints its public key".to_owned())
            }
            Self::Kind(label, wanted) if label == "CERTIFICATE" && *wanted != PRIVATE => Some(
                "`openssl x509 -in FILE -noout -pubkey` prints its public key".to_owned(),
            ),
            _ => Some(
                "`cosign generate-key-pair` makes a pair, and so does `openssl genpkey -algorithm EC \
                 -pkeyopt ec_paramgen_curve:P-256`"
                    .to_owned(),
            ),
        }
    }
}
