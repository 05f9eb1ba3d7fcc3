//! Follows a blob while it is written to the cache.
//! Stage: registry. Input: bytes. Output: a file in the cache, and the same bytes for other requests.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tokio::sync::watch;

use super::Cache;
use crate::digest::BlobDigest;
use crate::outgoing::UnnamedFile;

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
    pub(super) file: Arc<File>,
    pub(super) growth: watch::Receiver<Growth>,
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
pub struct NewEntry {
    pub(super) cache: Arc<Cache>,
    pub(super) digest: BlobDigest,
    /// The file; none if there is no room for it. It is then not in `Cache::writing`.
    pub(super) file: Option<UnnamedFile>,
    pub(super) growth: watch::Sender<Growth>,
    pub(super) written: u64,
}

impl NewEntry {
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

impl Drop for NewEntry {
    fn drop(&mut self) {
        self.leave(Growth::Abandoned);
    }
}
