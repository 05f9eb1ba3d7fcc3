//! Cuts a file into pieces by its bytes alone, so that equal contents give equal pieces in any layer.
//! Stage: oci (pure). Input: a file's bytes. Output: the length of the next piece.
//!
//! A new version of a dependency changes nothing in most files but the hashes in store paths. So each
//! group of hashes is a piece of its own, and the pieces between them stay as they were. Those pieces
//! end where a rolling sum of the bytes says so: an inserted byte moves no border but the next ones.

/// The smallest file that is cut at all.
const WHOLE: usize = 16 << 10;
/// The smallest number of bytes to the next border of the rolling sum.
const LEAST: usize = 128 << 10;
/// The largest piece.
const MOST: usize = 4 << 20;
/// The bits of the rolling sum that are zero at a border: pieces have about 2 MiB
/// on average. Shorter pieces make blobs larger, by 5 % with 128 KiB; since hashes are apart, shorter
/// pieces would hardly make an update smaller.
const BORDER_MASK: u64 = ((1 << 21) - 1) << 40;
/// The largest number of bytes between two hashes of the same piece. Readers ask for both at once if
/// there is 1 KiB of compressed bytes or less between them.
const GAP: usize = 4 << 10;
/// The smallest number of zeros that is a piece of its own, which is not transferred.
const HOLE: usize = 16 << 10;
/// The number of digits of a store path's hash.
const HASH: usize = 32;
/// The length of `/<hash>`.
const SLASH_AND_HASH: usize = 1 + HASH;

/// The number of bytes that decide on the next piece: no byte beyond them does.
pub const LOOKAHEAD: usize = MOST + GAP + SLASH_AND_HASH + 1;

/// A piece at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of its bytes, which is not zero.
    pub length: usize,
    /// True if all of them are zero.
    pub zeros: bool,
}

impl Piece {
    fn data(length: usize) -> Self {
        Self { length, zeros: false }
    }
}

/// Returns the first piece of `rest`: the bytes of a file from a border on, to the file's end or for
/// [`LOOKAHEAD`] bytes at least. `is_whole` says that `rest` is a whole file.
pub fn first_piece(rest: &[u8], is_whole: bool) -> Piece {
    if is_whole && rest.len() < WHOLE {
        return Piece::data(rest.len());
    }
    let seen = &rest[..rest.len().min(LOOKAHEAD)];
    let zeros = zeros_at(seen, 0).min(MOST);
    if zeros >= HOLE {
        return Piece { length: zeros, zeros: true };
    }
    // The rolling sum has no border in the first `LEAST` bytes: a short piece before a hash needs no search
    // for one.
    let near = find_hash(&seen[..seen.len().min(LEAST)], 0);
    match near {
        // A group that begins near the border needs no piece before it.
        Some(hash) if hash <= GAP => Piece::data(group_end(seen, hash)),
        Some(hash) => Piece::data(rolling_border(&seen[..hash])),
        None => {
            let border = rolling_border(&seen[..seen.len().min(MOST)]);
            let hash = find_hash(&seen[..seen.len().min(border + SLASH_AND_HASH)], 0);
            Piece::data(hash.unwrap_or(border))
        }
    }
}

/// Returns the end of the group of hashes that begins with the one at `hash`.
fn group_end(seen: &[u8], hash: usize) -> usize {
    let mut end = hash + SLASH_AND_HASH;
    while let Some(next) = find_hash(&seen[..seen.len().min(end + GAP + SLASH_AND_HASH + 1)], end) {
        if next + SLASH_AND_HASH > MOST {
            return end;
        }
        end = next + SLASH_AND_HASH;
    }
    // The rest of the file, if it is short. More bytes than these follow a border that is not near
    // the file's end.
    if seen.len() - end <= GAP { seen.len().min(MOST) } else { end }
}

/// Returns the position of the first border that the rolling sum has, or of the first hole if that comes earlier. Returns
/// the number of bytes if there is neither.
fn rolling_border(bytes: &[u8]) -> usize {
    let mut sum = 0_u64;
    let mut zeros = 0;
    for (place, byte) in bytes.iter().enumerate() {
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        if zeros == HOLE {
            return place + 1 - HOLE;
        }
        // The sum depends on the last 64 bytes: older ones have been shifted out.
        sum = (sum << 1).wrapping_add(GEAR[usize::from(*byte)]);
        if sum & BORDER_MASK == 0 && place + 1 >= LEAST {
            return place + 1;
        }
    }
    bytes.len()
}

/// Returns the number of zeros from a place on.
fn zeros_at(bytes: &[u8], place: usize) -> usize {
    bytes[place..].iter().take_while(|byte| **byte == 0).count()
}

/// Returns the place of the first `/<hash>-`, as store paths have it.
fn find_hash(bytes: &[u8], from: usize) -> Option<usize> {
    // The place of the first byte that may be a digit of the hash.
    let mut start = from + 1;
    loop {
        let digits = bytes.get(start..start + HASH)?;
        if let Some(other) = digits.iter().rposition(|byte| !is_digit(*byte)) {
            start += other + 1;
            continue;
        }
        match bytes.get(start + HASH)? {
            b'-' if bytes[start - 1] == b'/' => return Some(start - 1),
            // More digits than a hash has: the next hash begins after them.
            byte if is_digit(*byte) => {
                let more = bytes[start + HASH..].iter().take_while(|byte| is_digit(**byte)).count();
                start += HASH + more;
            }
            _ => start += HASH,
        }
    }
}

/// Returns whether Nix's base 32 has the digit.
fn is_digit(byte: u8) -> bool {
    DIGITS[usize::from(byte)]
}

const DIGITS: [bool; 256] = {
    let digits = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut table = [false; 256];
    let mut index = 0;
    while index < digits.len() {
        table[digits[index] as usize] = true;
        index += 1;
    }
    table
};

/// A number without a pattern for each byte, by SplitMix64. Another table gives other pieces.
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 0_u64;
    let mut index = 0;
    while index < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[index] = mixed ^ (mixed >> 31);
        index += 1;
    }
    table
};

/// Returns bytes without a pattern, for tests.
#[cfg(test)]
pub fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let byte = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lengths of all pieces of a file.
    fn cut(file: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut start = 0;
        while start < file.len() {
            let piece = first_piece(&file[start..], start == 0);
            // Bytes that are further away change nothing.
            let seen = &file[start..file.len().min(start + LOOKAHEAD)];
            assert_eq!(first_piece(seen, start == 0), piece);
            start += piece.length;
            pieces.push(piece);
        }
        assert_eq!(start, file.len());
        pieces
    }

    fn bytes_of<'f>(file: &'f [u8], pieces: &[Piece]) -> Vec<&'f [u8]> {
        let mut rest = file;
        pieces
            .iter()
            .map(|piece| {
                let (bytes, more) = rest.split_at(piece.length);
                rest = more;
                bytes
            })
            .collect()
    }

    #[test]
    fn pieces_have_the_sizes_that_they_should_have() {
        let pieces = cut(&noise(32 << 20, 1));
        let (last, others) = pieces.split_last().unwrap();
        assert!(last.length <= MOST);
        assert!(others.iter().all(|piece| (LEAST..=MOST).contains(&piece.length)), "{pieces:?}");
        let average = (32 << 20) / pieces.len();
        assert!((1 << 20..3 << 20).contains(&average), "{average}");
        assert_eq!(cut(&noise(WHOLE - 1, 1)).len(), 1);
    }

    /// Checks that an inserted byte changes the piece that it is in, and at most the next ones.
    #[test]
    fn an_inserted_byte_moves_few_borders() {
        let old = noise(8 << 20, 2);
        let mut new = old.clone();
        new.insert(3 << 20, b'x');
        let (old_pieces, new_pieces) = (cut(&old), cut(&new));
        let old_bytes = bytes_of(&old, &old_pieces);
        let others = bytes_of(&new, &new_pieces);
        let others = others.iter().filter(|piece| !old_bytes.contains(piece)).count();
        assert!(others <= 2, "{others} of {}", new_pieces.len());
    }

    /// Checks that the hashes of store paths are pieces of their own: if all of them change, little
    /// else has to be sent.
    #[test]
    fn hashes_are_apart() {
        let with = |hash: &str| {
            let path = format!("/nix/store/{}-glibc-2.36/lib", hash.repeat(32));
            let noise = noise(4 << 20, 3);
            let places = [0, 100, 9 << 10, 300_000, 301_000, 304_000, 2 << 20, (4 << 20) - 100];
            let mut file = Vec::new();
            let mut last = 0;
            for place in places {
                file.extend_from_slice(&noise[last..place]);
                file.extend_from_slice(path.as_bytes());
                last = place;
            }
            file.extend_from_slice(&noise[last..]);
            file
        };
        let (old, new) = (with("0"), with("v"));
        let (old_pieces, new_pieces) = (cut(&old), cut(&new));
        assert_eq!(old_pieces, new_pieces);
        let old_bytes = bytes_of(&old, &old_pieces);
        let others = bytes_of(&new, &new_pieces);
        let others = others.iter().filter(|piece| !old_bytes.contains(piece));
        let bytes: usize = others.map(|piece| piece.len()).sum();
        assert!(bytes < 16 << 10, "{bytes}");
    }

    #[test]
    fn other_digits_are_no_hashes() {
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        for (text, expected) in [
            (format!("/{hash}-x"), Some(0)),
            (format!("..//{hash}-x"), Some(3)),
            (format!("/{hash}a-/{hash}-"), Some(35)),
            (format!("/e{hash}-"), None),
            (format!("{hash}-"), None),
            (format!("/{hash}"), None),
            (format!("/{hash}."), None),
            (format!("/{}-", "e".repeat(32)), None),
            ("a".repeat(999), None),
            (String::new(), None),
        ] {
            assert_eq!(find_hash(text.as_bytes(), 0), expected, "{text}");
        }
    }

    #[test]
    fn long_runs_of_zeros_are_holes() {
        let zeros = vec![0; 9 << 20];
        assert!(cut(&zeros).iter().all(|piece| piece.zeros));
        let file = [noise(50_000, 4), vec![0; HOLE], noise(50_000, 5)].concat();
        let pieces = cut(&file);
        let holes: Vec<_> = pieces.iter().filter(|piece| piece.zeros).collect();
        assert_eq!(holes, [&Piece { length: HOLE, zeros: true }]);
        let file = [noise(50_000, 4), vec![0; HOLE - 1], vec![1; 50_000]].concat();
        assert!(cut(&file).iter().all(|piece| !piece.zeros));
    }

    /// Checks the borders that decide which bytes are sent again: if they move, all users send and
    /// fetch everything once more.
    #[test]
    fn the_borders_are_the_same_with_every_version() {
        let lengths: Vec<_> = cut(&noise(4 << 20, 6)).iter().map(|piece| piece.length).collect();
        assert_eq!(lengths, [372_118, 352_374, 2_391_813, 1_077_999]);
    }
}
