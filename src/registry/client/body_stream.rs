//! The bytes of a blob on their way from the thread that makes them to the request that sends them.
//! Stage: registry.

use std::io::{self, Read, Write};

/// Passes on the bytes after the first `skip`.
pub struct Rest<W> {
    /// The writer of the rest.
    pub out: W,
    /// The number of bytes that are not passed on.
    pub skip: u64,
    /// True if the reader of a pipe is gone.
    pub gone: bool,
}

impl<W: Write> Write for Rest<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = self.skip.min(bytes.len() as u64) as usize;
        if skipped > 0 {
            self.skip -= skipped as u64;
            return Ok(skipped);
        }
        let written = self.out.write(bytes);
        self.gone |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A reader that fails if the bytes end early: the registry must not wait for bytes that never
/// come.
pub struct Whole<R> {
    /// The reader of the bytes.
    pub reader: R,
    /// The number of bytes that have to follow.
    pub left: u64,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_what_comes_after() {
        for skip in [0, 1, 4, 5, 9, 10] {
            let mut rest = Rest { out: Vec::new(), skip, gone: false };
            rest.write_all(b"01234").unwrap();
            rest.write_all(b"56789").unwrap();
            assert_eq!(rest.out, b"0123456789"[skip as usize..]);
        }
    }

    #[test]
    fn an_early_end_is_an_error() {
        let mut whole = Whole { reader: &b"abc"[..], left: 4 };
        assert_eq!(
            whole.read_to_end(&mut Vec::new()).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        let mut whole = Whole { reader: &b"abc"[..], left: 3 };
        assert_eq!(whole.read_to_end(&mut Vec::new()).unwrap(), 3);
    }
}
