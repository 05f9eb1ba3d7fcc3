//! Writes the tar around an image's blobs. The documents beside them depend on the format.
//! Stage: target. Input: [`ImageSpec`]. Output: a tar.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::blocks::Blocks;
use crate::oci::{Blob, Documents, Form, ImageSpec};
use crate::outgoing::{
    CheckedBy, Copied, Error, Hashing, ImageLayer, LayerStep, Tally, Watch, WatchedLayer,
    write_checked_layer, write_sized_layer,
};
use crate::sink::{FileBytes, Sink};
use crate::store::Store;
use crate::target::image_layout::blob_path;

/// The number of bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// Counts of a stream's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Layers in the stream.
    pub layers: usize,
    /// Bytes of the whole stream.
    pub bytes: u64,
}

impl Written {
    /// Returns the result of copying the whole image in this stream.
    pub fn copied(self, documents: &Documents) -> Copied {
        let tally = Tally { layers_sent: self.layers, bytes_sent: self.bytes, ..Tally::default() };
        Copied::new(documents, tally)
    }
}

/// Says why a member's bytes are not complete.
pub enum BodyError {
    /// The bytes of the member can't be read.
    Read(io::Error),
    /// The archive can't be written.
    Write(Error),
}

/// Writes the outer tar, and counts its bytes.
pub struct ArchiveWriter<W> {
    out: Blocks<W>,
    bytes: u64,
}

impl<W: Write> Write for ArchiveWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<S: Sink> Sink for ArchiveWriter<S> {
    fn takes_files(&self) -> bool {
        self.out.takes_files()
    }

    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        let taken = self.out.take_file(bytes)?;
        self.bytes += taken;
        Ok(taken)
    }
}

/// The layers that go into an archive, and the way they are written.
pub struct Layers<'a> {
    pub store: &'a Store,
    pub form: Form,
    /// The number of layers, from the bottom up, that are left out.
    pub skip: usize,
    pub checked_by: CheckedBy,
    pub watch: &'a dyn Watch,
}

impl<S: Sink> ArchiveWriter<S> {
    /// Writes images' blobs. Makes every layer, and checks it against the spec. Returns the number
    /// of layers.
    pub fn blobs<'s>(
        &mut self,
        specs: impl IntoIterator<Item = &'s ImageSpec>,
        documents: &Documents,
        layers: &Layers,
    ) -> Result<usize, Error> {
        self.directory("blobs/")?;
        self.directory("blobs/sha256/")?;
        for Blob { digest, bytes } in documents.blobs() {
            self.file(&blob_path(digest), bytes)?;
        }
        let Layers { store, form, skip, checked_by, watch } = *layers;
        let all = |spec: &'s ImageSpec| {
            (0..spec.layers.len()).map(move |index| ImageLayer { spec, index, form })
        };
        let (skipped, wanted): (Vec<_>, Vec<_>) =
            specs.into_iter().flat_map(all).partition(|layer| layer.index < skip);
        skipped.into_iter().for_each(|layer| watch.layer(layer, LayerStep::Skipped));
        // An archive holds a path once, though an image may hold a layer twice.
        let mut seen = BTreeSet::new();
        let wanted: Vec<_> =
            wanted.into_iter().filter(|layer| seen.insert(layer.blob().digest)).collect();
        for &layer in &wanted {
            let blob = layer.blob();
            self.header(&blob_path(&blob.digest), EntryType::Regular, blob.size)?;
            let out = WatchedLayer::begin(&mut *self, layer, watch);
            match checked_by {
                CheckedBy::Sender => write_checked_layer(store, layer, Hashing::Beside, out),
                CheckedBy::Receiver => write_sized_layer(store, layer, out),
            }?;
            self.pad(blob.size)?;
            watch.layer(layer, LayerStep::Sent);
        }
        Ok(wanted.len())
    }
}

impl<W: Write> ArchiveWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out: Blocks::new(out), bytes: 0 }
    }

    fn header(&mut self, path: &str, kind: EntryType, size: u64) -> Result<(), Error> {
        let header = new_header(path, kind, size)?;
        self.write_all(header.as_bytes()).map_err(Error::Write)
    }

    /// Adds a file of `size` bytes, which are written as they are read.
    pub fn member(&mut self, path: &str, size: u64, body: &mut impl Read) -> Result<(), BodyError> {
        self.header(path, EntryType::Regular, size).map_err(BodyError::Write)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BodyError::Read(error)),
            };
            let written = self.write_all(&buffer[..read]);
            written.map_err(|error| BodyError::Write(Error::Write(error)))?;
        }
        self.pad(size).map_err(BodyError::Write)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), Error> {
        let mut header = new_header(path, EntryType::Symlink, 0)?;
        header.set_link_name(target).map_err(Error::Write)?;
        header.set_cksum();
        self.write_all(header.as_bytes()).map_err(Error::Write)
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str) -> Result<(), Error> {
        self.header(path, EntryType::Directory, 0)
    }

    pub fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.header(path, EntryType::Regular, bytes.len() as u64)?;
        self.write_all(bytes).map_err(Error::Write)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let padding = (512 - size % 512) % 512;
        self.write_all(&[0; 512][..padding as usize]).map_err(Error::Write)
    }

    /// Ends the archive, and returns the number of its bytes.
    pub fn end(mut self) -> Result<u64, Error> {
        self.write_all(&[0; 1024]).and_then(|()| self.flush()).map_err(Error::Write)?;
        Ok(self.bytes)
    }
}

fn new_header(path: &str, kind: EntryType, size: u64) -> Result<Header, Error> {
    let mut header = Header::new_gnu();
    // Use GNU's format for layers over 8 GiB: it writes their size in binary.
    header.set_path(path).map_err(Error::Write)?;
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}
