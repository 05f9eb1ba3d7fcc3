//! SHA-256 of one message among several (FIPS 180-4, 5.1.1 and 6.2).
//! Vocabulary: names no stage.

use std::io::{self, Write};

use super::Digest;
use super::lanes::Place;
use super::two_lanes::{Block, INITIAL, State, compress_one};
use crate::sink::{FileBytes, Sink};

const BLOCK: usize = size_of::<Block>();
/// Of the message's length, which ends the last block.
const LENGTH: usize = size_of::<u64>();

/// Digest and length of bytes on their way to `S`, hashed beside others' where it pays. The thread
/// may wait meanwhile.
pub struct LaneWriter<'p, S> {
    inner: S,
    place: &'p Place<'p>,
    state: State,
    /// The last bytes, that are no block yet: what is left of `size` after whole blocks.
    tail: Block,
    size: u64,
    /// For files that `inner` takes.
    piece: Vec<u8>,
}

impl<'p, S> LaneWriter<'p, S> {
    /// Starts at an empty digest.
    pub fn new(place: &'p Place<'p>, inner: S) -> Self {
        Self { inner, place, state: INITIAL, tail: [0; BLOCK], size: 0, piece: Vec::new() }
    }

    fn filled(&self) -> usize {
        (self.size % BLOCK as u64) as usize
    }

    /// The digest and the number of bytes written.
    pub fn finish(mut self) -> (Digest, u64) {
        let filled = self.filled();
        let mut end = [[0; BLOCK]; 2];
        let blocks = if filled + 1 + LENGTH <= BLOCK { &mut end[..1] } else { &mut end[..] };
        let bytes = blocks.as_flattened_mut();
        bytes[..filled].copy_from_slice(&self.tail[..filled]);
        bytes[filled] = 0x80;
        let length = bytes.len() - LENGTH;
        bytes[length..].copy_from_slice(&(self.size * 8).to_be_bytes());
        compress_one(&mut self.state, blocks);
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        (Digest(digest), self.size)
    }
}

impl<S> LaneWriter<'_, S> {
    fn update(&mut self, bytes: &[u8]) {
        let (filled, mut rest) = (self.filled(), bytes);
        if filled > 0 {
            let (first, later) = rest.split_at(rest.len().min(BLOCK - filled));
            self.tail[filled..][..first.len()].copy_from_slice(first);
            if filled + first.len() == BLOCK {
                compress_one(&mut self.state, &[self.tail]);
            }
            rest = later;
        }
        let (blocks, last) = rest.as_chunks();
        self.place.compress(&mut self.state, blocks);
        // If it is empty, what was there may have grown above.
        self.tail[..last.len()].copy_from_slice(last);
        self.size += bytes.len() as u64;
    }
}

impl<S: Write> Write for LaneWriter<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<S: Sink> Sink for LaneWriter<'_, S> {
    fn take(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        self.update(&piece);
        self.inner.take(piece)
    }

    fn takes_files(&self) -> bool {
        self.inner.takes_files()
    }

    /// Reads the file itself. A file of the store is not written while it is there: what was
    /// hashed is what `inner` has.
    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        if !self.inner.takes_files() {
            return Ok(0);
        }
        let mut piece = std::mem::take(&mut self.piece);
        let length = bytes.read(&mut piece, |piece| {
            self.update(piece);
            Ok(())
        })?;
        self.piece = piece;
        let mut taken = 0;
        while taken < length {
            let (offset, length) = (bytes.offset + taken, length - taken);
            match self.inner.take_file(FileBytes { offset, length, ..bytes })? {
                0 => return Err(io::Error::other("a file was not taken")),
                more => taken += more,
            }
        }
        Ok(taken)
    }

    fn keeps_pieces(&self) -> bool {
        self.inner.keeps_pieces()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lanes::in_lanes;
    use super::*;

    fn bytes(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|place| ((place * 31 + seed * 7) >> 3 ^ place) as u8).collect()
    }

    /// The digests of messages that are written in pieces of so many bytes.
    fn digests(messages: &[Vec<u8>], pieces: &[usize], jobs: usize) -> Vec<(Digest, u64)> {
        in_lanes(messages, jobs, |place, message| {
            let mut rest = &message[..];
            let mut writer = LaneWriter::new(place, io::sink());
            for piece in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*piece));
                writer.write_all(now).unwrap();
                rest = later;
            }
            writer.finish()
        })
    }

    fn expected(messages: &[Vec<u8>]) -> Vec<(Digest, u64)> {
        messages.iter().map(|bytes| (Digest::of(bytes), bytes.len() as u64)).collect()
    }

    /// FIPS 180-4's examples, by NIST.
    #[test]
    fn the_standards_examples() {
        let messages = [
            b"abc".to_vec(),
            b"".to_vec(),
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".to_vec(),
            vec![b'a'; 1_000_000],
            vec![b'a'; 1_000_000],
        ];
        let hex: Vec<_> = digests(&messages, &[1_000_000], 2).iter().map(|d| d.0.hex()).collect();
        let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        let expected = [
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            million,
            million,
        ];
        assert_eq!(hex, expected);
    }

    #[test]
    fn short_messages_of_every_length() {
        let messages: Vec<_> = (0..300).map(|length| bytes(length, length)).collect();
        for pieces in [&[1][..], &[63, 64, 65], &[300]] {
            assert_eq!(digests(&messages, pieces, 2), expected(&messages), "{pieces:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// However they are cut, and whoever hashes them.
        #[test]
        fn long_messages_beside_others(
            lengths in prop::collection::vec(0_usize..400_000, 1..7),
            pieces in prop::collection::vec(1_usize..200_000, 1..5),
            jobs in 1_usize..4,
        ) {
            let messages: Vec<_> =
                lengths.iter().enumerate().map(|(seed, length)| bytes(*length, seed)).collect();
            prop_assert_eq!(digests(&messages, &pieces, jobs), expected(&messages));
        }
    }
}
