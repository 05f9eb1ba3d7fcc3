//! Keeps blobs on disk once they are made.
//! Stage: registry. Input: a directory. Output: files with blobs.
//!
//! Several processes may share the directory: a file gets a blob's name when all of its bytes were
//! checked, and never changes afterwards.

mod growing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry, File, TryLockError};
use std::io::{self, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

pub use growing::{Follower, Growth, NewEntry};

use crate::digest::{BlobDigest, DigestReader};
use crate::outgoing::{PREFIX, SUFFIX, UnnamedFile};
use crate::registry::error::SetupError;
use crate::regular_file;

/// The mode of new files, before the umask: an image may be for some users only.
const MODE: u32 = 0o600;
const BLOB: &str = "sha256-";

/// A directory with blobs, by digest.
pub struct Cache {
    directory: PathBuf,
    limit: u64,
    writing: Mutex<BTreeMap<BlobDigest, Follower>>,
    /// The files whose bytes are known to have the digest in their name, with their state at that
    /// time.
    verified: Mutex<BTreeMap<BlobDigest, Identity>>,
    /// The blobs in whose place is something that can't be removed.
    left: Mutex<BTreeSet<BlobDigest>>,
}

/// The identity of a file and of its contents: it changes when the file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// The source of a blob.
pub enum CachePlace {
    /// The cache, in this file.
    Kept(File),
    /// Another request, which is writing the blob.
    Followed(Follower),
    /// The caller, which makes the blob and writes it to this entry of the cache.
    Begun(NewEntry),
    /// The caller, which makes the blob. It is not kept in the cache.
    Nowhere,
}

impl Cache {
    /// Opens a directory for at most `limit` bytes, and makes it if it does not exist.
    ///
    /// # Errors
    /// Fails if no files can be made in the directory.
    pub fn open(directory: &Path, limit: u64) -> Result<Arc<Self>, SetupError> {
        let directory = directory.to_owned();
        let (writing, verified, left) = Default::default();
        let cache = Self { directory, limit, writing, verified, left };
        let open = || {
            fs::create_dir_all(&cache.directory)?;
            drop(cache.temporary()?);
            cache.make_room(0)
        };
        match open() {
            Ok(()) => Ok(Arc::new(cache)),
            Err(source) => Err(SetupError::Cache { directory: cache.directory, source }),
        }
    }

    /// Returns the file with a blob, and marks it as the most recently used one. The bytes of a
    /// file are compared with its digest on the first request, and again after the file was written
    /// to. A file that differs is removed, so that the blob is made again.
    pub fn get(&self, digest: &BlobDigest, size: u64) -> Option<File> {
        let file = self.open_blob(digest, size)?;
        let identity = Identity::of(&file).ok()?;
        let known = self.verified().get(digest) == Some(&identity);
        if !known && !has_digest(&file, digest) {
            self.discard(digest);
            return None;
        }
        self.touch(digest, &file);
        Some(file)
    }

    /// Opens the file of a blob, if it is a regular file of that size.
    fn open_blob(&self, digest: &BlobDigest, size: u64) -> Option<File> {
        match regular_file::open(&self.path(digest)) {
            Ok(file) if file.metadata().ok()?.len() == size => return Some(file),
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => return None,
            // It is no regular file, or has another size.
            _ => self.discard(digest),
        }
        None
    }

    /// Removes a file that is not the blob that its name says, as a power failure may leave it.
    fn discard(&self, digest: &BlobDigest) {
        let path = self.path(digest);
        self.verified().remove(digest);
        let cleared = regular_file::clear(&path);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match cleared {
            Ok(()) => {
                left.remove(digest);
                tracing::warn!(file = %path.display(), "not the blob that it should be: removed");
            }
            // Each request for the blob comes here: the log says it once.
            Err(error) => {
                if left.insert(*digest) {
                    tracing::warn!(file = %path.display(), %error, "not the blob that it should be, and can't be removed");
                }
            }
        }
    }

    /// Returns whether something that can't be removed has the place of a blob.
    fn is_occupied(&self, digest: &BlobDigest) -> bool {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// Notes that a file was used, and that its bytes are right.
    fn touch(&self, digest: &BlobDigest, file: &File) {
        let mut verified = self.verified();
        // A read-only directory can be used as well.
        let _ = file.set_modified(SystemTime::now());
        if let Ok(identity) = Identity::of(file) {
            verified.insert(*digest, identity);
        }
    }

    fn verified(&self) -> MutexGuard<'_, BTreeMap<BlobDigest, Identity>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a blob, or begins to write it: of concurrent requests, one writes the blob and the
    /// others follow.
    pub fn place(self: &Arc<Self>, digest: BlobDigest, size: u64) -> CachePlace {
        let mut writing = loop {
            if let Some(file) = self.get(&digest, size) {
                return CachePlace::Kept(file);
            }
            if size > self.limit || self.is_occupied(&digest) {
                return CachePlace::Nowhere;
            }
            let writing = self.lock();
            if let Some(other) = writing.get(&digest) {
                return CachePlace::Followed(other.clone());
            }
            // The blob may have been completed since. Its bytes are compared without the lock.
            if self.open_blob(&digest, size).is_none() {
                break writing;
            }
        };
        let begin = || {
            self.make_room(size)?;
            let file = self.temporary()?;
            let read = Arc::new(file.as_file().try_clone()?);
            Ok((file, read))
        };
        match begin() {
            Ok((file, read)) => {
                let (growth, watched) = watch::channel(Growth::Written(0));
                writing.insert(digest, Follower { file: read, growth: watched });
                let cache = Arc::clone(self);
                CachePlace::Begun(NewEntry { cache, digest, file: Some(file), growth, written: 0 })
            }
            Err(error) => {
                self.cannot_keep(&error);
                CachePlace::Nowhere
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BlobDigest, Follower>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cannot_keep(&self, error: &io::Error) {
        tracing::warn!(directory = %self.directory.display(), %error, "cannot keep a blob");
    }

    fn path(&self, digest: &BlobDigest) -> PathBuf {
        self.directory.join(digest.to_string().replace(':', "-"))
    }

    /// Makes a file for a new blob. The file is locked as long as it is being written: if the file
    /// system gives it a temporary name, an unlocked file was left by a process that was killed.
    fn temporary(&self) -> io::Result<UnnamedFile> {
        self.temporary_with(UnnamedFile::beside, || ())
    }

    /// Makes a file by `make`, and calls `meanwhile` before the file is locked.
    fn temporary_with(
        &self,
        make: impl Fn(&Path, u32) -> io::Result<UnnamedFile>,
        mut meanwhile: impl FnMut(),
    ) -> io::Result<UnnamedFile> {
        loop {
            let file = make(&self.directory.join(BLOB), MODE)?;
            meanwhile();
            file.as_file().lock()?;
            if has_its_name(&file)? {
                return Ok(file);
            }
        }
    }

    /// Returns the total size of the blobs in the directory, in bytes.
    pub fn size(&self) -> u64 {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let blobs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(BLOB));
        blobs.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
    }

    /// Removes the least recently used files, until there is room for `size` bytes.
    fn make_room(&self, size: u64) -> io::Result<()> {
        let mut blobs = Vec::new();
        let mut total = size;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                remove_if_left(&entry);
            } else if name.starts_with(BLOB) {
                // Another process may have removed the file meanwhile.
                let Ok(metadata) = entry.metadata() else { continue };
                if !metadata.is_file() {
                    continue;
                }
                total += metadata.len();
                blobs.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        blobs.sort();
        for (_, size, path) in blobs {
            if total <= self.limit {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= size,
            }
        }
        Ok(())
    }
}

/// Returns whether the bytes of a file have the digest, and seeks to the start.
fn has_digest(mut file: &File, digest: &BlobDigest) -> bool {
    let found = DigestReader::new(file).finish();
    found.is_ok_and(|(found, _)| found == *digest.digest()) && file.rewind().is_ok()
}

/// Returns whether the file still has its temporary name, if it needs one: another process may
/// have removed it as a leftover before it was locked.
fn has_its_name(file: &UnnamedFile) -> io::Result<bool> {
    let Some(path) = file.temporary_path() else { return Ok(true) };
    let ours = file.as_file().metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_if_left(entry: &DirEntry) {
    let Ok(file) = regular_file::open(&entry.path()) else { return };
    match file.try_lock() {
        // Hold the lock until the file is removed: a process that has just made it then notices
        // that.
        Ok(()) => drop(fs::remove_file(entry.path())),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
    }
}
