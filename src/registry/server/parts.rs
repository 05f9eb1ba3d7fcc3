//! Picks the parts of a blob that an answer has, and adds what is between them if there are several
//! (RFC 9110, 14.6: `multipart/byteranges`).
//! Stage: registry (pure). Input: ranges, and the bytes of a blob. Output: the bytes of an answer.

use std::convert::Infallible;
use std::ops::Range;

use crate::digest::BlobDigest;

/// The parts of a blob that an answer has, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    ranges: Vec<Range<u64>>,
    /// The text between the parts; none for an answer with a single part.
    multipart: Option<Multipart>,
}

/// The format of an answer with several parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Multipart {
    boundary: String,
    /// The size of the blob in bytes.
    size: u64,
}

impl Parts {
    /// Returns the only part of an answer.
    pub fn one(range: Range<u64>) -> Self {
        Self { ranges: vec![range], multipart: None }
    }

    /// Returns no parts.
    pub fn none() -> Self {
        Self { ranges: Vec::new(), multipart: None }
    }

    /// Returns several parts of a blob of `size` bytes. The boundary between them is of the blob's
    /// digest, which its bytes can't contain.
    pub fn several(ranges: Vec<Range<u64>>, size: u64, digest: &BlobDigest) -> Self {
        let boundary = digest.digest().hex()[..32].to_owned();
        Self { ranges, multipart: Some(Multipart { boundary, size }) }
    }

    /// Returns the media type, if there are several parts.
    pub fn media_type(&self) -> Option<String> {
        let Multipart { boundary, .. } = self.multipart.as_ref()?;
        Some(format!("multipart/byteranges; boundary={boundary}"))
    }

    /// Returns the part of an answer that has only one.
    pub fn only(&self) -> Option<Range<u64>> {
        if self.multipart.is_some() { None } else { self.ranges.first().cloned() }
    }

    /// Returns the number of bytes of the blob.
    pub fn of_blob(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Returns the number of bytes of the answer.
    pub fn length(&self) -> u64 {
        let heads = (0..self.ranges.len()).map(|index| self.head(index).len() as u64);
        self.of_blob() + heads.sum::<u64>() + self.end().len() as u64
    }

    /// Returns the ranges, of which those are joined that have at most `gap` bytes between them.
    pub fn joined(&self, gap: u64) -> Vec<Range<u64>> {
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in &self.ranges {
            match joined.last_mut() {
                Some(last) if range.start - last.end <= gap => last.end = range.end,
                _ => joined.push(range.clone()),
            }
        }
        joined
    }

    fn head(&self, index: usize) -> String {
        let Some(Multipart { boundary, size }) = &self.multipart else { return String::new() };
        let Range { start, end } = self.ranges[index];
        let line = if index == 0 { "" } else { "\r\n" };
        format!(
            "{line}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {start}-{}/{size}\r\n\r\n",
            end - 1
        )
    }

    fn end(&self) -> String {
        let end = |multipart: &Multipart| format!("\r\n--{}--\r\n", multipart.boundary);
        self.multipart.as_ref().map(end).unwrap_or_default()
    }
}

/// Picks the parts out of a blob's bytes, which come in any pieces.
pub struct Picker {
    parts: Parts,
    /// The index of the part that is not yet complete.
    index: usize,
    /// The number of its bytes that were picked.
    picked: u64,
    /// The position of the next byte in the blob.
    position: u64,
}

impl Picker {
    /// Begins at the blob's first byte.
    pub fn new(parts: Parts) -> Self {
        Self { parts, index: 0, picked: 0, position: 0 }
    }

    /// Returns the rest of the part that is not yet complete, or `None` after the last part.
    pub fn wanted(&self) -> Option<Range<u64>> {
        let range = self.parts.ranges.get(self.index)?;
        Some(range.start + self.picked..range.end)
    }

    /// Takes the next bytes for those at `position`, which is not behind what is wanted.
    pub fn go_to(&mut self, position: u64) {
        self.position = position;
    }

    /// Returns what is picked from the next bytes.
    pub fn picked(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut picked = Vec::new();
        let add = |bytes: &[u8]| {
            picked.extend_from_slice(bytes);
            Ok(())
        };
        let Ok(()) = self.pick::<Infallible>(bytes, add);
        picked
    }

    /// Passes on those of the next bytes that are wanted, with what is between the parts.
    ///
    /// # Errors
    /// Fails if `out` does.
    pub fn pick<E>(
        &mut self,
        mut bytes: &[u8],
        mut out: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(Range { start, end }) = self.wanted() {
            let skipped = start.saturating_sub(self.position).min(bytes.len() as u64);
            let length = (end - start).min(bytes.len() as u64 - skipped);
            let (taken, rest) = bytes[skipped as usize..].split_at(length as usize);
            bytes = rest;
            self.position += skipped + length;
            if length == 0 {
                return Ok(());
            }
            if self.picked == 0 {
                out(self.parts.head(self.index).as_bytes())?;
            }
            out(taken)?;
            self.picked += length;
            if start + length == end {
                (self.index, self.picked) = (self.index + 1, 0);
                if self.index == self.parts.ranges.len() {
                    out(self.parts.end().as_bytes())?;
                }
            }
        }
        self.position += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const BLOB: &[u8] = b"0123456789abcdef";

    fn picked(parts: &Parts, pieces: usize) -> String {
        let mut picker = Picker::new(parts.clone());
        let mut answer = Vec::new();
        for piece in BLOB.chunks(pieces) {
            answer.extend(picker.picked(piece));
        }
        assert_eq!(answer.len() as u64, parts.length());
        assert!(picker.wanted().is_none());
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn parts_are_picked_from_any_pieces() {
        let digest = BlobDigest::new(Digest::of(BLOB));
        let several = Parts::several(vec![0..2, 2..3, 9..16], 16, &digest);
        let boundary = &digest.digest().hex()[..32];
        let media_type = format!("multipart/byteranges; boundary={boundary}");
        assert_eq!(several.media_type(), Some(media_type));
        let head = |range: &str| {
            format!(
                "--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                 Content-Range: bytes {range}/16\r\n\r\n"
            )
        };
        let expected = format!(
            "{}01\r\n{}2\r\n{}9abcdef\r\n--{boundary}--\r\n",
            head("0-1"),
            head("2-2"),
            head("9-15")
        );
        for pieces in 1..=BLOB.len() {
            assert_eq!(picked(&several, pieces), expected);
            assert_eq!(picked(&Parts::one(3..9), pieces), "345678");
        }
        assert_eq!(Parts::one(3..9).media_type(), None);
        assert_eq!(several.of_blob(), 10);
    }

    #[test]
    fn what_is_between_parts_need_not_be_read() {
        let digest = BlobDigest::new(Digest::of(BLOB));
        let parts = Parts::several(vec![1..2, 5..7, 14..15], 16, &digest);
        assert_eq!(parts.joined(3), [1..7, 14..15]);
        assert_eq!(parts.joined(2), [1..2, 5..7, 14..15]);
        let mut picker = Picker::new(parts.clone());
        let mut answer = Vec::new();
        while let Some(Range { start, .. }) = picker.wanted() {
            picker.go_to(start);
            // After each byte, the same bytes may come from the beginning again.
            let byte = start as usize;
            answer.extend(picker.picked(&BLOB[byte..=byte]));
            picker.go_to(0);
            assert!(picker.picked(&BLOB[..=byte]).is_empty());
        }
        assert_eq!(String::from_utf8(answer).unwrap(), picked(&parts, 16));
    }
}
