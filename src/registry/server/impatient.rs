//! Ends connections of clients that stop reading, or read next to nothing.
//! Stage: registry. Input: a connection. Output: a connection that may fail with `TimedOut`.
//!
//! Each client takes memory for bytes that are ready, and a thread that makes more. A client that
//! does not read must not keep these for ever.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The number of bytes for which a client gets the whole patience once more. A client that takes a
/// few bytes each minute would keep its place for weeks.
const ENOUGH: usize = 64 << 10;

/// A stream whose writes fail with `TimedOut` if they have waited for `patience` while the peer
/// accepted less than 64 KiB.
pub struct Impatient<S> {
    stream: S,
    patience: Option<Duration>,
    /// The end of the patience, while a write waits, and the time at which it began to wait.
    waiting: Option<(Pin<Box<Sleep>>, Instant)>,
    /// The time that writes have waited, and the bytes that the peer has accepted meanwhile.
    waited: Duration,
    accepted: usize,
}

impl<S> Impatient<S> {
    /// Wraps a stream. Without `patience`, writes wait for ever.
    pub fn new(stream: S, patience: Option<Duration>) -> Self {
        Self { stream, patience, waiting: None, waited: Duration::ZERO, accepted: 0 }
    }

    fn checked<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let Some(patience) = self.patience else { return written };
        if let Poll::Ready(written) = written {
            self.waited += self.waiting.take().map_or(Duration::ZERO, |(_, begin)| begin.elapsed());
            self.accepted += written.as_ref().map_or(0, bytes);
            if self.accepted >= ENOUGH {
                (self.waited, self.accepted) = (Duration::ZERO, 0);
            }
            return Poll::Ready(written);
        }
        let left = patience.saturating_sub(self.waited);
        let begin = || (Box::pin(sleep(left)), Instant::now());
        ready!(self.waiting.get_or_insert_with(begin).0.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.checked(context, written, |bytes| *bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.checked(context, written, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.checked(context, flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.checked(context, ended, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn who_does_not_read_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _idle = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = Impatient::new(stream, Some(Duration::from_millis(50)));
        let bytes = [0; 1 << 16];
        let error = loop {
            let write =
                |context: &mut Context<'_>| Pin::new(&mut stream).poll_write(context, &bytes);
            if let Err(error) = poll_fn(write).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_reads_next_to_nothing_is_not_waited_for() {
        for (taken, is_ended) in [(256, true), (64 << 10, false)] {
            let (stream, mut client) = tokio::io::duplex(128 << 10);
            let mut stream = Impatient::new(stream, Some(Duration::from_millis(300)));
            let reader = tokio::spawn(async move {
                let mut buffer = vec![0; taken];
                while client.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    sleep(Duration::from_millis(20)).await;
                }
            });
            let mut written = Ok(());
            for _ in 0..32 {
                written = written.and(stream.write_all(&[0; 64 << 10]).await);
            }
            assert_eq!(written.is_err(), is_ended, "{taken}: {written:?}");
            reader.abort();
        }
    }
}
