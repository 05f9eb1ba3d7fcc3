//! Sends one layer to an object storage, and makes it while it is sent.
//! Stage: registry. Input: a layer. Output: an object with the layer's name, or none.

use std::io::{self, Write};
use std::mem;
use std::time::Duration;

use axum::body::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinError, JoinHandle};

use super::error::StorageError;
use crate::outgoing::{Error, Hashing, SharedLayer, write_hashed_layer};
use crate::sink::Plain;
use crate::store::Store;

/// The size of a part in bytes. Amazon takes no smaller parts (S3, "Multipart upload limits"), and
/// some storages only take parts of one size.
const PART: u64 = 5 << 20;
/// The number of parts that an object may have (S3, "Multipart upload limits").
const PARTS: u64 = 10_000;
/// The number of parts in memory at a time: one that is being made, one that waits in the channel,
/// and one that is being sent. Only layers of more than 48 GiB have larger parts.
const AT_ONCE: u64 = 3;
const _: () = assert!(PART * AT_ONCE <= 16 << 20);
/// The longest time to wait until the storage has forgotten an unfinished upload.
const FORGETTING: Duration = Duration::from_secs(10);

/// A layer that the storage may lack.
pub struct StorageLayer {
    /// The store that it is made from.
    pub store: Store,
    /// The layer of an image.
    pub layer: SharedLayer,
}

/// Says why a layer is not stored.
pub enum Failed {
    /// The layer could not be made.
    Made(Error),
    /// The storage did not take the layer.
    Sent(object_store::Error),
}

impl From<object_store::Error> for Failed {
    fn from(error: object_store::Error) -> Self {
        Self::Sent(error)
    }
}

/// Makes and sends a layer. The object gets its name only if all of the layer was sent, and is as
/// it was built.
pub async fn send(
    store: &dyn ObjectStore,
    object: &Path,
    layer: StorageLayer,
) -> Result<(), Failed> {
    let (sender, mut parts) = channel(1);
    let making = tokio::task::spawn_blocking(move || make(&layer, sender));
    let Some(first) = parts.recv().await else {
        // A layer that was made has at least one part.
        let lost = Failed::Made(Error::Write(io::ErrorKind::UnexpectedEof.into()));
        return made(making).await.and(Err(lost));
    };
    if first.is_last {
        // The only part was checked before it was passed on.
        store.put(object, first.bytes.into()).await?;
        return made(making).await;
    }
    let mut upload = Upload::begin(store, object).await?;
    let mut sent = upload.send(first, &mut parts).await;
    // The maker must not wait for a receiver that takes no more.
    drop(parts);
    let made = made(making).await;
    if sent.is_ok() && made.is_ok() {
        sent = upload.complete().await;
    }
    upload.end().await;
    // If sending has failed, making has failed as well: report the first cause.
    sent.map_err(Failed::Sent).and(made)
}

async fn made(making: JoinHandle<Result<(), Error>>) -> Result<(), Failed> {
    let made = making.await.unwrap_or_else(|error| Err(Error::Write(io::Error::other(error))));
    made.map_err(Failed::Made)
}

/// Returns the error for a task that did not end normally.
pub fn lost(error: JoinError) -> StorageError {
    StorageError::Layer(Error::Write(io::Error::other(error)))
}

/// Returns the size of the parts, in bytes, in which a blob of `size` bytes is sent.
fn part_size(size: u64) -> usize {
    // Larger layers have parts that are as small as possible, in steps of a mebibyte.
    let smallest = size.div_ceil(PARTS).next_multiple_of(1 << 20);
    usize::try_from(smallest.max(PART)).unwrap_or(usize::MAX)
}

/// An upload in parts. Dropping it before it is complete tells the storage to forget it.
struct Upload(Option<Box<dyn MultipartUpload>>);

impl Upload {
    async fn begin(store: &dyn ObjectStore, object: &Path) -> object_store::Result<Self> {
        Ok(Self(Some(store.put_multipart(object).await?)))
    }

    /// Sends the parts until there are no more.
    async fn send(&mut self, first: Part, parts: &mut Receiver<Part>) -> object_store::Result<()> {
        let Some(upload) = &mut self.0 else { return Ok(()) };
        let mut next = Some(first);
        while let Some(part) = next {
            upload.put_part(part.bytes.into()).await?;
            next = parts.recv().await;
        }
        Ok(())
    }

    async fn complete(&mut self) -> object_store::Result<()> {
        if let Some(upload) = &mut self.0 {
            upload.complete().await?;
        }
        self.0 = None;
        Ok(())
    }

    async fn end(mut self) {
        if let Some(upload) = self.0.take() {
            abort(upload).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // The image was given up.
        if let (Some(upload), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(abort(upload));
        }
    }
}

/// Aborts an upload. If that fails, the bucket's own rules for unfinished uploads apply.
async fn abort(mut upload: Box<dyn MultipartUpload>) {
    let _ = tokio::time::timeout(FORGETTING, upload.abort()).await;
}

/// A part of a layer.
struct Part {
    bytes: Bytes,
    is_last: bool,
}

fn make(layer: &StorageLayer, parts: Sender<Part>) -> Result<(), Error> {
    let StorageLayer { store, layer } = layer;
    let size = layer.blob().size;
    let mut out = PartWriter::new(parts, part_size(size), size);
    write_hashed_layer(store, layer.borrowed(), Hashing::Within, Plain(&mut out))?;
    out.finish().map_err(Error::Write)
}

/// Cuts the bytes into parts of one size, of which the last may be smaller. The last part is held
/// back until the layer was checked.
struct PartWriter {
    parts: Sender<Part>,
    size: usize,
    part: Vec<u8>,
}

impl PartWriter {
    /// Prepares for a blob of `blob` bytes, in parts of `size` bytes.
    fn new(parts: Sender<Part>, size: usize, blob: u64) -> Self {
        let first = usize::try_from(blob).map_or(size, |blob| blob.min(size));
        Self { parts, size, part: Vec::with_capacity(first) }
    }

    fn send(&mut self, is_last: bool) -> io::Result<()> {
        let bytes = mem::take(&mut self.part).into();
        let gone = |_| io::ErrorKind::BrokenPipe.into();
        self.parts.blocking_send(Part { bytes, is_last }).map_err(gone)
    }

    fn finish(mut self) -> io::Result<()> {
        self.send(true)
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.len() == self.size {
            self.send(false)?;
            // A vector that grows by itself could become twice as large.
            self.part.reserve_exact(self.size);
        }
        let bytes = &bytes[..bytes.len().min(self.size - self.part.len())];
        self.part.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough_and_large_enough() {
        for (size, expected) in [
            (0, PART),
            (PART, PART),
            (PART * PARTS, PART),
            (PART * PARTS + 1, 6 << 20),
            (5 << 40, 525 << 20),
        ] {
            let part = part_size(size) as u64;
            assert_eq!(part, expected, "{size}");
            assert!(size.div_ceil(part) <= PARTS, "{size}");
        }
    }

    #[test]
    fn bytes_are_cut_into_parts() {
        for (written, expected) in
            [(0, vec![0]), (9, vec![9]), (10, vec![10]), (11, vec![10, 1]), (25, vec![10, 10, 5])]
        {
            let (sender, mut parts) = channel(10);
            let mut out = PartWriter::new(sender, 10, written as u64);
            out.write_all(&vec![0; written]).unwrap();
            // The last part is not passed on until the layer is known to be right.
            assert_eq!(parts.len(), expected.len() - 1);
            out.finish().unwrap();
            let mut found = Vec::new();
            let mut last = Vec::new();
            while let Some(part) = parts.blocking_recv() {
                found.push(part.bytes.len());
                last.push(part.is_last);
            }
            assert_eq!(found, expected);
            assert_eq!(last.iter().filter(|last| **last).count(), 1);
        }
    }
}
