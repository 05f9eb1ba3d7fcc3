//! Computes what clients that fetch pieces of layers fetch for an update.
//! Stage: report. Input: [`ImageSpec`]s and the store. Output: [`PieceCost`].
//!
//! podman and CRI-O read the table of contents of each new `zstd:chunked` layer, take files and
//! pieces that the layers of the old image have, and fetch the rest.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read, Write};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Digest;
use crate::oci::unpack::{TarError, TarReader};
use crate::oci::{Compression, Form, ImageSpec, LayerSource, SpecLayer, TocPlace, read_tar};
use crate::outgoing::{self, Hashing, ImageLayer, write_checked_layer};
use crate::sink::Plain;
use crate::store::Store;

/// The largest size of a table, compressed or not. Clients take no larger ones.
const MOST: u64 = 50 << 20;
/// The largest number of bytes between two pieces that clients fetch together.
const GAP: u64 = 1024;
/// The largest number of ranges that clients ask for at once.
const RANGES: usize = 1024;
/// The number of digits of the hash in a store path.
const HASH: usize = 32;
/// The number of bytes that are searched at once.
const BLOCK: usize = 64 << 10;

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
    /// The layer can't be made as a tar.
    #[error(transparent)]
    Tar(#[from] crate::layer::Error),
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

/// Computes the cost of an update in which the hash of every store path is another one, and nothing
/// else: what a rebuild of all packages costs at least. The layers of a base image stay. Makes all other layers.
///
/// # Errors
/// Fails if a layer can't be made or its table can't be read.
pub fn rebuild_cost(store: &Store, spec: &ImageSpec) -> Result<PieceCost, PiecesError> {
    let hashes: HashSet<&[u8]> =
        spec.sources.iter().map(|source| source.path.hash_part().as_bytes()).collect();
    let mut cost = PieceCost::default();
    let is_stored = |layer: &SpecLayer| matches!(layer.source, LayerSource::Stored(_));
    let base = spec.layers.iter().take_while(|layer| is_stored(layer)).count();
    for (index, layer) in spec.layers.iter().enumerate().skip(base) {
        let size = layer.blob(Form::AsStored).size;
        cost.bytes_by_layers += size;
        let Some((place, files)) = table(store, spec, index)? else {
            cost.bytes_by_pieces += size;
            continue;
        };
        cost.layers_with_table += 1;
        let changed = read_tar(store, layer, |tar| changed(tar, &files, &hashes))?;
        let changed = changed.map_err(|error| PiecesError::Table {
            number: index + 1,
            source: io::Error::other(error),
        })?;
        let documents = place.size.saturating_add(place.tar_split_size);
        cost.bytes_by_pieces += documents.saturating_add(fetched(changed)).min(size);
    }
    Ok(cost)
}

/// Returns the places of the pieces that hold one of the hashes. `files` are those of the tar, in its
/// order.
fn changed(
    tar: impl Read,
    files: &[TableFile],
    hashes: &HashSet<&[u8]>,
) -> Result<Vec<Range<u64>>, TarError> {
    let mut archive = TarReader::new(tar);
    let mut files = files.iter();
    let mut changed = Vec::new();
    while let Some(mut member) = archive.next_member()? {
        if !member.kind().is_file() || member.size() == 0 {
            continue;
        }
        let differs = || {
            let problem = "its files are not those of the table of contents";
            TarError::Read(io::Error::new(io::ErrorKind::InvalidData, problem))
        };
        let file = files.next().filter(|file| file.size == member.size()).ok_or_else(differs)?;
        let mut search = Search { hashes, run: Vec::new() };
        let mut before: Option<&TablePiece> = None;
        for piece in &file.pieces {
            // The size of a single piece may be left out.
            let size = if piece.size == 0 { member.size() } else { piece.size };
            let found = search.read(&mut (&mut member).take(size))?;
            let range = |piece: &TablePiece| piece.range.clone();
            changed.extend(before.filter(|_| found.began_before).map(range));
            changed.extend(found.is_here.then(|| range(piece)));
            before = Some(piece);
        }
    }
    Ok(changed)
}

/// Searches a file for hashes of store paths, piece by piece.
struct Search<'h> {
    hashes: &'h HashSet<&'h [u8]>,
    /// The last bytes that may be the beginning of a hash.
    run: Vec<u8>,
}

/// Says where the hashes are that end in a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// True if a part of a hash is in the piece.
    is_here: bool,
    /// True if a hash begins in the piece before.
    began_before: bool,
}

impl Search<'_> {
    fn read(&mut self, piece: &mut impl Read) -> io::Result<Held> {
        let mut held = Held::default();
        let mut buffer = vec![0; BLOCK];
        let mut from_before = self.run.len();
        loop {
            let read = piece.read(&mut buffer)?;
            if read == 0 {
                return Ok(held);
            }
            let bytes = [&self.run[..], &buffer[..read]].concat();
            let mut begin = 0;
            for (index, byte) in bytes.iter().enumerate() {
                // The digits of Nix's base 32 are those without e, o, t and u.
                let is_digit = byte.is_ascii_digit()
                    || byte.is_ascii_lowercase() && !matches!(byte, b'e' | b'o' | b't' | b'u');
                if !is_digit {
                    begin = index + 1;
                    continue;
                }
                let first = (index + 1).saturating_sub(HASH);
                if begin <= first
                    && index + 1 >= HASH
                    && self.hashes.contains(&bytes[first..=index])
                {
                    held.is_here = true;
                    held.began_before |= first < from_before;
                }
            }
            let kept = begin.max((bytes.len() + 1).saturating_sub(HASH));
            from_before = from_before.saturating_sub(kept);
            self.run = bytes[kept..].to_vec();
        }
    }
}

/// A file with its pieces.
struct TableFile {
    size: u64,
    digest: Option<Digest>,
    pieces: Vec<TablePiece>,
}

/// A piece of a file.
struct TablePiece {
    /// The digest of its bytes, if there are several pieces.
    digest: Option<Digest>,
    zeros: bool,
    /// The number of its bytes, or 0 if the table leaves it out.
    size: u64,
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
    chunk_size: u64,
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
        let piece = TablePiece { digest: entry.chunk_digest, zeros, size: entry.chunk_size, range };
        match (&*entry.r#type, files.last_mut()) {
            ("reg", _) if entry.size > 0 => {
                files.push(TableFile {
                    size: entry.size,
                    digest: entry.digest,
                    pieces: vec![piece],
                });
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

    /// A reader that gives a few bytes at a time.
    struct Few<'b>(&'b [u8], usize);

    impl Read for Few<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len());
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn hashes_are_found_in_their_pieces() {
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        let hashes = HashSet::from([hash.as_bytes()]);
        let here = Held { is_here: true, began_before: false };
        let both = Held { is_here: true, began_before: true };
        let none = Held::default();
        let (first, second) = hash.split_at(10);
        for (pieces, expected) in [
            (vec![format!("/nix/store/{hash}-a")], vec![here]),
            // Letters before and after a hash do not hide it.
            (vec![format!("abc{hash}xyz")], vec![here]),
            (vec![format!("a{}", &hash[1..]), hash.to_owned()], vec![none, here]),
            (vec![first.to_owned(), second.to_owned()], vec![none, both]),
            (vec![first.to_owned(), format!("-{second}")], vec![none, none]),
            (vec![hash.to_owned(), hash.to_owned()], vec![here, here]),
            (vec![format!("{hash}/"), "x".repeat(100)], vec![here, none]),
            (vec!["0".repeat(100), hash.to_owned()], vec![none, here]),
        ] {
            for few in [1, 7, 31, 32, 33, 1000] {
                let mut search = Search { hashes: &hashes, run: Vec::new() };
                let found: Vec<_> = pieces
                    .iter()
                    .map(|piece| search.read(&mut Few(piece.as_bytes(), few)).unwrap())
                    .collect();
                assert_eq!(found, expected, "{pieces:?}, {few} bytes at a time");
            }
        }
    }

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
