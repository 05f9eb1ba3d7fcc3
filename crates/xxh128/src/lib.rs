//! XXH3 of 128 bits (<https://github.com/Cyan4973/xxHash/blob/v0.8.3/doc/xxhash_spec.md>).
//!
//! The hash is in a crate of its own for the sake of development builds: the functions of
//! `twox_hash` are generic and inlined, so the compiler makes their code in the crate that calls
//! them, with that crate's optimisation. Here they are called from functions that are neither
//! generic nor inlined, in a crate that is always optimised (`[profile.dev.package.xxh128]`).

use twox_hash::XxHash3_128;

/// Hashes bytes that arrive in pieces.
pub struct Hasher(XxHash3_128);

impl Hasher {
    /// Starts with no bytes.
    #[inline(never)]
    #[allow(clippy::new_without_default)] // the other hashes have none either
    pub fn new() -> Self {
        Self(XxHash3_128::new())
    }

    /// Appends bytes to the message.
    #[inline(never)]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Returns the hash of the bytes so far.
    #[inline(never)]
    pub fn finish(&self) -> u128 {
        self.0.finish_128()
    }
}

/// Hashes one message, by code that differs from that of a `Hasher`.
#[inline(never)]
pub fn hash(message: &[u8]) -> u128 {
    XxHash3_128::oneshot(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with what `xxh128sum` 0.8.1 prints.
    #[test]
    fn the_hash_of_nothing() {
        assert_eq!(Hasher::new().finish(), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }

    #[test]
    fn pieces_are_one_message() {
        let bytes: Vec<u8> = (0..5000_u32).map(|number| number as u8).collect();
        let mut whole = Hasher::new();
        whole.update(&bytes);
        for length in [1, 63, 64, 256, 1024, 4999] {
            let mut pieces = Hasher::new();
            bytes.chunks(length).for_each(|piece| pieces.update(piece));
            assert_eq!(pieces.finish(), whole.finish(), "{length}");
        }
    }
}
