//! Requests over HTTP: where they may go, how long they may take, and how often they are tried.
//! Stage: registry. Input: [`Request`]s. Output: responses.

use std::convert::Infallible;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Response;
use ureq::{Agent, Body, Proxy, ResponseExt, SendBody};

use super::address;
use super::answer::Answer;
use super::connect::Network;
use super::error::ClientError;
use super::no_answer::NoAnswer;
use super::origin::Origin;
use super::retry::{ATTEMPTS, is_transient, wait};
use crate::foreign::PublicUrl;
use crate::outgoing;
use crate::outgoing::Watch;

const CONNECT: Duration = Duration::from_secs(30);
/// Limit for the head of an answer, and for each read and write. It is long, since a registry may
/// hash a large blob before it answers, and since a slow line may take a while until it has room
/// for more. (ureq's limit of a read is that of the first byte, too.)
const ANSWER: Duration = Duration::from_secs(300);
/// Bodies of this size or more are announced (`Expect: 100-continue`, RFC 9110, section 10.1.1): a
/// refusal during the body would only show as a broken connection.
const EXPECT: u64 = 1 << 20;
/// Media type of forms (WHATWG URL, section 5).
const FORM: &str = "application/x-www-form-urlencoded";
/// Redirections that are followed, one after the other.
const REDIRECTIONS: usize = 10;
/// Connections that are kept: one for each request that is under way at a time.
pub const CONNECTIONS: usize = 32;

/// A request, apart from what is sent with it.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    /// HTTP's method.
    pub method: &'static str,
    /// The address.
    pub url: &'r str,
    /// Media types that are understood.
    pub accept: &'r str,
    /// Bytes that are wanted of the whole: `bytes=1000-`.
    pub range: Option<&'r str>,
    /// Who asks.
    pub proof: Option<Proof<'r>>,
}

/// The proof of who asks, and for whom it is: whatever redirections say, no other origin gets it.
#[derive(Clone, Copy)]
pub struct Proof<'r> {
    /// Value of the `Authorization` header.
    pub header: &'r str,
    /// An address at the origin that may know it.
    pub at: &'r str,
}

impl<'r> Request<'r> {
    /// A request for all that an address has, in any format.
    pub fn new(method: &'static str, url: &'r str) -> Self {
        Self { method, url, accept: "*/*", range: None, proof: None }
    }
}

/// The body of a request.
pub enum Payload<'a> {
    /// No body.
    None,
    /// Bytes in memory.
    Bytes {
        /// The bytes.
        bytes: &'a [u8],
        /// Their media type.
        media_type: &'a str,
    },
    /// A form that proves who asks: it is sent on to no other origin.
    Form(&'a str),
    /// Bytes that are made meanwhile.
    Stream {
        /// The reader of these bytes.
        reader: &'a mut dyn Read,
        /// How many they are.
        length: u64,
        /// Bytes of the blob that were sent before.
        offset: u64,
    },
}

/// The end of a request that was tried several times.
pub enum Outcome<T> {
    /// What was asked for.
    Done(T),
    /// Another answer, which stays the same.
    Answered(Answer),
}

/// Sends requests to a registry, and tries again.
pub struct Exchange<'a> {
    agent: Agent,
    origin: Origin,
    /// Whether the registry has refused `Expect`.
    no_expectation: AtomicBool,
    watch: &'a dyn Watch,
}

impl<'a> Exchange<'a> {
    /// Prepares requests to `origin`.
    pub fn new(network: &Network, origin: Origin, watch: &'a dyn Watch) -> Self {
        let agent = network.agent(|proxy| config(proxy, ANSWER));
        Self { agent, origin, no_expectation: AtomicBool::new(false), watch }
    }

    /// Returns the registry's own address.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Goes on with another origin: the same host, without TLS.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
    }

    /// Sends bodies without `Expect` from now on.
    pub fn expect_nothing(&self) {
        self.no_expectation.store(true, Ordering::Relaxed);
    }

    /// Sends a request once, and follows redirections: with the same method and body, unlike
    /// browsers, since no step of the distribution spec has another meaning as a `GET`. A stream is
    /// sent once, so that its redirection is the answer.
    ///
    /// # Errors
    /// [`NoAnswer`].
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
    /// [`NoAnswer`].
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
            request = request.header("authorization", proof.header);
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
                if length >= EXPECT && !self.no_expectation.load(Ordering::Relaxed) {
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

    /// Sends a request until there is an answer that stays the same.
    ///
    /// # Errors
    /// As [`persist`](Self::persist).
    pub fn ask<'p>(
        &self,
        request: &Request,
        payload: impl Fn() -> Payload<'p>,
    ) -> Result<Answer, ClientError> {
        let attempt = || Ok(Outcome::Answered(Answer::read(self.send(request, payload())?)?));
        let Outcome::Answered(answer) = self.persist::<Infallible>(request.url, attempt)?;
        Ok(answer)
    }

    /// Repeats `attempts` until they come to an end: what was asked for, or an answer that stays
    /// the same.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if the last attempt had no answer, or
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
            self.pause(attempt, after.as_deref(), &format!("{url}: {reason}"))?;
            attempt += 1;
        }
    }

    /// Waits before the next attempt, and says so.
    ///
    /// # Errors
    /// [`outgoing::Error::Write`] if the watcher ended the copy.
    pub fn pause(
        &self,
        attempt: u32,
        retry_after: Option<&str>,
        reason: &str,
    ) -> Result<(), ClientError> {
        let wait = wait(attempt, retry_after);
        self.watch.retry(reason, wait);
        std::thread::sleep(wait);
        Ok(self.watch.advance(0).map_err(outgoing::Error::Write)?)
    }
}

/// Makes the configuration of an agent that asks once, and waits for no answer and no byte longer
/// than `limit`.
fn config(proxy: Option<Proxy>, limit: Duration) -> Config {
    Agent::config_builder()
        .proxy(proxy)
        .http_status_as_error(false)
        // They are followed here, by one rule for all addresses.
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

    /// An answer's beginning, and then neither a byte nor an end.
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
        // Longer than any machine takes to begin an answer.
        let limit = Duration::from_secs(1);
        let agent = config(None, limit).new_agent();
        let begun = Instant::now();
        // No answer; half of one; what is sent is not read.
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
