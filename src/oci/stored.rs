//! Reads blobs that are stored and not made, such as a base image's layers.
//! Stage: oci. Output: the bytes of these blobs.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::archive_reader::ArchiveReader;
use super::chunked::TocPlace;
use super::compression::Compression;
use super::media_type::LayerMediaType;
use crate::digest::BlobDigest;
use crate::regular_file;
use crate::store::Store;

/// The size of a reader's buffer.
const BUFFER: usize = 256 << 10;

/// A range of bytes in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobPlace {
    /// The whole path of the file, as in the store.
    pub file: PathBuf,
    /// The offset of the first byte in the file, uncompressed.
    pub offset: u64,
    /// The number of bytes, as they are stored.
    pub size: u64,
    /// The compression of the whole file, if the file is a compressed archive.
    pub archive: Compression,
}

/// A layer's blob in a file, which is transferred byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredBlob {
    /// The whole path of the file, as in the store.
    pub file: PathBuf,
    /// The offset of the blob in the file, uncompressed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// The compression of the whole file, if the file is a compressed archive. The blob may also be
    /// compressed itself.
    #[serde(default, skip_serializing_if = "Compression::is_none")]
    pub archive: Compression,
    /// The digest of the blob as it is stored, compressed or not.
    pub digest: BlobDigest,
    /// The number of bytes of the blob as it is stored.
    pub size: u64,
    /// The media type that the author of the image gave to the blob.
    pub media_type: LayerMediaType,
    /// The place of the table of contents, if the blob has one (`zstd:chunked`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toc: Option<TocPlace>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl BlobPlace {
    /// Reads the bytes from the first one on; there may be fewer than expected.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub fn open(&self, store: &Store) -> io::Result<Box<dyn Read + Send>> {
        let file = store.locate(&self.file);
        if !self.archive.is_none() {
            let reader = ArchiveReader::open(&file, self.archive, self.offset, self.size)?;
            return Ok(Box::new(reader));
        }
        let mut file = regular_file::open(&file)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(Box::new(file.take(self.size)))
    }
}

impl StoredBlob {
    /// Returns the place of the blob's bytes.
    pub fn place(&self) -> BlobPlace {
        let Self { file, offset, archive, size, .. } = self;
        BlobPlace { file: file.clone(), offset: *offset, size: *size, archive: *archive }
    }

    /// Returns a reader of the blob as it is stored.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub fn open(&self, store: &Store) -> io::Result<Box<dyn Read + Send>> {
        self.place().open(store)
    }

    /// Returns a reader of the blob's tar.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub fn open_uncompressed(&self, store: &Store) -> io::Result<Box<dyn Read + Send>> {
        let reader = BufReader::with_capacity(BUFFER, self.open(store)?);
        self.media_type.compression.reader(reader)
    }
}
