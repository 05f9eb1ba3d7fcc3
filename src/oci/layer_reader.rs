//! Provides a layer's tar to a reader: the tar is made on one thread and read on another.
//! Stage: oci. Input: [`SpecLayer`]. Output: the reader's result.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use super::blob::Form;
use super::compression::Compression;
use super::spec_layer::SpecLayer;
use super::unpack::TarError;
use crate::layer::Error;
use crate::sink::Spliced;
use crate::store::Store;

const BUFFER: usize = 256 << 10;

/// Lets `read` read the tar of a layer, uncompressed, and returns its result.
///
/// # Errors
/// Fails if the layer can't be made.
pub fn read_tar<T, E: From<TarError>>(
    store: &Store,
    layer: &SpecLayer,
    read: impl FnOnce(&mut (dyn Read + Send)) -> Result<T, E>,
) -> Result<Result<T, E>, Error> {
    let (reader, writer) = io::pipe().map_err(Error::Write)?;
    std::thread::scope(|scope| {
        let made = scope.spawn(move || {
            let out = Spliced::new(OwnedFd::from(writer).into());
            layer.write_blob(store, Form::Loadable, out)
        });
        let mut reader = BufReader::with_capacity(BUFFER, reader);
        let result = match uncompressed(&mut reader) {
            Ok(mut tar) => read(&mut tar),
            Err(error) => Err(TarError::from(error).into()),
        };
        // Read what follows the end of the archive, so that the thread that makes the layer does
        // not wait.
        let drained = io::copy(&mut reader, &mut io::sink());
        drop(reader);
        made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(match drained {
            Err(error) if result.is_ok() => Err(TarError::from(error).into()),
            _ => result,
        })
    })
}

/// Decompresses the tar if necessary: a base's layer may be compressed.
fn uncompressed<'r>(
    reader: &'r mut (impl BufRead + Send),
) -> io::Result<Box<dyn Read + Send + 'r>> {
    let compression = Compression::of(reader.fill_buf()?);
    compression.reader(reader)
}
