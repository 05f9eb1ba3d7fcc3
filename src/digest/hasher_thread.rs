//! SHA-256 on a thread of its own.
//! Vocabulary: names no stage.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{JoinHandle, spawn};

use sha2::{Digest as _, Sha256};

use crate::sink::PIECE;

/// Pieces that may wait: enough to level out reads that are slow now and then, and little to keep
/// in memory and in the cache.
const WAITING: usize = 16;

/// A hasher that runs beside whoever makes the bytes. Dropped, its thread ends.
pub struct HasherThread {
    pieces: SyncSender<Vec<u8>>,
    /// Pieces that were hashed, to be filled again.
    spent: Receiver<Vec<u8>>,
    thread: JoinHandle<Sha256>,
}

impl HasherThread {
    /// Starts the thread.
    pub fn start() -> Self {
        let (pieces, waiting) = sync_channel(WAITING);
        let (done, spent) = channel();
        Self { pieces, spent, thread: spawn(move || hash(&waiting, &done)) }
    }

    /// Hashes more bytes, some time.
    pub fn update(&mut self, bytes: &[u8]) {
        for bytes in bytes.chunks(PIECE) {
            let mut piece = self.spent.try_recv().unwrap_or_default();
            piece.clear();
            piece.extend_from_slice(bytes);
            // The thread takes them to the end; were it gone, `finish` would say so.
            let _ = self.pieces.send(piece);
        }
    }

    /// Waits until all is hashed.
    pub fn finish(self) -> Sha256 {
        drop(self.pieces);
        self.thread.join().expect("hashing can't fail")
    }
}

fn hash(pieces: &Receiver<Vec<u8>>, spent: &Sender<Vec<u8>>) -> Sha256 {
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update(&piece);
        // Nobody wants it back after the last.
        let _ = spent.send(piece);
    }
    hasher
}
