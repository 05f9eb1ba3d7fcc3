//! Reads bytes in the middle of a compressed archive.
//! Stage: oci. Input: a file. Output: its bytes from an offset on, uncompressed.
//!
//! To reach these bytes, everything before them must be decompressed. The layers of a base image
//! are read one after the other, about in the order of the archive. Therefore each reader leaves
//! its decoder for the next one.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::compression::Compression;
use crate::regular_file;

/// The size of a decoder's input buffer.
const BUFFER: usize = 256 << 10;
/// The largest number of idle decoders: each has a file open, and up to 8 MiB of memory.
const MOST: usize = 2;

/// Idle decoders, most recently used first.
#[derive(Default)]
struct Waiting(Mutex<Vec<Decoder>>);

/// A decoder that reads an archive from the start.
struct Decoder {
    file: PathBuf,
    /// The number of uncompressed bytes that were read.
    at: u64,
    reader: Box<dyn Read + Send>,
}

/// Reads a range of a compressed archive's bytes.
pub struct ArchiveReader {
    /// The decoder; none after an error.
    decoder: Option<Decoder>,
    left: u64,
    waiting: &'static Waiting,
}

impl ArchiveReader {
    /// Opens the `size` bytes from `offset` on, or as many as there are.
    ///
    /// # Errors
    /// Fails if the file can't be read up to the offset.
    pub fn open(file: &Path, compression: Compression, offset: u64, size: u64) -> io::Result<Self> {
        static WAITING: Waiting = Waiting(Mutex::new(Vec::new()));
        WAITING.open(file, compression, offset, size)
    }
}

impl Waiting {
    fn open(
        &'static self,
        file: &Path,
        compression: Compression,
        offset: u64,
        size: u64,
    ) -> io::Result<ArchiveReader> {
        let mut decoder = match self.take_before(file, offset) {
            Some(decoder) => decoder,
            None => Decoder::new(file, compression)?,
        };
        let before = offset - decoder.at;
        decoder.at += io::copy(&mut decoder.reader.by_ref().take(before), &mut io::sink())?;
        Ok(ArchiveReader { decoder: Some(decoder), left: size, waiting: self })
    }

    /// Removes and returns the decoder of a file that has the least to skip, if there is one.
    fn take_before(&self, file: &Path, offset: u64) -> Option<Decoder> {
        let mut waiting = self.lock();
        let is_usable = |decoder: &Decoder| decoder.file == file && decoder.at <= offset;
        let numbered = waiting.iter().enumerate().filter(|(_, decoder)| is_usable(decoder));
        let (number, _) = numbered.max_by_key(|(_, decoder)| decoder.at)?;
        Some(waiting.remove(number))
    }

    fn leave(&self, decoder: Decoder) {
        let mut waiting = self.lock();
        waiting.insert(0, decoder);
        waiting.truncate(MOST);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Decoder>> {
        // No code panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Decoder {
    fn new(file: &Path, compression: Compression) -> io::Result<Self> {
        let input = BufReader::with_capacity(BUFFER, regular_file::open(file)?);
        Ok(Self { file: file.to_owned(), at: 0, reader: compression.reader(input)? })
    }
}

impl Read for ArchiveReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(decoder) = &mut self.decoder else { return Err(io::ErrorKind::Other.into()) };
        let read = decoder.reader.by_ref().take(self.left).read(buffer);
        match &read {
            Ok(count) => {
                decoder.at += *count as u64;
                self.left -= *count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.decoder = None,
        }
        read
    }
}

impl Drop for ArchiveReader {
    fn drop(&mut self) {
        if let Some(decoder) = self.decoder.take() {
            self.waiting.leave(decoder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn archive(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap();
        file
    }

    /// Returns a function that reads with idle decoders of its own.
    fn alone() -> impl Fn(&Path, u64, u64) -> io::Result<Vec<u8>> {
        let waiting: &'static Waiting = Box::leak(Box::default());
        move |file, offset, size| {
            let mut bytes = Vec::new();
            let mut reader = waiting.open(file, Compression::Gzip, offset, size)?;
            reader.read_to_end(&mut bytes).map(|_| bytes)
        }
    }

    /// Checks that the idle decoder is used: the file has been removed, so that opening it again
    /// would fail.
    #[test]
    fn what_comes_next_is_read_on() {
        let read = alone();
        let bytes: Vec<u8> = (0..3_000_000).map(|place| (place >> 4) as u8).collect();
        let file = archive(&bytes);
        assert!(read(file.path(), 10, 1000).unwrap() == bytes[10..1010]);
        let path = file.path().to_owned();
        fs::remove_file(&path).unwrap();
        assert!(read(&path, 1010, 500_000).unwrap() == bytes[1010..501_010]);
        assert!(read(&path, 600_000, 3_000_000).unwrap() == bytes[600_000..]);
        assert_eq!(read(&path, 10, 10).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_was_before_is_read_anew() {
        let read = alone();
        let bytes: Vec<u8> = (0..100_000).map(|place| (place >> 4) as u8).collect();
        let file = archive(&bytes);
        for (offset, size) in [(50_000, 10), (3, 70_000), (49_000, 2000), (99_999, 5)] {
            let end = bytes.len().min((offset + size) as usize);
            let expected = &bytes[offset as usize..end];
            assert!(read(file.path(), offset, size).unwrap() == expected, "{offset}");
        }
    }

    #[test]
    fn what_failed_is_not_read_on() {
        let read = alone();
        let file = archive(&[7; 100_000]);
        let whole = fs::read(file.path()).unwrap();
        let broken = &whole[..whole.len() / 2];
        fs::write(file.path(), broken).unwrap();
        read(file.path(), 0, 100_000).unwrap_err();
        read(file.path(), 50_000, 50_000).unwrap_err();
    }
}
