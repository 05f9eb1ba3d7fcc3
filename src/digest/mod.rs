//! SHA-256 digests as OCI writes them, one type for each thing that is digested; and checksums.
//! Vocabulary: names no stage.
//!
//! [`DiffId`] is the digest of an *uncompressed* layer, [`BlobDigest`] that of the
//! bytes that are transferred; the two are never converted into each other, except
//! where a layer is transferred as it is ([`DiffId::as_uncompressed_blob`]):
//!
//! ```compile_fail
//! # use stowage::digest::{BlobDigest, DiffId};
//! fn swap(diff_id: DiffId) -> BlobDigest { diff_id.into() }
//! ```

pub(crate) mod base32;
mod checksum;
mod hasher_thread;
mod lane_hasher;
mod lanes;

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::sink::Sink;
use hasher_thread::HasherThread;

pub use checksum::{Checksum, ChecksumWriter, ParseChecksumError};
pub use lane_hasher::LaneHasher;
pub use lanes::{LanePlace, in_lanes};

/// A SHA-256 digest, printed as `sha256:<64 lower-case hex digits>`
/// (image-spec, descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Says why a string is not a digest.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{text}` is not a digest: expected `sha256:` and 64 lower-case hex digits")]
pub struct ParseDigestError {
    text: String,
}

impl Digest {
    /// Computes the digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Wraps the 32 bytes of a digest.
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses 64 lower-case hex digits.
    pub(crate) fn from_hex(hex: &str) -> Option<Self> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// Returns the 32 bytes.
    pub const fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Returns the 64 hex digits without the algorithm, as blobs are named in an image layout.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the form of Nix expressions (W3C, Subresource Integrity): `sha256-` and base 64.
    pub fn to_sri(&self) -> String {
        format!("sha256-{}", STANDARD.encode(self.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("sha256:")
            .and_then(Self::from_hex)
            .ok_or_else(|| ParseDigestError { text: text.to_owned() })
    }
}

/// Implements serde's traits for a type by its text: the one that it is printed as and parsed from.
macro_rules! as_text {
    ($name:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use as_text;

as_text!(Digest);

macro_rules! digest_of {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Digest);

        impl $name {
            /// Wraps a bare digest: the caller says what it is the digest of.
            pub const fn new(digest: Digest) -> Self {
                Self(digest)
            }

            /// Returns the bare digest.
            pub const fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        as_text!($name);
    };
}

digest_of! {
    /// Digest of a layer's *uncompressed* tar (image-spec, config.md, "Layer DiffID").
    DiffId
}
digest_of! {
    /// Digest of a blob as it is stored and transferred, compressed or not.
    BlobDigest
}
digest_of! {
    /// Digest of the image configuration's bytes as written (image-spec, config.md, "ImageID").
    ImageId
}

impl DiffId {
    /// Returns the blob digest of this layer where it is transferred *uncompressed*: the one place
    /// where a diff ID and a blob digest are of the same bytes.
    pub const fn as_uncompressed_blob(&self) -> BlobDigest {
        BlobDigest::new(self.0)
    }
}

/// Computes a message's digest from its bytes, in pieces of any length.
pub trait MessageHasher {
    /// Takes the next bytes.
    fn update(&mut self, bytes: &[u8]);

    /// Returns the digest of all bytes.
    fn finish(self) -> Digest;
}

/// Computes the digest and the length of bytes on their way to `W`.
pub struct DigestWriter<W, H = Hasher> {
    inner: W,
    hasher: H,
    size: u64,
}

/// Hashes one message alone.
pub enum Hasher {
    /// Hashes on the thread that has the bytes.
    Here(Sha256),
    /// Hashes on another thread.
    Beside(HasherThread),
}

impl MessageHasher for Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Here(hasher) => hasher.update(bytes),
            Self::Beside(thread) => thread.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        let hasher = match self {
            Self::Here(hasher) => hasher,
            Self::Beside(thread) => thread.finish(),
        };
        Digest(hasher.finalize().into())
    }
}

impl<W> DigestWriter<W> {
    /// Starts with no bytes.
    pub fn new(inner: W) -> Self {
        Self::of(inner, Hasher::Here(Sha256::new()))
    }

    /// Creates a writer that hashes on a thread of its own, while the next bytes are made and
    /// written. Worth it for megabytes, if a processor is free.
    pub fn with_thread(inner: W) -> Self {
        Self::of(inner, Hasher::Beside(HasherThread::start()))
    }
}

impl<'p, W> DigestWriter<W, LaneHasher<'p>> {
    /// Creates a writer that hashes at a place of [`in_lanes`], together with other messages. A
    /// coroutine that writes to it may be suspended meanwhile.
    pub fn at(place: &'p LanePlace<'p>, inner: W) -> Self {
        Self::of(inner, LaneHasher::new(place))
    }
}

impl<W, H: MessageHasher> DigestWriter<W, H> {
    fn of(inner: W, hasher: H) -> Self {
        Self { inner, hasher, size: 0 }
    }

    /// Returns the digest and the number of the bytes that were written.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.size)
    }
}

impl<W: Write, H: MessageHasher> Write for DigestWriter<W, H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write, H: MessageHasher> Sink for DigestWriter<W, H> {}

/// Computes the digest and the length of bytes on their way from `R`.
pub struct DigestReader<R> {
    inner: R,
    hasher: Sha256,
    size: u64,
}

impl<R: Read> DigestReader<R> {
    /// Starts with no bytes.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }

    /// Reads what is left, and returns the digest and the number of all bytes.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest(self.hasher.finalize().into()), self.size))
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::PIECE;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn prints_what_it_parses() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap().to_string(), EMPTY);
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
    }

    #[test]
    fn refuses_what_is_no_digest() {
        for (why, text) in [
            ("empty", ""),
            ("no algorithm", &EMPTY[7..]),
            (
                "other algorithm",
                "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            ("too short", &EMPTY[..70]),
            ("upper case", &EMPTY.to_uppercase().replace("SHA", "sha")),
            ("not hex", &EMPTY.replace('e', "g")),
            ("not ASCII", "sha256:é3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85"),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{why}: {text}");
        }
    }

    #[test]
    fn digests_what_the_inner_writer_took() {
        let mut writer = DigestWriter::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        let (digest, size) = writer.finish();
        assert_eq!((digest, size), (Digest::of(b"abc"), 3));
    }

    /// Checks lengths around those of pieces, and many pieces at once.
    #[test]
    fn a_thread_digests_the_same() {
        let bytes: Vec<u8> = (0..3_u32 << 20).map(|place| (place >> 3) as u8).collect();
        for piece in [1 << 10, PIECE - 1, PIECE, PIECE + 1, 3 << 20] {
            let mut writer = DigestWriter::with_thread(Vec::new());
            bytes.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
            assert!(writer.inner == bytes);
            assert_eq!(writer.finish(), (Digest::of(&bytes), bytes.len() as u64), "{piece}");
        }
        assert_eq!(DigestWriter::with_thread(io::sink()).finish().0.to_string(), EMPTY);
        // A writer that is dropped unfinished ends its thread.
        let mut writer = DigestWriter::with_thread(io::sink());
        writer.write_all(&bytes).unwrap();
    }

    #[test]
    fn digests_what_was_not_read_as_well() {
        let mut reader = DigestReader::new(&b"abc"[..]);
        reader.read_exact(&mut [0]).unwrap();
        assert_eq!(reader.finish().unwrap(), (Digest::of(b"abc"), 3));
    }
}
