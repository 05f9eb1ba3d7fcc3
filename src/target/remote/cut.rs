//! Cuts a layer's bytes into pieces that other layers may have as well, and the bytes between them.
//! Stage: target (pure). Input: a blob in parts of any length. Output: [`Part`]s, in order.
//!
//! The bytes of a file are cut by their content (`oci/chunked/cut.rs`). Headers of a tar hold names,
//! and so the hashes of store paths: they change with each update, and compress well. A blob that is
//! not a tar, such as a base's compressed layer, is cut like one file.

use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::oci::unpack::has_check_sum;
use crate::oci::{LOOKAHEAD, Piece, first_piece};

/// The size of a block of a tar.
const BLOCK: usize = 512;
/// The smallest piece: the digest of a shorter one costs about as much as its bytes, compressed.
const LEAST_PIECE: usize = 1 << 10;
/// The largest number of pieces of a layer. Bytes beyond them are sent with each new layer.
pub const MOST_PIECES: usize = 1 << 18;
/// The largest part.
pub const MOST_PART: usize = 4 << 20;
/// The number of bytes between pieces that are collected at most.
const MOST_BETWEEN: usize = 64 << 10;

/// A part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'b> {
    /// Bytes that are always sent.
    Literal(&'b [u8]),
    /// Bytes that are sent if the receiver does not have them.
    Piece(&'b [u8]),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A header comes next, or a block of zeros.
    Header,
    /// The next bytes are no header, and no file's.
    Other { left: u64 },
    /// The next bytes are those of a file.
    Body { left: u64, padding: u64, begun: bool },
    /// The rest is no tar.
    Unknown { begun: bool },
}

/// Cuts the bytes that are written to it, and passes each part on.
pub struct Cutter<F> {
    state: State,
    /// Bytes of a header block, or of a file from the last border on.
    rest: Vec<u8>,
    /// The bytes since the last piece.
    between: Vec<u8>,
    pieces: usize,
    part: F,
}

impl<F: FnMut(Part) -> io::Result<()>> Cutter<F> {
    /// Starts at the beginning of a blob.
    pub fn new(part: F) -> Self {
        Self { state: State::Header, rest: Vec::new(), between: Vec::new(), pieces: 0, part }
    }

    /// Passes on the parts that are left.
    ///
    /// # Errors
    /// Returns the errors of the receiver of parts.
    pub fn finish(mut self) -> io::Result<()> {
        match self.state {
            State::Body { begun, .. } | State::Unknown { begun } => self.pieces(begun, true)?,
            State::Header | State::Other { .. } => self.between.append(&mut self.rest),
        }
        self.pass_between()
    }

    fn header(&mut self) {
        let block: &[u8; BLOCK] = self.rest.as_slice().try_into().expect("it is a whole block");
        if block.iter().all(|byte| *byte == 0) {
            self.between.append(&mut self.rest);
            return;
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        let size = header.entry_size().ok().filter(|_| has_check_sum(block));
        let Some((size, padded)) =
            size.and_then(|size| Some((size, size.checked_next_multiple_of(BLOCK as u64)?)))
        else {
            // The block stays in `rest`: it is the beginning of the rest.
            self.state = State::Unknown { begun: false };
            return;
        };
        self.between.append(&mut self.rest);
        if header.entry_type() == EntryType::Regular && size > 0 {
            self.state = State::Body { left: size, padding: padded - size, begun: false };
        } else if padded > 0 {
            self.state = State::Other { left: padded };
        }
    }

    /// Cuts `rest`. Returns once more bytes could move the next border.
    fn pieces(&mut self, begun: bool, ends: bool) -> io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        let mut start = 0;
        while start < rest.len() && (ends || rest.len() - start >= LOOKAHEAD) {
            let is_whole = ends && !begun && start == 0;
            let Piece { length, zeros } = first_piece(&rest[start..], is_whole);
            let piece = &rest[start..start + length];
            start += length;
            if zeros || length < LEAST_PIECE || self.pieces == MOST_PIECES {
                self.literal(piece)?;
            } else {
                self.pass_between()?;
                self.pieces += 1;
                (self.part)(Part::Piece(piece))?;
            }
        }
        self.rest = rest;
        self.rest.drain(..start);
        Ok(())
    }

    fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() >= MOST_BETWEEN {
            self.pass_between()?;
            return (self.part)(Part::Literal(bytes));
        }
        self.between.extend_from_slice(bytes);
        if self.between.len() >= MOST_BETWEEN { self.pass_between() } else { Ok(()) }
    }

    fn pass_between(&mut self) -> io::Result<()> {
        if self.between.is_empty() {
            return Ok(());
        }
        (self.part)(Part::Literal(&self.between))?;
        self.between.clear();
        Ok(())
    }
}

/// Splits bytes after `left` ones at most.
fn split(bytes: &[u8], left: u64) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)))
}

impl<F: FnMut(Part) -> io::Result<()>> Write for Cutter<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut bytes_left = bytes;
        while !bytes_left.is_empty() {
            match self.state {
                State::Header => {
                    let wanted = (BLOCK - self.rest.len()) as u64;
                    let (taken, more) = split(bytes_left, wanted);
                    bytes_left = more;
                    self.rest.extend_from_slice(taken);
                    if self.rest.len() == BLOCK {
                        self.header();
                    }
                }
                State::Other { left } => {
                    let (taken, more) = split(bytes_left, left);
                    bytes_left = more;
                    self.literal(taken)?;
                    let left = left - taken.len() as u64;
                    self.state = if left > 0 { State::Other { left } } else { State::Header };
                }
                State::Body { left, padding, begun } => {
                    let (taken, more) = split(bytes_left, left);
                    bytes_left = more;
                    self.rest.extend_from_slice(taken);
                    let left = left - taken.len() as u64;
                    let had = self.rest.len();
                    self.pieces(begun, left == 0)?;
                    self.state = match (left, padding) {
                        (0, 0) => State::Header,
                        (0, left) => State::Other { left },
                        _ => {
                            let begun = begun || self.rest.len() < had;
                            State::Body { left, padding, begun }
                        }
                    };
                }
                State::Unknown { begun } => {
                    self.rest.extend_from_slice(bytes_left);
                    bytes_left = &[];
                    let had = self.rest.len();
                    self.pieces(begun, false)?;
                    self.state = State::Unknown { begun: begun || self.rest.len() < had };
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::noise;

    fn tar(hash: char) -> Vec<u8> {
        let hash = hash.to_string().repeat(32);
        let mut tar = tar::Builder::new(Vec::new());
        let big = noise(5 << 20, 1);
        let path = format!("/nix/store/{hash}-b").into_bytes();
        let cut = [&big[..1 << 20], &path, &big[1 << 20..]].concat();
        for (name, bytes) in
            [("big", &big[..]), ("cut", &cut), ("small", b"small"), ("some", &big[..5000])]
        {
            let mut header = Header::new_ustar();
            header.set_path(format!("nix/store/{hash}-a/{name}")).unwrap();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append(&header, bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    /// Returns the parts of a blob: whether they are pieces, and their bytes.
    fn cut(blob: &[u8], at_once: usize) -> Vec<(bool, Vec<u8>)> {
        let mut parts = Vec::new();
        let mut cutter = Cutter::new(|part| {
            parts.push(match part {
                Part::Literal(bytes) => (false, bytes.to_vec()),
                Part::Piece(bytes) => (true, bytes.to_vec()),
            });
            Ok(())
        });
        for bytes in blob.chunks(at_once) {
            cutter.write_all(bytes).unwrap();
        }
        cutter.finish().unwrap();
        parts
    }

    #[test]
    fn parts_are_the_blob() {
        let tar = tar('1');
        let other = [&tar[..600], b"junk", &tar[600..]].concat();
        for blob in [&tar[..], &noise(9 << 20, 2), &noise(100, 3), b"", &tar[..1 << 20], &other] {
            let parts = cut(blob, blob.len().max(1));
            assert!(parts.iter().flat_map(|(_, bytes)| bytes).eq(blob));
            assert!(parts.iter().all(|(_, bytes)| (1..=MOST_PART).contains(&bytes.len())));
            for at_once in [511, 100_000, 5 << 20] {
                let pieces = |parts: Vec<(bool, Vec<u8>)>| -> Vec<Vec<u8>> {
                    parts.into_iter().filter(|part| part.0).map(|part| part.1).collect()
                };
                assert!(pieces(cut(blob, at_once)) == pieces(parts.clone()), "{at_once}");
            }
        }
    }

    /// Checks that a layer whose store paths all have other hashes has almost the same pieces.
    #[test]
    fn other_hashes_leave_the_pieces_as_they_were() {
        let (old, new) = (cut(&tar('1'), 1 << 20), cut(&tar('2'), 1 << 20));
        let lacking = new.iter().filter(|part| !part.0 || !old.contains(part));
        let bytes: usize = lacking.map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < 8 << 10, "{bytes}");
    }

    /// Checks that sizes which no tar has are no reason to fail.
    #[test]
    fn any_size_is_taken() {
        let mut header = Header::new_ustar();
        header.set_size(u64::MAX - 1);
        header.set_cksum();
        let blob = [header.as_bytes(), &noise(9 << 20, 4)[..]].concat();
        assert!(cut(&blob, 1 << 20).iter().flat_map(|(_, bytes)| bytes).eq(&blob));
    }
}
