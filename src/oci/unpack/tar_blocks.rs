//! Reads the bytes of an archive in order, and counts them.
//! Stage: oci. Input: an archive's bytes. Output: blocks and bodies.

use std::fs::File;
use std::io::{self, BufReader, Read};

use super::tar_error::TarError;

/// The number of bytes of a block.
pub const BLOCK: u64 = 512;

/// A reader of an archive that knows its position.
pub struct TarBlocks<R> {
    from: R,
    skip: fn(&mut R, u64) -> io::Result<()>,
    at: u64,
}

impl<R: Read> TarBlocks<R> {
    /// Makes a reader that reads over the bytes that are skipped.
    pub fn new(from: R) -> Self {
        Self { from, skip: read_over, at: 0 }
    }

    /// Returns the position: the number of bytes before the next one.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Returns the inner reader.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// Skips the bytes up to a position, which is not before the present one.
    ///
    /// # Errors
    /// Fails with [`TarError::Read`].
    pub fn skip_to(&mut self, position: u64) -> Result<(), TarError> {
        (self.skip)(&mut self.from, position - self.at)?;
        self.at = position;
        Ok(())
    }

    /// Reads a whole block. Returns false at the end of the archive, where there is nothing to read.
    ///
    /// # Errors
    /// Fails with [`TarError::Read`], also if the archive ends within the block.
    pub fn read_block(&mut self, block: &mut [u8]) -> Result<bool, TarError> {
        let mut read = 0;
        while read < block.len() {
            match self.from.read(&mut block[read..]) {
                Ok(0) if read == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.at += read as u64;
        Ok(true)
    }

    /// Reads `size` bytes into memory.
    ///
    /// # Errors
    /// Fails with [`TarError::Read`], also if the archive ends before.
    pub fn read_bytes(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut bytes = Vec::new();
        self.from.by_ref().take(size).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < size {
            return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        self.at += size;
        Ok(bytes)
    }

    /// Reads some bytes of a body of which `left` bytes are left. Returns their number, which is 0 only
    /// if none are left.
    ///
    /// # Errors
    /// Fails if the bytes can't be read, or if the archive ends before.
    pub fn read_some(&mut self, buffer: &mut [u8], left: u64) -> io::Result<usize> {
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let read = self.from.by_ref().take(left).read(buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl TarBlocks<BufReader<File>> {
    /// Makes a reader that seeks over the bytes that are skipped. Such a reader does not notice that
    /// some of them are missing.
    pub fn seeking(from: BufReader<File>) -> Self {
        let skip = |file: &mut BufReader<File>, bytes| match i64::try_from(bytes) {
            Ok(bytes) => file.seek_relative(bytes),
            Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        Self { from, skip, at: 0 }
    }
}

fn read_over(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    let read = io::copy(&mut from.take(bytes), &mut io::sink())?;
    if read < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
