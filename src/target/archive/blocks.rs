//! Writes an archive in whole blocks.
//! Stage: target. Output: bytes to any [`Sink`].

use std::io::{self, Write};

use crate::sink::{FileBytes, Sink};

/// The size of a block of a tar.
const BLOCK: usize = 512;

/// Passes bytes on in multiples of 512. GNU tar needs that from a named pipe: if a read does not
/// end with a whole block, GNU tar ends with `Unaligned block`.
pub struct Blocks<W> {
    out: W,
    /// The beginning of a block that is not complete.
    begun: Vec<u8>,
    /// The number of bytes that complete the present block, if its beginning was passed on
    /// directly.
    left: usize,
}

impl<W> Blocks<W> {
    /// Returns a writer at the beginning of a block.
    pub fn new(out: W) -> Self {
        Self { out, begun: Vec::with_capacity(BLOCK), left: 0 }
    }
}

impl<W: Write> Write for Blocks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left > 0 {
            let taken = self.left.min(bytes.len());
            self.out.write_all(&bytes[..taken])?;
            self.left -= taken;
            return Ok(taken);
        }
        let whole = bytes.len() / BLOCK * BLOCK;
        if self.begun.is_empty() && whole > 0 {
            self.out.write_all(&bytes[..whole])?;
            return Ok(whole);
        }
        let taken = bytes.len().min(BLOCK - self.begun.len());
        self.begun.extend_from_slice(&bytes[..taken]);
        if self.begun.len() == BLOCK {
            self.out.write_all(&self.begun)?;
            self.begun.clear();
        }
        Ok(taken)
    }

    /// Passes on complete blocks only. A tar ends with a complete block.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<S: Sink> Sink for Blocks<S> {
    fn takes_files(&self) -> bool {
        self.out.takes_files()
    }

    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        const UNIT: u64 = BLOCK as u64;
        let length = bytes.length / UNIT * UNIT;
        if length == 0 || !self.begun.is_empty() || self.left > 0 {
            return Ok(0);
        }
        let taken = self.out.take_file(FileBytes { length, ..bytes })?;
        self.left = usize::try_from((UNIT - taken % UNIT) % UNIT).unwrap_or_default();
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the size of each write, and all bytes.
    #[derive(Default)]
    struct Sizes(Vec<usize>, Vec<u8>);

    impl Write for Sizes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.len());
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_whole_blocks_are_passed_on() {
        let mut blocks = Blocks::new(Sizes::default());
        let sizes = [512, 100, 412, 1, 1023, 3, 5000, 0, 629, 512];
        let bytes: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|byte| byte as u8).collect();
        let mut rest = &bytes[..];
        for size in sizes {
            let (now, later) = rest.split_at(size);
            blocks.write_all(now).unwrap();
            blocks.flush().unwrap();
            rest = later;
        }
        let Sizes(sizes, written) = blocks.out;
        assert!(sizes.iter().all(|size| size % BLOCK == 0), "{sizes:?}");
        assert_eq!(written, bytes[..bytes.len() / BLOCK * BLOCK]);
        assert_eq!(bytes.len() % BLOCK, 0);
    }
}
