//! Questions and answers over HTTP: for how long, and how often.
//! Stage: registry. Input: attempts. Output: what the last of them came to.

use std::time::Duration;

use ureq::config::Config;
use ureq::{Agent, Proxy};

use super::answer::Answer;
use super::connect::{Network, ProxyError, TlsProblem};
use super::error::ClientError;
use super::retry::{ATTEMPTS, is_transient, wait};
use crate::outgoing;
use crate::outgoing::Watch;

const CONNECT: Duration = Duration::from_secs(30);
/// For the registry to answer a whole request: it may have a large blob to look at. Who neither
/// says nor takes a byte for as long is gone, even if nobody closed the connection: less would
/// cut answers short (ureq's limit of a read is that of their first byte, too), and uploads over
/// slow lines, where a full buffer takes a while until there is room in it again.
const ANSWER: Duration = Duration::from_secs(300);

/// What asks, and asks again.
pub struct Exchange<'a> {
    /// What asks once.
    pub agent: Agent,
    watch: &'a dyn Watch,
}

impl<'a> Exchange<'a> {
    /// With nobody yet.
    pub fn new(network: &Network, watch: &'a dyn Watch) -> Self {
        Self { agent: network.agent(|proxy| config(proxy, ANSWER)), watch }
    }

    /// Tries something until it comes to its end (`Ok`), or to an answer (`Err`) that stays the
    /// same.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if the last attempt had no answer, or [`outgoing::Error::Write`] if who
    /// watches wants no more.
    pub fn persist<T>(
        &self,
        url: &str,
        mut attempts: impl FnMut() -> Result<Result<T, Answer>, ureq::Error>,
    ) -> Result<Result<T, Answer>, ClientError> {
        let mut attempt = 0;
        loop {
            let last = attempt + 1 == ATTEMPTS;
            let (reason, after) = match attempts() {
                Ok(Err(answer)) if is_transient(answer.status) && !last => (
                    format!("status {}", answer.status),
                    answer.header("retry-after").map(str::to_owned),
                ),
                Ok(end) => return Ok(end),
                Err(error) if is_permanent(&error) => return Err(no_answer(url, &error)),
                Err(error) if !last => (error.to_string(), None),
                Err(error) => return Err(no_answer(url, &error)),
            };
            self.pause(attempt, after.as_deref(), &format!("{url}: {reason}"))?;
            attempt += 1;
        }
    }

    /// Waits before the next attempt, and says so.
    ///
    /// # Errors
    /// [`outgoing::Error::Write`] if who watches wants no more.
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

/// Tells whether trying again would come to the same.
fn is_permanent(error: &ureq::Error) -> bool {
    TlsProblem::of(error).is_some_and(|problem| problem.is_permanent())
        || ProxyError::of(error).is_some_and(|error| error.is_permanent)
}

/// Returns the error of a request that has no answer.
fn no_answer(url: &str, error: &ureq::Error) -> ClientError {
    let url = url.to_owned();
    if let Some(problem) = TlsProblem::of(error) {
        return ClientError::Tls { url, problem };
    }
    match ProxyError::of(error) {
        Some(error) => ClientError::Proxy { url, error: error.clone() },
        None => ClientError::Unreachable { url, reason: error.to_string() },
    }
}

/// Asks once, and waits for no answer and no byte longer than that.
fn config(proxy: Option<Proxy>, limit: Duration) -> Config {
    Agent::config_builder()
        .proxy(proxy)
        .http_status_as_error(false)
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
