//! Sends a layer to a client, and makes it while it is sent.
//! Stage: registry. Input: a function that makes the layer. Output: chunks.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::parts::{Parts, Picker};

/// The number of bytes of a chunk.
pub const CHUNK: usize = 128 << 10;
/// The number of chunks that are ready before the client takes them. With the one that is being
/// filled, this is all the memory that a connection takes, however slow it is.
const READY: usize = 2;

/// Bytes for a client, or the reason why there are no more.
pub type Chunk = Result<Bytes, io::Error>;

/// Limits the number of layers that are made at a time, to the number of processors.
#[derive(Clone)]
pub struct Makers(Arc<Semaphore>);

impl Makers {
    /// Makes a limit of `places` layers.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Waits for a place among those that make layers, for other work of that size.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

/// Runs `make` on a blocking thread, and streams the `parts` of what it writes.
///
/// The last chunk is held back until `make` has succeeded, so that a client never gets all the
/// bytes of a wrong blob.
pub fn send<E: Send>(
    makers: Makers,
    parts: Parts,
    make: impl FnOnce(&mut Chunks) -> Result<(), E> + Send + 'static,
    failed: impl FnOnce(E) + Send + 'static,
) -> Receiver<Chunk> {
    let (sender, receiver) = channel(READY);
    tokio::task::spawn_blocking(move || {
        let mut out = Chunks {
            sender,
            makers,
            place: None,
            picker: Picker::new(parts),
            chunk: Vec::new(),
            gone: false,
            waited: Duration::ZERO,
        };
        let made = make(&mut out);
        let gone = out.gone;
        match made {
            Ok(()) => drop(out.send_chunk()),
            Err(error) => {
                // If the client went away, that is not a failure of the server.
                if !gone {
                    failed(error);
                }
                // Send the error last: a caller that receives it then looks for the cause.
                let broken = io::Error::other("the layer could not be made");
                drop(out.sender.blocking_send(Err(broken)));
            }
        }
    });
    receiver
}

/// Cuts what is written into chunks, and drops the bytes that the client did not ask for.
pub struct Chunks {
    sender: Sender<Chunk>,
    makers: Makers,
    /// The place among the makers. It is given back while this writer waits for the client.
    place: Option<OwnedSemaphorePermit>,
    picker: Picker,
    chunk: Vec<u8>,
    gone: bool,
    waited: Duration,
}

impl Chunks {
    /// Waits for a place to make a layer.
    ///
    /// # Errors
    /// Fails if the client goes away, or no further layers are made.
    pub fn take_place(&mut self) -> io::Result<()> {
        let place = Arc::clone(&self.makers.0).acquire_owned();
        self.place = Some(self.wait(place)?.map_err(io::Error::other)?);
        Ok(())
    }

    /// Gives the place back, so that another layer can be made.
    pub fn give_place_back(&mut self) {
        self.place = None;
    }

    /// Returns whether writing `bytes` bytes, at most [`CHUNK`], would wait for the client.
    pub fn would_wait(&self, bytes: usize) -> bool {
        self.chunk.len() + bytes > CHUNK && self.sender.capacity() == 0
    }

    /// Checks that the client is still there.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::BrokenPipe`] if the client went away.
    pub fn check_client(&mut self) -> io::Result<()> {
        self.gone |= self.sender.is_closed();
        if self.gone { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    /// Returns the rest of the part that is sent next, or `None` after the last part.
    pub fn wanted(&self) -> Option<Range<u64>> {
        self.picker.wanted()
    }

    /// Takes the next byte that is written for the one at `position` in the blob, for callers that
    /// need not begin at its first byte. Bytes that the client was sent are skipped.
    pub fn go_to(&mut self, position: u64) {
        self.picker.go_to(position);
    }

    /// Waits for a future, on a thread that may block, unless the client goes away.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::BrokenPipe`] if the client went away.
    pub fn wait<T>(&mut self, what: impl Future<Output = T>) -> io::Result<T> {
        let found = tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                biased;
                () = self.sender.closed() => None,
                found = what => Some(found),
            }
        });
        self.gone |= found.is_none();
        found.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Returns the time that was spent waiting for the client, or for a place.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Returns whether the client went away.
    pub fn gone(&self) -> bool {
        self.gone
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(CHUNK) {
            if self.chunk.len() + piece.len() > CHUNK {
                self.send_chunk()?;
            }
            self.chunk.extend_from_slice(piece);
        }
        Ok(())
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let next = Vec::with_capacity(CHUNK);
        let chunk = Bytes::from(std::mem::replace(&mut self.chunk, next));
        let sent = match self.sender.try_send(Ok(chunk)) {
            Err(TrySendError::Full(chunk)) => {
                let begin = Instant::now();
                // A slow client does not keep a place from others.
                let had_place = self.place.take().is_some();
                let sent = self.sender.blocking_send(chunk).is_ok();
                if had_place && sent {
                    self.take_place()?;
                }
                self.waited += begin.elapsed();
                sent
            }
            Err(TrySendError::Closed(_)) => false,
            Ok(()) => true,
        };
        self.gone = !sent;
        if sent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Check this even if the bytes are skipped and nothing is sent.
        self.check_client()?;
        // The picker calls back into this writer: take it out meanwhile.
        let mut picker = std::mem::replace(&mut self.picker, Picker::new(Parts::none()));
        let picked = picker.pick(bytes, |bytes| self.add(bytes));
        self.picker = picker;
        picked?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
