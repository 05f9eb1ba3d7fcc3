//! A layer's blob on its way out, checked against what was built.
//! Stage: transport. Input: [`ImageSpec`]. Output: a layer's bytes, or an error.

use std::io::{self, Write};

use super::Error;
use super::watch::{ImageLayer, LayerStep, Watch, WatchedLayer};
use crate::digest::{DigestWriter, PendingDigest};
use crate::layer;
use crate::oci::{Form, ImageSpec};
use crate::store::Store;

/// From this size on, in bytes, a layer is hashed while it is written and not in between.
const LARGE: u64 = 4 << 20;

/// Where a layer's digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// On a thread of its own, if the layer is large: faster, for a megabyte or two of memory.
    Beside,
    /// On the thread that makes it: where there are others for all processors.
    Within,
}

/// Makes layer `index` and passes on its bytes, never more of them than recorded.
///
/// # Errors
/// [`Error::LayerChanged`] if they are not what they were: by then most of them may have
/// been passed on, so that a receiver must not take what it has for a layer.
pub fn write_checked_layer(
    store: &Store,
    spec: &ImageSpec,
    index: usize,
    form: Form,
    hashing: Hashing,
    out: impl Write,
) -> Result<(), Error> {
    write_layer(store, spec, index, form, hashing, out)?.wait()
}

/// As [`write_checked_layer`], before somebody who looks on.
///
/// # Errors
/// As [`write_checked_layer`].
pub fn write_watched_layer(
    store: &Store,
    layer: ImageLayer,
    watch: &dyn Watch,
    out: impl Write,
) -> Result<(), Error> {
    begin_watched_layer(store, layer, watch, out)?.wait()
}

/// As [`write_watched_layer`], but the check is still to come: for who goes on with other layers
/// meanwhile, and has something to write in the end without which they are of no use.
///
/// # Errors
/// As [`write_checked_layer`].
pub fn begin_watched_layer<'s>(
    store: &Store,
    layer: ImageLayer<'s>,
    watch: &dyn Watch,
    out: impl Write,
) -> Result<PendingCheck<'s>, Error> {
    let ImageLayer { spec, index, form } = layer;
    watch.layer(layer, LayerStep::Begun);
    let out = WatchedLayer { out, layer, watch };
    write_layer(store, spec, index, form, Hashing::Beside, out)
}

/// A layer that was passed on, and is perhaps not hashed yet.
#[must_use]
pub struct PendingCheck<'s> {
    spec: &'s ImageSpec,
    index: usize,
    form: Form,
    digest: PendingDigest,
}

impl PendingCheck<'_> {
    /// Compares it with what it was.
    ///
    /// # Errors
    /// [`Error::LayerChanged`].
    pub fn wait(self) -> Result<(), Error> {
        let Self { spec, index, form, digest } = self;
        let expected = spec.layers[index].blob(form);
        let (found, size) = digest.wait();
        if (found, size) != (*expected.digest.digest(), expected.size) {
            return Err(changed(spec, index, form, format!("{found} and {size} bytes")));
        }
        Ok(())
    }
}

fn changed(spec: &ImageSpec, index: usize, form: Form, found: String) -> Error {
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

fn write_layer<'s>(
    store: &Store,
    spec: &'s ImageSpec,
    index: usize,
    form: Form,
    hashing: Hashing,
    out: impl Write,
) -> Result<PendingCheck<'s>, Error> {
    let layer = &spec.layers[index];
    let size = layer.blob(form).size;
    let out = Limited { inner: out, left: size, exceeded: false };
    let beside = hashing == Hashing::Beside && size >= LARGE;
    let mut digest = if beside { DigestWriter::with_thread(out) } else { DigestWriter::new(out) };
    let result = layer.write_blob(store, form, &mut digest);
    if digest.inner().exceeded {
        return Err(changed(spec, index, form, "more bytes".to_owned()));
    }
    result.map_err(|error| match error {
        layer::Error::Write(error) => Error::Write(error),
        source => Error::Layer { number: index + 1, count: spec.layers.len(), source },
    })?;
    Ok(PendingCheck { spec, index, form, digest: digest.finish_later() })
}

/// Takes `left` bytes and refuses the rest: what follows an announced size would be read
/// as something else.
struct Limited<W> {
    inner: W,
    left: u64,
    exceeded: bool,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            self.exceeded = true;
            return Err(io::Error::other("more bytes than announced"));
        }
        let written = self.inner.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
