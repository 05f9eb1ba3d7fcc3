//! Sends requests over HTTP: follows redirections, limits the time, and tries again.
//! Stage: registry. Input: [`Request`]s. Output: responses.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Display;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use ureq::config::Config;
use ureq::http::{HeaderValue, Response};
use ureq::{Agent, Body, Proxy, ResponseExt, SendBody};

use super::address;
use super::answer::Answer;
use super::connect::{Network, Proxies};
use super::error::ClientError;
use super::no_answer::NoAnswer;
use super::origin::Origin;
use super::retry::{ATTEMPTS, is_transient, wait};
use crate::foreign::PublicUrl;
use crate::outgoing;
use crate::outgoing::Watch;

const CONNECT: Duration = Duration::from_secs(30);
/// The limit for the head of an answer, and for each read and write. It is long, since a registry
/// may hash a large blob before it answers, and since a slow line may take a while until it has
/// room for more. (ureq's limit for a read also applies to the first byte.)
const ANSWER: Duration = Duration::from_secs(300);
/// The smallest size of a body that is announced (`Expect: 100-continue`, RFC 9110, section
/// 10.1.1). If the registry refused during the body, the client would only see a broken connection.
const EXPECT: u64 = 1 << 20;
/// Media type of forms (WHATWG URL, section 5).
const FORM: &str = "application/x-www-form-urlencoded";
/// The largest number of redirections that are followed one after the other.
const REDIRECTIONS: usize = 10;
/// The largest number of idle connections that are kept, and of requests at the same time. It is enough to ask for the
/// 60 layers of an image, the default number, in one round trip.
pub const CONNECTIONS: usize = 64;

/// A request without its body.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    /// HTTP's method.
    pub method: &'static str,
    /// The address.
    pub url: &'r str,
    /// The media types that are accepted.
    pub accept: &'r str,
    /// The range of bytes to return: `bytes=1000-`.
    pub range: Option<&'r str>,
    /// The authorization of the request.
    pub proof: Option<Proof<'r>>,
}

/// An `Authorization` header, and the origin that may receive it. After a redirection to another
/// origin, the header is not sent.
#[derive(Clone, Copy)]
pub struct Proof<'r> {
    /// The value of the `Authorization` header.
    pub header: &'r str,
    /// An address at the origin that may receive it.
    pub at: &'r str,
}

impl<'r> Request<'r> {
    /// Returns a request for the whole contents of an address, in any format.
    pub fn new(method: &'static str, url: &'r str) -> Self {
        Self { method, url, accept: "*/*", range: None, proof: None }
    }
}

/// The body of a request.
pub enum Payload<'a> {
    /// An empty body.
    None,
    /// Bytes in memory.
    Bytes {
        /// The bytes.
        bytes: &'a [u8],
        /// The media type of the bytes.
        media_type: &'a str,
    },
    /// A form that contains credentials: it is not sent on to another origin.
    Form(&'a str),
    /// Bytes that are made while the request is sent.
    Stream {
        /// The reader of these bytes.
        reader: &'a mut dyn Read,
        /// The number of these bytes.
        length: u64,
        /// The number of bytes of the blob that were sent before.
        offset: u64,
    },
}

/// The result of a request that was tried several times.
pub enum Outcome<T> {
    /// The result of the request.
    Done(T),
    /// Another answer, which further attempts would not change.
    Answered(Answer),
}

/// Sends requests to a registry, and tries again.
pub struct Exchange<'a> {
    agent: Agent,
    origin: Origin,
    /// True if the registry has refused `Expect`.
    no_expectation: AtomicBool,
    proxies: Arc<Proxies>,
    watch: &'a dyn Watch,
    reported: Mutex<ReportedRetries>,
}

/// The retries that were reported since a blob was last moved completely. Many requests are under way at
/// a time, and if the registry is gone, all of them fail for one reason: the reason is reported once for
/// each attempt, and not for each request.
#[derive(Default)]
struct ReportedRetries(BTreeSet<(u32, String)>);

impl<'a> Exchange<'a> {
    /// Prepares requests to `origin`.
    pub fn new(network: &Network, origin: Origin, watch: &'a dyn Watch) -> Self {
        let agent = network.agent(|proxy| config(proxy, ANSWER));
        let (no_expectation, proxies) = (AtomicBool::new(false), Arc::clone(network.proxies()));
        Self { agent, origin, no_expectation, proxies, watch, reported: Mutex::default() }
    }

    /// Returns the registry's own address.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Replaces the origin, by one with the same host but without TLS.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
    }

    /// Sends bodies without `Expect` from now on.
    pub fn expect_nothing(&self) {
        self.no_expectation.store(true, Ordering::Relaxed);
    }

    /// Returns whether a body may be announced by `Expect`. A proxy that reads requests may wait for
    /// the body before it asks the registry.
    fn may_expect(&self, url: &str) -> bool {
        !self.no_expectation.load(Ordering::Relaxed) && !self.proxies.read_requests_to(url)
    }

    /// Sends a request once, and follows redirections. Unlike browsers, it keeps the method and the
    /// body, since no step of the distribution spec has another meaning as a `GET`. A stream is
    /// sent once: its redirection is returned as the answer.
    ///
    /// # Errors
    /// Fails with [`NoAnswer`] if there is no answer.
    pub fn send(&self, request: &Request, payload: Payload) -> Result<Response<Body>, NoAnswer> {
        let mut payload = payload;
        let mut url = request.url.to_owned();
        for _ in 0..=REDIRECTIONS {
            let response = self.send_once(&Request { url: &url, ..*request }, &mut payload)?;
            let is_followed = match response.status().as_u16() {
                301 | 302 | 307 | 308 => !matches!(payload, Payload::Stream { .. }),
                303 => matches!(request.method, "GET" | "HEAD"),
                _ => false,
            };
            let location = response.headers().get("location").and_then(|to| to.to_str().ok());
            let Some(location) = location.filter(|_| is_followed) else { return Ok(response) };
            let next = self.origin.resolve(&response.get_uri().to_string(), location);
            if matches!(payload, Payload::Form(_)) && !address::is_at(&url, &next) {
                return Ok(response);
            }
            url = next;
        }
        Err(NoAnswer::Redirections)
    }

    /// Sends a request once, to one address.
    ///
    /// # Errors
    /// Fails with [`NoAnswer`] if there is no answer.
    pub fn send_once(
        &self,
        request: &Request,
        payload: &mut Payload,
    ) -> Result<Response<Body>, NoAnswer> {
        let Request { method, url, accept, range, proof } = *request;
        self.origin.check(url)?;
        let mut request =
            ureq::http::Request::builder().method(method).uri(url).header("accept", accept);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        if let Some(proof) = proof.filter(|proof| address::is_at(proof.at, url)) {
            let value = HeaderValue::from_str(proof.header).map_err(|_| NoAnswer::BadToken)?;
            request = request.header("authorization", value);
        }
        let response = match payload {
            Payload::None if matches!(method, "POST" | "PUT" | "PATCH") => {
                self.agent.run(request.header("content-length", "0").body(SendBody::none())?)
            }
            Payload::None => self.agent.run(request.body(SendBody::none())?),
            Payload::Bytes { bytes, media_type } => {
                let request = request.header("content-type", *media_type);
                let request = request.header("content-length", bytes.len());
                let mut bytes = *bytes;
                self.agent.run(request.body(SendBody::from_reader(&mut bytes))?)
            }
            Payload::Form(form) => {
                let request = request.header("content-type", FORM);
                self.agent.run(request.header("content-length", form.len()).body(*form)?)
            }
            Payload::Stream { reader, length, offset } => {
                let (length, offset) = (*length, *offset);
                let mut request = request.header("content-type", "application/octet-stream");
                request = request.header("content-length", length);
                if length >= EXPECT && self.may_expect(url) {
                    request = request.header("expect", "100-continue");
                }
                if offset > 0 && length > 0 {
                    request = request
                        .header("content-range", format!("{offset}-{}", offset + length - 1));
                }
                self.agent.run(request.body(SendBody::from_reader(reader))?)
            }
        };
        Ok(response?)
    }

    /// Sends a request until there is an answer that further attempts would not change.
    ///
    /// # Errors
    /// Returns the errors of [`persist`](Self::persist).
    pub fn ask<'p>(
        &self,
        request: &Request,
        payload: impl Fn() -> Payload<'p>,
    ) -> Result<Answer, ClientError> {
        let attempt = || Ok(Outcome::Answered(Answer::read(self.send(request, payload())?)?));
        let Outcome::Answered(answer) = self.persist::<Infallible>(request.url, attempt)?;
        Ok(answer)
    }

    /// Repeats `attempts` until one has a result, or an answer that further attempts would not
    /// change.
    ///
    /// # Errors
    /// Fails with [`ClientError::Unreachable`] if the last attempt had no answer, and with
    /// [`outgoing::Error::Write`] if the watcher ended the copy.
    pub fn persist<T>(
        &self,
        url: &str,
        mut attempts: impl FnMut() -> Result<Outcome<T>, NoAnswer>,
    ) -> Result<Outcome<T>, ClientError> {
        let url = PublicUrl::of(url);
        let mut attempt = 0;
        loop {
            let last = attempt + 1 == ATTEMPTS;
            let (reason, after) = match attempts() {
                Ok(Outcome::Answered(answer)) if is_transient(answer.status) && !last => (
                    format!("status {}", answer.status),
                    answer.header("retry-after").map(str::to_owned),
                ),
                Ok(end) => return Ok(end),
                Err(reason) if last || reason.is_permanent() => {
                    return Err(ClientError::Unreachable { url, reason });
                }
                Err(reason) => (reason.to_string(), None),
            };
            self.pause(attempt, after.as_deref(), &url, &reason)?;
            attempt += 1;
        }
    }

    /// Waits before the next attempt at a subject, and reports the wait to the watcher, unless another
    /// subject waits for the same reason.
    ///
    /// # Errors
    /// Fails with [`outgoing::Error::Write`] if the watcher ended the copy.
    pub fn pause(
        &self,
        attempt: u32,
        retry_after: Option<&str>,
        subject: &dyn Display,
        reason: &str,
    ) -> Result<(), ClientError> {
        let wait = wait(attempt, retry_after, OffsetDateTime::now_utc());
        if self.reported().0.insert((attempt, reason.to_owned())) {
            self.watch.retry(&format!("{subject}: {reason}"), wait);
        }
        std::thread::sleep(wait);
        Ok(self.watch.advance(0).map_err(outgoing::Error::Write)?)
    }

    /// Notes that a blob was moved completely: from now on, a retry is news again.
    pub fn blob_moved(&self) {
        self.reported().0.clear();
    }

    fn reported(&self) -> MutexGuard<'_, ReportedRetries> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the configuration of an agent that sends a request once, and waits at most `limit` for an
/// answer and for each byte.
fn config(proxy: Option<Proxy>, limit: Duration) -> Config {
    Agent::config_builder()
        .proxy(proxy)
        .http_status_as_error(false)
        // `Exchange::send` follows redirections, by one rule for all addresses.
        .max_redirects(0)
        .max_idle_connections(2 * CONNECTIONS)
        .max_idle_connections_per_host(CONNECTIONS)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(limit))
        .timeout_per_read(Some(limit))
        .timeout_per_write(Some(limit))
        .user_agent(concat!("stowage/", env!("CARGO_PKG_VERSION")))
        .build()
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    use ureq::SendBody;

    use super::*;

    /// Returns the address of a server that sends the beginning of an answer, and then neither a
    /// byte nor an end.
    fn silent_after(beginning: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(beginning.as_bytes()).unwrap();
            std::thread::park();
        });
        url
    }

    #[test]
    fn nobody_waits_for_who_is_gone() {
        // This limit is longer than any machine takes to begin an answer.
        let limit = Duration::from_secs(1);
        let agent = config(None, limit).new_agent();
        let begun = Instant::now();
        // Check no answer, half of one, and a server that does not read the body.
        assert!(agent.get(silent_after("")).call().is_err());
        let half = silent_after("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        let mut reader = agent.get(half).call().unwrap().into_body().into_reader();
        let mut text = Vec::new();
        assert!(reader.read_to_end(&mut text).is_err());
        assert_eq!(text, b"half");
        let mut endless = io::repeat(0);
        assert!(agent.post(silent_after("")).send(SendBody::from_reader(&mut endless)).is_err());
        assert!(begun.elapsed() >= 3 * limit);
    }
}
