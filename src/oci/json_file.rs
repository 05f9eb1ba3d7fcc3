//! Reads and writes JSON files as streams: an image spec may be larger than everything else that a
//! command has in memory.
//! Stage: oci. Input: a file. Output: its contents.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::unpack::values;
use crate::small_file;
use crate::store;

/// The number of bytes of a file that are read at a time.
const BUFFER: usize = 64 << 10;
/// The largest number of values in a small file. The popularity of all of nixpkgs has 120,000.
const VALUES: usize = 500_000;

/// Reads `what` from a file. Equal store paths in it share their memory.
///
/// # Errors
/// Fails with [`Error::Read`] or [`Error::Json`] if the file is not valid.
pub fn read<T: DeserializeOwned>(file: &Path, what: &'static str) -> Result<T, Error> {
    let open = File::open(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
    read_from(open, file, what)
}

/// Reads `what` from a file that is small in every honest use. The number of its bytes and of its values is
/// limited.
///
/// # Errors
/// Fails with [`Error::Read`] or [`Error::Json`] if the file is not valid, or has too much.
pub fn read_small<T: DeserializeOwned>(file: &Path, what: &'static str) -> Result<T, Error> {
    let few = |bytes: Vec<u8>| match values(&bytes) {
        0..=VALUES => Ok(bytes),
        _ => Err(io::Error::other(format!("it has more than {VALUES} values"))),
    };
    let bytes = small_file::read(file).and_then(few);
    let bytes = bytes.map_err(|source| Error::Read { file: file.to_owned(), source })?;
    read_bytes(&bytes, file, what)
}

/// Reads like [`read`], from an open file.
///
/// # Errors
/// Fails with [`Error::Read`] or [`Error::Json`] if the file is not valid.
pub fn read_from<T: DeserializeOwned>(
    open: impl Read,
    file: &Path,
    what: &'static str,
) -> Result<T, Error> {
    let mut input = Input { open, failed: None };
    let read =
        store::sharing(|| serde_json::from_reader(BufReader::with_capacity(BUFFER, &mut input)));
    read.map_err(|source| match input.failed {
        Some(source) => Error::Read { file: file.to_owned(), source },
        None => Error::Json { file: file.to_owned(), what, source },
    })
}

/// Reads `what` from the bytes of a file. Equal store paths in it share their memory.
///
/// # Errors
/// Fails with [`Error::Json`] if the bytes are not valid.
pub fn read_bytes<T: DeserializeOwned>(
    bytes: &[u8],
    file: &Path,
    what: &'static str,
) -> Result<T, Error> {
    let read = store::sharing(|| serde_json::from_slice(bytes));
    read.map_err(|source| Error::Json { file: file.to_owned(), what, source })
}

/// Keeps the error of reading the file, which serde would report as an error of its own.
struct Input<R> {
    open: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.open.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }
}

/// Writes JSON that people can read as well, with a newline at the end.
///
/// # Errors
/// Returns the errors of `out`.
pub fn write(value: &impl Serialize, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")
}
