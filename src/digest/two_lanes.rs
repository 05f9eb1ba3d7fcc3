//! The compression function of SHA-256 (FIPS 180-4, 6.2.2), for two messages at once.
//! Vocabulary: names no stage.
//!
//! `sha256rnds2` takes several cycles and each needs the one before: one message leaves the
//! unit idle half of the time, and another's rounds fit in between (Gulley et al., "Intel SHA
//! Extensions", 2013, has the instructions; how they are put together is theirs, too).

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

/// Whether two at once are faster than one after the other here.
pub fn pays() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Hashes the next blocks of two messages, equally many.
///
/// # Panics
/// If they aren't.
pub fn compress(states: [&mut State; 2], blocks: [&[Block]; 2]) {
    assert_eq!(blocks[0].len(), blocks[1].len(), "as many blocks of each");
    #[cfg(target_arch = "x86_64")]
    if pays() {
        // SAFETY: The processor has what the function is compiled for.
        return unsafe { x86::compress(states, blocks) };
    }
    for (state, blocks) in states.into_iter().zip(blocks) {
        compress_one(state, blocks);
    }
}

/// Hashes the next blocks of one message.
pub fn compress_one(state: &mut State, blocks: &[Block]) {
    sha2::block_api::compress256(state, blocks);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, State};

    /// The first 32 bits of the fractional parts of the cube roots of the first primes, four
    /// to each group of rounds (FIPS 180-4, 4.2.2).
    #[rustfmt::skip]
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    #[target_feature(enable = "sha,sse4.1")]
    pub fn compress([one, other]: [&mut State; 2], [ones, others]: [&[Block]; 2]) {
        let mut lanes = [Lane::of(one), Lane::of(other)];
        for (one, other) in ones.iter().zip(others) {
            let before = lanes;
            let [mut w, mut v] = [words(one), words(other)];
            let [a, b] = &mut lanes;
            for group in 0..4 {
                let k = constants(group);
                a.rounds(_mm_add_epi32(w[group], k));
                b.rounds(_mm_add_epi32(v[group], k));
            }
            for group in 4..16 {
                let k = constants(group);
                let (x, y) = (next(&mut w, group), next(&mut v, group));
                a.rounds(_mm_add_epi32(x, k));
                b.rounds(_mm_add_epi32(y, k));
            }
            for (lane, before) in lanes.iter_mut().zip(before) {
                lane.abef = _mm_add_epi32(lane.abef, before.abef);
                lane.cdgh = _mm_add_epi32(lane.cdgh, before.cdgh);
            }
        }
        lanes[0].store(one);
        lanes[1].store(other);
    }

    /// A state in the order that the instructions want.
    #[derive(Clone, Copy)]
    struct Lane {
        abef: __m128i,
        cdgh: __m128i,
    }

    impl Lane {
        #[inline]
        #[target_feature(enable = "sse2")]
        fn of(state: &State) -> Self {
            let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
            Self { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }
        }

        #[inline]
        #[target_feature(enable = "sse4.1")]
        fn store(self, state: &mut State) {
            let words = |half| {
                [
                    _mm_extract_epi32::<3>(half),
                    _mm_extract_epi32::<2>(half),
                    _mm_extract_epi32::<1>(half),
                    _mm_extract_epi32::<0>(half),
                ]
            };
            let ([a, b, e, f], [c, d, g, h]) = (words(self.abef), words(self.cdgh));
            *state = [a, b, c, d, e, f, g, h].map(i32::cast_unsigned);
        }

        /// Four rounds, with the sums of their words and constants.
        #[inline]
        #[target_feature(enable = "sha,sse2")]
        fn rounds(&mut self, sums: __m128i) {
            self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, sums);
            let sums = _mm_shuffle_epi32::<0x0e>(sums);
            self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, sums);
        }
    }

    /// A block's sixteen words, which are big-endian.
    #[inline]
    #[target_feature(enable = "ssse3")]
    fn words(block: &Block) -> [__m128i; 4] {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        std::array::from_fn(|group| {
            // SAFETY: 16 bytes from 16, 32 or 48 at most are within the block's 64, and the
            // instruction takes them at any address.
            let words = unsafe { _mm_loadu_si128(block.as_ptr().add(16 * group).cast()) };
            _mm_shuffle_epi8(words, swap)
        })
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn constants(group: usize) -> __m128i {
        let [k0, k1, k2, k3] = K[group].map(u32::cast_signed);
        _mm_set_epi32(k3, k2, k1, k0)
    }

    /// The words of a later group, which take the place of those four groups before.
    #[inline]
    #[target_feature(enable = "sha,ssse3")]
    fn next(w: &mut [__m128i; 4], group: usize) -> __m128i {
        let [w0, w1, w2, w3] = std::array::from_fn(|later| w[(group + later) % 4]);
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
        w[group % 4] = _mm_sha256msg2_epu32(sum, w3);
        w[group % 4]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever this processor has, both ways are the same.
    #[test]
    fn two_at_once_are_as_one_after_the_other() {
        let bytes = |seed: u32| -> Vec<Block> {
            (0..40_u32).map(|block| [(block * 151 + seed) as u8; 64]).collect()
        };
        let (mut ones, mut others) = (bytes(1), bytes(77));
        ones[3][..32].reverse();
        for (place, byte) in others.as_flattened_mut().iter_mut().enumerate() {
            *byte = byte.wrapping_mul(place as u8) ^ (place >> 3) as u8;
        }
        let (mut one, mut other) = (INITIAL, INITIAL);
        let (mut one_alone, mut other_alone) = (INITIAL, INITIAL);
        for count in [0, 1, 2, 3, 40] {
            let blocks = [&ones[..count], &others[..count]];
            compress([&mut one, &mut other], blocks);
            compress_one(&mut one_alone, blocks[0]);
            compress_one(&mut other_alone, blocks[1]);
            assert_eq!((one, other), (one_alone, other_alone), "{count} blocks");
        }
        assert_ne!(one, other);
    }
}
