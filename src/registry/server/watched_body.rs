//! Counts the bytes of an answer, and writes a line to the log at its end.
//! Stage: registry. Input: a response. Output: the response, and a line in the log.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use super::answer;
use super::guests::Busy;
use crate::registry::fair::FairPlace;
use crate::registry::metrics::Metrics;

/// The largest number of characters in the log of a path, and of the name of a program or user.
const PATH: usize = 512;
const NAME: usize = 128;

/// The header with the request's ID, by which a client can find its request in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request, from its beginning to the last byte of its answer.
pub struct ServedExchange {
    metrics: Arc<Metrics>,
    method: Method,
    path: String,
    client: IpAddr,
    user: String,
    agent: String,
    id: String,
    begin: Instant,
    route: &'static str,
    status: u16,
    bytes: u64,
    /// The number of bytes that the answer's headers announce.
    promised: Option<u64>,
    /// The request's place, which is kept until the end of the answer.
    place: Option<FairPlace<IpAddr>>,
    _busy: Busy,
}

impl ServedExchange {
    /// Begins with a request.
    pub fn new(metrics: &Arc<Metrics>, request: &Request, client: IpAddr, busy: Busy) -> Self {
        metrics.in_flight.inc();
        let agent = request.headers().get(header::USER_AGENT);
        Self {
            metrics: Arc::clone(metrics),
            method: request.method().clone(),
            path: for_log(request.uri().path().as_bytes(), PATH),
            client,
            user: String::new(),
            agent: for_log(agent.map_or(b"", |agent| agent.as_bytes()), NAME),
            id: new_id(),
            begin: Instant::now(),
            route: "none",
            status: 0,
            bytes: 0,
            promised: None,
            place: None,
            _busy: busy,
        }
    }

    /// Sets the user's name for the log. The name may be wrong.
    pub fn by(&mut self, user: &str) {
        self.user = for_log(user.as_bytes(), NAME);
    }

    /// Keeps a place until the end of the answer.
    pub fn hold(&mut self, place: FairPlace<IpAddr>) {
        self.place = Some(place);
    }

    /// Follows the answer, until all of it was sent or the client has gone away.
    pub fn watch(mut self, route: &'static str, mut response: Response) -> Response<WatchedBody> {
        self.status = response.status().as_u16();
        self.route = route;
        self.metrics.answered(route, self.status);
        self.promised = length(response.headers()).filter(|_| self.method != Method::HEAD);
        answer::set(&mut response, REQUEST_ID, &self.id);
        response.map(|body| WatchedBody { body, exchange: self })
    }
}

/// Returns an ID that no other request has, of this server or another one: the time when this
/// server began, and the number of the request.
fn new_id() -> String {
    static FIRST: AtomicU64 = AtomicU64::new(0);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let begun = (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 48);
    let first = match FIRST.compare_exchange(0, begun, Relaxed, Relaxed) {
        Ok(_) => begun,
        Err(first) => first,
    };
    format!("{first:016x}-{:x}", COUNT.fetch_add(1, Relaxed))
}

/// Returns a client's text for the log: at most `most` characters, without control characters.
fn for_log(text: &[u8], most: usize) -> String {
    // A character has at most four bytes.
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * most)]);
    let mut characters = text.chars();
    let mut shown: String = characters
        .by_ref()
        .take(most)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Drop for ServedExchange {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.took(self.route, self.begin.elapsed());
        let Self { method, path, client, user, agent, id, status, bytes, .. } = self;
        let ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.promised.is_some_and(|promised| promised != *bytes) || *status == 0 {
            tracing::warn!(%method, path, status, bytes, ms, %client, user, agent, id, "broken off");
        } else {
            tracing::info!(%method, path, status, bytes, ms, %client, user, agent, id, "answered");
        }
    }
}

/// The body that [`ServedExchange::watch`] returns.
pub struct WatchedBody {
    body: Body,
    exchange: ServedExchange,
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
            self.exchange.metrics.bytes_sent.inc_by(bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_short_lines_and_no_control_characters() {
        assert_eq!(for_log(b"curl/8", 10), "curl/8");
        assert_eq!(for_log("é\u{1b}[31m\u{9b}\n".as_bytes(), 10), "é\u{fffd}[31m\u{fffd}\u{fffd}");
        assert_eq!(for_log(&[0xff, b'a'], 10), "\u{fffd}a");
        let long = for_log("é".repeat(100_000).as_bytes(), 10);
        assert_eq!(long, format!("{}…", "é".repeat(10)));
    }

    #[test]
    fn ids_differ() {
        assert_ne!(new_id(), new_id());
    }
}
