//! Finds the place from which a client gets a blob.
//! Stage: registry. Input: an object. Output: [`BlobSource`].

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Method;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

/// The time for which a signed address is valid: a client must begin to read within it.
const VALIDITY: Duration = Duration::from_secs(15 * 60);
/// The number of bytes of a file's chunk, and the number of chunks that are ready before the client
/// takes them.
const CHUNK: usize = 128 << 10;
const READY: usize = 2;

/// A blob's bytes, in order.
pub type BlobStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The place from which a client gets a blob.
pub enum BlobSource {
    /// The storage itself: the client is redirected there (307). The address is valid for GET only,
    /// not for HEAD.
    Url {
        /// The address. It supports ranges.
        url: SignedUrl,
        /// The size of the blob in bytes.
        size: u64,
    },
    /// A stream of bytes that this server passes on.
    Stream {
        /// The bytes of the range.
        body: BlobStream,
        /// The size of the blob in bytes.
        size: u64,
        /// The range of the bytes: the whole blob, or the range that was asked for as far as the
        /// blob has it.
        range: Range<u64>,
    },
}

impl BlobSource {
    /// Returns the size of the blob in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Url { size, .. } | Self::Stream { size, .. } => *size,
        }
    }
}

impl fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, size } => {
                f.debug_struct("Url").field("url", url).field("size", size).finish()
            }
            Self::Stream { size, range, .. } => {
                let mut text = f.debug_struct("Stream");
                text.field("size", size).field("range", range).finish_non_exhaustive()
            }
        }
    }
}

/// An address with which any client can read an object, for a quarter of an hour. It is meant for
/// one client only: it has no `Display`, and `Debug` does not show it.
#[derive(Clone)]
pub struct SignedUrl(String);

impl SignedUrl {
    /// Returns the address, for a `Location` header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedUrl(…)")
    }
}

/// Returns the object's address, signed.
pub async fn sign(signer: &dyn Signer, object: &Path) -> object_store::Result<SignedUrl> {
    let url = signer.signed_url(Method::GET, object, VALIDITY).await?;
    Ok(SignedUrl(url.into()))
}

/// Reads an object, or a range of it. Returns the bytes and the actual range. Reading may take any
/// time, but fails after a `silence` without bytes.
pub async fn read(
    store: &dyn ObjectStore,
    object: &Path,
    range: Option<Range<u64>>,
    size: u64,
    silence: Duration,
) -> object_store::Result<(BlobStream, Range<u64>)> {
    let Range { start, end } = range.unwrap_or(0..size);
    let range = start.min(size)..end.min(size);
    if range.is_empty() {
        let end = range.start;
        return Ok((Box::pin(tokio_stream::empty()), end..end));
    }
    let wanted = GetRange::Bounded(range.clone());
    let found = store.get_opts(object, GetOptions::new().with_range(Some(wanted))).await?;
    let body: BlobStream = match found.payload {
        GetResultPayload::File(file, _) => Box::pin(read_file(file, range.clone())),
        GetResultPayload::Stream(stream) => {
            let stream = Box::pin(stream.map(|bytes| bytes.map_err(io::Error::other)));
            Box::pin(Unsilent { stream, silence, waiting: None })
        }
    };
    Ok((body, range))
}

/// Fails if the stream has no bytes for too long. The time in which the receiver does not ask for
/// bytes does not count: a client may be slow.
struct Unsilent {
    stream: BlobStream,
    silence: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Stream for Unsilent {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(bytes) = self.stream.as_mut().poll_next(context) {
            self.waiting = None;
            return Poll::Ready(bytes);
        }
        let silence = self.silence;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(silence)));
        ready!(waiting.as_mut().poll(context));
        let silent = format!("the storage sent nothing for {silence:?}");
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, silent))))
    }
}

/// Reads a file on a blocking thread, since reading a file blocks.
fn read_file(file: File, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (sender, receiver) = channel(READY);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send_file(&file, range, &sender) {
            // The receiver may be gone.
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}

fn send_file(
    file: &File,
    Range { mut start, end }: Range<u64>,
    out: &Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    while start < end {
        let mut chunk = vec![0; (end - start).min(CHUNK as u64) as usize];
        file.read_exact_at(&mut chunk, start)?;
        start += chunk.len() as u64;
        if out.blocking_send(Ok(chunk.into())).is_err() {
            break; // the client went away
        }
    }
    Ok(())
}
