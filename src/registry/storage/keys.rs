//! The keys by which servers sign what they write to a storage.
//! Stage: registry. Input: files. Output: [`StorageKeys`].

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::digest::Digest;
use crate::error::Hint;
use crate::small_file;

/// The smallest and the largest number of bytes of a key.
const SHORTEST: usize = 32;
const LONGEST: usize = 4096;

/// Says why a file is no key for a storage.
#[derive(Debug, Error)]
pub enum StorageKeyError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The key is too short or too long.
    #[error("{}: a key must have {SHORTEST} to {LONGEST} bytes, and this one has {bytes}", file.display())]
    Length {
        /// The file.
        file: PathBuf,
        /// The number of bytes of the key.
        bytes: usize,
    },
}

impl Hint for StorageKeyError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Length { .. } => {
                Some("`head -c 32 /dev/urandom | base64 > FILE` makes one".to_owned())
            }
            Self::Read { .. } => None,
        }
    }
}

/// The keys that servers share. The first key signs, and all keys verify.
#[derive(Clone, Default)]
pub struct StorageKeys(Vec<Vec<u8>>);

impl fmt::Debug for StorageKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageKeys({})", self.0.len())
    }
}

impl StorageKeys {
    /// Reads files with one key each: all bytes of the file except white space at the end.
    ///
    /// # Errors
    /// Fails with [`StorageKeyError`], which names the file, if a file can't be read or its key has a
    /// wrong length.
    pub fn read(files: &[PathBuf]) -> Result<Self, StorageKeyError> {
        files.iter().map(|file| read_key(file)).collect::<Result<_, _>>().map(Self)
    }

    /// Makes a key of each byte.
    #[cfg(test)]
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|byte| vec![*byte; SHORTEST]).collect())
    }

    /// Returns whether there are no keys. Pointers are not verified then.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the signature of a message, or `None` without a key.
    pub fn sign(&self, message: &[u8]) -> Option<String> {
        let signature = mac(self.0.first()?, message)?.finalize().into_bytes();
        Some(Digest::from_bytes(signature.into()).hex())
    }

    /// Returns whether one of the keys made the signature.
    pub fn verify(&self, message: &[u8], signature: &str) -> bool {
        // An HMAC with SHA-256 has the length of a digest, and is written like one.
        let Some(signature) = Digest::from_hex(signature) else { return false };
        let macs = self.0.iter().filter_map(|key| mac(key, message));
        macs.into_iter().any(|mac| mac.verify_slice(&signature.bytes()).is_ok())
    }
}

fn mac(key: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    // HMAC accepts keys of any length.
    Some(Hmac::<Sha256>::new_from_slice(key).ok()?.chain_update(message))
}

fn read_key(file: &Path) -> Result<Vec<u8>, StorageKeyError> {
    let read = || Ok((std::fs::metadata(file)?, small_file::read(file)?));
    let (metadata, bytes) =
        read().map_err(|source| StorageKeyError::Read { path: file.to_owned(), source })?;
    let key = bytes.trim_ascii_end();
    if !(SHORTEST..=LONGEST).contains(&key.len()) {
        let bytes = key.len();
        return Err(StorageKeyError::Length { file: file.to_owned(), bytes });
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "others can read this key: let its owner alone read it");
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_enough() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        for (text, fits) in [
            ("x".repeat(SHORTEST) + "\n", true),
            ("x".repeat(SHORTEST - 1) + "\n", false),
            ("x".repeat(LONGEST + 1), false),
            (String::new(), false),
        ] {
            std::fs::write(&file, &text).unwrap();
            assert_eq!(
                StorageKeys::read(std::slice::from_ref(&file)).is_ok(),
                fits,
                "{}",
                text.len()
            );
        }
        assert!(StorageKeys::read(&[directory.path().to_owned()]).is_err());
    }
}
