//! Watches a copy: reports its progress, and may end it.
//! Stage: outgoing.

use std::cmp::Reverse;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::oci::{Form, ImageSpec, LayerBlob};
use crate::sink::{FileBytes, Sink};

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

    /// A layer is so far. Those that are sent are begun first; each is settled once.
    fn layer(&self, layer: ImageLayer, step: LayerStep);

    /// There are temporary files from now on. Who wants to end the program has to do it by
    /// [`advance`](Self::advance), or they stay.
    fn hold(&self);

    /// Something did not work, and is tried again after `wait`.
    fn retry(&self, reason: &str, wait: Duration);

    /// Another copy is at work in this directory, and is waited for.
    fn wait(&self, directory: &Path);
}

/// One of an image's layers, as it is sent.
#[derive(Clone, Copy)]
pub struct ImageLayer<'a> {
    /// The image.
    pub spec: &'a ImageSpec,
    /// Which of its layers, from 0, at the bottom.
    pub index: usize,
    /// Which of the layer's bytes.
    pub form: Form,
}

impl ImageLayer<'_> {
    /// Digest and size of what is sent.
    pub fn blob(&self) -> LayerBlob {
        self.spec.layers[self.index].blob(self.form)
    }

    /// Returns a key that sorts layers into the order in which they are best sent. Members of a
    /// compressed archive come first, in the order of the archive: to reach one, everything before
    /// it is decompressed. The others follow, the largest first, so that it is not begun last.
    pub fn turn(&self) -> impl Ord + use<> {
        let LayerBlob { digest, size, .. } = self.blob();
        let stored = self.spec.layers[self.index].stored();
        let in_archive = stored.filter(|blob| !blob.archive.is_none()).map(|blob| blob.offset);
        (in_archive.is_none(), in_archive, Reverse((size, digest)))
    }

    /// Returns the names of the store paths in the layer, for messages.
    pub fn names(&self) -> String {
        self.spec.layers[self.index].names()
    }
}

/// How far a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStep {
    /// Its first byte is about to be made; or, after an error, is made again.
    Begun,
    /// So many more bytes were written.
    Advanced(u64),
    /// It was sent.
    Sent,
    /// It is there.
    Skipped,
    /// The registry took it from another of its repositories.
    Mounted,
}

/// Looks on at nothing, and ends nothing.
pub struct Unwatched;

impl Watch for Unwatched {
    fn expect(&self, _: u64) {}

    fn advance(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn layer(&self, _: ImageLayer, _: LayerStep) {}

    fn hold(&self) {}

    fn retry(&self, _: &str, _: Duration) {}

    fn wait(&self, _: &Path) {}
}

/// A writer that is watched.
pub struct Watched<'a, W> {
    /// The writer that gets the bytes.
    pub out: W,
    /// The watcher that is told of them, and that may end the copy.
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

/// A layer's bytes on their way, which are watched.
pub struct WatchedLayer<'a, W> {
    out: W,
    layer: ImageLayer<'a>,
    watch: &'a dyn Watch,
}

impl<'a, W> WatchedLayer<'a, W> {
    /// Says that the layer begins, of which the bytes go to `out`.
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
