//! Digests of NARs.
//! Stage: closure (pure). Vocabulary of all that names store paths' contents.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use thiserror::Error;

use crate::digest::{Digest, as_text, base32};

/// Reads base 64 with and without padding, as Nix does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Digest of a store path's NAR serialisation, printed as Nix registers it:
/// `sha256:` and 52 base-32 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NarHash(Digest);

/// Says why a text is not the SHA-256 digest of a NAR.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "`{text}` is not the hash of a NAR: expected `sha256:` and 52 base-32 digits, 64 hex digits \
     or base 64, or `sha256-` and base 64"
)]
pub struct ParseNarHashError {
    text: String,
}

impl NarHash {
    /// Wraps the digest of a NAR.
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(Digest::from_bytes(sha256))
    }

    /// Returns the form that the Nix database has: `sha256:` and 64 hex digits.
    pub fn to_base16(&self) -> String {
        self.0.to_string()
    }

    /// Returns the form of today's Nix expressions (W3C, Subresource Integrity): `sha256-` and
    /// base 64.
    pub fn to_sri(&self) -> String {
        self.0.to_sri()
    }
}

impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", base32::encode(&self.0.bytes()))
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NarHash {
    type Err = ParseNarHashError;

    /// Parses every form that versions of Nix print: base 16, base 32, base 64 and SRI.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = match text.split_once([':', '-']) {
            Some(("sha256", digits)) if text.as_bytes()[6] == b'-' => base64(digits),
            // The three forms differ in length.
            Some(("sha256", digits)) => match digits.len() {
                52 => base32::decode(digits),
                64 => Digest::from_hex(&digits.to_ascii_lowercase()).map(|digest| digest.bytes()),
                _ => base64(digits),
            },
            _ => None,
        };
        bytes.map(Self::new).ok_or_else(|| ParseNarHashError { text: text.to_owned() })
    }
}

/// Decodes the base 64 of 32 bytes.
fn base64(digits: &str) -> Option<[u8; 32]> {
    BASE64.decode(digits).ok()?.try_into().ok()
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
            "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
            "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
            "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0",
            "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        ] {
            assert_eq!(text.parse::<NarHash>().unwrap().to_string(), base32);
        }
        let hash = base32.parse::<NarHash>().unwrap();
        assert_eq!(
            hash.to_base16(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(hash.to_sri(), "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        for text in [
            "",
            "sha256:",
            "sha256-",
            "sha256é",
            "sha512-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
            "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=A",
            "sha256:zb8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
            "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
        ] {
            assert!(text.parse::<NarHash>().is_err(), "{text}");
        }
    }
}
