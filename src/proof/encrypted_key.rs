//! Decrypts private keys as cosign writes them: scrypt (RFC 7914) of a password, and NaCl's secretbox.
//! Stage: proof (pure).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, Nonce, XSalsa20Poly1305};
use serde::Deserialize;

use super::key_error::KeyError;

/// The number of bytes of a nonce.
const NONCE: usize = 24;
/// The highest cost (`N`) of a password that is accepted: sixteen times that of cosign; it takes 1
/// GiB.
const MOST_WORK: u64 = 1 << 20;
const LARGEST_BLOCK: u32 = 8;

#[derive(Deserialize)]
struct Envelope {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Decrypts a key. Returns it in the form of PKCS#8.
///
/// # Errors
/// Fails with [`KeyError::Password`] and [`KeyError::Encryption`].
pub fn decrypt(envelope: &[u8], password: &[u8]) -> Result<Vec<u8>, KeyError> {
    let unknown = |reason: &str| KeyError::Encryption(reason.to_owned());
    let Envelope { kdf, cipher, ciphertext } = serde_json::from_slice(envelope)
        .map_err(|error| KeyError::Encryption(error.to_string()))?;
    if kdf.name != "scrypt" || cipher.name != "nacl/secretbox" {
        return Err(unknown("neither scrypt nor NaCl's secretbox"));
    }
    let Params { n, r, p } = kdf.params;
    if !n.is_power_of_two() || n > MOST_WORK || r > LARGEST_BLOCK || p != 1 {
        return Err(unknown("parameters of scrypt that take too much memory"));
    }
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| unknown("not base 64"));
    let (salt, nonce, ciphertext) = (bytes(&kdf.salt)?, bytes(&cipher.nonce)?, bytes(&ciphertext)?);
    if nonce.len() != NONCE {
        return Err(unknown("a nonce of another length"));
    }
    let log_n = u8::try_from(n.ilog2()).map_err(|_| unknown("parameters of scrypt"))?;
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| unknown("parameters of scrypt"))?;
    let mut key = [0; 32];
    scrypt::scrypt(password, &salt, &params, &mut key).map_err(|_| unknown("scrypt"))?;
    let cipher = XSalsa20Poly1305::new(&key.into());
    cipher.decrypt(Nonce::from_slice(&nonce), &*ciphertext).map_err(|_| KeyError::Password)
}
