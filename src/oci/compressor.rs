//! Compresses in parallel, with the same result for any number of threads.
//! Stage: oci. Input: bytes. Output: their compressed form, in order.
//!
//! The input is cut into blocks of one size. Each block is compressed on its own, as a gzip member
//! (RFC 1952, 2.2) or a Zstandard frame (RFC 8878, 3.1): both formats allow several in a row. So
//! the result depends only on the bytes, the versions of the libraries (`Cargo.lock` pins them) and
//! the constants below.

use std::io::{self, Write};

use libdeflater::{CompressionLvl, Compressor as Deflate};

use super::compression::Compression;
use super::parallel::{Jobs, Queue};

/// Returns the number of bytes of a block. `cargo bench --bench compression` measures the cost of
/// other sizes.
const fn block_size(compression: Compression) -> usize {
    match compression {
        // gzip never refers further back than 32 KiB.
        Compression::Gzip => 1 << 20,
        // Zstandard refers much further back, and begins anew with each block.
        Compression::Zstd | Compression::None => 4 << 20,
    }
}

// Measured by `cargo bench --bench compression`: level 6 takes 1.4 times as long for 2 % fewer
// bytes.
const GZIP_LEVEL: i32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// Compresses what is written to it, on threads that all compressors share, and passes the result
/// on in order.
///
/// Memory is bounded: two blocks for each thread, and two more for each compressor.
pub struct Compressor<W: Write> {
    out: W,
    compression: Compression,
    block: Vec<u8>,
    /// The blocks that are being compressed.
    queue: Queue<Vec<u8>>,
    written_any: bool,
}

impl<W: Write> Compressor<W> {
    /// Creates a compressor that writes to `out`.
    pub fn new(compression: Compression, out: W) -> Self {
        let block = Vec::with_capacity(block_size(compression));
        let queue = Queue::among(Jobs::of_all());
        Self { out, compression, block, queue, written_any: false }
    }

    /// Writes the remaining blocks, and returns `out`.
    ///
    /// # Errors
    /// Fails if the writer or the compressor fails.
    pub fn finish(mut self) -> io::Result<W> {
        // Compress an empty input as well: no reader takes an empty file for gzip.
        if !self.block.is_empty() || !self.written_any {
            self.start_block()?;
        }
        self.queue.finish(|block| self.out.write_all(&block))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn start_block(&mut self) -> io::Result<()> {
        self.written_any = true;
        let next = Vec::with_capacity(block_size(self.compression));
        let block = std::mem::replace(&mut self.block, next);
        let compression = self.compression;
        let job = move || compressed(compression, &block);
        self.queue.start(job, |block| self.out.write_all(&block))
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.compression.is_none() {
            self.written_any = true;
            return self.out.write(bytes);
        }
        let size = block_size(self.compression);
        let taken = bytes.len().min(size - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == size {
            self.start_block()?;
        }
        Ok(taken)
    }

    /// Does nothing: blocks are passed on by themselves, and a block that is not full is not cut
    /// short.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compressed(compression: Compression, block: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(block.to_vec()),
        Compression::Gzip => {
            let level = CompressionLvl::new(GZIP_LEVEL).expect("the level is valid");
            let mut deflate = Deflate::new(level);
            let mut bytes = vec![0; deflate.gzip_compress_bound(block.len())];
            let length = deflate.gzip_compress(block, &mut bytes).map_err(io::Error::other)?;
            bytes.truncate(length);
            Ok(bytes)
        }
        Compression::Zstd => zstd::bulk::compress(block, ZSTD_LEVEL),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::digest::Digest;

    fn compress(compression: Compression, pieces: &[&[u8]]) -> Vec<u8> {
        let mut compressor = Compressor::new(compression, Vec::new());
        for piece in pieces {
            compressor.write_all(piece).unwrap();
        }
        compressor.finish().unwrap()
    }

    fn read_back(compressed: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Compression::of(compressed).reader(compressed).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Returns bytes that compress about as well as programs do.
    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|place| ((place * place) >> 7) as u8 % 64).collect()
    }

    #[test]
    fn around_the_ends_of_blocks() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let size = block_size(compression);
            for length in [0, 1, size - 1, size, size + 1, 3 * size] {
                let bytes = text(length);
                let compressed = compress(compression, &[&bytes]);
                assert_eq!(Compression::of(&compressed), compression, "{length}");
                assert!(read_back(&compressed) == bytes, "{compression:?} {length}");
            }
        }
        assert_eq!(compress(Compression::None, &[b"as it is"]), b"as it is");
    }

    /// Checks the digests that stand for the bytes of every compressed layer: if they change, all
    /// users send everything once more.
    #[test]
    fn the_bytes_are_the_same_with_every_version() {
        let bytes = text(5 << 20);
        let digest = |compression| Digest::of(&compress(compression, &[&bytes])).hex();
        assert_eq!(&digest(Compression::Gzip)[..16], "c8b48b4b780b44de");
        assert_eq!(&digest(Compression::Zstd)[..16], "ae9259b19d1b51f7");
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_writers_error_comes_through() {
        let mut compressor = Compressor::new(Compression::Gzip, Full);
        let error = match compressor.write_all(&text(64 << 20)) {
            Ok(()) => compressor.finish().err().unwrap(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn how_it_is_written_changes_nothing(
            length in 0_usize..3 << 20,
            cuts in prop::collection::vec(0_usize..3 << 20, 0..9),
        ) {
            let bytes = text(length);
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut <= length).collect();
            cuts.extend([0, length]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let whole = compress(Compression::Gzip, &[&bytes]);
            prop_assert!(compress(Compression::Gzip, &pieces) == whole);
            prop_assert!(read_back(&whole) == bytes);
        }
    }
}
