//! Hashes two messages at once, by the instructions for SHA-256.
//!
//! `sha256rnds2` takes several cycles and each needs the one before: one message leaves the
//! unit idle half of the time, and the rounds of another fit in between. The order of the
//! instructions for one message is that of Gulley et al., "Intel SHA Extensions", 2013.
//!
//! No closure stands in a loop over blocks: see "What must hold" of the crate.

use crate::{Block, State, compress};

/// Returns whether two messages at once are faster than one after the other on this processor.
pub fn pays() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Hashes blocks of two messages, equally many of each.
///
/// # Panics
/// Panics if one message has more blocks than the other.
pub fn compress_two(states: [&mut State; 2], blocks: [&[Block]; 2]) {
    assert_eq!(blocks[0].len(), blocks[1].len(), "as many blocks of each");
    #[cfg(target_arch = "x86_64")]
    if pays() {
        // SAFETY: The processor has what the function is compiled for.
        return unsafe { x86::compress(states, blocks) };
    }
    for (state, blocks) in states.into_iter().zip(blocks) {
        compress(state, blocks);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use crate::{Block, K, State, written_out};

    #[target_feature(enable = "sha,sse4.1")]
    pub fn compress([one, other]: [&mut State; 2], [ones, others]: [&[Block]; 2]) {
        let mut lanes = [Lane::of(one), Lane::of(other)];
        for (one, other) in ones.iter().zip(others) {
            let before = lanes;
            let [mut w, mut v] = [words(one), words(other)];
            let [a, b] = &mut lanes;
            for first in [0, 4, 8, 12] {
                written_out!(for group in [0 1 2 3] {
                    if first > 0 {
                        w[group] = next_words(&w, group);
                        v[group] = next_words(&v, group);
                    }
                    let k = constants(first + group);
                    a.rounds(_mm_add_epi32(w[group], k));
                    b.rounds(_mm_add_epi32(v[group], k));
                });
            }
            for (lane, before) in lanes.iter_mut().zip(before) {
                lane.abef = _mm_add_epi32(lane.abef, before.abef);
                lane.cdgh = _mm_add_epi32(lane.cdgh, before.cdgh);
            }
        }
        lanes[0].store(one);
        lanes[1].store(other);
    }

    /// A hash value in the order that the instructions want.
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

        /// Does four rounds. `sums` are the sums of their words and constants.
        #[inline]
        #[target_feature(enable = "sha,sse2")]
        fn rounds(&mut self, sums: __m128i) {
            self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, sums);
            let sums = _mm_shuffle_epi32::<0x0e>(sums);
            self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, sums);
        }
    }

    /// Loads the sixteen big-endian words of a block.
    #[inline]
    #[target_feature(enable = "ssse3")]
    fn words(block: &Block) -> [__m128i; 4] {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let mut words = [swap; 4];
        for (words, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
            // SAFETY: There are sixteen bytes, as many as the instruction reads, and it allows any
            // address.
            *words = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }, swap);
        }
        words
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn constants(group: usize) -> __m128i {
        let constants = &K.as_chunks::<4>().0[group];
        // SAFETY: There are sixteen bytes, as many as the instruction reads, and it allows any
        // address.
        unsafe { _mm_loadu_si128(constants.as_ptr().cast()) }
    }

    /// Returns the words four groups after `words[group]`, to replace those words.
    #[inline]
    #[target_feature(enable = "sha,ssse3")]
    fn next_words(words: &[__m128i; 4], group: usize) -> __m128i {
        let (w0, w1) = (words[group], words[(group + 1) % 4]);
        let (w2, w3) = (words[(group + 2) % 4], words[(group + 3) % 4]);
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
        _mm_sha256msg2_epu32(sum, w3)
    }
}
