//! The compression function of SHA-256 (FIPS 180-4, 6.2.2), for several messages at once.
//! Vocabulary: names no stage.
//!
//! Every step for a message needs the one before, so that one message can't keep a processor
//! busy; other messages' steps fit in between. Which way is used where is chosen at run time,
//! and all of them have the same result.

mod sixteen_lanes;
mod two_lanes;

use std::sync::OnceLock;

/// The words `a` to `h` of a hash value (FIPS 180-4, 6.2).
pub type State = [u32; 8];

/// What is hashed at a time.
pub type Block = [u8; 64];

/// The hash value of no block yet (FIPS 180-4, 5.3.3).
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

/// A loop of which every turn is written out: so what it numbers is kept in registers. The
/// compiler would keep it in memory rather than write out as many instructions by itself, which
/// makes sixteen lanes slower by a tenth.
macro_rules! written_out {
    (for $number:ident in [$($literal:literal)*] $body:block) => {$({
        let $number: usize = $literal;
        $body
    })*};
}
use written_out;

/// A message on its way.
#[derive(Debug)]
pub struct Lane<'b> {
    /// The hash value of the blocks before.
    pub state: State,
    /// The next blocks.
    pub blocks: &'b [Block],
}

/// How many messages are best hashed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// The most. One, if nothing is gained by more.
    pub most: usize,
    /// From how many on that is better than [`Widths::few`] after one another.
    pub enough: usize,
    /// The best number for fewer of them.
    pub few: usize,
}

impl Widths {
    /// On this processor.
    pub fn here() -> Self {
        static HERE: OnceLock<Widths> = OnceLock::new();
        *HERE.get_or_init(|| Self::of(two_lanes::pays(), sixteen_lanes::pays()))
    }

    /// How many of so many messages are best hashed at once.
    pub fn best_for(self, count: usize) -> usize {
        if count < self.enough { self.few } else { self.most }
    }

    const fn of(two: bool, sixteen: bool) -> Self {
        match (two, sixteen) {
            // Measured of the functions: 3.7 GB/s for sixteen, 2.1 for two, 1.7 for one.
            (true, true) => Self { most: 16, enough: 9, few: 2 },
            // 0.4 GB/s for one.
            (false, true) => Self { most: 16, enough: 3, few: 1 },
            (true, false) => Self { most: 2, enough: 2, few: 2 },
            (false, false) => Self { most: 1, enough: 1, few: 1 },
        }
    }
}

/// Hashes the next blocks of messages, as many of each as the shortest has, but no more than so
/// many, and returns how many.
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

/// Hashes the next blocks of one message.
pub fn compress(state: &mut State, blocks: &[Block]) {
    sha2::block_api::compress256(state, blocks);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Blocks that are all different.
    pub fn blocks(count: usize, seed: usize) -> Vec<Block> {
        let mut blocks = vec![[0; size_of::<Block>()]; count];
        for (place, byte) in blocks.as_flattened_mut().iter_mut().enumerate() {
            *byte = (place * 31 + seed * 7) as u8 ^ (place >> 8) as u8 ^ (place >> 3) as u8;
        }
        blocks
    }

    #[test]
    fn together_is_as_one_after_the_other() {
        for count in 0..=33 {
            // Each longer than the one before.
            let all: Vec<_> = (0..count).map(|lane| blocks(3 + lane, lane)).collect();
            let lane = |blocks| Lane { state: INITIAL, blocks };
            let mut lanes: Vec<_> = all.iter().map(|blocks| lane(&blocks[..])).collect();
            for (most, done) in [(2, 2), (9, 3), (9, 3)] {
                compress_together(Widths::here(), &mut lanes, most);
                let is_done = |(lane, all): (&Lane, &Vec<_>)| lane.blocks.len() + done == all.len();
                assert!(lanes.iter().zip(&all).all(is_done), "{done} of {count}");
            }
            for (number, (lane, blocks)) in lanes.iter().zip(&all).enumerate() {
                let mut alone = INITIAL;
                compress(&mut alone, &blocks[..3]);
                assert_eq!(lane.state, alone, "{number} of {count}");
            }
        }
    }
}
