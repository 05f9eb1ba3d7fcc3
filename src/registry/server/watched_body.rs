//! Counts the bytes of an answer, and writes a line to the log at its end.
//! Stage: registry. Input: a response. Output: the response, and a line in the log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use crate::registry::metrics::Metrics;

/// A request, from its beginning to the last byte of its answer.
pub struct Exchange {
    metrics: Arc<Metrics>,
    method: Method,
    path: String,
    begin: Instant,
    status: u16,
    bytes: u64,
    /// The number of bytes that the answer's headers announce.
    promised: Option<u64>,
}

impl Exchange {
    /// Begins with a request.
    pub fn new(metrics: &Arc<Metrics>, method: Method, path: String) -> Self {
        metrics.in_flight.add(1);
        let metrics = Arc::clone(metrics);
        Self { metrics, method, path, begin: Instant::now(), status: 0, bytes: 0, promised: None }
    }

    /// Follows the answer, until all of it was sent or the client has gone away.
    pub fn watch(mut self, route: &'static str, response: Response) -> Response<WatchedBody> {
        self.status = response.status().as_u16();
        self.metrics.answered(route, self.status);
        self.promised = length(response.headers()).filter(|_| self.method != Method::HEAD);
        response.map(|body| WatchedBody { body, exchange: self })
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.metrics.in_flight.decrement();
        let Self { method, path, status, bytes, .. } = self;
        let ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.promised.is_some_and(|promised| promised != *bytes) {
            tracing::warn!(%method, path, status, bytes, ms, "broken off");
        } else {
            tracing::info!(%method, path, status, bytes, ms, "answered");
        }
    }
}

/// The body that [`Exchange::watch`] returns.
pub struct WatchedBody {
    body: Body,
    exchange: Exchange,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.exchange.bytes += bytes;
            self.exchange.metrics.bytes_sent.add(bytes);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
