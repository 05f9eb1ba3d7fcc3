//! A layer's blob on its way out, checked against what was built.
//! Stage: transport. Input: [`ImageSpec`]. Output: a layer's bytes, or an error.

use std::io::{self, Write};

use super::Error;
use super::watch::{ImageLayer, LayerStep, Watch, WatchedLayer};
use crate::digest::DigestWriter;
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
    let layer = &spec.layers[index];
    let (number, count) = (index + 1, spec.layers.len());
    let expected = layer.blob(form);
    let changed = |found| Error::LayerChanged {
        number,
        count,
        names: layer.names(),
        expected: *expected.digest.digest(),
        expected_size: expected.size,
        found,
    };
    let out = Limited { inner: out, left: expected.size, exceeded: false };
    let beside = hashing == Hashing::Beside && expected.size >= LARGE;
    let mut digest = if beside { DigestWriter::with_thread(out) } else { DigestWriter::new(out) };
    let result = layer.write_blob(store, form, &mut digest);
    if digest.inner().exceeded {
        return Err(changed("more bytes".to_owned()));
    }
    result.map_err(|error| match error {
        layer::Error::Write(error) => Error::Write(error),
        source => Error::Layer { number, count, source },
    })?;
    let (found, size) = digest.finish();
    if (found, size) != (*expected.digest.digest(), expected.size) {
        return Err(changed(format!("{found} and {size} bytes")));
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
    out: impl Write,
) -> Result<(), Error> {
    let ImageLayer { spec, index, form } = layer;
    watch.layer(layer, LayerStep::Begun);
    write_checked_layer(
        store,
        spec,
        index,
        form,
        Hashing::Beside,
        WatchedLayer { out, layer, watch },
    )
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
