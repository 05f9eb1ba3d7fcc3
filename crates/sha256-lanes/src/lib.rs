//! The compression function of SHA-256 (FIPS 180-4, 6.2.2) for several messages at once.
//!
//! # Why
//!
//! Each step of the function needs the result of the step before. One message therefore leaves
//! most of a processor idle, and the steps of other messages fit in between. An image has many
//! layers, and so many messages. Measured on one thread, in memory: one message 1.7 GB/s, two at
//! once 2.1 GB/s, sixteen at once 3.7 GB/s.
//!
//! # How
//!
//! | file | messages | instructions | needs |
//! | --- | --- | --- | --- |
//! | `sixteen_lanes.rs` | up to 16 | AVX-512: one message in each 32-bit lane of a vector | x86-64 with AVX-512F and BW |
//! | `two_lanes.rs` | 2 | SHA-NI: the rounds of two messages by turns | x86-64 with SHA-NI and SSE4.1 |
//! | [`compress`] | 1 | whatever the crate `sha2` has: SHA-NI, the SHA-2 extension of aarch64, or portable code | nothing |
//!
//! [`compress_together`] is the only function that other crates call. It decides at run time which
//! file does the work ([`Widths::here`]). On aarch64, and on x86-64 processors without these
//! instructions, one message is hashed after the other, by `sha2`.
//!
//! The crate does not handle padding, digests as text, or threads. `digest::lanes` in the main
//! crate finds messages that can be hashed together.
//!
//! # What must hold
//!
//! * The result for a message does not depend on which messages are hashed beside it, or how many.
//! * A function with `#[target_feature]` is called only where `pays()` of its file returned true.
//! * Every lane has at least as many blocks as are hashed: [`compress_together`] takes the length
//!   of the shortest, and the two files assert it. Nothing else makes the reads of
//!   `sixteen_lanes.rs`, which go by pointer, stay inside of the blocks.
//! * No closure stands in a loop over blocks. A closure that is passed to a function of the
//!   standard library is compiled for any processor, without the instructions above: the result
//!   is right, and takes twice the time.
//! * SHA-NI must not run while the upper halves of the vector registers are in use (it is then a
//!   hundred times slower). The compiler ends the AVX-512 function with `vzeroupper`.
//!
//! # How it was verified
//!
//! The tests compare each file with `sha2` for every number of lanes from 1 to 17, every number of
//! blocks up to 9, lanes of unequal length, and hash values that no earlier block gave. The
//! crate's user compares whole messages of every length from 0 to 300 bytes and the vectors of
//! NIST. Miri knows neither AVX-512 nor SHA-NI. `checks/test unit` runs the tests of this crate
//! with AddressSanitizer instead, which sees the reads of vector instructions; each message
//! of the tests ends where its allocation ends, so that a read too far is seen. A file is only
//! tested on a processor that has its instructions.
//!
//! # How to add a processor
//!
//! Write a file with `pays()`, which asks the processor, and a function that falls back to
//! [`compress`] where it does not pay. Add a width to [`Widths`] with what was measured, and the
//! file to `every_way` in the tests. No caller changes.

mod sixteen_lanes;
mod two_lanes;

use std::sync::OnceLock;

/// The words `a` to `h` of a hash value (FIPS 180-4, 6.2).
pub type State = [u32; 8];

/// The unit that is hashed in one step: 64 bytes (FIPS 180-4, 5.2.1).
pub type Block = [u8; 64];

/// The hash value before the first block (FIPS 180-4, 5.3.3).
pub const INITIAL: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The first 32 bits of the fractional parts of the cube roots of the first primes
/// (FIPS 180-4, 4.2.2).
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// Expands to the body of a loop once for each number. An array that the body indexes by that
/// number then stays in registers. The compiler does not unroll so long a loop by itself and keeps
/// the array in memory, which makes sixteen lanes slower by a tenth.
#[cfg(target_arch = "x86_64")]
macro_rules! written_out {
    (for $number:ident in [$($literal:literal)*] $body:block) => {$({
        let $number: usize = $literal;
        $body
    })*};
}
#[cfg(target_arch = "x86_64")]
use written_out;

/// A message that is partly hashed.
#[derive(Debug)]
pub struct Lane<'b> {
    /// The hash value after the blocks that were hashed.
    pub state: State,
    /// The blocks that follow.
    pub blocks: &'b [Block],
}

/// Says how many messages are best hashed at once on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// The largest number. One, if nothing is gained by more.
    pub most: usize,
    /// The number of messages from which on `most` at once is better than `few` at once.
    pub enough: usize,
    /// The best number for fewer messages than `enough`.
    pub few: usize,
}

impl Widths {
    /// Returns the widths for this processor.
    pub fn here() -> Self {
        static HERE: OnceLock<Widths> = OnceLock::new();
        *HERE.get_or_init(|| Self::of(two_lanes::pays(), sixteen_lanes::pays()))
    }

    /// Returns how many of `count` messages are best hashed at once.
    pub fn best_for(self, count: usize) -> usize {
        if count < self.enough { self.few } else { self.most }
    }

    const fn of(two: bool, sixteen: bool) -> Self {
        match (two, sixteen) {
            // Measured: 3.7 GB/s for sixteen, 2.1 for two, 1.7 for one.
            (true, true) => Self { most: 16, enough: 9, few: 2 },
            // Without SHA-NI one message gets 0.4 GB/s.
            (false, true) => Self { most: 16, enough: 3, few: 1 },
            (true, false) => Self { most: 2, enough: 2, few: 2 },
            (false, false) => Self { most: 1, enough: 1, few: 1 },
        }
    }
}

/// Hashes the next blocks of each message. Returns the number of blocks that it hashed of each: as
/// many as the shortest message has left, and at most `most`.
pub fn compress_together(widths: Widths, lanes: &mut [Lane], most: usize) -> usize {
    let width = widths.best_for(lanes.len());
    let count = lanes.iter().map(|lane| lane.blocks.len()).min().unwrap_or(0).min(most);
    for lanes in lanes.chunks_mut(width) {
        match lanes {
            [lane] => compress(&mut lane.state, &lane.blocks[..count]),
            [one, other] => two_lanes::compress_two(
                [&mut one.state, &mut other.state],
                [&one.blocks[..count], &other.blocks[..count]],
            ),
            lanes => sixteen_lanes::compress_sixteen(lanes, count),
        }
    }
    lanes.iter_mut().for_each(|lane| lane.blocks = &lane.blocks[count..]);
    count
}

/// Hashes blocks of one message into its hash value.
pub fn compress(state: &mut State, blocks: &[Block]) {
    sha2::block_api::compress256(state, blocks);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns blocks that are all different, in an allocation that ends with the last of them.
    fn blocks(count: usize, seed: usize) -> Box<[Block]> {
        let mut blocks = vec![[0; size_of::<Block>()]; count].into_boxed_slice();
        for (place, byte) in blocks.as_flattened_mut().iter_mut().enumerate() {
            *byte = (place * 31 + seed * 7) as u8 ^ (place >> 8) as u8 ^ (place >> 3) as u8;
        }
        blocks
    }

    /// Returns a hash value that differs from lane to lane.
    fn state(seed: usize) -> State {
        std::array::from_fn(|word| INITIAL[word].rotate_left(seed as u32) ^ seed as u32)
    }

    type Hash = fn(&mut [Lane], usize);

    /// Returns every function that hashes lanes, by name. All of them hash `count` blocks of each
    /// lane.
    fn every_way() -> [(&'static str, Hash); 4] {
        fn by(widths: Widths) -> impl Fn(&mut [Lane], usize) {
            move |lanes, count| assert_eq!(compress_together(widths, lanes, count), count)
        }
        [
            ("here", |lanes, count| by(Widths::here())(lanes, count)),
            ("one", |lanes, count| by(Widths::of(false, false))(lanes, count)),
            ("two", |lanes, count| by(Widths::of(true, false))(lanes, count)),
            ("sixteen", |lanes, count| by(Widths { most: 16, enough: 1, few: 16 })(lanes, count)),
        ]
    }

    #[test]
    fn lanes_are_hashed_as_each_message_alone() {
        for (name, hash) in every_way() {
            for width in 1..=17 {
                for count in 0..=9 {
                    let all: Vec<_> = (0..width).map(|lane| blocks(count, lane)).collect();
                    let mut lanes: Vec<_> = all
                        .iter()
                        .enumerate()
                        .map(|(seed, blocks)| Lane { state: state(seed), blocks })
                        .collect();
                    hash(&mut lanes, count);
                    for (seed, (lane, blocks)) in lanes.iter().zip(&all).enumerate() {
                        let mut alone = state(seed);
                        compress(&mut alone, blocks);
                        assert_eq!(lane.state, alone, "{name}: {seed} of {width}, {count} blocks");
                        assert!(lane.blocks.is_empty(), "{name}: all blocks are hashed");
                    }
                }
            }
        }
    }

    #[test]
    fn the_shortest_message_says_how_far() {
        for count in 0..=33 {
            // Each message is longer than the one before.
            let all: Vec<_> = (0..count).map(|lane| blocks(3 + lane, lane)).collect();
            let mut lanes: Vec<_> =
                all.iter().map(|blocks| Lane { state: INITIAL, blocks }).collect();
            for (most, done) in [(2, 2), (9, 3), (9, 3)] {
                compress_together(Widths::here(), &mut lanes, most);
                for (lane, all) in lanes.iter().zip(&all) {
                    assert_eq!(lane.blocks.len() + done, all.len(), "{done} of {count}");
                }
            }
            for (number, (lane, blocks)) in lanes.iter().zip(&all).enumerate() {
                let mut alone = INITIAL;
                compress(&mut alone, &blocks[..3]);
                assert_eq!(lane.state, alone, "{number} of {count}");
            }
        }
    }

    /// Checks the example of FIPS 180-2, B.1: "abc" is one block with its padding.
    #[test]
    fn the_standards_example_is_hashed() {
        let mut block = [0; 64];
        block[..4].copy_from_slice(b"abc\x80");
        block[63] = 24;
        let expected = [
            0xba78_16bf,
            0x8f01_cfea,
            0x4141_40de,
            0x5dae_2223,
            0xb003_61a3,
            0x9617_7a9c,
            0xb410_ff61,
            0xf200_15ad,
        ];
        for (name, hash) in every_way() {
            let mut lanes = [Lane { state: INITIAL, blocks: &[block] }];
            hash(&mut lanes, 1);
            assert_eq!(lanes[0].state, expected, "{name}");
        }
    }
}
