//! Checksums that find accidents, not attacks.
//! Vocabulary: names no stage.
//!
//! A checksum is stored beside the bytes that it describes: an attacker who could make other bytes
//! with the same checksum could as well write another checksum. So it only has to find accidents,
//! which takes a fraction of the time of SHA-256.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use thiserror::Error;
use xxh128::Hasher;

use super::as_text;
use crate::sink::Sink;

/// XXH3 of 128 bits (<https://github.com/Cyan4973/xxHash/blob/v0.8.3/doc/xxhash_spec.md>), printed as
/// `xxh128:<32 lower-case hex digits>`, the digits as `xxh128sum` has them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Checksum(u128);

/// Says why a string is not a checksum.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{text}` is not a checksum: expected `xxh128:` and 32 lower-case hex digits")]
pub struct ParseChecksumError {
    text: String,
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xxh128:{:032x}", self.0)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Checksum {
    type Err = ParseChecksumError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        text.strip_prefix("xxh128:")
            .filter(|hex| hex.len() == 32 && hex.bytes().all(is_digit))
            .and_then(|hex| u128::from_str_radix(hex, 16).ok())
            .map(Self)
            .ok_or_else(|| ParseChecksumError { text: text.to_owned() })
    }
}

as_text!(Checksum);

/// Computes the checksum of bytes on their way to `W`.
pub struct ChecksumWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W> ChecksumWriter<W> {
    /// Starts with the checksum of no bytes.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new() }
    }

    /// Returns the checksum of the bytes that were written.
    pub fn finish(self) -> Checksum {
        Checksum(self.hasher.finish())
    }
}

impl<W: Write> Write for ChecksumWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Sink for ChecksumWriter<W> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> Checksum {
        let mut writer = ChecksumWriter::new(Vec::new());
        writer.write_all(bytes).unwrap();
        assert!(writer.inner == bytes);
        writer.finish()
    }

    /// Compares with what `xxh128sum` 0.8.1 prints, for lengths that are each computed in another
    /// way.
    #[test]
    fn sums_are_those_of_others() {
        let bytes: Vec<u8> = (0..3_u32 << 20).map(|place| (place % 251) as u8).collect();
        for (length, expected) in VECTORS {
            assert_eq!(of(&bytes[..length]).to_string(), format!("xxh128:{expected}"), "{length}");
        }
    }

    const VECTORS: [(usize, &str); 13] = [
        (0, "99aa06d3014798d86001c324468d497f"),
        (1, "a6cd5e9392000f6ac44bdff4074eecdb"),
        (8, "e1e4432a62217fe4cfd50c61c8bb98c1"),
        (16, "72950631827607e2842812cc870dcae2"),
        (17, "685bc458b37d057fc06e233df7729217"),
        (128, "14792fc3af88dc6c05321a0b64d67b41"),
        (240, "65b5be86da5540e7c92b68e16f83bbb6"),
        (241, "1da1cb61bcb8a2a102e8cd95421c6d02"),
        (1025, "2882ebca04ec915ce95c42288f28186e"),
        ((256 << 10) - 1, "4bcbbc69546fda8eeebebcfae92b1ee0"),
        (256 << 10, "31484f410b9d97b719e33139f5534930"),
        ((256 << 10) + 1, "9b9f33ce8c9cdfe5092a932e0d783f0c"),
        (3 << 20, "d3abb35bfe561c5c1be8144cb05aac1c"),
    ];

    #[test]
    fn refuses_what_is_no_checksum() {
        let right = of(b"").to_string();
        assert_eq!(right.parse(), Ok(of(b"")));
        for (why, text) in [
            ("empty", ""),
            ("no algorithm", &right[7..]),
            ("other algorithm", &right.replace("xxh128", "xxh64")),
            ("too short", &right[..38]),
            ("too long", &format!("{right}0")),
            ("upper case", &right.replace('a', "A")),
            ("a sign", &right.replace(":9", ":+")),
        ] {
            let error = text.parse::<Checksum>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` is not a checksum")), "{why}: {error}");
        }
    }

    proptest! {
        #[test]
        fn how_it_is_written_changes_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..4000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut writer = ChecksumWriter::new(io::sink());
            for cut in cuts.windows(2) {
                writer.write_all(&bytes[cut[0]..cut[1]]).unwrap();
            }
            prop_assert_eq!(writer.finish(), Checksum(xxh128::hash(&bytes)));
        }
    }
}
