//! Layers that are wanted one after the other, made several at a time.
//! Stage: transport. Input: [`ImageLayer`]s. Output: their bytes, in order.
//!
//! A stream has room for one layer at a time, and SHA-256 of one layer is the work of one
//! processor. So threads make the next layers while one is written, as far ahead as there is
//! memory for, and hash them while they are in the cache.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::Error;
use super::checked_layer::{Hashing, write_checked_layer};
use super::watch::ImageLayer;
use crate::sink::Sink;
use crate::store::Store;

/// Bytes of layers that wait for their turn, of pieces as a layer is made in.
const AHEAD: usize = 24 << 20;
const PIECE: usize = 256 << 10;
/// More threads would make more than any pipe takes.
const MAKERS: usize = 8;

/// What a layer's maker says: a piece of it, or why there are no more. A layer that came to its
/// end was checked.
type Said = Result<Vec<u8>, Error>;

/// Layers in the making.
pub struct LayersAhead<'m> {
    layers: std::vec::IntoIter<Receiver<Said>>,
    spent: &'m Spent,
}

impl LayersAhead<'_> {
    /// Writes the next layer to `out`, checked when this returns.
    ///
    /// # Errors
    /// As [`write_checked_layer`].
    pub fn write_next(&mut self, mut out: impl Sink) -> Result<(), Error> {
        let pieces = self.layers.next().expect("there are as many as were asked for");
        for piece in pieces {
            let piece = out.take(piece?).map_err(Error::Write)?;
            self.spent.put(piece);
        }
        Ok(())
    }
}

/// Makes layers on up to `threads` threads, for as long as `write` asks for them, in this order.
///
/// # Errors
/// What `write` fails with.
pub fn make_ahead<T>(
    store: &Store,
    layers: &[ImageLayer],
    threads: usize,
    write: impl FnOnce(&mut LayersAhead) -> Result<T, Error>,
) -> Result<T, Error> {
    let compressed =
        |layer: &ImageLayer| layer.spec.layers[layer.index].is_compressed_in(layer.form);
    let (makers, pieces) = if layers.iter().any(compressed) {
        // A compressor has threads, and memory, of its own.
        (1, AHEAD / PIECE / 8)
    } else {
        let makers = threads.min(layers.len()).clamp(1, MAKERS);
        (makers, AHEAD / PIECE / makers)
    };
    let total: u64 = layers.iter().map(|layer| layer.blob().size).sum();
    let hashing = |layer: &ImageLayer| {
        let outlasts = layer.blob().size.saturating_mul(makers as u64) > total;
        if outlasts && threads > 1 { Hashing::Beside } else { Hashing::Within }
    };
    let (senders, receivers): (Vec<_>, Vec<_>) =
        layers.iter().map(|_| sync_channel::<Said>(pieces)).unzip();
    let senders: Vec<_> = senders.into_iter().map(|sender| Mutex::new(Some(sender))).collect();
    let next = AtomicUsize::new(0);
    let spent = Spent::default();
    let make = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = layers.get(place) else { break };
            let sender = lock(&senders[place]).take().expect("each layer is made once");
            let pieces = Pieces { sender: &sender, spent: &spent };
            if let Err(error) = write_checked_layer(store, *layer, hashing(layer), pieces) {
                // Nobody waits for it if an earlier one failed.
                let _ = sender.send(Err(error));
                break;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..makers {
            scope.spawn(make);
        }
        // Dropped in the end, or at an error: then the makers' next piece is their last.
        write(&mut LayersAhead { layers: receivers.into_iter(), spent: &spent })
    })
}

/// Buffers to be filled again.
#[derive(Default)]
struct Spent(Mutex<Vec<Vec<u8>>>);

impl Spent {
    fn put(&self, piece: Vec<u8>) {
        lock(&self.0).push(piece);
    }

    fn get(&self) -> Vec<u8> {
        lock(&self.0).pop().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that is locked here can be left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A layer's bytes on their way to whoever writes them.
struct Pieces<'m> {
    sender: &'m SyncSender<Said>,
    spent: &'m Spent,
}

impl Pieces<'_> {
    fn send(&self, piece: Vec<u8>) -> io::Result<()> {
        // An error on the other side has ended it all.
        self.sender.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE)];
        let mut piece = self.spent.get();
        piece.clear();
        piece.extend_from_slice(bytes);
        self.send(piece)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Pieces<'_> {
    fn take(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        self.send(piece)?;
        Ok(self.spent.get())
    }

    fn keeps_pieces(&self) -> bool {
        true
    }
}
