//! Recognises and removes compression.
//! Stage: oci (pure, except for the reader that it reads from).

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::unpack::{Counted, Limited, UnpackLimits};

/// The largest window of Zstandard that is decoded, as a power of two: 32 MiB, which
/// `zstd -20 --ultra` uses. Each decoder has one in memory.
const WINDOW_LOG: u32 = 25;

/// The compression of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// The bytes are not compressed.
    #[default]
    None,
    /// gzip (RFC 1952), of one member or several.
    Gzip,
    /// Zstandard (RFC 8878), of one frame or several.
    Zstd,
}

impl Compression {
    /// Recognises the compression by the first bytes. Anything but gzip and Zstandard counts as not
    /// compressed.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame, with which some compressors begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Returns whether there is no compression; also for serde.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Returns a reader of the uncompressed bytes, which applies [`UnpackLimits`].
    ///
    /// # Errors
    /// Fails if the decoder can't be made. Errors in the bytes are reported while they are read.
    pub fn reader<'r>(
        self,
        from: impl BufRead + Send + 'r,
    ) -> io::Result<Box<dyn Read + Send + 'r>> {
        if self == Self::None {
            return Ok(Box::new(from));
        }
        let (from, taken) = Counted::new(from);
        let limits = UnpackLimits::chosen();
        if self == Self::Gzip {
            return Ok(Box::new(Limited::new(MultiGzDecoder::new(from), taken, limits)));
        }
        let mut decoder = zstd::Decoder::with_buffer(from)?;
        decoder.window_log_max(WINDOW_LOG)?;
        Ok(Box::new(Limited::new(decoder, taken, limits)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        Compression::of(bytes).reader(bytes)?.read_to_end(&mut read)?;
        Ok(read)
    }

    #[test]
    fn what_was_compressed_is_read_back() {
        for (how, bytes, compression) in [
            ("plain", b"bytes".to_vec(), Compression::None),
            ("empty", b"".to_vec(), Compression::None),
            ("gzip", gzip(b"bytes"), Compression::Gzip),
            ("gzip of two members", [gzip(b"by"), gzip(b"tes")].concat(), Compression::Gzip),
            ("zstd", zstd(b"bytes"), Compression::Zstd),
            ("zstd of two frames", [zstd(b"by"), zstd(b"tes")].concat(), Compression::Zstd),
            (
                "zstd after a skippable frame",
                [&b"\x50\x2a\x4d\x18\x01\0\0\0x"[..], &zstd(b"bytes")].concat(),
                Compression::Zstd,
            ),
        ] {
            assert_eq!(Compression::of(&bytes), compression, "{how}");
            let expected: &[u8] = if how == "empty" { b"" } else { b"bytes" };
            assert_eq!(read(&bytes).unwrap(), expected, "{how}");
        }
    }

    #[test]
    fn half_of_it_is_an_error() {
        for (how, bytes) in [("gzip", gzip(&[7; 999])), ("zstd", zstd(&[7; 999]))] {
            let error = read(&bytes[..bytes.len() - 5]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{how}: {error}");
        }
    }
}
