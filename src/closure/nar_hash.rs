//! Digests of NARs.
//! Stage: closure (pure). Vocabulary of all that names store paths' contents.

use std::fmt;
use std::str::FromStr;

use harmonia_utils_hash::fmt::Any;
use harmonia_utils_hash::{Hash, Sha256};

use crate::digest::as_text;

/// Digest of a store path's NAR serialisation, printed as Nix registers it:
/// `sha256:` and 52 base-32 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NarHash(Sha256);

impl NarHash {
    /// Wraps the digest of a NAR.
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(Sha256::new(&sha256))
    }

    /// As the Nix database has it: `sha256:` and 64 hex digits.
    pub fn to_base16(&self) -> String {
        harmonia_utils_hash::fmt::CommonHash::as_base16(&self.0).to_string()
    }

    /// As Nix expressions have it today (W3C, Subresource Integrity): `sha256-` and base 64.
    pub fn to_sri(&self) -> String {
        harmonia_utils_hash::fmt::CommonHash::as_sri(&self.0).to_string()
    }
}

impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&harmonia_utils_hash::fmt::CommonHash::as_base32(&self.0), f)
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NarHash {
    type Err = String;

    /// Reads every form in which Nix versions print it: base-16, base-32, base-64 and SRI.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = text.parse::<Any<Hash>>().map_err(|error| error.to_string())?.into_hash();
        Sha256::try_from(hash).map(Self).map_err(|error| format!("hash '{text}' {error}"))
    }
}

as_text!(NarHash);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nar_hashes_are_read_in_every_form() {
        let base32 = "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
        for text in [
            base32,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        ] {
            assert_eq!(text.parse::<NarHash>().unwrap().to_string(), base32);
        }
        for text in [
            "",
            "sha256:",
            "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
        ] {
            assert!(text.parse::<NarHash>().is_err(), "{text}");
        }
    }
}
