//! Writes the tar format of a layer: headers, bodies, padding, end.
//! Stage: layer. Output: bytes to any writer.

use std::io::{self, Write};

use super::header::{BLOCK, Entry, header_blocks};
use super::permissions::Given;

/// Writes a deterministic tar. Entries come in the order of the calls.
pub struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive without entries.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds an entry without a body.
    pub fn entry(&mut self, name: &[u8], entry: Entry, given: Given) -> io::Result<()> {
        debug_assert!(!matches!(entry, Entry::File { size: 1.., .. }), "a file has a body");
        self.out.write_all(&header_blocks(name, entry, given))
    }

    /// Adds a file. `body` writes the contents, which must be `size` bytes.
    pub fn file<E: From<io::Error>>(
        &mut self,
        name: &[u8],
        (executable, size): (bool, u64),
        given: Given,
        body: impl FnOnce(&mut W) -> Result<(), E>,
    ) -> Result<(), E> {
        self.out.write_all(&header_blocks(name, Entry::File { executable, size }, given))?;
        body(&mut self.out)?;
        self.out.write_all(&[0; BLOCK][..padding(size)])?;
        Ok(())
    }

    /// Ends the archive with two zero blocks, which POSIX demands. Padding to a record of 20
    /// blocks, as some tars do, would only add bytes.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Returns the number of bytes from the end of a body to the next block.
fn padding(size: u64) -> usize {
    let block = BLOCK as u64;
    usize::try_from((block - size % block) % block).expect("less than a block")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_archive_is_two_blocks() {
        assert_eq!(TarWriter::new(Vec::new()).finish().unwrap(), [0; 1024]);
    }

    #[test]
    fn bodies_are_padded_to_blocks() {
        for (size, blocks) in [(0, 0), (1, 1), (511, 1), (512, 1), (513, 2)] {
            let mut tar = TarWriter::new(Vec::new());
            tar.file(b"f", (false, size), Given::default(), |out| {
                out.write_all(&vec![b'x'; size as usize])
            })
            .unwrap();
            assert_eq!(tar.finish().unwrap().len(), (1 + blocks + 2) * BLOCK, "{size} bytes");
        }
    }
}
