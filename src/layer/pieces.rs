//! Collects the bytes of a layer in pieces: headers and files go to one buffer, which is passed to
//! the sink when it is full.
//! Stage: layer. Output: bytes to any [`Sink`].

use std::io::{self, Write};

use crate::sink::{FileBytes, PIECE, Sink};

/// A buffer in front of a [`Sink`].
pub struct Pieces<S> {
    sink: S,
    /// The buffer, of length [`PIECE`]; its filled part has not been passed on.
    piece: Vec<u8>,
    filled: usize,
}

impl<S: Sink> Pieces<S> {
    /// Starts with an empty buffer.
    pub fn new(sink: S) -> Self {
        Self { sink, piece: vec![0; PIECE], filled: 0 }
    }

    /// Returns the free part of the buffer, which is never empty. Bytes that are read into it count
    /// after a call of [`advance`](Self::advance).
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.piece[self.filled..]
    }

    /// Notes that `bytes` bytes of the [`room`](Self::room) are filled.
    ///
    /// # Errors
    /// Fails if the sink fails.
    pub fn advance(&mut self, bytes: usize) -> io::Result<()> {
        self.filled += bytes;
        assert!(self.filled <= PIECE, "more than there was room for");
        if self.filled < PIECE { Ok(()) } else { self.hand_over() }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        self.sink.write_all(&self.piece[..filled])
    }

    /// Returns whether the sink takes files by [`pass_file`](Self::pass_file).
    pub fn passes_files(&self) -> bool {
        self.sink.takes_files()
    }

    /// Passes on the buffer, and then a file, by [`Sink::take_file`].
    ///
    /// # Errors
    /// Fails if the sink fails.
    pub fn pass_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        self.hand_over()?;
        self.sink.take_file(bytes)
    }

    /// Passes on the rest of the buffer, and returns the sink.
    ///
    /// # Errors
    /// Fails if the sink fails.
    pub fn finish(mut self) -> io::Result<S> {
        self.flush()?;
        Ok(self.sink)
    }
}

impl<S: Sink> Write for Pieces<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room();
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
        self.advance(length)?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()?;
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the bytes that it is given.
    #[derive(Default)]
    struct Kept(Vec<Vec<u8>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Kept {}

    #[test]
    fn pieces_are_whole_and_in_order() {
        let mut pieces = Pieces::new(Kept::default());
        pieces.write_all(b"header").unwrap();
        pieces.flush().unwrap();
        pieces.write_all(&vec![b'x'; PIECE - 1]).unwrap();
        pieces.room()[0] = b'y';
        pieces.advance(1).unwrap();
        pieces.room()[..2].copy_from_slice(b"zz");
        pieces.advance(2).unwrap();
        let Kept(kept) = pieces.finish().unwrap();
        let full = [vec![b'x'; PIECE - 1], b"y".to_vec()].concat();
        assert!(kept == [b"header".to_vec(), full, b"zz".to_vec()]);
    }
}
