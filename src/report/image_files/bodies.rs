//! Reads the bytes of an image's files: on this machine, or in the tar of a layer.
//! Stage: report. Opens files. Input: [`ImageFile`]. Output: [`Body`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;

use super::{Contents, FileKind, FilesError, ImageFile, ImageFiles};
use crate::layer::{self, EntryId};
use crate::oci::read_tar;
use crate::oci::unpack::{TarError, TarReader};

/// The largest file that is kept when a layer's tar is read. Kept files are in memory.
const LARGEST: u64 = 64 << 20;
/// The most memory for files of tars, all together.
const KEPT: u64 = 256 << 20;

/// Reads bytes at a place.
pub trait ReadAt {
    /// Returns the number of bytes.
    fn size(&self) -> u64;

    /// Returns `length` bytes from `offset` on, or none if there are not as many.
    fn bytes_at(&self, offset: u64, length: usize) -> Option<Vec<u8>>;
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn bytes_at(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let start = usize::try_from(offset).ok()?;
        Some(self.get(start..start.checked_add(length)?)?.to_vec())
    }
}

/// The bytes of a file.
pub enum Body {
    /// A file on this machine, and its size.
    Disk(File, u64),
    /// The bytes themselves.
    Memory(Arc<[u8]>),
}

impl ReadAt for Body {
    fn size(&self) -> u64 {
        match self {
            Self::Disk(_, size) => *size,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn bytes_at(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        match self {
            Self::Memory(bytes) => bytes.bytes_at(offset, length),
            Self::Disk(file, size) => {
                // A length that the file announces must not take memory.
                offset.checked_add(length as u64).filter(|end| end <= size)?;
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset).ok()?;
                Some(bytes)
            }
        }
    }
}

/// The files of tars that have been read.
#[derive(Default)]
pub struct Bodies(Mutex<BTreeMap<EntryId, Arc<[u8]>>>);

impl Bodies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<EntryId, Arc<[u8]>>> {
        // No code panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ImageFiles<'_> {
    /// Opens a regular file. Returns none for anything else.
    ///
    /// # Errors
    /// Fails if the file can't be read, or is too large for that.
    pub fn open(&self, file: &ImageFile) -> Result<Option<Body>, FilesError> {
        Ok(match &file.kind {
            FileKind::File(Contents::Disk(path)) => {
                let read_error = |source| layer::Error::Read { path: path.clone(), source };
                let mut options = fs::OpenOptions::new();
                options.read(true).custom_flags(OFlag::O_NOFOLLOW.bits());
                let open = options.open(path).map_err(read_error)?;
                let size = open.metadata().map_err(read_error)?.len();
                Some(Body::Disk(open, size))
            }
            FileKind::File(Contents::Member(id, size)) => {
                if *size > LARGEST {
                    return Err(FilesError::Large { size: *size, most: LARGEST });
                }
                self.load([file])?;
                self.bodies.lock().get(id).cloned().map(Body::Memory)
            }
            FileKind::Directory | FileKind::Symlink(_) | FileKind::Special(_) => None,
        })
    }

    /// Returns all bytes of a regular file, and none of anything else.
    ///
    /// # Errors
    /// Fails if the file can't be read, or has more than `most` bytes.
    pub fn bytes(&self, file: &ImageFile, most: u64) -> Result<Option<Vec<u8>>, FilesError> {
        let Some(body) = self.open(file)? else { return Ok(None) };
        match usize::try_from(body.size()).ok().filter(|_| body.size() <= most) {
            Some(size) => Ok(body.bytes_at(0, size)),
            None => Err(FilesError::Large { size: body.size(), most }),
        }
    }

    /// Reads those of the files that are in tars, each layer once, as far as they fit in memory.
    ///
    /// # Errors
    /// Fails if a layer can't be read.
    pub fn load<'f>(
        &self,
        files: impl IntoIterator<Item = &'f ImageFile>,
    ) -> Result<(), FilesError> {
        let mut wanted: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        {
            let loaded = self.bodies.lock();
            for file in files {
                if let FileKind::File(Contents::Member(id, size)) = &file.kind
                    && *size <= LARGEST
                    && !loaded.contains_key(id)
                {
                    wanted.entry(id.layer).or_default().insert(id.index);
                }
            }
        }
        for (number, indices) in wanted {
            let problem = |problem| FilesError::Layer { layer: number + 1, problem };
            let layer = &self.layers[number];
            let read = read_tar(self.store, layer, |tar| self.load_members(number, tar, &indices))?;
            read.map_err(|error: TarError| problem(error.into()))?;
        }
        Ok(())
    }

    fn load_members(
        &self,
        layer: usize,
        tar: &mut dyn Read,
        indices: &BTreeSet<usize>,
    ) -> Result<(), TarError> {
        let mut archive = TarReader::new(tar);
        let mut index = 0;
        while let Some(mut member) = archive.next_member()? {
            if indices.contains(&index) {
                let mut bytes = Vec::new();
                member.by_ref().take(LARGEST).read_to_end(&mut bytes)?;
                let mut loaded = self.bodies.lock();
                let kept: u64 = loaded.values().map(|bytes| bytes.len() as u64).sum();
                if kept + bytes.len() as u64 > KEPT {
                    // The files that are dropped here can be read again.
                    loaded.clear();
                }
                loaded.insert(EntryId { layer, index }, bytes.into());
            }
            index += 1;
            if indices.last().is_none_or(|last| *last < index) {
                break;
            }
        }
        Ok(())
    }
}
