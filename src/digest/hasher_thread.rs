//! Computes SHA-256 on a separate thread.
//! Vocabulary: names no stage.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{JoinHandle, spawn};

use sha2::{Digest as _, Sha256};

use crate::sink::PIECE;

/// The number of pieces that may wait: enough to level out a slow read now and then, and few enough
/// for the memory and the cache.
const WAITING: usize = 16;

/// A hasher on a thread beside the one that makes the bytes. Dropping it ends the thread.
pub struct HasherThread {
    pieces: SyncSender<Vec<u8>>,
    /// Pieces that were hashed, whose memory is used again.
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

    /// Hands more bytes to the thread, which hashes them later.
    pub fn update(&mut self, bytes: &[u8]) {
        for bytes in bytes.chunks(PIECE) {
            let mut piece = self.spent.try_recv().unwrap_or_default();
            piece.clear();
            piece.extend_from_slice(bytes);
            // The thread receives until the end. If it is gone, `finish` reports that.
            let _ = self.pieces.send(piece);
        }
    }

    /// Waits until everything is hashed.
    pub fn finish(self) -> Sha256 {
        drop(self.pieces);
        self.thread.join().expect("hashing can't fail")
    }
}

fn hash(pieces: &Receiver<Vec<u8>>, spent: &Sender<Vec<u8>>) -> Sha256 {
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update(&piece);
        // After the last piece the other side no longer receives.
        let _ = spent.send(piece);
    }
    hasher
}
