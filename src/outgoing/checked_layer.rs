//! Checks a layer's blob, while it is written, against what was built.
//! Stage: outgoing. Input: [`ImageLayer`]. Output: a layer's bytes, or an error.

use std::fmt::Display;
use std::io::{self, Write};

use super::error::Error;
use super::layer_ref::ImageLayer;
use crate::digest::{ChecksumWriter, DigestWriter};
use crate::layer;
use crate::sink::{FileBytes, Sink};
use crate::store::Store;

/// Says which side compares a layer with what was recorded when the image was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckedBy {
    /// The sender: this program checks layers while it makes them.
    Sender,
    /// The receiver alone, as `docker load`, `podman load`, skopeo and registries do. Nothing is
    /// hashed here, and the system moves large files (see [`Spliced`](crate::sink::Spliced)).
    Receiver,
}

/// The thread that computes the digest of a layer, if one is needed to check the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// A separate thread, if the layer is large. This is faster, and takes a few megabytes of
    /// memory.
    Beside,
    /// The thread that makes the layer. This is for callers that make layers on all processors at
    /// once.
    Within,
}

impl Hashing {
    /// The size in bytes from which a separate thread is faster.
    const LARGE: u64 = 4 << 20;

    fn of<W>(self, out: W, size: u64) -> DigestWriter<W> {
        if self == Self::Beside && size >= Self::LARGE {
            DigestWriter::with_thread(out)
        } else {
            DigestWriter::new(out)
        }
    }
}

/// Makes a layer and passes on its bytes, never more of them than recorded. Compares them with the
/// recorded checksum as they are written, or with the recorded digest if there is no checksum.
///
/// A checksum finds accidental changes. It need not withstand attacks: an attacker who could alter
/// a layer could as well alter the image spec, which holds the expected checksum.
///
/// # Errors
/// Fails with [`Error::LayerChanged`] if the bytes differ from what was built. By then most of them
/// may have been passed on: a receiver must not take them for a layer.
pub fn write_checked_layer(
    store: &Store,
    layer: ImageLayer,
    hashing: Hashing,
    out: impl Sink,
) -> Result<(), Error> {
    let Some(expected) = layer.layer().checksum_in(layer.form) else {
        return write_hashed_layer(store, layer, hashing, out);
    };
    let mut out = ChecksumWriter::new(out);
    write_sized_layer(store, layer, &mut out)?;
    compare(layer, expected, out.finish())
}

/// Makes a layer like [`write_checked_layer`], but always compares SHA-256: for bytes that are
/// stored under their digest, where other images reuse them.
///
/// # Errors
/// Returns the errors of [`write_checked_layer`].
pub fn write_hashed_layer(
    store: &Store,
    layer: ImageLayer,
    hashing: Hashing,
    out: impl Sink,
) -> Result<(), Error> {
    let expected = layer.blob();
    let mut out = hashing.of(out, expected.size);
    write_sized_layer(store, layer, &mut out)?;
    compare(layer, *expected.digest.digest(), out.finish().0)
}

fn compare<S: PartialEq + Display>(layer: ImageLayer, expected: S, found: S) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(changed(layer, expected, found)) }
}

/// Makes a layer and checks only its size. Hashes nothing, and lets the system move large files by
/// itself where `out` allows that.
///
/// # Errors
/// Fails with [`Error::LayerChanged`] if the layer has another size, and with [`Error::Layer`] if
/// it can't be made.
pub fn write_sized_layer(store: &Store, layer: ImageLayer, out: impl Sink) -> Result<(), Error> {
    let size = layer.blob().size;
    let mut out = Limited::new(out, size);
    let result = layer.layer().write_blob(store, layer.form, &mut out);
    out.ended(layer, result)?;
    if out.left > 0 {
        return Err(changed(layer, bytes(size), bytes(size - out.left)));
    }
    Ok(())
}

fn changed(layer: ImageLayer, expected: impl Display, found: impl Display) -> Error {
    Error::LayerChanged {
        number: layer.index + 1,
        count: layer.spec.layers.len(),
        names: layer.names(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

fn bytes(count: u64) -> String {
    format!("{count} bytes")
}

/// Takes `left` bytes and refuses the rest: bytes beyond an announced size would be read as
/// something else.
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

    /// Maps the writer's error. If the layer ran past its recorded size, reports
    /// [`Error::LayerChanged`] instead.
    fn ended(&self, layer: ImageLayer, result: Result<(), layer::Error>) -> Result<(), Error> {
        if self.exceeded {
            return Err(changed(layer, bytes(layer.blob().size), "more"));
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
    fn takes_files(&self) -> bool {
        self.inner.takes_files()
    }

    fn take_file(&mut self, bytes: FileBytes) -> io::Result<u64> {
        // A longer file is noticed with its first byte beyond the announced size.
        let length = bytes.length.min(self.left);
        let taken = self.inner.take_file(FileBytes { length, ..bytes })?;
        self.left -= taken;
        Ok(taken)
    }
}
