//! Blobs on disk that were made once.
//! Stage: transport. Input: a directory. Output: files with blobs.
//!
//! Processes may share the directory: a file has a blob's name when all of it was checked, and
//! is never changed then.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tempfile::{Builder, NamedTempFile};

use super::error::SetupError;
use crate::digest::BlobDigest;

/// How the name of a file that is not whole begins and ends.
const PREFIX: &str = ".stowage-";
const SUFFIX: &str = ".part";
const BLOB: &str = "sha256-";

/// A directory with blobs, by digest.
pub struct Cache {
    directory: PathBuf,
    limit: u64,
    writing: Mutex<BTreeSet<BlobDigest>>,
}

impl Cache {
    /// Takes a directory, which is made if it isn't there, for at most `limit` bytes.
    ///
    /// # Errors
    /// If no files can be made in it.
    pub fn open(directory: &Path, limit: u64) -> Result<Arc<Self>, SetupError> {
        let directory = directory.to_owned();
        let cache = Self { directory, limit, writing: Mutex::default() };
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

    /// The file with that blob, which is the most recently used one now.
    pub fn get(&self, digest: &BlobDigest, size: u64) -> Option<File> {
        let path = self.path(digest);
        let file = File::open(&path).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() != size {
            // Such as a power failure leaves. It will be made again.
            tracing::warn!(file = %path.display(), "not the blob that it should be: ignored");
            let _ = fs::remove_file(&path);
            return None;
        }
        // A directory that can only be read has its use, too.
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// Begins to keep a blob, unless it is too big or somebody is at it.
    pub fn begin(self: &Arc<Self>, digest: BlobDigest, size: u64) -> Option<Entry> {
        if size > self.limit || !self.lock().insert(digest) {
            return None;
        }
        let mut entry = Entry { cache: Arc::clone(self), digest, file: None };
        match self.make_room(size).and_then(|()| self.temporary()) {
            Ok(file) => entry.file = Some(file),
            Err(error) => entry.failed(&error),
        }
        Some(entry)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<BlobDigest>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &BlobDigest) -> PathBuf {
        self.directory.join(digest.to_string().replace(':', "-"))
    }

    /// A file beside the blobs. It is locked for as long as somebody writes it: one that isn't
    /// was left by a process that was killed.
    fn temporary(&self) -> io::Result<NamedTempFile> {
        let file = Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(&self.directory)?;
        file.as_file().lock()?;
        Ok(file)
    }

    /// Removes what was not used for longest, until `size` bytes have their place.
    fn make_room(&self, size: u64) -> io::Result<()> {
        let mut blobs = Vec::new();
        let mut total = size;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                remove_if_left(&entry);
            } else if name.starts_with(BLOB) {
                // Another process may have removed it by now.
                let Ok(metadata) = entry.metadata() else { continue };
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

fn remove_if_left(entry: &DirEntry) {
    let left = File::open(entry.path()).is_ok_and(|file| match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    });
    if left {
        let _ = fs::remove_file(entry.path());
    }
}

/// A blob on its way into the cache. Dropped, it was never there.
pub struct Entry {
    cache: Arc<Cache>,
    digest: BlobDigest,
    file: Option<NamedTempFile>,
}

impl Entry {
    /// Takes more bytes. If there is no place for them, that is no reason not to send them.
    pub fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(bytes) {
            self.failed(&error);
        }
    }

    /// Whether all that was written is there.
    pub fn is_whole(&self) -> bool {
        self.file.is_some()
    }

    /// Gives the blob its name: all its bytes are there, and were checked. Returns its file,
    /// even if that has to make room for others at once.
    pub fn keep(mut self) -> Option<File> {
        let file = self.file.take()?;
        let path = self.cache.path(&self.digest);
        let kept = file.as_file().sync_data().and_then(|()| Ok(file.persist(path)?));
        let made_room = self.cache.make_room(0);
        match kept.and_then(|file| made_room.map(|()| file)) {
            Ok(file) => Some(file),
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let directory = self.cache.directory.display();
        tracing::warn!(%directory, %error, "cannot keep a blob");
        self.file = None;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.cache.lock().remove(&self.digest);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;
    use crate::digest::Digest;

    fn put(cache: &Arc<Cache>, text: &str) -> BlobDigest {
        let digest = BlobDigest::new(Digest::of(text.as_bytes()));
        let mut entry = cache.begin(digest, text.len() as u64).unwrap();
        entry.write(text.as_bytes());
        entry.keep();
        digest
    }

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_kept_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(&directory.path().join("a/b"), 100).unwrap();
        let digest = put(&cache, "text");
        let mut text = String::new();
        // By another process as well.
        let other = Cache::open(&directory.path().join("a/b"), 100).unwrap();
        other.get(&digest, 4).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert!(cache.get(&BlobDigest::new(Digest::of(b"other")), 5).is_none());
    }

    #[test]
    fn what_is_not_whole_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), 100).unwrap();
        let digest = BlobDigest::new(Digest::of(b"text"));
        let mut entry = cache.begin(digest, 4).unwrap();
        entry.write(b"te");
        assert!(cache.get(&digest, 4).is_none());
        assert!(cache.begin(digest, 4).is_none());
        // Who comes now leaves alone what is being written.
        Cache::open(directory.path(), 100).unwrap();
        assert_eq!(names(directory.path()).len(), 1);
        drop(entry);
        assert_eq!(names(directory.path()), [""; 0]);
        assert!(cache.begin(digest, 4).is_some());
    }

    #[test]
    fn what_has_another_size_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), 100).unwrap();
        let digest = put(&cache, "text");
        fs::write(cache.path(&digest), "tex").unwrap();
        assert!(cache.get(&digest, 4).is_none());
        put(&cache, "text");
        assert!(cache.get(&digest, 4).is_some());
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), 10).unwrap();
        let (one, two) = (put(&cache, "one1"), put(&cache, "two2"));
        let old = SystemTime::now() - Duration::from_secs(100);
        for (digest, age) in [(one, 0), (two, 50)] {
            let file = File::open(cache.path(&digest)).unwrap();
            file.set_modified(old + Duration::from_secs(age)).unwrap();
        }
        cache.get(&one, 4).unwrap();
        let three = put(&cache, "three");
        let there = |digest, size| cache.get(digest, size).is_some();
        assert_eq!((there(&one, 4), there(&two, 4), there(&three, 5)), (true, false, true));
        assert!(cache.begin(BlobDigest::new(Digest::of(b"big")), 11).is_none());
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".stowage-x.part"), "text").unwrap();
        fs::write(directory.path().join("other"), "somebody's").unwrap();
        Cache::open(directory.path(), 0).unwrap();
        assert_eq!(names(directory.path()), ["other"]);
    }
}
