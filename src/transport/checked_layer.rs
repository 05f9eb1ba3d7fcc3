//! A layer's blob on its way out, checked against what was built.
//! Stage: transport. Input: [`ImageLayer`]. Output: a layer's bytes, or an error.

use std::io::{self, Write};

use super::Error;
use super::watch::{ImageLayer, LayerStep, Watch, WatchedLayer};
use crate::digest::{Digest, DigestWriter};
use crate::layer;
use crate::sink::{FileBytes, Sink};
use crate::store::Store;

/// Who compares a layer's digest with what it was when the image was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckedBy {
    /// Whoever makes the layers.
    Sender {
        /// How many are made at a time.
        jobs: usize,
    },
    /// The receiver alone, as `docker load`, `podman load`, skopeo and registries do: nothing is
    /// hashed, and large files are moved by the system (see [`Spliced`](crate::sink::Spliced)).
    Receiver,
}

impl CheckedBy {
    /// By us, on all processors that we may use.
    pub fn sender() -> Self {
        Self::Sender { jobs: rayon::current_num_threads() }
    }
}

/// Where a layer's digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// On a thread of its own, if the layer is large: faster, for a few megabytes of memory.
    Beside,
    /// On the thread that makes it: where there are others for all processors.
    Within,
}

impl Hashing {
    /// From this size on, in bytes, a thread is worth it.
    const LARGE: u64 = 4 << 20;

    fn of<S: Sink>(self, out: S, size: u64) -> DigestWriter<S> {
        if self == Self::Beside && size >= Self::LARGE {
            DigestWriter::with_thread(out)
        } else {
            DigestWriter::new(out)
        }
    }
}

/// Makes a layer and passes on its bytes, never more of them than recorded.
///
/// # Errors
/// [`Error::LayerChanged`] if they are not what they were: by then most of them may have
/// been passed on, so that a receiver must not take what it has for a layer.
pub fn write_checked_layer(
    store: &Store,
    layer: ImageLayer,
    hashing: Hashing,
    out: impl Sink,
) -> Result<(), Error> {
    let expected = layer.blob();
    let mut out = hashing.of(Limited::new(out, expected.size), expected.size);
    let result = layer.spec.layers[layer.index].write_blob(store, layer.form, &mut out);
    out.inner().ended(layer, result)?;
    check(layer, out.finish())
}

/// Compares what a layer is with what it was.
///
/// # Errors
/// [`Error::LayerChanged`].
pub fn check(layer: ImageLayer, (found, size): (Digest, u64)) -> Result<(), Error> {
    let expected = layer.blob();
    if (found, size) != (*expected.digest.digest(), expected.size) {
        return Err(changed(layer, format!("{found} and {size} bytes")));
    }
    Ok(())
}

/// As [`write_checked_layer`], before somebody who looks on.
///
/// # Errors
/// As [`write_checked_layer`].
pub fn write_watched_layer(
    store: &Store,
    layer: ImageLayer,
    watch: &dyn Watch,
    out: impl Sink,
) -> Result<(), Error> {
    watch.layer(layer, LayerStep::Begun);
    write_checked_layer(store, layer, Hashing::Beside, WatchedLayer { out, layer, watch })
}

/// As [`write_checked_layer`], but nothing is hashed here, and the system moves large files by
/// itself where `out` can be given them. The size is checked.
///
/// # Errors
/// As [`write_checked_layer`], for another size.
pub fn write_sized_layer(store: &Store, layer: ImageLayer, out: impl Sink) -> Result<(), Error> {
    let size = layer.blob().size;
    let mut out = Limited::new(out, size);
    let result = layer.spec.layers[layer.index].write_blob(store, layer.form, &mut out);
    out.ended(layer, result)?;
    if out.left > 0 {
        return Err(changed(layer, format!("{} bytes", size - out.left)));
    }
    Ok(())
}

fn changed(ImageLayer { spec, index, form }: ImageLayer, found: String) -> Error {
    let layer = &spec.layers[index];
    let expected = layer.blob(form);
    Error::LayerChanged {
        number: index + 1,
        count: spec.layers.len(),
        names: layer.names(),
        expected: *expected.digest.digest(),
        expected_size: expected.size,
        found,
    }
}

/// Takes `left` bytes and refuses the rest: what follows an announced size would be read
/// as something else.
struct Limited<W> {
    inner: W,
    left: u64,
    exceeded: bool,
}

impl<W> Limited<W> {
    fn new(inner: W, left: u64) -> Self {
        Self { inner, left, exceeded: false }
    }

    fn admit(&mut self, bytes: usize) -> io::Result<()> {
        if bytes as u64 > self.left {
            self.exceeded = true;
            return Err(io::Error::other("more bytes than announced"));
        }
        Ok(())
    }

    /// What an error of the one who wrote here means.
    fn ended(&self, layer: ImageLayer, result: Result<(), layer::Error>) -> Result<(), Error> {
        if self.exceeded {
            return Err(changed(layer, "more bytes".to_owned()));
        }
        let count = layer.spec.layers.len();
        result.map_err(|error| match error {
            layer::Error::Write(error) => Error::Write(error),
            source => Error::Layer { number: layer.index + 1, count, source },
        })
    }
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.admit(bytes.len())?;
        let written = self.inner.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<S: Sink> Sink for Limited<S> {
    fn take(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        self.admit(piece.len())?;
        self.left -= piece.len() as u64;
        self.inner.take(piece)
    }

    fn takes_files(&self) -> bool {
        self.inner.takes_files()
    }

    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        // What is longer than announced is noticed with the first byte after.
        let length = bytes.length.min(self.left);
        let taken = self.inner.take_file(FileBytes { length, ..bytes })?;
        self.left -= taken;
        Ok(taken)
    }

    fn keeps_pieces(&self) -> bool {
        self.inner.keeps_pieces()
    }
}
