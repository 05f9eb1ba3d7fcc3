//! Compares a blob with its digest while it is read from a storage.
//! Stage: registry. Input: a stream of bytes. Output: the same stream, or an error before its end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use sha2::{Digest as _, Sha256};
use tokio_stream::Stream;

use super::source::BlobStream;
use crate::digest::BlobDigest;

/// Passes on a whole blob, and holds back its last piece until all of it was compared: a client
/// never gets all bytes of a wrong blob.
pub struct VerifiedStream<F> {
    stream: BlobStream,
    digest: BlobDigest,
    /// The number of bytes that are still to come.
    left: u64,
    hasher: Sha256,
    held: Option<Bytes>,
    /// The function that is called once, at the end, with whether the bytes have the digest.
    ended: Option<F>,
}

impl<F: FnOnce(bool) + Unpin> VerifiedStream<F> {
    /// Compares the `size` bytes of `stream` with `digest`, and calls `ended` with the result.
    pub fn new(stream: BlobStream, digest: BlobDigest, size: u64, ended: F) -> Self {
        Self { stream, digest, left: size, hasher: Sha256::new(), held: None, ended: Some(ended) }
    }

    fn end(&mut self) -> Option<io::Result<Bytes>> {
        let ended = self.ended.take()?;
        let found: [u8; 32] = std::mem::take(&mut self.hasher).finalize().into();
        let is_right = found == self.digest.digest().bytes();
        ended(is_right);
        if is_right {
            return self.held.take().map(Ok);
        }
        self.held = None;
        Some(Err(io::Error::other("the blob is not what its digest says")))
    }
}

impl<F: FnOnce(bool) + Unpin> Stream for VerifiedStream<F> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.stream.as_mut().poll_next(context)) {
                Some(Ok(bytes)) => {
                    self.hasher.update(&bytes);
                    self.left = self.left.saturating_sub(bytes.len() as u64);
                    if self.left > 0 {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    if let Some(before) = self.held.replace(bytes) {
                        return Poll::Ready(Some(Ok(before)));
                    }
                }
                Some(Err(error)) => {
                    self.ended = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(self.end()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio_stream::StreamExt;

    use super::*;
    use crate::digest::Digest;

    #[tokio::test]
    async fn the_last_piece_is_held_back() {
        for (pieces, right) in [
            (vec!["ab", "cd"], true),
            (vec!["ab", "cD"], false),
            (vec!["abcd"], true),
            (vec!["abc"], false),
            (vec![], false),
        ] {
            let bytes: Vec<_> =
                pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
            let told = Mutex::new(None);
            let digest = BlobDigest::new(Digest::of(b"abcd"));
            let stream = Box::pin(tokio_stream::iter(bytes));
            let verified =
                VerifiedStream::new(stream, digest, 4, |right| *told.lock().unwrap() = Some(right));
            let sent: Vec<_> = verified.collect().await;
            let text: Vec<u8> =
                sent.iter().flatten().flat_map(|bytes| bytes.iter().copied()).collect();
            assert_eq!(sent.iter().all(Result::is_ok), right, "{pieces:?}");
            assert_eq!(text == b"abcd", right, "{pieces:?}");
            assert!(right || text.len() < 4, "{pieces:?}");
            assert_eq!(*told.lock().unwrap(), Some(right), "{pieces:?}");
        }
    }
}
