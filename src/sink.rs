//! Where the bytes of layers go: without a copy of them on the way, where that can be.
//! Vocabulary: names no stage.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;

use nix::fcntl::{SpliceFFlags, splice};

/// Bytes that are best read, hashed and written at once: enough for a call of the system to cost
/// nothing beside them, and so few that they are in the processor's cache from one to the next.
pub const PIECE: usize = 128 << 10;

/// A writer that may take files without a look at them.
///
/// What it does with them is what [`Write::write_all`] of the same bytes would do, with less work.
pub trait Sink: Write {
    /// Takes up to so many bytes of a file, and returns how many: none at the file's end, or if
    /// it takes no files.
    ///
    /// # Errors
    /// The writer's; and the reader's, which can't be told from them.
    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        let _ = bytes;
        Ok(0)
    }

    /// Whether it takes files at all.
    fn takes_files(&self) -> bool {
        false
    }
}

/// Bytes of a file. Where its position is, does not matter and stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct FileBytes<'f> {
    /// The file.
    pub file: &'f File,
    /// Where they begin.
    pub offset: u64,
    /// How many they should be.
    pub length: u64,
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        (**self).take_file(bytes)
    }

    fn takes_files(&self) -> bool {
        (**self).takes_files()
    }
}

impl Sink for io::Sink {}

impl Sink for Vec<u8> {}

/// Any other writer, which is written to.
pub struct Plain<W>(pub W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Sink for Plain<W> {}

/// A file that may be a pipe, which the system moves files to by itself: as pages of its
/// cache, not one byte of which is copied (splice(2)).
pub struct Spliced {
    out: File,
    is_pipe: bool,
}

impl Spliced {
    /// Writes to whatever this is.
    pub fn new(out: File) -> Self {
        let is_pipe = out.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        Self { out, is_pipe }
    }
}

impl Write for Spliced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Sink for Spliced {
    fn takes_files(&self) -> bool {
        self.is_pipe
    }

    fn take_file(&mut self, FileBytes { file, offset, length }: FileBytes) -> io::Result<u64> {
        /// Bytes that are asked for at once: those that the widest usual pipe has room for.
        const AT_ONCE: u64 = 1 << 20;
        let mut taken = 0;
        let flags = SpliceFFlags::SPLICE_F_MORE;
        while self.is_pipe && taken < length {
            let length = usize::try_from(AT_ONCE.min(length - taken)).expect("a mebibyte");
            let Ok(mut from) = i64::try_from(offset + taken) else { break };
            match splice(file, Some(&mut from), &self.out, None, length, flags) {
                Ok(0) => break,
                Ok(more) => taken += more as u64,
                Err(nix::Error::EINTR) => {}
                // A file system that can't: what is left is read.
                Err(nix::Error::EINVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;

    /// As much of a file as there is and as is asked for, and behind what was written before.
    #[test]
    fn a_pipe_takes_files() {
        let bytes: Vec<u8> = (0..3_u32 << 20).map(|place| (place >> 3) as u8).collect();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&bytes).unwrap();
        for (start, length) in [(0, 0), (0, 1), (1, 5000), (4096, 2 << 20), (7, 3 << 20)] {
            let (mut reader, writer) = io::pipe().unwrap();
            let read = thread::spawn(move || {
                let mut read = Vec::new();
                reader.read_to_end(&mut read).map(|_| read).unwrap()
            });
            let mut sink = Spliced::new(std::os::fd::OwnedFd::from(writer).into());
            sink.write_all(b"before").unwrap();
            let taken = sink.take_file(FileBytes { file: &source, offset: start, length }).unwrap();
            drop(sink);
            let end = bytes.len().min((start + length) as usize);
            let expected = &bytes[start as usize..end];
            assert_eq!(taken, expected.len() as u64);
            assert!(read.join().unwrap() == [b"before", expected].concat(), "{start} {length}");
        }
    }

    #[test]
    fn what_is_no_pipe_is_written_to() {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(b"abc").unwrap();
        let mut sink = Spliced::new(tempfile::tempfile().unwrap());
        let bytes = FileBytes { file: &source, offset: 0, length: 3 };
        assert_eq!((sink.take_file(bytes).unwrap(), sink.takes_files()), (0, false));
        sink.write_all(b"abc").unwrap();
        assert_eq!(sink.out.metadata().unwrap().len(), 3);
    }
}
