//! Who looks on while an image is copied, and may end it.
//! Stage: transport.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Looks on while an image is copied, from every thread that writes.
pub trait Watch: Sync {
    /// So many bytes are going to be written.
    fn expect(&self, bytes: u64);

    /// So many more were written. An error ends the copy, which then leaves nothing behind.
    ///
    /// # Errors
    /// Whatever should end the copy; [`io::ErrorKind::Interrupted`] does not, since writers
    /// take it as a request to try again.
    fn advance(&self, bytes: u64) -> io::Result<()>;

    /// There are temporary files from now on. Who wants to end the program has to do it by
    /// [`advance`](Self::advance), or they stay.
    fn hold(&self);

    /// Something did not work, and is tried again after `wait`.
    fn retry(&self, reason: &str, wait: Duration);

    /// Another copy is at work in this directory, and is waited for.
    fn wait(&self, directory: &Path);
}

/// A writer that is watched.
pub struct Watched<'a, W> {
    pub out: W,
    pub watch: &'a dyn Watch,
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.watch.advance(0)?;
        let written = self.out.write(bytes)?;
        self.watch.advance(written as u64)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
