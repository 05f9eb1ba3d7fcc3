//! Computes SHA-256 of one message beside others (FIPS 180-4, 5.1.1 and 6.2).
//! Vocabulary: names no stage.

use super::lanes::LanePlace;
use super::{Digest, MessageHasher};
use sha256_lanes::{Block, INITIAL, State, compress};

const BLOCK: usize = size_of::<Block>();
/// Bytes of the message's length, which ends the last block.
const LENGTH: usize = size_of::<u64>();

/// Hashes a message beside others where that is faster. A coroutine that writes to it may be
/// suspended meanwhile.
pub struct LaneHasher<'p> {
    place: &'p LanePlace<'p>,
    state: State,
    /// The last bytes, which do not fill a block yet: the remainder of `size` after whole blocks.
    tail: Block,
    size: u64,
}

impl<'p> LaneHasher<'p> {
    /// Starts with an empty message.
    pub(super) fn new(place: &'p LanePlace<'p>) -> Self {
        Self { place, state: INITIAL, tail: [0; BLOCK], size: 0 }
    }

    fn filled(&self) -> usize {
        (self.size % BLOCK as u64) as usize
    }
}

impl MessageHasher for LaneHasher<'_> {
    fn update(&mut self, bytes: &[u8]) {
        let (filled, mut rest) = (self.filled(), bytes);
        if filled > 0 {
            let (first, later) = rest.split_at(rest.len().min(BLOCK - filled));
            self.tail[filled..][..first.len()].copy_from_slice(first);
            if filled + first.len() == BLOCK {
                compress(&mut self.state, &[self.tail]);
            }
            rest = later;
        }
        let (blocks, last) = rest.as_chunks();
        self.place.compress(&mut self.state, blocks);
        // If `last` is empty this copies nothing, and a tail that was extended above stays as it
        // is.
        self.tail[..last.len()].copy_from_slice(last);
        self.size += bytes.len() as u64;
    }

    fn finish(mut self) -> Digest {
        let filled = self.filled();
        let mut end = [[0; BLOCK]; 2];
        let blocks = if filled + 1 + LENGTH <= BLOCK { &mut end[..1] } else { &mut end[..] };
        let bytes = blocks.as_flattened_mut();
        bytes[..filled].copy_from_slice(&self.tail[..filled]);
        bytes[filled] = 0x80;
        let length = bytes.len() - LENGTH;
        bytes[length..].copy_from_slice(&(self.size * 8).to_be_bytes());
        compress(&mut self.state, blocks);
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        Digest(digest)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use proptest::prelude::*;

    use super::super::DigestWriter;
    use super::super::lanes::in_lanes;
    use super::*;

    fn bytes(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|place| ((place * 31 + seed * 7) >> 3 ^ place) as u8).collect()
    }

    /// Returns the digests of messages that are written in pieces of the given sizes.
    fn digests(messages: &[Vec<u8>], pieces: &[usize], jobs: usize) -> Vec<(Digest, u64)> {
        in_lanes(
            messages,
            |message| message.len() as u64,
            jobs,
            |place, message| {
                let mut rest = &message[..];
                let mut writer = DigestWriter::at(place, io::sink());
                for piece in pieces.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (now, later) = rest.split_at(rest.len().min(*piece));
                    writer.write_all(now).unwrap();
                    rest = later;
                }
                writer.finish()
            },
        )
    }

    fn expected(messages: &[Vec<u8>]) -> Vec<(Digest, u64)> {
        messages.iter().map(|bytes| (Digest::of(bytes), bytes.len() as u64)).collect()
    }

    /// Checks the examples of FIPS 180-4, as NIST publishes them.
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
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// Checks that neither the pieces nor the other messages change a digest.
        #[test]
        fn long_messages_beside_others(
            lengths in prop::collection::vec(0_usize..150_000, 1..40),
            pieces in prop::collection::vec(1_usize..200_000, 1..5),
            jobs in 1_usize..4,
        ) {
            let messages: Vec<_> =
                lengths.iter().enumerate().map(|(seed, length)| bytes(*length, seed)).collect();
            prop_assert_eq!(digests(&messages, &pieces, jobs), expected(&messages));
        }
    }
}
