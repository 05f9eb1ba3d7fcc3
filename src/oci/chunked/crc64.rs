//! CRC-64 by ISO 3309, as Go's `crc64.ISO` computes it: tar-split has one for each file.
//! Stage: oci (pure). Input: bytes. Output: their checksum.

/// The polynomial, reflected.
const ISO: u64 = 0xd800_0000_0000_0000;
/// The number of bytes that are looked up at once.
const LANES: usize = 8;

/// `TABLES[n][b]` is the effect of the byte `b` with `n` bytes after it.
static TABLES: [[u64; 256]; LANES] = {
    let mut tables = [[0; 256]; LANES];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ ISO } else { sum >> 1 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut lane = 1;
    while lane < LANES {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[lane - 1][byte];
            tables[lane][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        lane += 1;
    }
    tables
};

/// The checksum of bytes that come in pieces of any length.
#[derive(Clone, Copy, Debug)]
pub struct Crc64(u64);

impl Crc64 {
    /// Starts with no bytes.
    pub const fn new() -> Self {
        Self(!0)
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<LANES>();
        let mut sum = self.0;
        for eight in eights {
            let word = sum ^ u64::from_le_bytes(*eight);
            sum = (0..LANES).fold(0, |sum, lane| {
                let byte = (word >> (8 * (LANES - 1 - lane))) & 0xff;
                sum ^ TABLES[lane][byte as usize]
            });
        }
        for byte in rest {
            sum = TABLES[0][usize::from(sum as u8 ^ byte)] ^ (sum >> 8);
        }
        self.0 = sum;
    }

    /// Returns the checksum of all bytes.
    pub const fn finish(self) -> [u8; 8] {
        (!self.0).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gos() {
        // The check value of CRC-64/GO-ISO in the catalogue of parametrised CRC algorithms.
        let mut crc = Crc64::new();
        crc.update(b"123456789");
        assert_eq!(crc.finish(), 0xb909_56c7_75a4_1001_u64.to_be_bytes());
    }

    #[test]
    fn pieces_change_nothing() {
        let bytes: Vec<u8> = (0..999_u32).map(|place| ((place * place) >> 3) as u8).collect();
        let mut whole = Crc64::new();
        whole.update(&bytes);
        for at in [0, 1, 7, 8, 9, 500, 999] {
            let mut crc = Crc64::new();
            crc.update(&bytes[..at]);
            crc.update(&bytes[at..]);
            assert_eq!(crc.finish(), whole.finish(), "{at}");
        }
    }
}
