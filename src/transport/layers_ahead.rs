//! Layers that are wanted one after the other, made several at a time.
//! Stage: transport. Input: [`ImageLayer`]s. Output: their bytes, in order.
//!
//! A stream has room for one layer at a time, and SHA-256 of a layer is the work of one
//! processor. So threads make the next layers while one is written, as far ahead as there is
//! memory for. Large files take none of it, where the system can move them to the output: they
//! are hashed, and wait as what they are.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::Error;
use super::checked_layer::{Hashing, check, write_checked_layer, write_sized_layer};
use super::watch::ImageLayer;
use crate::digest::{DigestWriter, Place, in_lanes};
use crate::sink::{FileBytes, PIECE, Sink};
use crate::store::Store;

/// What may wait to be written, and how much of it is for the layer whose turn it is alone: that
/// never waits for others to be written, as they do for it.
const ALL: Load = Load { bytes: 24 << 20, files: 256 };
const OF_THE_NEXT: Load = Load { bytes: 4 << 20, files: 16 };
/// The same for who makes one at a time.
const ALL_OF_ONE: Load = Load { bytes: 8 << 20, ..ALL };
/// More of them would make more than any pipe takes.
const JOBS: usize = 8;

/// Layers in the making.
pub struct LayersAhead<'m>(&'m Waiting);

impl LayersAhead<'_> {
    /// Writes the next layer to `out`, checked when this returns.
    ///
    /// # Errors
    /// As [`write_checked_layer`].
    pub fn write_next(&mut self, mut out: impl Sink) -> Result<(), Error> {
        while let Some(part) = self.0.pop()? {
            let written = match part {
                Part::Piece(piece) => out.take(piece).map(|piece| self.0.spend(piece)),
                Part::File(file, offset, length) => {
                    write_file(FileBytes { file: &file, offset, length }, &mut out)
                }
            };
            written.map_err(Error::Write)?;
        }
        Ok(())
    }
}

/// Writes a file that was hashed, in whichever way.
fn write_file(bytes: FileBytes, out: &mut impl Sink) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.length {
        match out.take_file(bytes.rest(written))? {
            0 => break,
            more => written += more,
        }
    }
    written += bytes.rest(written).read(&mut Vec::new(), |piece| out.write_all(piece))?;
    if written < bytes.length {
        return Err(io::Error::other("a file was cut short while it was written"));
    }
    Ok(())
}

/// Nobody is going to write any more: then the makers' next piece is their last.
impl Drop for LayersAhead<'_> {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Makes layers on up to `jobs` processors, for as long as `write` asks for them, in this order,
/// with `files` as they are if it takes those.
///
/// # Errors
/// What `write` fails with.
pub fn make_ahead<T>(
    store: &Store,
    layers: &[ImageLayer],
    (jobs, files): (usize, bool),
    write: impl FnOnce(&mut LayersAhead) -> Result<T, Error>,
) -> Result<T, Error> {
    let compressed =
        |layer: &ImageLayer| layer.spec.layers[layer.index].is_compressed_in(layer.form);
    let compressed = layers.iter().any(compressed);
    let all = if compressed || jobs == 1 { ALL_OF_ONE } else { ALL };
    let waiting = &Waiting::new(layers.len(), all);
    let make_all = move || {
        let _guard = IfPanicking(waiting);
        let numbered = layers.iter().enumerate();
        if compressed {
            // One after the other: a compressor has threads, and memory, of its own.
            for (number, layer) in numbered {
                if waiting.lock().given_up {
                    break;
                }
                let maker = Maker { waiting, number, files, place: None };
                let made = write_checked_layer(store, *layer, Hashing::Within, maker);
                waiting.end(number, made);
            }
        } else {
            in_lanes(
                numbered,
                |_| 0,
                jobs.min(JOBS),
                |place, (number, layer)| {
                    let _guard = IfPanicking(waiting);
                    let maker = Maker { waiting, number, files, place: Some(place) };
                    waiting.end(number, make(store, *layer, place, maker));
                },
            );
        }
    };
    thread::scope(|scope| {
        scope.spawn(make_all);
        write(&mut LayersAhead(waiting))
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

fn make(store: &Store, layer: ImageLayer, place: &Place, out: Maker) -> Result<(), Error> {
    if out.waiting.lock().given_up {
        return Ok(());
    }
    let mut digest = DigestWriter::at(place, out);
    write_sized_layer(store, layer, &mut digest)?;
    check(layer, digest.finish())
}

/// Some bytes of a layer.
enum Part {
    Piece(Vec<u8>),
    /// Where they begin in it, and how many they are.
    File(File, u64, u64),
}

impl Part {
    fn load(&self) -> Load {
        match self {
            Self::Piece(piece) => Load { bytes: piece.capacity(), files: 0 },
            Self::File(..) => Load { bytes: 0, files: 1 },
        }
    }
}

/// Memory and open files.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    bytes: usize,
    files: usize,
}

/// What was made and not written yet.
struct Waiting {
    state: Mutex<State>,
    /// There is room for a part of the layer whose turn it is, or of any.
    room_for_the_next: Condvar,
    room: Condvar,
    /// There is something of the layer whose turn it is.
    filled: Condvar,
}

struct State {
    layers: Vec<Made>,
    /// Which layer is written.
    turn: usize,
    /// Of all layers, and what it may grow to.
    load: Load,
    all: Load,
    /// Buffers to be filled again.
    spent: Vec<Vec<u8>>,
    given_up: bool,
}

impl State {
    fn has_room_for(&self, layer: usize) -> bool {
        let reserved = if self.turn == layer { Load::default() } else { OF_THE_NEXT };
        let Load { bytes, files } = self.load;
        let (bytes, files) = (bytes + reserved.bytes, files + reserved.files);
        self.given_up || (bytes < self.all.bytes && files < self.all.files)
    }
}

/// What there is of a layer.
#[derive(Default)]
struct Made {
    parts: VecDeque<Part>,
    /// Whether it came to its end, and was checked.
    end: Option<Result<(), Error>>,
}

impl Waiting {
    fn new(layers: usize, all: Load) -> Self {
        let layers = (0..layers).map(|_| Made::default()).collect();
        let state = State {
            layers,
            turn: 0,
            load: Load::default(),
            all,
            spent: Vec::new(),
            given_up: false,
        };
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

    /// Waits until there is room for a part of a layer.
    fn wait_for_room(&self, layer: usize) {
        let mut state = self.lock();
        while !state.has_room_for(layer) {
            let is_next = state.turn == layer;
            let room = if is_next { &self.room_for_the_next } else { &self.room };
            state = room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds to a layer, room or not.
    fn push(&self, layer: usize, part: Part) -> io::Result<()> {
        let mut state = self.lock();
        if state.given_up {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Load { bytes, files } = part.load();
        state.load = Load { bytes: state.load.bytes + bytes, files: state.load.files + files };
        state.layers[layer].parts.push_back(part);
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

    /// The next part of the layer whose turn it is, or none at its end. Then it is the turn of
    /// the one after it.
    fn pop(&self) -> Result<Option<Part>, Error> {
        let mut state = self.lock();
        loop {
            let turn = state.turn;
            let layer = state.layers.get_mut(turn).expect("there are as many as were asked for");
            if let Some(part) = layer.parts.pop_front() {
                let Load { bytes, files } = part.load();
                state.load =
                    Load { bytes: state.load.bytes - bytes, files: state.load.files - files };
                self.room_for_the_next.notify_one();
                if state.has_room_for(turn + 1) {
                    self.room.notify_one();
                }
                return Ok(Some(part));
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
        if piece.capacity() >= PIECE {
            self.lock().spent.push(piece);
        }
    }

    fn give_up(&self) {
        self.lock().given_up = true;
        self.room_for_the_next.notify_all();
        self.room.notify_all();
        self.filled.notify_all();
    }
}

/// Where the parts of a layer go.
#[derive(Clone, Copy)]
struct Maker<'m> {
    waiting: &'m Waiting,
    number: usize,
    /// Whether the writer takes files.
    files: bool,
    /// What others may have while this one waits.
    place: Option<&'m Place<'m>>,
}

impl Maker<'_> {
    fn push(&self, part: Part) -> io::Result<()> {
        let Self { waiting, number, place, .. } = *self;
        if !waiting.lock().has_room_for(number) {
            match place {
                Some(place) => place.away(|| waiting.wait_for_room(number)),
                None => waiting.wait_for_room(number),
            }
        }
        waiting.push(number, part)
    }
}

impl Write for Maker<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE)];
        let mut piece = self.waiting.spare();
        piece.clear();
        piece.extend_from_slice(bytes);
        self.push(Part::Piece(piece))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Maker<'_> {
    fn take(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        // Such as the header of a file that is passed on as it is.
        if piece.len() < PIECE / 8 {
            self.push(Part::Piece(piece.as_slice().into()))?;
            return Ok(piece);
        }
        self.push(Part::Piece(piece))?;
        Ok(self.waiting.spare())
    }

    fn takes_files(&self) -> bool {
        self.files
    }

    fn take_file(&mut self, FileBytes { file, offset, length }: FileBytes) -> io::Result<u64> {
        self.push(Part::File(file.try_clone()?, offset, length))?;
        Ok(length)
    }

    fn keeps_pieces(&self) -> bool {
        true
    }
}
