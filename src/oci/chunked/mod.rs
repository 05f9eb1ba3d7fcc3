//! Compresses a layer as `zstd:chunked`, of which readers can fetch files and pieces of files.
//! Stage: oci. Input: a layer's tar. Output: its blob, and the place of the table of contents in it.
//!
//! The blob is a sequence of Zstandard frames: any reader of Zstandard finds the tar in it. Each piece
//! of a file is a frame of its own. At the end there are three frames that decoders skip: the table of
//! contents, the tar-split (all of the tar but the bodies), and a footer with the places of both.
//! podman and CRI-O look for the pieces in the layers that they have, and fetch the rest
//! (go.podman.io/storage, `pkg/chunked`).

mod crc64;
mod cut;
mod tar_parts;
mod toc;
mod toc_place;

use std::cell::RefCell;
use std::io::{self, Write};

use zstd::bulk::Compressor;

use self::crc64::Crc64;
#[cfg(test)]
pub use self::cut::noise;
pub use self::cut::{LOOKAHEAD, Piece, first_piece};
use self::tar_parts::{TarEntry, TarPart, TarParts, Unsuitable};
use self::toc::{PlacedPiece, TarSplit, Toc};
pub use self::toc_place::TocPlace;
use super::parallel::{Jobs, Queue};
use crate::digest::{Digest, DigestWriter};

/// A higher level than that of plain Zstandard makes up for the short frames.
const LEVEL: i32 = 9;
/// The number of bytes of frames that are compressed in one job.
const BATCH: usize = 1 << 20;
/// The largest number of bytes of both documents that readers take, before compression.
const MOST_RAW: u64 = 50 << 20;
/// The beginning of a frame that decoders skip (RFC 8878, 3.1.2).
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// The end of the footer.
const FOOTER_MAGIC: &[u8; 8] = b"GNUlInUx";

thread_local! {
    /// The compressor of this thread, and a buffer for one frame. A new compressor for each batch would
    /// double the time that a build spends in the system, which clears memory for the tables. Its
    /// earlier frames change no byte of a frame.
    static COMPRESSOR: RefCell<Option<(Compressor<'static>, Vec<u8>)>> = const { RefCell::new(None) };
}

/// Appends a frame with some bytes.
fn compress_frame(bytes: &[u8], compressed: &mut Vec<u8>) -> io::Result<()> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let (compressor, frame) = match slot {
            Some(there) => there,
            None => slot.insert((Compressor::new(LEVEL)?, Vec::new())),
        };
        frame.clear();
        frame.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        compressor.compress_to_buffer(bytes, frame)?;
        compressed.extend_from_slice(frame);
        Ok(())
    })
}

/// An event in a batch, in the order of the tar.
enum Event {
    /// A frame ends, with a piece of a file or with other bytes.
    Frame { end: usize, piece: Option<NewPiece> },
    /// An entry is complete: its pieces, if it has any, came before. The digest is that of a file
    /// of several pieces.
    Entry(TarEntry, Option<Digest>),
}

/// A piece of a file.
struct NewPiece {
    size: usize,
    zeros: bool,
    /// Computed with the compression.
    digest: Option<Digest>,
}

/// Bytes that are compressed in one job. What is in it depends on the tar alone.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    events: Vec<Event>,
}

impl Batch {
    fn frame(&mut self, bytes: &[u8], zeros: Option<bool>) {
        self.bytes.extend_from_slice(bytes);
        let piece = zeros.map(|zeros| NewPiece { size: bytes.len(), zeros, digest: None });
        self.events.push(Event::Frame { end: self.bytes.len(), piece });
    }

    /// Compresses each frame by itself, and computes the digests of pieces.
    fn compress(mut self) -> io::Result<Self> {
        let (mut compressed, mut start) = (Vec::with_capacity(self.bytes.len() / 2), 0);
        for event in &mut self.events {
            let Event::Frame { end, piece } = event else { continue };
            let frame = &self.bytes[start..*end];
            start = *end;
            compress_frame(frame, &mut compressed)?;
            *end = compressed.len();
            if let Some(piece) = piece {
                piece.digest = Some(Digest::of(frame));
            }
        }
        Ok(Self { bytes: compressed, ..self })
    }
}

/// The blob's bytes as far as they are written.
struct BlobBytes<W> {
    out: W,
    size: u64,
}

impl<W: Write> BlobBytes<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Writes a frame that decoders skip, and returns the offset of its bytes.
    fn skippable(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.write(&SKIPPABLE)?;
        self.write(&length.to_le_bytes())?;
        let offset = self.size;
        self.write(bytes)?;
        Ok(offset)
    }
}

/// The blob as far as it is written, and its table of contents.
struct Blob<W> {
    written: BlobBytes<W>,
    toc: Toc,
    /// The pieces of the file that has not ended.
    pieces: Vec<PlacedPiece>,
}

impl<W: Write> Blob<W> {
    /// Writes a batch that is compressed.
    fn batch(&mut self, batch: Batch) -> io::Result<()> {
        let begin = self.written.size;
        self.written.write(&batch.bytes)?;
        let mut start = begin;
        for event in batch.events {
            match event {
                Event::Frame { end, piece } => {
                    let end = begin + end as u64;
                    if let Some(NewPiece { size, zeros, digest: Some(digest) }) = piece {
                        self.pieces.push(PlacedPiece {
                            start,
                            end,
                            size: size as u64,
                            zeros,
                            digest,
                        });
                    }
                    start = end;
                }
                Event::Entry(entry, digest) => {
                    self.toc.add(&entry, digest, &self.pieces)?;
                    self.pieces.clear();
                }
            }
        }
        Ok(())
    }
}

/// A file that is being cut.
struct OpenFile {
    entry: TarEntry,
    crc: Crc64,
    /// The bytes from the last border on.
    rest: Vec<u8>,
    /// The digest of the pieces so far; none before the first border.
    digest: Option<DigestWriter<io::Sink>>,
}

/// Compresses the tar that is written to it. The bytes are the same for any number of threads and any
/// way to write the tar.
///
/// Memory is bounded: that of the queue, `LOOKAHEAD` bytes of a file, the compressed documents, and
/// the places of one file's pieces.
pub struct ChunkedCompressor<W: Write> {
    parts: Result<TarParts, Unsuitable>,
    tar_split: TarSplit,
    file: Option<OpenFile>,
    /// The bytes between bodies, which are not yet in the batch.
    between: Vec<u8>,
    batch: Batch,
    queue: Queue<Batch>,
    blob: Blob<W>,
}

impl<W: Write> ChunkedCompressor<W> {
    /// Creates a compressor that writes to `out`.
    ///
    /// # Errors
    /// Fails if Zstandard can't be set up.
    pub fn new(out: W) -> io::Result<Self> {
        Ok(Self {
            parts: Ok(TarParts::new()),
            tar_split: TarSplit::new()?,
            file: None,
            between: Vec::new(),
            batch: Batch::default(),
            queue: Queue::among(Jobs::of_all()),
            blob: Blob {
                written: BlobBytes { out, size: 0 },
                toc: Toc::new()?,
                pieces: Vec::new(),
            },
        })
    }

    /// Writes the rest, and returns `out` with the place of the table of contents. There is none if
    /// the tar can't have a table; then what was written is not a layer.
    ///
    /// # Errors
    /// Fails if the writer or the compressor fails.
    pub fn finish(mut self) -> io::Result<(W, Option<TocPlace>)> {
        let Ok(end) = self.parts.and_then(TarParts::finish) else {
            return Ok((self.blob.written.out, None));
        };
        self.tar_split.segment(&end)?;
        self.between.extend_from_slice(&end);
        self.batch.frame(&self.between, None);
        let (batch, blob) = (self.batch, &mut self.blob);
        self.queue.start(|| batch.compress(), |batch| blob.batch(batch))?;
        self.queue.finish(|batch| blob.batch(batch))?;

        let Blob { mut written, toc, .. } = self.blob;
        let tar_split = self.tar_split.finish()?;
        let toc = toc.finish(&tar_split)?;
        if toc.raw_size > MOST_RAW {
            return Ok((written.out, None));
        }
        let offset = written.skippable(&toc.bytes)?;
        let tar_split_offset = written.skippable(&tar_split.bytes)?;
        let place = TocPlace {
            digest: Digest::of(&toc.bytes),
            offset,
            size: toc.bytes.len() as u64,
            raw_size: toc.raw_size,
            tar_split_offset,
            tar_split_size: tar_split.bytes.len() as u64,
            tar_split_raw_size: tar_split.raw_size,
        };
        written.skippable(&place.footer())?;
        written.out.flush()?;
        Ok((written.out, Some(place)))
    }

    fn headers(&mut self, headers: &[u8], entry: TarEntry) -> io::Result<()> {
        self.tar_split.segment(headers)?;
        self.between.extend_from_slice(headers);
        if entry.size > 0 {
            // The body begins a frame.
            self.batch.frame(&std::mem::take(&mut self.between), None);
            let (crc, rest) = (Crc64::new(), Vec::new());
            self.file = Some(OpenFile { entry, crc, rest, digest: None });
            return Ok(());
        }
        self.tar_split.entry(&entry, Crc64::new())?;
        self.batch.events.push(Event::Entry(entry, None));
        if self.between.len() >= BATCH {
            self.batch.frame(&std::mem::take(&mut self.between), None);
        }
        self.end_batch_if_full()
    }

    fn body(&mut self, bytes: &[u8], ends: bool) -> io::Result<()> {
        let mut file = self.file.take().expect("a body comes after its header");
        file.crc.update(bytes);
        file.rest.extend_from_slice(bytes);
        let mut start = 0;
        while start < file.rest.len() && (ends || file.rest.len() - start >= LOOKAHEAD) {
            let rest = &file.rest[start..];
            let is_whole = ends && start == 0 && file.digest.is_none();
            let Piece { length, zeros } = first_piece(rest, is_whole);
            let piece = &rest[..length];
            if !is_whole || length < rest.len() {
                let digest = file.digest.get_or_insert_with(|| DigestWriter::new(io::sink()));
                digest.write_all(piece)?;
            }
            self.batch.frame(piece, Some(zeros));
            start += length;
            self.end_batch_if_full()?;
        }
        if ends {
            let OpenFile { entry, crc, digest, .. } = file;
            self.tar_split.entry(&entry, crc)?;
            self.batch.events.push(Event::Entry(entry, digest.map(|digest| digest.finish().0)));
        } else {
            file.rest.drain(..start);
            self.file = Some(file);
        }
        Ok(())
    }

    fn end_batch_if_full(&mut self) -> io::Result<()> {
        if self.batch.bytes.len() < BATCH {
            return Ok(());
        }
        let (batch, blob) = (std::mem::take(&mut self.batch), &mut self.blob);
        self.queue.start(|| batch.compress(), |batch| blob.batch(batch))
    }
}

impl<W: Write> Write for ChunkedCompressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Ok(parts) = &mut self.parts {
            match parts.next(&mut rest) {
                Ok(Some(TarPart::Headers(headers, entry))) => self.headers(&headers, entry)?,
                Ok(Some(TarPart::Body { bytes, ends })) => self.body(bytes, ends)?,
                Ok(None) => break,
                Err(unsuitable) => self.parts = Err(unsuitable),
            }
        }
        Ok(bytes.len())
    }

    /// Does nothing: a frame that is not complete is not cut short.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::compression::Compression;
    use super::*;

    /// Returns a tar with a file of each kind.
    fn tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let header = |name: &str, kind, size| {
            let mut header = tar::Header::new_ustar();
            header.set_path(name).unwrap();
            header.set_entry_type(kind);
            header.set_mode(0o555);
            header.set_size(size);
            header.set_mtime(1);
            header.set_uid(0);
            header.set_gid(0);
            header.set_cksum();
            header
        };
        let big: Vec<u8> = (0..3_u64 << 20).map(|place| ((place * place) >> 9) as u8).collect();
        tar.append(&header("a/", tar::EntryType::Directory, 0), &b""[..]).unwrap();
        for (name, bytes) in [("a/big", &big[..]), ("a/empty", b""), ("a/small", b"small")] {
            let header = header(name, tar::EntryType::Regular, bytes.len() as u64);
            tar.append(&header, bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn compress(pieces: &[&[u8]]) -> (Vec<u8>, Option<TocPlace>) {
        let mut compressor = ChunkedCompressor::new(Vec::new()).unwrap();
        for piece in pieces {
            compressor.write_all(piece).unwrap();
        }
        compressor.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut unpacked = Vec::new();
        Compression::of(bytes).reader(bytes).unwrap().read_to_end(&mut unpacked).unwrap();
        unpacked
    }

    #[test]
    fn it_is_the_tar_in_zstandard() {
        let tar = tar();
        let (blob, place) = compress(&[&tar]);
        assert!(unpacked(&blob) == tar);
        let place = place.unwrap();
        let slice = |offset, size| &blob[offset as usize..][..size as usize];
        let toc = slice(place.offset, place.size);
        assert_eq!(Digest::of(toc), place.digest);
        assert_eq!(unpacked(toc).len() as u64, place.raw_size);
        let tar_split = slice(place.tar_split_offset, place.tar_split_size);
        assert_eq!(unpacked(tar_split).len() as u64, place.tar_split_raw_size);
        assert!(blob.ends_with(&place.footer()));
    }

    #[test]
    fn how_it_is_written_changes_nothing() {
        let tar = tar();
        let whole = compress(&[&tar]);
        for length in [511, 512, 4096, 1 << 20] {
            let pieces: Vec<_> = tar.chunks(length).collect();
            assert!(compress(&pieces) == whole, "{length}");
        }
    }

    /// Checks that a tar has no table if readers would take the table for something else.
    #[test]
    fn some_tars_have_no_table() {
        let tar = tar();
        let mut fifo = tar.clone();
        fifo[156] = b'6';
        let mut name = tar.clone();
        name[0] = 0xff;
        let twice = [&tar[..512], &tar].concat();
        for (why, tar) in [
            ("a FIFO", &fifo[..]),
            ("a name that is not UTF-8", &name),
            ("an entry twice", &twice),
            ("the end is missing", &tar[..1024]),
            ("nothing", b""),
        ] {
            assert!(compress(&[tar]).1.is_none(), "{why}");
        }
    }

    /// Checks that the frames which a thread compressed before change no byte.
    #[test]
    fn a_compressor_is_used_again() {
        let varied = |length: usize| -> Vec<u8> {
            (0..length).map(|place| (place * place / 7 % 251) as u8).collect()
        };
        for length in [1, 700, 128 << 10, 3 << 20, 9, 40_000] {
            let bytes = varied(length);
            let mut found = Vec::new();
            compress_frame(&bytes, &mut found).unwrap();
            let expected = Compressor::new(LEVEL).unwrap().compress(&bytes).unwrap();
            assert!(found == expected, "{length}");
        }
    }

    /// Checks the digest that stands for the bytes of every such layer.
    #[test]
    fn the_bytes_are_the_same_with_every_version() {
        assert_eq!(&Digest::of(&compress(&[&tar()]).0).hex()[..16], "7bf61c01624bf878");
    }
}
