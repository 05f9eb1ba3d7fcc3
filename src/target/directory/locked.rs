//! A directory in which one copy works at a time.
//! Stage: target.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::outgoing::{self, Watch, check_place, remove_stale};
use crate::target::error::DirectoryError;

/// The interval at which a copy checks whether another one is finished.
const PATIENCE: Duration = Duration::from_millis(50);

/// A directory that is locked by this copy. Dropping the value removes the directories that it
/// made, unless they are kept.
pub struct TargetDirectory {
    path: PathBuf,
    /// The directories that did not exist before, from the outermost.
    created: Vec<PathBuf>,
    /// The lock; none if the file system has no locks.
    lock: Option<File>,
}

impl TargetDirectory {
    /// Makes the directory if it is missing, and waits until no other copy works in it.
    ///
    /// # Errors
    /// Fails with [`DirectoryError::NotDirectory`] if the path is a file, and with
    /// [`File`](outgoing::Error::File) if the directory can't be made or locked.
    pub fn open(path: &Path, watch: &dyn Watch) -> Result<Self, DirectoryError> {
        watch.hold();
        loop {
            let mut directory = Self { path: path.to_owned(), created: Vec::new(), lock: None };
            directory.create(path)?;
            directory.lock = match lock(path, watch)? {
                Lock::Held(lock) => Some(lock),
                Lock::Unsupported => None,
                Lock::Gone => continue,
            };
            directory.remove_stale(path)?;
            return Ok(directory);
        }
    }

    /// Makes a directory in this one if it is missing, and returns its path.
    pub fn subdirectory(&mut self, name: &str) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join(name);
        self.create(&path)?;
        self.remove_stale(&path)?;
        Ok(path)
    }

    /// Returns the names of the directory's entries.
    pub fn entries(&self) -> Result<Vec<String>, DirectoryError> {
        let names = || -> io::Result<Vec<_>> {
            let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
            fs::read_dir(&self.path)?.map(|entry| entry.map(name)).collect()
        };
        let read = |source| outgoing::Error::Read { path: self.path.clone(), source };
        Ok(names().map_err(read)?)
    }

    /// Returns a file's bytes, or `None` if there is no such file.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DirectoryError> {
        let path = self.path.join(name);
        check_place(&path)?;
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(outgoing::Error::Read { path, source }.into()),
        }
    }

    /// Keeps the directories that were made.
    pub fn keep(&mut self) {
        self.created.clear();
    }

    fn create(&mut self, path: &Path) -> Result<(), DirectoryError> {
        let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing: Vec<_> = path.ancestors().take_while(missing).collect();
        for path in missing.into_iter().rev() {
            match fs::create_dir(path) {
                Ok(()) => self.created.push(path.to_owned()),
                // Another copy made the directory, or the path leads through `..`.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(outgoing::Error::File { path: path.to_owned(), source }.into());
                }
            }
        }
        if path.is_dir() { Ok(()) } else { Err(DirectoryError::NotDirectory(path.to_owned())) }
    }

    /// Removes temporary files of a copy that was killed. Without a lock, another copy may be using
    /// them: then removes nothing.
    fn remove_stale(&self, path: &Path) -> Result<(), DirectoryError> {
        if self.lock.is_none() {
            return Ok(());
        }
        let write = |source| outgoing::Error::File { path: path.to_owned(), source };
        Ok(remove_stale(path).map_err(write)?)
    }
}

impl Drop for TargetDirectory {
    fn drop(&mut self) {
        for path in self.created.iter().rev() {
            // A directory in which others have put files stays.
            let _ = fs::remove_dir(path);
        }
    }
}

enum Lock {
    Held(File),
    /// The file system, such as some network file systems, has no locks on directories. The copy
    /// goes on without a lock, which is more useful than an error.
    Unsupported,
    /// Another copy had made the directory, and has removed it again.
    Gone,
}

fn lock(path: &Path, watch: &dyn Watch) -> Result<Lock, DirectoryError> {
    let at = |source| outgoing::Error::File { path: path.to_owned(), source };
    let directory = match File::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::Gone),
        Err(error) => return Err(at(error).into()),
    };
    let mut told = false;
    loop {
        match directory.try_lock() {
            Ok(()) if is_still_at(&directory, path) => return Ok(Lock::Held(directory)),
            Ok(()) => return Ok(Lock::Gone),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return Ok(Lock::Unsupported),
        }
        if !told {
            watch.wait(path);
            told = true;
        }
        watch.advance(0).map_err(at)?;
        sleep(PATIENCE);
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(path)) => identity(file) == identity(path),
        _ => false,
    }
}
