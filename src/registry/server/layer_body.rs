//! A layer on its way to a client, made while it is sent.
//! Stage: registry. Input: what makes it. Output: chunks.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a chunk.
pub const CHUNK: usize = 128 << 10;
/// Chunks that are ready before the client takes them. Together with the one in the making
/// that is what a connection costs in memory, however slow it is.
const READY: usize = 2;

/// Bytes for a client, or the reason why there are no more.
pub type Chunk = Result<Bytes, io::Error>;

/// How many layers may be made at a time: as many as there are processors.
#[derive(Clone)]
pub struct Makers(Arc<Semaphore>);

impl Makers {
    /// With so many places.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }
}

/// Runs `make` on a blocking thread, and streams the bytes of `part` of what it writes.
///
/// The last chunk is held back until `make` has succeeded, so that a client never has all the
/// bytes it was promised of a blob that came out wrong.
pub fn send<E: Send>(
    makers: Makers,
    part: Range<u64>,
    make: impl FnOnce(&mut Chunks) -> Result<(), E> + Send + 'static,
    failed: impl FnOnce(E) + Send + 'static,
) -> Receiver<Chunk> {
    let (sender, receiver) = channel(READY);
    tokio::task::spawn_blocking(move || {
        let mut out = Chunks {
            sender,
            makers,
            place: None,
            skip: part.start,
            left: part.end - part.start,
            chunk: Vec::new(),
            gone: false,
            waited: Duration::ZERO,
        };
        let made = make(&mut out);
        let gone = out.gone;
        match made {
            Ok(()) => drop(out.send_chunk()),
            Err(error) => {
                // That the client went away is its own affair.
                if !gone {
                    failed(error);
                }
                // Only now: who hears of it looks for the reason.
                let broken = io::Error::other("the layer could not be made");
                drop(out.sender.blocking_send(Err(broken)));
            }
        }
    });
    receiver
}

/// Cuts what is written into chunks, and drops what the client didn't ask for.
pub struct Chunks {
    sender: Sender<Chunk>,
    makers: Makers,
    /// Given back while the client is waited for.
    place: Option<OwnedSemaphorePermit>,
    skip: u64,
    left: u64,
    chunk: Vec<u8>,
    gone: bool,
    waited: Duration,
}

impl Chunks {
    /// Waits for a place to make something.
    ///
    /// # Errors
    /// If there will be none.
    pub fn take_place(&mut self) -> io::Result<()> {
        let place = Arc::clone(&self.makers.0).acquire_owned();
        self.place = Some(self.wait(place)?.map_err(io::Error::other)?);
        Ok(())
    }

    /// Lets somebody else make something.
    pub fn give_place_back(&mut self) {
        self.place = None;
    }

    /// Whether to write some bytes, at most [`CHUNK`], is to wait for the client.
    pub fn would_wait(&self, bytes: usize) -> bool {
        self.chunk.len() + bytes > CHUNK && self.sender.capacity() == 0
    }

    /// Fails if the client went away.
    ///
    /// # Errors
    /// With [`io::ErrorKind::BrokenPipe`].
    pub fn check_client(&mut self) -> io::Result<()> {
        self.gone |= self.sender.is_closed();
        if self.gone { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    /// The part that the client asked for, where it can be written without what is before it:
    /// the next byte is taken for the part's first one.
    pub fn begin_at_part(&mut self) -> Range<u64> {
        let start = std::mem::take(&mut self.skip);
        start..start + self.left
    }

    /// The next byte that is written from now on is the blob's first one again, and the client
    /// has had those before `position`.
    pub fn go_on_at(&mut self, position: u64) {
        self.skip = position;
    }

    /// Waits for something, on a thread that may, unless the client goes away.
    ///
    /// # Errors
    /// With [`io::ErrorKind::BrokenPipe`].
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

    /// How long the client, or a place, was waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Whether the client went away.
    pub fn gone(&self) -> bool {
        self.gone
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
                // A slow client does not keep others waiting.
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
        // Also where nothing is sent, since it is not of the part that was asked for.
        self.check_client()?;
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        let wanted = &bytes[skipped as usize..];
        let wanted = &wanted[..wanted.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))];
        for piece in wanted.chunks(CHUNK) {
            if self.chunk.len() + piece.len() > CHUNK {
                self.send_chunk()?;
            }
            self.chunk.extend_from_slice(piece);
        }
        self.left -= wanted.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
