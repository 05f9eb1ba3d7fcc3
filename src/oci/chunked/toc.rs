//! Writes the table of contents and the tar-split of a layer.
//! Stage: oci (pure). Input: entries, and the places of their pieces. Output: compressed JSON.

use std::io::{self, BufWriter, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zstd::stream::raw::CParameter;

use super::crc64::Crc64;
use super::tar_parts::TarEntry;
use crate::digest::Digest;
use crate::layer::Kind;

/// Each pull fetches all of both documents.
const LEVEL: i32 = 12;
/// Logarithms of the number of bytes that the compressor looks back, and of its tables' sizes. Most
/// documents are shorter, and names repeat within less. Every layer has two documents: with the
/// level's own values, clearing 100 MB of tables for each would take longer than the compression.
const SIZES: [CParameter; 3] =
    [CParameter::WindowLog(18), CParameter::HashLog(17), CParameter::ChainLog(18)];
/// The number of bytes of JSON that are compressed at once.
const BUFFER: usize = 128 << 10;

/// A piece of a file, and its place in the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedPiece {
    /// The offset of the piece's frame in the blob.
    pub start: u64,
    /// The end of the piece's frame in the blob.
    pub end: u64,
    /// The number of its bytes.
    pub size: u64,
    /// True if all of them are zero.
    pub zeros: bool,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// A document that is compressed while it is written.
struct Document {
    encoder: BufWriter<zstd::Encoder<'static, Vec<u8>>>,
    /// The number of bytes before compression.
    size: u64,
}

/// A compressed document.
#[derive(Debug)]
pub struct Compressed {
    /// The compressed bytes.
    pub bytes: Vec<u8>,
    /// The number of bytes before compression.
    pub raw_size: u64,
}

impl Document {
    fn new() -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        SIZES.into_iter().try_for_each(|size| encoder.set_parameter(size))?;
        Ok(Self { encoder: BufWriter::with_capacity(BUFFER, encoder), size: 0 })
    }

    fn finish(self) -> io::Result<Compressed> {
        let encoder = self.encoder.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Compressed { bytes: encoder.finish()?, raw_size: self.size })
    }
}

impl Write for Document {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// An entry of the table, with the names and the order of containers' own writer. What is zero or
/// empty is left out.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'e> {
    r#type: &'static str,
    name: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    link_name: &'e str,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_type: Option<&'static str>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The table of contents, while it is written.
pub struct Toc {
    document: Document,
    is_empty: bool,
}

impl Toc {
    /// Starts a table without entries.
    ///
    /// # Errors
    /// Fails if the compressor does.
    pub fn new() -> io::Result<Self> {
        let mut document = Document::new()?;
        document.write_all(br#"{"version":1,"entries":["#)?;
        Ok(Self { document, is_empty: true })
    }

    /// Adds an entry. `pieces` are those of a file that is not empty, and `digest` is the file's if
    /// there are several.
    ///
    /// # Errors
    /// Fails if the compressor does.
    pub fn add(
        &mut self,
        entry: &TarEntry,
        digest: Option<Digest>,
        pieces: &[PlacedPiece],
    ) -> io::Result<()> {
        let TarEntry { kind, name, target, mode, size, uid, gid, mtime } = entry;
        let time = i64::try_from(*mtime).ok().map(OffsetDateTime::from_unix_timestamp);
        let modtime = time.and_then(|time| time.ok()?.format(&Rfc3339).ok());
        let mut row = Row {
            r#type: match kind {
                Kind::Directory => "dir",
                Kind::File => "reg",
                Kind::Symlink => "symlink",
            },
            name,
            link_name: target,
            mode: u64::from(*mode),
            size: *size,
            uid: *uid,
            gid: *gid,
            modtime,
            ..Row::default()
        };
        let whole = match pieces {
            [] => return self.row(&row),
            [piece] => Some(piece.digest),
            _ => digest,
        };
        row.digest = whole.map(|digest| digest.to_string());
        if let [piece] = pieces {
            (row.offset, row.end_offset) = (piece.start, piece.end);
            return self.row(&row);
        }
        let last = pieces.len() - 1;
        row.end_offset = pieces[last].end;
        let mut chunk_offset = 0;
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 {
                row = Row { r#type: "chunk", name, ..Row::default() };
            }
            if index == last {
                // Readers take the end of the last piece for the end of the file.
                row.end_offset = piece.end;
            }
            row.offset = piece.start;
            row.chunk_size = piece.size;
            row.chunk_offset = chunk_offset;
            row.chunk_digest = (!piece.zeros).then(|| piece.digest.to_string());
            row.chunk_type = piece.zeros.then_some("zeros");
            chunk_offset += piece.size;
            self.row(&row)?;
        }
        Ok(())
    }

    fn row(&mut self, row: &Row) -> io::Result<()> {
        if !std::mem::take(&mut self.is_empty) {
            self.document.write_all(b",")?;
        }
        serde_json::to_writer(&mut self.document, row)?;
        Ok(())
    }

    /// Ends the table.
    ///
    /// # Errors
    /// Fails if the compressor does.
    pub fn finish(mut self, tar_split: &Compressed) -> io::Result<Compressed> {
        let digest = Digest::of(&tar_split.bytes);
        write!(self.document, r#"],"tarSplitDigest":"{digest}"}}"#)?;
        self.document.finish()
    }
}

/// The tar-split: all of the tar but the bodies, from which readers make the tar again.
pub struct TarSplit {
    document: Document,
    position: u64,
}

/// A line of tar-split.
#[derive(Serialize)]
struct Line<'e> {
    r#type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'e str>,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    payload: Option<String>,
    position: u64,
}

impl TarSplit {
    /// Starts at the beginning of a tar.
    ///
    /// # Errors
    /// Fails if the compressor does.
    pub fn new() -> io::Result<Self> {
        Ok(Self { document: Document::new()?, position: 0 })
    }

    /// Adds the bytes between two bodies, up to an entry's body.
    ///
    /// # Errors
    /// Fails if the compressor does.
    pub fn segment(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line(2, None, 0, Some(STANDARD.encode(bytes)))
    }

    /// Adds an entry, with the checksum of its body if it has one.
    ///
    /// # Errors
    /// Fails if the compressor does.
    pub fn entry(&mut self, entry: &TarEntry, crc: Crc64) -> io::Result<()> {
        let payload = (entry.size > 0).then(|| STANDARD.encode(crc.finish()));
        self.line(1, Some(&entry.name), entry.size, payload)
    }

    fn line(
        &mut self,
        r#type: u8,
        name: Option<&str>,
        size: u64,
        payload: Option<String>,
    ) -> io::Result<()> {
        let line = Line { r#type, name, size, payload, position: self.position };
        self.position += 1;
        serde_json::to_writer(&mut self.document, &line)?;
        self.document.write_all(b"\n")
    }

    /// Ends the tar-split.
    ///
    /// # Errors
    /// Fails if the compressor does.
    pub fn finish(self) -> io::Result<Compressed> {
        self.document.finish()
    }
}
