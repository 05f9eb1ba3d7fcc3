//! Computes what clients that fetch pieces of layers fetch for an update.
//! Stage: report. Input: two [`ImageSpec`]s and the store. Output: [`PieceCost`].
//!
//! podman and CRI-O read the table of contents of each new `zstd:chunked` layer, take files and
//! pieces that the layers of the old image have, and fetch the rest.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Digest;
use crate::oci::{Compression, Form, ImageSpec, SpecLayer, TocPlace};
use crate::outgoing::{self, Hashing, ImageLayer, write_checked_layer};
use crate::sink::Plain;
use crate::store::Store;

/// The largest size of a table, compressed or not. Clients take no larger ones.
const MOST: u64 = 50 << 20;
/// The largest number of bytes between two pieces that clients fetch together.
const GAP: u64 = 1024;
/// The largest number of ranges that clients ask for at once.
const RANGES: usize = 1024;

/// The bytes of an update, compressed as they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PieceCost {
    /// Bytes of the new layers.
    pub bytes_by_layers: u64,
    /// Bytes of their pieces that the old image lacks, and of their tables of contents. Layers without
    /// a table count as a whole.
    pub bytes_by_pieces: u64,
    /// New layers that have a table of contents.
    pub layers_with_table: usize,
}

/// Says why the pieces of a layer are not known.
#[derive(Debug, Error)]
pub enum PiecesError {
    /// The layer can't be made.
    #[error(transparent)]
    Layer(#[from] outgoing::Error),
    /// The table of contents can't be read, as that of a base may be.
    #[error("cannot read the table of contents of layer {number}")]
    Table {
        /// The number of the layer, from 1 at the bottom.
        number: usize,
        /// The reason.
        source: io::Error,
    },
}

/// Computes the cost of an update by layers and by pieces. Makes all layers that have a table of
/// contents, since only the layers have these tables.
///
/// # Errors
/// Fails if a layer can't be made or its table can't be read.
pub fn piece_cost(
    store: &Store,
    old: &ImageSpec,
    new: &ImageSpec,
) -> Result<PieceCost, PiecesError> {
    let mut known = BTreeSet::new();
    for index in 0..old.layers.len() {
        let Some((_, files)) = table(store, old, index)? else { continue };
        known.extend(files.iter().filter_map(|file| file.digest));
        known.extend(files.iter().flat_map(|file| &file.pieces).filter_map(|piece| piece.digest));
    }
    let mut seen: BTreeSet<_> = old.layers.iter().map(|layer| layer.diff_id).collect();
    let mut cost = PieceCost::default();
    for (index, layer) in new.layers.iter().enumerate() {
        if !seen.insert(layer.diff_id) {
            continue;
        }
        let size = layer.blob(Form::AsStored).size;
        cost.bytes_by_layers += size;
        let Some((place, files)) = table(store, new, index)? else {
            cost.bytes_by_pieces += size;
            continue;
        };
        cost.layers_with_table += 1;
        let is_known = |digest: &Option<Digest>| digest.is_some_and(|it| known.contains(&it));
        let missing = files.iter().filter(|file| !is_known(&file.digest));
        let missing = missing.flat_map(|file| &file.pieces);
        let missing = missing.filter(|piece| !piece.zeros && !is_known(&piece.digest));
        let documents = place.size.saturating_add(place.tar_split_size);
        let fetched = fetched(missing.map(|piece| piece.range.clone()).collect());
        cost.bytes_by_pieces += documents.saturating_add(fetched).min(size);
    }
    Ok(cost)
}

/// A file with its pieces.
struct TableFile {
    digest: Option<Digest>,
    pieces: Vec<TablePiece>,
}

/// A piece of a file.
struct TablePiece {
    /// The digest of its bytes, if there are several pieces.
    digest: Option<Digest>,
    zeros: bool,
    /// The place in the blob.
    range: Range<u64>,
}

#[derive(Deserialize)]
struct Table {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    r#type: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    digest: Option<Digest>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    end_offset: u64,
    #[serde(default)]
    chunk_digest: Option<Digest>,
    #[serde(default)]
    chunk_type: Option<String>,
}

/// Makes a layer, and reads its table of contents. Returns `None` if it has none.
fn table(
    store: &Store,
    spec: &ImageSpec,
    index: usize,
) -> Result<Option<(TocPlace, Vec<TableFile>)>, PiecesError> {
    let Some(place) = SpecLayer::blob(&spec.layers[index], Form::AsStored).toc else {
        return Ok(None);
    };
    let wrong = |source| PiecesError::Table { number: index + 1, source };
    if place.size.max(place.raw_size) > MOST {
        return Err(wrong(io::Error::other(format!("it has more than {MOST} bytes"))));
    }
    let mut found =
        Slice { position: 0, range: place.offset..place.offset + place.size, bytes: Vec::new() };
    let layer = ImageLayer { spec, index, form: Form::AsStored };
    write_checked_layer(store, layer, Hashing::Beside, Plain(&mut found))?;
    if Digest::of(&found.bytes) != place.digest {
        return Err(wrong(io::Error::other("it has another digest than the image says")));
    }
    let mut json = Vec::new();
    let reader = Compression::Zstd.reader(&found.bytes[..]);
    reader.and_then(|reader| reader.take(MOST).read_to_end(&mut json)).map_err(wrong)?;
    let table: Table = serde_json::from_slice(&json).map_err(|error| wrong(error.into()))?;
    Ok(Some((place, files(table))))
}

/// Returns the files that are not empty. A piece ends where the next one of its file begins, and the
/// last one where its entry says.
fn files(table: Table) -> Vec<TableFile> {
    let mut files: Vec<TableFile> = Vec::new();
    for entry in table.entries {
        let range = entry.offset..entry.end_offset.max(entry.offset);
        let zeros = entry.chunk_type.as_deref() == Some("zeros");
        let piece = TablePiece { digest: entry.chunk_digest, zeros, range };
        match (&*entry.r#type, files.last_mut()) {
            ("reg", _) if entry.size > 0 => {
                files.push(TableFile { digest: entry.digest, pieces: vec![piece] });
            }
            ("chunk", Some(file)) => {
                if let Some(last) = file.pieces.last_mut() {
                    last.range.end = piece.range.start.max(last.range.start);
                }
                file.pieces.push(piece);
            }
            _ => {}
        }
    }
    files
}

/// Returns the bytes of these pieces and of the gaps between them that are fetched as well.
fn fetched(mut pieces: Vec<Range<u64>>) -> u64 {
    pieces.sort_by_key(|piece| piece.start);
    let mut bytes: u64 = 0;
    let mut end = None;
    let mut gaps = Vec::new();
    for piece in pieces {
        let begin = end.unwrap_or(piece.start);
        bytes = bytes.saturating_add(piece.end.saturating_sub(piece.start.max(begin)));
        match piece.start.checked_sub(begin) {
            Some(gap) if gap > GAP => gaps.push(gap),
            gap => bytes = bytes.saturating_add(gap.unwrap_or(0)),
        }
        end = Some(begin.max(piece.end));
    }
    // Clients join the ranges that are closest to each other if these are too many.
    gaps.sort_unstable();
    let joined = (gaps.len() + 1).saturating_sub(RANGES);
    gaps[..joined].iter().fold(bytes, |bytes, gap| bytes.saturating_add(*gap))
}

/// Keeps a range of the bytes that are written.
struct Slice {
    position: u64,
    range: Range<u64>,
    bytes: Vec<u8>,
}

impl Write for Slice {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        let within = |place: u64| place.saturating_sub(self.position).min(length) as usize;
        self.bytes.extend_from_slice(&bytes[within(self.range.start)..within(self.range.end)]);
        self.position += length;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_pieces_are_fetched_together() {
        assert_eq!(fetched(vec![]), 0);
        assert_eq!(fetched(vec![0..10, 20..30, 3000..3001]), 31);
        // 1,026 pieces: two gaps more than clients have ranges for, and the smallest ones.
        let mut pieces: Vec<_> =
            (0..1026_u64).map(|index| index * 10_000..index * 10_000 + 1).collect();
        assert_eq!(fetched(pieces.clone()), 1026 + 2 * 9_999);
        pieces[1] = 8_000..8_001;
        assert_eq!(fetched(pieces), 1026 + 7_999 + 9_999);
    }
}
