//! Passes on the bytes of layers, without copying them where that is possible.
//! Vocabulary: names no stage.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use crate::system;

/// The number of bytes that are best read, hashed and written at once: enough to make the cost of a
/// system call negligible, and few enough to stay in the processor's cache from one step to the
/// next.
pub const PIECE: usize = 128 << 10;

/// The longest time after which a full pipe is tried again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A writer that may take bytes straight from a file.
///
/// Taking a file has the effect of [`Write::write_all`] with the file's bytes, for less work.
pub trait Sink: Write {
    /// Takes up to `bytes.length` bytes of a file. Returns how many it took: 0 at the file's end,
    /// or if this writer takes no files.
    ///
    /// # Errors
    /// Fails if writing or reading fails. The caller can't tell which of the two failed.
    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        let _ = bytes;
        Ok(0)
    }

    /// Returns whether this writer takes files at all.
    fn takes_files(&self) -> bool {
        false
    }
}

/// A range of bytes of a file. The file's position is neither used nor changed.
#[derive(Clone, Copy, Debug)]
pub struct FileBytes<'f> {
    /// The file.
    pub file: &'f File,
    /// The offset of the first byte.
    pub offset: u64,
    /// The number of bytes.
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

/// A writer that takes no files: wraps any other [`Write`].
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

/// A file that may be a pipe. If it is a pipe, files are moved to it by the system, as pages of its
/// cache, so that no byte is copied ([`system::move_to_pipe`]). If the system can't do this, the
/// caller copies them. Another program may have set the pipe so that writes don't wait for its
/// reader: this waits for it.
pub struct Spliced {
    out: File,
    is_pipe: bool,
}

impl Spliced {
    /// Wraps a file, a pipe or any other file descriptor.
    pub fn new(out: File) -> Self {
        let is_pipe = out.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        Self { out, is_pipe }
    }
}

impl Write for Spliced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.out.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    system::wait_for_room(&self.out, PATIENCE)?;
                }
                written => return written,
            }
        }
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
        /// The number of bytes to ask for at once: the room of the widest usual pipe.
        const AT_ONCE: u64 = 1 << 20;
        let mut taken = 0;
        while self.is_pipe && taken < length {
            let length = usize::try_from(AT_ONCE.min(length - taken)).expect("a mebibyte");
            match system::move_to_pipe(file, offset + taken, &self.out, length) {
                Ok(0) => break,
                Ok(more) => taken += more,
                // The system can't move this file. The caller reads the rest and writes it.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    system::wait_for_room(&self.out, PATIENCE)?;
                }
                Err(error) => return Err(error),
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

    /// Checks that a pipe gets as much of a file as there is and as is asked for, after the bytes
    /// that were written before.
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
            let taken = usize::try_from(taken).unwrap();
            // Other systems leave the whole file to the caller.
            assert_eq!(taken, if cfg!(target_os = "linux") { expected.len() } else { 0 });
            let expected = [b"before", &expected[..taken]].concat();
            assert!(read.join().unwrap() == expected, "{start} {length}");
        }
    }

    /// Checks a pipe that does not wait for its reader, and a reader that begins when the pipe is full.
    #[test]
    fn a_pipe_is_waited_for() {
        let bytes: Vec<u8> = (0..1_u32 << 20).map(|place| (place >> 3) as u8).collect();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&bytes).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        system::set_nonblocking(&writer).unwrap();
        let mut full = &writer;
        let mut filled = 0;
        while let Ok(more) = full.write(&bytes) {
            filled += more;
        }
        let read = thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read).unwrap()
        });
        let mut sink = Spliced::new(std::os::fd::OwnedFd::from(writer).into());
        sink.write_all(&bytes).unwrap();
        let all = FileBytes { file: &source, offset: 0, length: bytes.len() as u64 };
        let taken = usize::try_from(sink.take_file(all).unwrap()).unwrap();
        drop(sink);
        assert_eq!(read.join().unwrap().len(), filled + bytes.len() + taken);
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
