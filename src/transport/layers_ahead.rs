//! Layers that are wanted one after the other, made several at a time.
//! Stage: transport. Input: [`ImageLayer`]s. Output: their bytes, in order.
//!
//! A stream has room for one layer at a time, and SHA-256 of a layer is the work of one
//! processor. So threads make the next layers while one is written, as far ahead as there is
//! memory for. Of a large layer, reading, hashing and writing each have a thread, through which
//! the same buffers go.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::Error;
use super::checked_layer::{Hashing, check, write_checked_layer, write_sized_layer};
use super::watch::ImageLayer;
use crate::digest::DigestWriter;
use crate::sink::{PIECE, Sink};
use crate::store::Store;

/// Pieces that wait to be written: so many in all, and of these the last for the layer whose turn
/// it is. It never waits for others to be written, as they do for it.
const PIECES: usize = (24 << 20) / PIECE;
const OF_THE_NEXT: usize = (4 << 20) / PIECE;
/// Pieces that wait to be hashed.
const TO_HASH: usize = 4;
/// From this size on, in bytes, a layer is hashed beside.
const LARGE: u64 = 16 << 20;
/// More threads would make more than any pipe takes.
const MAKERS: usize = 8;

/// Layers in the making.
pub struct LayersAhead<'m>(&'m Waiting);

impl LayersAhead<'_> {
    /// Writes the next layer to `out`, checked when this returns.
    ///
    /// # Errors
    /// As [`write_checked_layer`].
    pub fn write_next(&mut self, mut out: impl Sink) -> Result<(), Error> {
        while let Some(piece) = self.0.pop()? {
            self.0.spend(out.take(piece).map_err(Error::Write)?);
        }
        Ok(())
    }
}

/// Nobody is going to write any more: then the makers' next piece is their last.
impl Drop for LayersAhead<'_> {
    fn drop(&mut self) {
        self.0.give_up();
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
    // A compressor has threads, and memory, of its own.
    let makers = if layers.iter().any(compressed) { 1 } else { threads.clamp(1, MAKERS) };
    let waiting = Waiting::new(layers.len());
    let next = AtomicUsize::new(0);
    let make = || {
        let _guard = IfPanicking(&waiting);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = layers.get(number) else { break };
            let result = make(store, *layer, threads, Maker { waiting: &waiting, layer: number });
            let failed = result.is_err();
            waiting.end(number, result);
            if failed {
                break;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..makers.min(layers.len()) {
            scope.spawn(make);
        }
        write(&mut LayersAhead(&waiting))
    })
}

/// Lets the writer not wait for a maker that is gone.
struct IfPanicking<'m>(&'m Waiting);

impl Drop for IfPanicking<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.give_up();
        }
    }
}

fn make(store: &Store, layer: ImageLayer, threads: usize, out: Maker) -> Result<(), Error> {
    if threads == 1 || layer.blob().size < LARGE {
        return write_checked_layer(store, layer, Hashing::Within, out);
    }
    thread::scope(|scope| {
        let (pieces, unhashed) = sync_channel::<Vec<u8>>(TO_HASH);
        let hashing = scope.spawn(move || -> io::Result<_> {
            let mut digest = DigestWriter::new(io::sink());
            for piece in unhashed {
                digest.write_all(&piece)?;
                out.push(piece)?;
            }
            Ok(digest.finish())
        });
        let written = write_sized_layer(store, layer, Reader { pieces, waiting: out.waiting });
        let digest = hashing.join().expect("hashing doesn't panic");
        // First what is wrong with the sources. If nobody takes the pieces any more, both fail.
        written?;
        check(layer, digest.map_err(Error::Write)?)
    })
}

/// What was made and not written yet.
struct Waiting {
    state: Mutex<State>,
    /// There is room for a piece of the layer whose turn it is, or of any.
    room_for_the_next: Condvar,
    room: Condvar,
    /// There is something of the layer whose turn it is.
    filled: Condvar,
}

struct State {
    layers: Vec<Made>,
    /// Which layer is written.
    turn: usize,
    /// Pieces of all layers.
    pieces: usize,
    /// Buffers to be filled again.
    spent: Vec<Vec<u8>>,
    given_up: bool,
}

/// What there is of a layer.
#[derive(Default)]
struct Made {
    pieces: VecDeque<Vec<u8>>,
    /// Whether it came to its end, and was checked.
    end: Option<Result<(), Error>>,
}

impl Waiting {
    fn new(layers: usize) -> Self {
        let layers = (0..layers).map(|_| Made::default()).collect();
        let state = State { layers, turn: 0, pieces: 0, spent: Vec::new(), given_up: false };
        Self {
            state: Mutex::new(state),
            room_for_the_next: Condvar::new(),
            room: Condvar::new(),
            filled: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is locked is left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a layer, when there is room.
    fn push(&self, layer: usize, piece: Vec<u8>) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            if state.given_up {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let is_next = state.turn == layer;
            if state.pieces < if is_next { PIECES } else { PIECES - OF_THE_NEXT } {
                break;
            }
            let room = if is_next { &self.room_for_the_next } else { &self.room };
            state = room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.pieces += 1;
        state.layers[layer].pieces.push_back(piece);
        if state.turn == layer {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Says how a layer ended.
    fn end(&self, layer: usize, result: Result<(), Error>) {
        self.lock().layers[layer].end = Some(result);
        self.filled.notify_one();
    }

    /// The next piece of the layer whose turn it is, or none at its end. Then it is the turn of
    /// the one after it.
    fn pop(&self) -> Result<Option<Vec<u8>>, Error> {
        let mut state = self.lock();
        loop {
            let turn = state.turn;
            let layer = state.layers.get_mut(turn).expect("there are as many as were asked for");
            if let Some(piece) = layer.pieces.pop_front() {
                state.pieces -= 1;
                self.room_for_the_next.notify_one();
                if state.pieces < PIECES - OF_THE_NEXT {
                    self.room.notify_one();
                }
                return Ok(Some(piece));
            }
            if let Some(end) = layer.end.take() {
                state.turn += 1;
                // One of them is the next now.
                self.room.notify_all();
                return end.map(|()| None);
            }
            if state.given_up {
                return Err(Error::Write(io::ErrorKind::BrokenPipe.into()));
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn spare(&self) -> Vec<u8> {
        self.lock().spent.pop().unwrap_or_default()
    }

    fn spend(&self, piece: Vec<u8>) {
        self.lock().spent.push(piece);
    }

    fn give_up(&self) {
        self.lock().given_up = true;
        self.room_for_the_next.notify_all();
        self.room.notify_all();
        self.filled.notify_all();
    }
}

/// Where the pieces of a layer go.
#[derive(Clone, Copy)]
struct Maker<'m> {
    waiting: &'m Waiting,
    layer: usize,
}

impl Maker<'_> {
    fn push(&self, piece: Vec<u8>) -> io::Result<()> {
        self.waiting.push(self.layer, piece)
    }
}

impl Write for Maker<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE)];
        self.push(refilled(self.waiting.spare(), bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Maker<'_> {
    fn take(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        self.push(piece)?;
        Ok(self.waiting.spare())
    }

    fn keeps_pieces(&self) -> bool {
        true
    }
}

/// Where they go on their way there, to be hashed.
struct Reader<'m> {
    pieces: SyncSender<Vec<u8>>,
    waiting: &'m Waiting,
}

impl Reader<'_> {
    fn send(&self, piece: Vec<u8>) -> io::Result<()> {
        self.pieces.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Reader<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE)];
        self.send(refilled(self.waiting.spare(), bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Reader<'_> {
    fn take(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        self.send(piece)?;
        Ok(self.waiting.spare())
    }

    fn keeps_pieces(&self) -> bool {
        true
    }
}

fn refilled(mut piece: Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    piece.clear();
    piece.extend_from_slice(bytes);
    piece
}
