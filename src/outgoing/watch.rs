//! Watches a copy: reports its progress, and may end it.
//! Stage: outgoing.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::layer_ref::ImageLayer;
use crate::sink::{FileBytes, Sink};

/// Watches an image being copied. Called by every thread that writes.
pub trait Watch: Sync {
    /// Begins the count of written bytes anew: `bytes` bytes are going to be written.
    fn expect(&self, bytes: u64);

    /// Notes that `bytes` more bytes are going to be written.
    fn expect_more(&self, bytes: u64);

    /// Notes that `bytes` more bytes were written. An error ends the copy, which then leaves
    /// nothing behind.
    ///
    /// # Errors
    /// Fails to end the copy. [`io::ErrorKind::Interrupted`] does not end it: writers then try
    /// again.
    fn advance(&self, bytes: u64) -> io::Result<()>;

    /// Notes how far a layer is. A layer that is sent begins first; each layer is finished once.
    fn layer(&self, layer: ImageLayer, step: LayerStep);

    /// Notes that there are temporary files from now on. To end the program without leaving them
    /// behind, let [`advance`](Self::advance) fail.
    fn hold(&self);

    /// Notes that something failed, and is tried again after `wait`.
    fn retry(&self, reason: &str, wait: Duration);

    /// Notes that the copy waits for another copy in this directory.
    fn wait(&self, directory: &Path);
}

/// The progress of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStep {
    /// The layer begins, or begins again after an error.
    Begun,
    /// Further bytes were written. Holds their number.
    Advanced(u64),
    /// The layer was sent.
    Sent,
    /// The target has the layer already.
    Skipped,
    /// The registry mounted the layer from another of its repositories.
    Mounted,
}

/// Ignores the progress, and never ends the copy.
pub struct Unwatched;

impl Watch for Unwatched {
    fn expect(&self, _: u64) {}

    fn expect_more(&self, _: u64) {}

    fn advance(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn layer(&self, _: ImageLayer, _: LayerStep) {}

    fn hold(&self) {}

    fn retry(&self, _: &str, _: Duration) {}

    fn wait(&self, _: &Path) {}
}

/// Reports to a watcher what is written, and lets the watcher end the copy.
pub struct Watched<'a, W> {
    /// The writer that gets the bytes.
    pub out: W,
    /// The watcher.
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

impl<S: Sink> Sink for Watched<'_, S> {
    fn takes_files(&self) -> bool {
        self.out.takes_files()
    }

    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        self.watch.advance(0)?;
        let taken = self.out.take_file(bytes)?;
        self.watch.advance(taken)?;
        Ok(taken)
    }
}

/// Reports to a watcher how many bytes of a layer were written.
pub struct WatchedLayer<'a, W> {
    out: W,
    layer: ImageLayer<'a>,
    watch: &'a dyn Watch,
}

impl<'a, W> WatchedLayer<'a, W> {
    /// Reports that the layer begins. Its bytes go to `out`.
    pub fn begin(out: W, layer: ImageLayer<'a>, watch: &'a dyn Watch) -> Self {
        watch.layer(layer, LayerStep::Begun);
        Self { out, layer, watch }
    }
}

impl<W: Write> Write for WatchedLayer<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.watch.layer(self.layer, LayerStep::Advanced(written as u64));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<S: Sink> Sink for WatchedLayer<'_, S> {
    fn takes_files(&self) -> bool {
        self.out.takes_files()
    }

    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        let taken = self.out.take_file(bytes)?;
        self.watch.layer(self.layer, LayerStep::Advanced(taken));
        Ok(taken)
    }
}
