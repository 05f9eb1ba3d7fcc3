//! Detects that a file has changed.
//! Stage: registry. Input: a path. Output: [`Fingerprint`].

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The time within which two changes of a file may have the same time stamp: some ticks of a
/// system's clock.
const TICKS: Duration = Duration::from_millis(100);

/// The state of a file, after following links: it differs if the file has changed, or is another
/// one. In a store all files have the same time of modification, but not of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Fails if a path is not a regular file: opening a FIFO would wait until another program writes to
/// it.
pub fn check_regular(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

impl Fingerprint {
    /// Returns the state that the metadata of a file have.
    pub fn new(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns the present state of a file, or `None` if it does not exist.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::new)
    }

    /// Returns whether the file was changed so shortly before `now` that one more change may leave
    /// no trace.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(seconds), u32::try_from(nanoseconds))
        else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        // The clock of another machine may be ahead.
        now.duration_since(changed).is_ok_and(|age| age < TICKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_just_changed_may_change_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "a").unwrap();
        let found = Fingerprint::of(&file).unwrap();
        let changed =
            SystemTime::UNIX_EPOCH + Duration::new(found.changed.0 as u64, found.changed.1 as u32);
        for (now, fresh) in [
            (changed, true),
            (changed + TICKS / 2, true),
            (changed + TICKS, false),
            (changed - TICKS / 2, false),
        ] {
            assert_eq!(found.is_fresh(now), fresh, "{now:?}");
        }
    }
}
