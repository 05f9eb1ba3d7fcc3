//! Keeps blobs on disk once they are made.
//! Stage: registry. Input: a directory. Output: files with blobs.
//!
//! Several processes may share the directory: a file gets a blob's name when all of its bytes were
//! checked, and never changes afterwards.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::digest::{BlobDigest, DigestReader};
use crate::outgoing::{PREFIX, SUFFIX, UnnamedFile};
use crate::registry::error::SetupError;

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
pub enum Place {
    /// The cache, in this file.
    Kept(File),
    /// Another request, which is writing the blob.
    Followed(Follower),
    /// The caller, which makes the blob and writes it to this entry of the cache.
    Begun(Entry),
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
        let (writing, verified) = Default::default();
        let cache = Self { directory, limit, writing, verified };
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
        // Opening a path that is not a regular file, such as a FIFO, must not block.
        let flags = nix::libc::O_NONBLOCK;
        let file = File::options().read(true).custom_flags(flags).open(self.path(digest)).ok()?;
        let metadata = file.metadata().ok()?;
        if metadata.is_file() && metadata.len() == size {
            return Some(file);
        }
        self.discard(digest);
        None
    }

    /// Removes a file that is not the blob that its name says, as a power failure may leave it.
    fn discard(&self, digest: &BlobDigest) {
        let path = self.path(digest);
        tracing::warn!(file = %path.display(), "not the blob that it should be: removed");
        let _ = fs::remove_file(&path);
        self.verified().remove(digest);
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
    pub fn place(self: &Arc<Self>, digest: BlobDigest, size: u64) -> Place {
        let mut writing = loop {
            if let Some(file) = self.get(&digest, size) {
                return Place::Kept(file);
            }
            if size > self.limit {
                return Place::Nowhere;
            }
            let writing = self.lock();
            if let Some(other) = writing.get(&digest) {
                return Place::Followed(other.clone());
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
                Place::Begun(Entry { cache, digest, file: Some(file), growth, written: 0 })
            }
            Err(error) => {
                self.cannot_keep(&error);
                Place::Nowhere
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
    let Ok(file) = File::open(entry.path()) else { return };
    match file.try_lock() {
        // Hold the lock until the file is removed: a process that has just made it then notices
        // that.
        Ok(()) => drop(fs::remove_file(entry.path())),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
    }
}

/// The progress of a blob that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// The number of bytes that are written so far.
    Written(u64),
    /// The whole blob is written and checked.
    Whole,
    /// The layer can't be made: the followers fail too.
    Failed,
    /// The writer gave up, since its client is gone or the disk is full: a follower takes over.
    Abandoned,
}

/// A blob that another request writes.
#[derive(Clone)]
pub struct Follower {
    file: Arc<File>,
    growth: watch::Receiver<Growth>,
}

impl Follower {
    /// Waits until more than `beyond` bytes are written, or writing has ended.
    pub async fn grown(&mut self, beyond: u64) -> Growth {
        let more = |growth: &Growth| !matches!(growth, Growth::Written(size) if *size <= beyond);
        // The channel is closed without a result: the writer is gone.
        self.growth.wait_for(more).await.map_or(Growth::Abandoned, |growth| *growth)
    }

    /// Reads bytes that are already written.
    pub fn read(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, position)
    }
}

/// A blob that is being written to the cache. Dropping it removes it.
pub struct Entry {
    cache: Arc<Cache>,
    digest: BlobDigest,
    /// The file; none if there is no room for it. It is then not in `Cache::writing`.
    file: Option<UnnamedFile>,
    growth: watch::Sender<Growth>,
    written: u64,
}

impl Entry {
    /// Writes more bytes. If there is no room for them, gives up the file without an error: the
    /// client still gets the bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        match file.as_file().write_all(bytes) {
            Ok(()) => {
                self.written += bytes.len() as u64;
                self.growth.send_replace(Growth::Written(self.written));
            }
            Err(error) => {
                self.cache.cannot_keep(&error);
                self.leave(Growth::Abandoned);
            }
        }
    }

    /// Returns whether the file has all bytes that were written.
    pub fn is_whole(&self) -> bool {
        self.file.is_some()
    }

    /// Returns whether another request follows this blob.
    pub fn is_followed(&self) -> bool {
        // One receiver belongs to the cache itself.
        self.file.is_some() && self.growth.receiver_count() > 1
    }

    /// Notes that the blob can't be made, so that no follower tries again.
    pub fn fail(mut self) {
        self.leave(Growth::Failed);
    }

    /// Gives the blob its name: all bytes are written and were checked. Returns the file in any
    /// case: it may be removed at once to make room for others. Returns `None` if there was no room
    /// for all bytes.
    pub fn keep(mut self) -> Option<File> {
        let new = self.file.take()?;
        let file = new.as_file().try_clone().ok()?;
        // Clients that read the growing file need not wait until it is on the disk.
        self.growth.send_replace(Growth::Whole);
        let path = self.cache.path(&self.digest);
        let named = file.sync_data().and_then(|()| new.persist(&path));
        // Do this after the file has its name: the next request then finds it.
        if named.is_ok() {
            self.cache.touch(&self.digest, &file);
        }
        self.cache.lock().remove(&self.digest);
        if let Err(error) = named.and_then(|()| self.cache.make_room(0)) {
            self.cache.cannot_keep(&error);
        }
        Some(file)
    }

    /// Gives up the blob.
    fn leave(&mut self, growth: Growth) {
        if self.file.take().is_some() {
            self.cache.lock().remove(&self.digest);
            self.growth.send_replace(growth);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.leave(Growth::Abandoned);
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
        let mut entry = begin(cache, digest, text.len() as u64).unwrap();
        entry.write(text.as_bytes());
        entry.keep();
        digest
    }

    fn begin(cache: &Arc<Cache>, digest: BlobDigest, size: u64) -> Option<Entry> {
        match cache.place(digest, size) {
            Place::Begun(entry) => Some(entry),
            Place::Kept(_) | Place::Followed(_) | Place::Nowhere => None,
        }
    }

    fn follow(cache: &Arc<Cache>, digest: BlobDigest, size: u64) -> Option<Follower> {
        match cache.place(digest, size) {
            Place::Followed(follower) => Some(follower),
            Place::Kept(_) | Place::Begun(_) | Place::Nowhere => None,
        }
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
        // Another process finds the blob as well.
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
        let mut entry = begin(&cache, digest, 4).unwrap();
        entry.write(b"te");
        assert!(cache.get(&digest, 4).is_none());
        assert!(begin(&cache, digest, 4).is_none());
        // A file that is being written has no name: a killed process leaves nothing.
        assert_eq!(names(directory.path()), [""; 0]);
        drop(entry);
        assert_eq!(names(directory.path()), [""; 0]);
        assert!(begin(&cache, digest, 4).is_some());
    }

    #[tokio::test]
    async fn what_is_being_written_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), 100).unwrap();
        let digest = BlobDigest::new(Digest::of(b"text"));
        let mut entry = begin(&cache, digest, 4).unwrap();
        assert!(!entry.is_followed());
        let mut follower = follow(&cache, digest, 4).unwrap();
        assert!(entry.is_followed());
        entry.write(b"te");
        assert_eq!(follower.grown(0).await, Growth::Written(2));
        entry.write(b"xt");
        assert_eq!(follower.grown(2).await, Growth::Written(4));
        entry.keep();
        assert_eq!(follower.grown(4).await, Growth::Whole);
        assert!(matches!(cache.place(digest, 4), Place::Kept(_)));
        // The follower can read, even if the file was removed to make room.
        fs::remove_file(cache.path(&digest)).unwrap();
        let mut bytes = [0; 2];
        follower.read(&mut bytes, 1).unwrap();
        assert_eq!(&bytes, b"ex");

        // The next request begins again, in both cases.
        for (failed, growth) in [(false, Growth::Abandoned), (true, Growth::Failed)] {
            let mut entry = begin(&cache, digest, 4).unwrap();
            entry.write(b"te");
            let mut follower = follow(&cache, digest, 4).unwrap();
            if failed {
                entry.fail();
            } else {
                drop(entry);
            }
            assert_eq!(follower.grown(0).await, growth);
        }
        assert!(begin(&cache, digest, 4).is_some());
    }

    #[test]
    fn what_was_written_is_read_whatever_becomes_of_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), 100).unwrap();
        let digest = BlobDigest::new(Digest::of(b"text"));
        let mut entry = begin(&cache, digest, 4).unwrap();
        entry.write(b"text");
        let file = entry.keep().unwrap();
        fs::remove_file(cache.path(&digest)).unwrap();
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"text");
        // The blob is made again.
        assert!(cache.get(&digest, 4).is_none());
        assert!(begin(&cache, digest, 4).is_some());

        // In a directory that does not exist any more, no room can be made.
        let mut entry = begin(&cache, digest, 4).unwrap();
        entry.write(b"text");
        directory.close().unwrap();
        entry.keep().unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"text");
    }

    #[test]
    fn a_blob_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), 100).unwrap();
        let digest = put(&cache, "text");
        let mode = fs::metadata(cache.path(&digest)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn what_was_removed_before_it_was_locked_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let file = UnnamedFile::with_name(&directory.path().join("blob"), MODE).unwrap();
        assert!(has_its_name(&file).unwrap());
        let path = file.temporary_path().unwrap();
        fs::remove_file(path).unwrap();
        assert!(!has_its_name(&file).unwrap());
        fs::write(path, "another one's").unwrap();
        assert!(!has_its_name(&file).unwrap());
    }

    /// Uses temporary names, as in file systems that have no files without names.
    #[test]
    fn another_file_is_made_for_one_that_was_taken_for_left() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), 100).unwrap();
        let mut times = 0;
        let file = cache.temporary_with(UnnamedFile::with_name, || {
            times += 1;
            if times < 3 {
                cache.make_room(0).unwrap();
            }
        });
        let file = file.unwrap();
        assert!(file.temporary_path().unwrap().exists());
        assert_eq!(times, 3);
        // Another process leaves a file alone that is being written.
        Cache::open(directory.path(), 100).unwrap();
        assert!(file.temporary_path().unwrap().exists());
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
    fn what_has_other_bytes_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), 100).unwrap();
        let digest = put(&cache, "text");
        let alter = || {
            let file = File::options().write(true).open(cache.path(&digest)).unwrap();
            file.write_all_at(b"T", 0).unwrap();
        };
        let found = |cache: &Arc<Cache>| cache.get(&digest, 4).is_some();
        assert!(found(&cache));
        // Alter the file while this process uses it, and before another process does.
        alter();
        assert!(!found(&cache));
        assert_eq!(names(directory.path()), [""; 0]);
        put(&cache, "text");
        assert!(found(&cache));
        alter();
        let other = Cache::open(directory.path(), 100).unwrap();
        assert!(matches!(other.place(digest, 4), Place::Begun(_)));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), 100).unwrap();
        let digest = BlobDigest::new(Digest::of(b"text"));
        nix::unistd::mkfifo(&cache.path(&digest), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(cache.get(&digest, 4).is_none());
        assert!(begin(&cache, digest, 4).is_some());
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
        assert!(begin(&cache, BlobDigest::new(Digest::of(b"big")), 11).is_none());
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
