//! Hashes sixteen messages at once, one in each lane of a vector.
//!
//! Each vector holds the same word of sixteen messages, so that one instruction does a step for all
//! of them. AVX-512 can rotate words, and computes any function of three bits in one instruction.
//! The method is that of Gueron and Krasnov, "Simultaneous Hashing of Multiple Messages", 2012,
//! who used shorter vectors.
//!
//! No closure stands in a loop over blocks: see "What must hold" of the crate.

use crate::{Lane, compress};

/// The number of lanes of a vector.
pub const LANES: usize = 16;

/// Returns whether the processor has the instructions.
pub fn pays() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Hashes the next `count` blocks of each of 1 to 16 messages.
///
/// # Panics
/// Panics if there are more than 16 messages or none, or if one has fewer than `count` blocks.
pub fn compress_sixteen(lanes: &mut [Lane], count: usize) {
    assert!(lanes.len() <= LANES, "{} lanes", lanes.len());
    assert!(lanes.iter().all(|lane| lane.blocks.len() >= count), "fewer than {count} blocks");
    #[cfg(target_arch = "x86_64")]
    if pays() {
        // SAFETY: The processor has what the function is compiled for, and each lane has as
        // many blocks as are asked for.
        return unsafe { x86::compress(lanes, count) };
    }
    lanes.iter_mut().for_each(|lane| compress(&mut lane.state, &lane.blocks[..count]));
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::LANES;
    use crate::{Block, K, Lane, written_out};

    /// A vector of one word of each of sixteen messages.
    type Words = __m512i;

    /// Compresses the next `count` blocks of each lane.
    ///
    /// # Safety
    /// Each lane must have `count` blocks, and the processor the instructions.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn compress(lanes: &mut [Lane], count: usize) {
        // A lane without a message repeats the first message; its result is dropped.
        let starts: [*const Block; LANES] =
            std::array::from_fn(|lane| lanes.get(lane).unwrap_or(&lanes[0]).blocks.as_ptr());
        let mut states = std::array::from_fn(|word| transposed(lanes, word));
        for block in 0..count {
            // SAFETY: The caller has checked that there are more than `block` blocks at each.
            let mut words = unsafe { load_words(&starts, block) };
            let before = states;
            for group in 0..4 {
                written_out!(for step in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
                    if group > 0 {
                        words[step] = next_word(&words, step);
                    }
                    let constant = _mm512_set1_epi32(K[LANES * group + step].cast_signed());
                    states = round(states, _mm512_add_epi32(words[step], constant));
                });
            }
            for (state, before) in states.iter_mut().zip(before) {
                *state = _mm512_add_epi32(*state, before);
            }
        }
        for (word, words) in states.into_iter().enumerate() {
            let mut each = [0; LANES];
            // SAFETY: `each` is as long as a vector, and the store allows any address.
            unsafe { _mm512_storeu_si512(each.as_mut_ptr().cast(), words) };
            lanes.iter_mut().zip(each).for_each(|(lane, each)| lane.state[word] = each);
        }
    }

    /// Loads one word of the hash value of each message.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transposed(lanes: &[Lane], word: usize) -> Words {
        let each: [u32; LANES] =
            std::array::from_fn(|lane| lanes.get(lane).map_or(0, |lane| lane.state[word]));
        // SAFETY: `each` is as long as a vector, and the load allows any address.
        unsafe { _mm512_loadu_si512(each.as_ptr().cast()) }
    }

    /// Does one round. `sum` is the sum of the round's word and constant.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn round([a, b, c, d, e, f, g, h]: [Words; 8], sum: Words) -> [Words; 8] {
        // Truth tables of functions of three bits, as `_mm512_ternarylogic_epi32` takes them: the
        // parity of the bits; the second or the third bit, as the first bit chooses; the majority
        // of the bits.
        const PARITY: i32 = 0x96;
        const CHOICE: i32 = 0xca;
        const MAJORITY: i32 = 0xe8;
        let sum1 = _mm512_ternarylogic_epi32::<PARITY>(
            _mm512_ror_epi32::<6>(e),
            _mm512_ror_epi32::<11>(e),
            _mm512_ror_epi32::<25>(e),
        );
        let choice = _mm512_ternarylogic_epi32::<CHOICE>(e, f, g);
        let t1 = _mm512_add_epi32(h, sum);
        let t1 = _mm512_add_epi32(_mm512_add_epi32(t1, choice), sum1);
        let sum0 = _mm512_ternarylogic_epi32::<PARITY>(
            _mm512_ror_epi32::<2>(a),
            _mm512_ror_epi32::<13>(a),
            _mm512_ror_epi32::<22>(a),
        );
        let t2 = _mm512_add_epi32(sum0, _mm512_ternarylogic_epi32::<MAJORITY>(a, b, c));
        [_mm512_add_epi32(t1, t2), a, b, c, _mm512_add_epi32(d, t1), e, f, g]
    }

    /// Returns the word sixteen steps after `words[step]`, to replace that word.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn next_word(words: &[Words; LANES], step: usize) -> Words {
        const PARITY: i32 = 0x96;
        let (w0, w1) = (words[step], words[(step + 1) % LANES]);
        let (w9, w14) = (words[(step + 9) % LANES], words[(step + 14) % LANES]);
        let sigma0 = _mm512_ternarylogic_epi32::<PARITY>(
            _mm512_ror_epi32::<7>(w1),
            _mm512_ror_epi32::<18>(w1),
            _mm512_srli_epi32::<3>(w1),
        );
        let sigma1 = _mm512_ternarylogic_epi32::<PARITY>(
            _mm512_ror_epi32::<17>(w14),
            _mm512_ror_epi32::<19>(w14),
            _mm512_srli_epi32::<10>(w14),
        );
        _mm512_add_epi32(_mm512_add_epi32(w0, sigma0), _mm512_add_epi32(w9, sigma1))
    }

    /// Loads block number `block` of each message, and returns its sixteen big-endian words.
    ///
    /// # Safety
    /// Each message must have more than `block` blocks, and the processor the instructions.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load_words(starts: &[*const Block; LANES], block: usize) -> [Words; LANES] {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let swap = _mm512_broadcast_i32x4(swap);
        let mut rows = [swap; LANES];
        for (row, start) in rows.iter_mut().zip(starts) {
            // SAFETY: The caller has checked the number of blocks, and the load allows any address.
            let bytes = unsafe { _mm512_loadu_si512(start.add(block).cast()) };
            *row = _mm512_shuffle_epi8(bytes, swap);
        }
        // Interleave words of two messages, then of four; then collect quarters of eight messages
        // and of all.
        let mut twos = rows;
        for one in (0..LANES).step_by(2) {
            twos[one] = _mm512_unpacklo_epi32(rows[one], rows[one + 1]);
            twos[one + 1] = _mm512_unpackhi_epi32(rows[one], rows[one + 1]);
        }
        let mut fours = twos;
        for one in (0..LANES).step_by(4) {
            fours[one] = _mm512_unpacklo_epi64(twos[one], twos[one + 2]);
            fours[one + 1] = _mm512_unpackhi_epi64(twos[one], twos[one + 2]);
            fours[one + 2] = _mm512_unpacklo_epi64(twos[one + 1], twos[one + 3]);
            fours[one + 3] = _mm512_unpackhi_epi64(twos[one + 1], twos[one + 3]);
        }
        const EVEN: i32 = 0x88;
        const ODD: i32 = 0xdd;
        let mut words = rows;
        for word in 0..4 {
            let (a, b) = (fours[word], fours[word + 4]);
            let (c, d) = (fours[word + 8], fours[word + 12]);
            let evens = _mm512_shuffle_i32x4::<EVEN>(a, b);
            let other_evens = _mm512_shuffle_i32x4::<EVEN>(c, d);
            let odds = _mm512_shuffle_i32x4::<ODD>(a, b);
            let other_odds = _mm512_shuffle_i32x4::<ODD>(c, d);
            words[word] = _mm512_shuffle_i32x4::<EVEN>(evens, other_evens);
            words[word + 4] = _mm512_shuffle_i32x4::<EVEN>(odds, other_odds);
            words[word + 8] = _mm512_shuffle_i32x4::<ODD>(evens, other_evens);
            words[word + 12] = _mm512_shuffle_i32x4::<ODD>(odds, other_odds);
        }
        words
    }
}
