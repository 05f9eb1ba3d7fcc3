//! Blobs that are not made but stored: a base image's layers, where they are.
//! Stage: oci. Output: their bytes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::archive_reader::ArchiveReader;
use super::compression::Compression;
use super::media_type::LayerMediaType;
use crate::digest::BlobDigest;
use crate::store::Store;

/// Size of a reader's buffer.
const BUFFER: usize = 256 << 10;

/// Bytes in a file, or in the middle of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file by its whole path, as in the store.
    pub file: PathBuf,
    /// Where they begin: bytes from the start of the file, uncompressed.
    pub offset: u64,
    /// How many they are, as they are stored there.
    pub size: u64,
    /// How the whole file is compressed, if it is an archive that was.
    pub archive: Compression,
}

/// A layer's blob in a file, to be transferred byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredBlob {
    /// The file by its whole path, as in the store.
    pub file: PathBuf,
    /// Where the blob begins: bytes from the start of the file, uncompressed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// How the whole file is compressed, if it is an archive that was: the blob's own
    /// compression is another matter.
    #[serde(default, skip_serializing_if = "Compression::is_none")]
    pub archive: Compression,
    /// Digest of the blob as it is, compressed or not.
    pub digest: BlobDigest,
    /// Bytes of the blob as it is.
    pub size: u64,
    /// What it is, by its author's name for it.
    pub media_type: LayerMediaType,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Place {
    /// Reads the bytes from the first on; there may be fewer than announced.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn open(&self, store: &Store) -> io::Result<Box<dyn Read + Send>> {
        let file = store.locate(&self.file);
        if !self.archive.is_none() {
            let reader = ArchiveReader::open(&file, self.archive, self.offset, self.size)?;
            return Ok(Box::new(reader));
        }
        let mut file = File::open(file)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(Box::new(file.take(self.size)))
    }
}

impl StoredBlob {
    /// Where its bytes are.
    pub fn place(&self) -> Place {
        let Self { file, offset, archive, size, .. } = self;
        Place { file: file.clone(), offset: *offset, size: *size, archive: *archive }
    }

    /// The blob as it is stored.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn open(&self, store: &Store) -> io::Result<Box<dyn Read + Send>> {
        self.place().open(store)
    }

    /// The blob's tar.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn open_uncompressed(&self, store: &Store) -> io::Result<Box<dyn Read + Send>> {
        let reader = BufReader::with_capacity(BUFFER, self.open(store)?);
        self.media_type.compression.reader(reader)
    }
}
