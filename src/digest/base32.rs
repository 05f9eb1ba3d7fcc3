//! Base-32 as Nix writes hashes and store paths.
//! Vocabulary: names no stage.
//!
//! The digits leave out `e`, `o`, `t` and `u`. The first digit holds the most significant bits
//! of the *last* byte (Nix manual, "Store path", "Nix32"), so this is not the base-32 of RFC 4648.

/// The 32 digits, in the order of their values.
const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Returns the number of digits that encode `bytes` bytes.
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Returns the value of a digit, or `None` for any other byte.
pub const fn value(digit: u8) -> Option<u8> {
    let mut value = 0;
    while value < DIGITS.len() {
        if DIGITS[value] == digit {
            return Some(value as u8);
        }
        value += 1;
    }
    None
}

/// Encodes bytes; the text has [`encoded_len`] digits.
pub fn encode(bytes: &[u8]) -> String {
    let bit = |place: usize| bytes.get(place / 8).map_or(0, |byte| byte >> (place % 8) & 1);
    (0..encoded_len(bytes.len()))
        .rev()
        .map(|digit| (0..5).map(|place| bit(digit * 5 + place) << place).sum::<u8>())
        .map(|value| char::from(DIGITS[usize::from(value)]))
        .collect()
}

/// Decodes a text of exactly [`encoded_len`]`(N)` digits.
///
/// Returns `None` for another length, for a byte that is no digit, and for a first digit whose
/// bits do not fit in `N` bytes: each value has one text only.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != encoded_len(N) {
        return None;
    }
    let mut bytes = [0; N];
    for (digit, text) in text.bytes().rev().enumerate() {
        let value = value(text)?;
        for place in (0..5).filter(|place| value >> place & 1 == 1) {
            let bit = digit * 5 + place;
            *bytes.get_mut(bit / 8)? |= 1 << (bit % 8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Compares with what `nix-hash --type sha256 --to-base32` of Nix 2.8 prints.
    #[test]
    fn encodes_as_nix_does() {
        let counted: [u8; 32] = std::array::from_fn(|place| place as u8);
        let mut ends = [0; 32];
        (ends[0], ends[31]) = (0x80, 1);
        for (bytes, text) in [
            ([0; 32], "0000000000000000000000000000000000000000000000000000"),
            ([0xff; 32], "1zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"),
            (counted, "07qy3lf1n6hr30bic58l2c91240g1q6hq2qa1440f1h50h1h4080"),
            (ends, "0080000000000000000000000000000000000000000000000040"),
        ] {
            assert_eq!(encode(&bytes), text);
            assert_eq!(decode(text), Some(bytes));
        }
    }

    #[test]
    fn refuses_other_texts() {
        for (why, text) in [
            ("empty", String::new()),
            ("too short", "0".repeat(51)),
            ("too long", "0".repeat(53)),
            ("more than 256 bits, as Nix 2.8 refuses too", format!("z{}", "0".repeat(51))),
            ("just more than 256 bits", format!("2{}", "0".repeat(51))),
            ("upper case", format!("0{}", "A".repeat(51))),
            ("not ASCII", format!("{}é", "0".repeat(50))),
        ] {
            assert_eq!(decode::<32>(&text), None, "{why}: {text}");
        }
        for letter in "eotu".chars() {
            assert_eq!(decode::<20>(&letter.to_string().repeat(32)), None, "{letter}");
        }
    }

    proptest! {
        #[test]
        fn decodes_what_it_encodes(hash: [u8; 20], digest: [u8; 32]) {
            prop_assert_eq!(decode(&encode(&hash)), Some(hash));
            prop_assert_eq!(decode(&encode(&digest)), Some(digest));
        }
    }
}
