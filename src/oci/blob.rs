//! Describes and writes a layer as it is transferred: its bytes, digest and media type.
//! Stage: oci. Input: [`SpecLayer`]. Output: its blob.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::chunked::{ChunkedCompressor, TocPlace};
use super::compression::Compression;
use super::compressor::Compressor;
use super::layer_blob::LayerBlob;
use super::layer_compression::LayerCompression;
use super::media_type::LayerMediaType;
use super::spec_layer::{LayerSource, SpecLayer};
use super::stored::StoredBlob;
use crate::digest::Checksum;
use crate::layer::{self, Error};
use crate::sink::{PIECE, Plain, Sink};
use crate::store::Store;

/// The encoding in which layers are sent: as recorded, or as every `docker load` reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The form in the image spec: a base's layers as they are stored, and the others compressed if
    /// the author wants that. For receivers that know OCI's media types.
    AsStored,
    /// The form that every `docker load` reads. `docker load` recognises gzip by itself, but
    /// version 20.10 does not know Zstandard, and takes it for a broken tar. Layers that are made
    /// here are not compressed, since the receiver would only decompress them.
    Loadable,
}

impl SpecLayer {
    /// Returns the blob of this layer.
    pub fn blob(&self, form: Form) -> LayerBlob {
        match self.stored_as_is(form) {
            Some(StoredBlob { digest, size, media_type, toc, .. }) => {
                LayerBlob { digest: *digest, size: *size, media_type: *media_type, toc: *toc }
            }
            None => self.compressed_in(form).unwrap_or(LayerBlob {
                digest: self.diff_id.as_uncompressed_blob(),
                size: self.size,
                media_type: LayerMediaType::oci(Compression::None),
                toc: None,
            }),
        }
    }

    /// Returns the recorded checksum, if it is the checksum of this form's bytes.
    pub fn checksum_in(&self, form: Form) -> Option<Checksum> {
        self.checksum.filter(|_| self.blob(form).media_type.compression.is_none())
    }

    fn compressed_in(&self, form: Form) -> Option<LayerBlob> {
        self.compressed.filter(|_| form == Form::AsStored)
    }

    fn stored_as_is(&self, form: Form) -> Option<&StoredBlob> {
        let blob = self.stored().filter(|_| self.compressed_in(form).is_none())?;
        let zstd = blob.media_type.compression == Compression::Zstd;
        (form == Form::AsStored || !zstd).then_some(blob)
    }

    /// Writes the blob's bytes, without checking them.
    ///
    /// # Errors
    /// Fails if the sources can't be read, and with [`Error::Write`] if `out` fails.
    pub fn write_blob(&self, store: &Store, form: Form, out: impl Sink) -> Result<(), Error> {
        let Some(blob) = self.compressed_in(form) else {
            return self.write_stored_blob(store, form, out);
        };
        if let Some(kept) = self.open_kept(store)? {
            let read_error = |source| Error::Read { path: kept.path.clone(), source };
            return copy(&kept.file, out, read_error);
        }
        self.write_compressed(store, blob.compression(), out).map(drop)
    }

    /// Opens the file in which the build kept the compressed blob. Returns `None` if there is none,
    /// or not any more: the blob can be made again.
    fn open_kept(&self, store: &Store) -> Result<Option<Kept>, Error> {
        let Some(file) = &self.compressed_file else { return Ok(None) };
        let path = store.locate(file);
        match File::open(&path) {
            Ok(file) => Ok(Some(Kept { file, path })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Writes the tar compressed, and returns `out` with the place of the table of contents. For
    /// `zstd:chunked` there is no place if the tar can't have a table: then the bytes that were
    /// written are not a layer.
    ///
    /// # Errors
    /// Returns the errors of [`SpecLayer::write_blob`].
    pub(super) fn write_compressed<W: Write>(
        &self,
        store: &Store,
        compression: LayerCompression,
        out: W,
    ) -> Result<(W, Option<TocPlace>), Error> {
        if compression == LayerCompression::ZstdChunked {
            let mut compressor = ChunkedCompressor::new(out).map_err(Error::Write)?;
            self.write_stored_blob(store, Form::Loadable, Plain(&mut compressor))?;
            return compressor.finish().map_err(Error::Write);
        }
        let mut compressor = Compressor::new(compression.format(), out);
        self.write_stored_blob(store, Form::Loadable, Plain(&mut compressor))?;
        compressor.finish().map(|out| (out, None)).map_err(Error::Write)
    }

    fn write_stored_blob(&self, store: &Store, form: Form, out: impl Sink) -> Result<(), Error> {
        match &self.source {
            LayerSource::Made(contents) => layer::write_layer(store, contents, out),
            LayerSource::Kept(_, blob) | LayerSource::Stored(blob) => {
                let read_error = |source| Error::Read { path: store.locate(&blob.file), source };
                let opened = match self.stored_as_is(form) {
                    Some(_) => blob.open(store),
                    None => blob.open_uncompressed(store),
                };
                copy(opened.map_err(read_error)?, out, read_error)
            }
        }
    }
}

/// A compressed blob that the build kept.
struct Kept {
    file: File,
    path: PathBuf,
}

/// Copies like `io::copy`, but tells errors of the reader from those of the writer.
fn copy(
    mut reader: impl Read,
    mut out: impl Write,
    read_error: impl Fn(io::Error) -> Error,
) -> Result<(), Error> {
    let mut buffer = vec![0; PIECE];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return out.flush().map_err(Error::Write),
            Ok(read) => out.write_all(&buffer[..read]).map_err(Error::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
}
