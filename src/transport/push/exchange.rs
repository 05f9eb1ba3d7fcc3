//! Questions and answers over HTTP: for how long, and how often.
//! Stage: transport. Input: attempts. Output: what the last of them came to.

use std::time::Duration;

use ureq::Agent;
use ureq::tls::TlsConfig;

use super::answer::Answer;
use super::error::PushError;
use super::retry::{ATTEMPTS, is_transient, wait};
use crate::transport::Error;
use crate::transport::watch::Watch;

const CONNECT: Duration = Duration::from_secs(30);
/// For the registry to answer a whole request: it may have a large blob to look at.
const ANSWER: Duration = Duration::from_secs(300);

/// What asks, and asks again.
pub struct Exchange<'a> {
    /// What asks once.
    pub agent: Agent,
    watch: &'a dyn Watch,
}

impl<'a> Exchange<'a> {
    /// With nobody yet.
    pub fn new(tls: TlsConfig, watch: &'a dyn Watch) -> Self {
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .user_agent(concat!("stowage/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { agent, watch }
    }

    /// Tries something until it comes to its end (`Ok`), or to an answer (`Err`) that stays the
    /// same.
    ///
    /// # Errors
    /// [`PushError::Unreachable`] if the last attempt had no answer, or [`Error::Write`] if who
    /// watches wants no more.
    pub fn persist<T>(
        &self,
        url: &str,
        mut attempts: impl FnMut() -> Result<Result<T, Answer>, ureq::Error>,
    ) -> Result<Result<T, Answer>, Error> {
        let mut attempt = 0;
        loop {
            let last = attempt + 1 == ATTEMPTS;
            let (reason, after) = match attempts() {
                Ok(Err(answer)) if is_transient(answer.status) && !last => (
                    format!("status {}", answer.status),
                    answer.header("retry-after").map(str::to_owned),
                ),
                Ok(end) => return Ok(end),
                Err(error) if !last => (error.to_string(), None),
                Err(error) => {
                    let reason = error.to_string();
                    return Err(PushError::Unreachable { url: url.to_owned(), reason }.into());
                }
            };
            self.pause(attempt, after.as_deref(), &format!("{url}: {reason}"))?;
            attempt += 1;
        }
    }

    /// Waits before the next attempt, and says so.
    ///
    /// # Errors
    /// [`Error::Write`] if who watches wants no more.
    pub fn pause(
        &self,
        attempt: u32,
        retry_after: Option<&str>,
        reason: &str,
    ) -> Result<(), Error> {
        let wait = wait(attempt, retry_after);
        self.watch.retry(reason, wait);
        std::thread::sleep(wait);
        self.watch.advance(0).map_err(Error::Write)
    }
}
