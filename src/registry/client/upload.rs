//! Sends one blob to a registry (distribution-spec, "Pushing Blobs").
//! Stage: registry. Input: a blob's digest, and a function that makes it. Output: the blob in the
//! registry.

use std::io::{self, BufReader, Write};

use super::answer::Answer;
use super::authorization::Said;
use super::body_stream::{Rest, Whole};
use super::error::ClientError;
use super::exchange::Payload;
use super::no_answer::NoAnswer;
use super::repository::{Client, Presence};
use super::retry::{ATTEMPTS, is_transient};
use crate::digest::BlobDigest;
use crate::foreign::PublicUrl;
use crate::outgoing::{self, RepositoryName};

const BUFFER: usize = 256 << 10;
/// The size up to which a blob is sent in the request that ends its upload. This saves a round
/// trip, but such a request can't be continued.
pub const SMALL: u64 = 2 << 20;
/// The number of times that an upload may be redirected, or be sent in another way.
const TURNS: usize = 5;

/// The number of times that a blob is sent in a `PATCH` of which nothing arrives.
const PATCHES: u32 = 2;

/// A blob that the registry lacks.
pub struct Upload<'a> {
    /// The client for its repository.
    pub client: &'a Client<'a>,
    /// The digest of the blob.
    pub digest: BlobDigest,
    /// The number of bytes.
    pub size: u64,
    /// True if the registry is believed when it says that it has the blob. False after that was
    /// wrong once.
    pub trusts: bool,
}

/// The result of asking to mount a blob of another repository.
pub enum Mount {
    /// The blob was mounted.
    Mounted,
    /// The blob has to be sent, to this address.
    Begun(String),
}

impl Upload<'_> {
    /// Asks to mount the blob from other repositories of the registry, one after the other, or else
    /// to begin an upload. A repository that can't be asked is not an error: the blob is sent
    /// instead.
    pub fn mount(&self, from: &[RepositoryName]) -> Result<Mount, ClientError> {
        let mut begun = None;
        for repository in from {
            let Some(answer) = self.client.mount(&self.digest, repository)? else { continue };
            let location = self.client.location(&answer).filter(|_| answer.is_success());
            // Some registries answer 201 for an upload that has only begun.
            let is_upload =
                location.as_ref().is_some_and(|location| location.contains("/blobs/uploads/"));
            let is_mounted = answer.status == 201 && !is_upload;
            let earlier: Option<String> = match location {
                _ if is_mounted => begun.take(),
                // The blob is not in that repository, or the user may not read it.
                Some(location) => begun.replace(location),
                None => None,
            };
            if let Some(earlier) = earlier {
                self.cancel(&earlier);
            }
            if is_mounted {
                return Ok(Mount::Mounted);
            }
        }
        match begun {
            Some(location) => Ok(Mount::Begun(location)),
            None => self.begin().map(Mount::Begun),
        }
    }

    /// Sends a blob whose bytes are in memory.
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), ClientError> {
        self.send(None, |out| Ok(out.write_all(bytes).map_err(outgoing::Error::Write)?))
    }

    /// Cancels an upload. If the request fails, the registry's own timeout ends the upload.
    fn cancel(&self, location: &str) {
        let _ = self.client.attempt("DELETE", location, Payload::None, &self.client.said());
    }

    fn begin(&self) -> Result<String, ClientError> {
        let answer = self.client.request("POST", &self.client.url("blobs/uploads/"))?;
        match self.client.location(&answer) {
            Some(location) if answer.is_success() => Ok(location),
            None if answer.is_success() => Err(ClientError::Unreachable {
                url: PublicUrl::of(&answer.url),
                reason: NoAnswer::NoLocation,
            }),
            _ => Err(self.client.refused("a blob", &answer)),
        }
    }

    /// Sends the bytes that `make` writes, and lets the registry check them. Resumes where the
    /// registry lost them. A blob that could not be made is not in the registry afterwards.
    ///
    /// The bytes are in a `PATCH`, which can be resumed, and a `PUT` completes the upload. If the
    /// registry refuses the `PATCH`, they are in the `PUT` (distribution-spec, "POST then PUT").
    pub fn send(
        &self,
        begun: Option<String>,
        make: impl Fn(&mut dyn Write) -> Result<(), ClientError> + Sync,
    ) -> Result<(), ClientError> {
        let mut sending = Sending::new(self, begun);
        loop {
            let here = match sending.next.take() {
                Some(place) => place,
                None => Place { location: self.begin()?, offset: 0 },
            };
            let said = self.client.said();
            let verdict = match self.step(sending.step, &here, &said, &make) {
                Ok(Sent::All(end)) => sending.complete(&end)?,
                Ok(Sent::Refused(answer)) => sending.refused(&here, &said, answer)?,
                Err(failed) => sending.failed(&here, failed)?,
            };
            match verdict {
                Verdict::Done => {
                    self.client.blob_moved();
                    return Ok(());
                }
                Verdict::Again => {}
                Verdict::Retry(reason) => sending.retry(&here, reason)?,
            }
        }
    }

    fn unreachable(&self, place: &Place, reason: NoAnswer) -> ClientError {
        ClientError::Unreachable { url: PublicUrl::of(&place.location), reason }
    }

    /// Asks how much of the blob has arrived, and where the rest goes (distribution-spec, "Resuming
    /// an interrupted upload"). Returns `None` if the blob has to be sent from the start.
    fn where_it_is(&self, here: &Place) -> Option<Place> {
        let answer = self.client.request("GET", &here.location).ok()?;
        let location = self.client.location(&answer).unwrap_or_else(|| here.location.clone());
        let offset = answer.header("range").and_then(|range| arrived(range, self.size))?;
        answer.is_success().then_some(Place { location, offset })
    }

    /// Completes the upload. Returns the registry's answer if the registry then does not have the
    /// blob.
    fn finish(&self, location: &str) -> Result<Option<Answer>, ClientError> {
        let answer = self.client.request("PUT", &self.end_of(location))?;
        // The answer to an earlier attempt may have been lost, although it was a success. The
        // upload then no longer exists, and a second request to complete it fails. So ask whether
        // the blob is there.
        Ok((!answer.is_success() && !self.is_there()).then_some(answer))
    }

    /// Returns the address of the request that completes the upload. An address from a redirection
    /// may contain the digest already.
    fn end_of(&self, location: &str) -> String {
        let separator = match location.split_once('?') {
            Some((_, query)) if query.split('&').any(|pair| pair.starts_with("digest=")) => {
                return location.to_owned();
            }
            Some(_) => '&',
            None => '?',
        };
        format!("{location}{separator}digest={}", self.digest)
    }

    /// Returns whether the registry says that it has the blob, and is believed.
    fn is_there(&self) -> bool {
        let presence = || self.client.has_blob(&self.digest, self.size);
        self.trusts && matches!(presence(), Ok(Presence::There))
    }

    /// Sends the bytes that have not arrived yet.
    fn step(
        &self,
        step: Step,
        here: &Place,
        said: &Said,
        make: &(impl Fn(&mut dyn Write) -> Result<(), ClientError> + Sync),
    ) -> Result<Sent, Failed> {
        let Place { ref location, offset } = *here;
        let length = self.size - offset;
        if length == 0 && offset > 0 {
            return Ok(Sent::All(location.clone()));
        }
        let (method, url) = match step {
            Step::Patch => ("PATCH", location.clone()),
            Step::Put => ("PUT", self.end_of(location)),
        };
        let (reader, writer) =
            io::pipe().map_err(|error| Failed::Made(outgoing::Error::Write(error).into()))?;
        std::thread::scope(|scope| {
            let made = scope.spawn(move || {
                let mut out = Rest { out: writer, skip: offset, gone: false };
                let result = make(&mut out);
                // If the receiving side is gone, its own error has the cause.
                (result, out.gone)
            });
            let mut reader =
                Whole { reader: BufReader::with_capacity(BUFFER, reader), left: length };
            let payload = Payload::Stream { reader: &mut reader, length, offset };
            let sent = self.client.attempt(method, &url, payload, said);
            drop(reader);
            match made.join() {
                Ok((Err(error), false)) => Err(Failed::Made(error)),
                _ => match sent.map_err(Failed::Sent)? {
                    answer if answer.is_success() => {
                        let next = self.client.location(&answer);
                        Ok(Sent::All(next.unwrap_or_else(|| location.clone())))
                    }
                    answer => Ok(Sent::Refused(answer)),
                },
            }
        })
    }
}

/// The next step after the answer to a request.
enum Verdict {
    /// The registry has the blob.
    Done,
    /// The next request is another one. The attempt goes on.
    Again,
    /// The attempt failed, for this reason.
    Retry(String),
}

/// The state of sending a blob, from one request to the next.
struct Sending<'u> {
    upload: &'u Upload<'u>,
    /// The place of the next request; none if an upload has to begin.
    next: Option<Place>,
    /// The kind of the next request.
    step: Step,
    /// The number of attempts that failed.
    attempt: u32,
    /// The number of times that the blob was sent in another way, or to another address.
    turns: usize,
    /// True if this attempt has fetched new credentials.
    authenticated: bool,
    /// True if the registry does not support `PATCH`.
    patch_refused: bool,
}

impl<'u> Sending<'u> {
    fn new(upload: &'u Upload<'u>, begun: Option<String>) -> Self {
        let is_put = upload.size <= SMALL || upload.client.takes_no_patch();
        Self {
            upload,
            next: begun.map(|location| Place { location, offset: 0 }),
            step: if is_put { Step::Put } else { Step::Patch },
            attempt: 0,
            turns: 0,
            authenticated: false,
            patch_refused: false,
        }
    }

    /// Completes the upload of bytes that have arrived.
    fn complete(&self, end: &str) -> Result<Verdict, ClientError> {
        let upload = self.upload;
        if self.step == Step::Put {
            if self.patch_refused {
                upload.client.patch_nothing();
            }
            return Ok(Verdict::Done);
        }
        match upload.finish(end)? {
            None => Ok(Verdict::Done),
            // The bytes were checked here, so they are not at fault. If the upload does not exist any
            // more, the registry has lost it.
            Some(answer) if may_be_sent_again(answer.status, 1) => {
                Ok(Verdict::Retry(format!("status {} at the end", answer.status)))
            }
            Some(answer) => Err(upload.client.refused("a blob", &answer)),
        }
    }

    /// Reacts to an answer by which the registry does not accept the bytes.
    fn refused(
        &mut self,
        here: &Place,
        said: &Said,
        answer: Answer,
    ) -> Result<Verdict, ClientError> {
        let upload = self.upload;
        let is_patch = self.step == Step::Patch;
        if answer.asks_for_authorization() && !self.authenticated {
            self.authenticated = true;
            upload.client.authenticate(&answer, said)?;
            self.next = if is_patch { upload.where_it_is(here) } else { None };
            return Ok(Verdict::Again);
        }
        // The upload may no longer exist: begin a new one.
        if is_patch && here.offset == 0 && may_be_no_patch(answer.status) {
            upload.cancel(&here.location);
            self.step = Step::Put;
            // With one of these statuses, the upload may have been lost. With any other one, `PATCH`
            // was refused.
            self.patch_refused = !matches!(answer.status, 404 | 416);
            return Ok(Verdict::Again);
        }
        // No byte has been sent yet. Send the blob in the way that the answer asks for.
        if is_turned(&answer) && self.turns < TURNS {
            self.turns += 1;
            let location = if answer.status == 417 {
                upload.client.expect_nothing();
                Some(here.location.clone())
            } else {
                upload.client.location(&answer)
            };
            self.next = location.map(|location| Place { location, offset: here.offset });
            return Ok(Verdict::Again);
        }
        // The answer to an earlier attempt may have been lost, although the blob arrived.
        if !is_patch && upload.is_there() {
            return Ok(Verdict::Done);
        }
        if may_be_sent_again(answer.status, here.offset) {
            return Ok(Verdict::Retry(format!("status {}", answer.status)));
        }
        Err(upload.client.refused("a blob", &answer))
    }

    /// Reacts to a request that was not answered.
    fn failed(&mut self, here: &Place, failed: Failed) -> Result<Verdict, ClientError> {
        match failed {
            Failed::Made(error) => {
                // The upload will not be resumed.
                self.upload.cancel(&here.location);
                Err(error)
            }
            // Some gateways add headers to `100 Continue`. Send the body without waiting for it.
            Failed::Sent(NoAnswer::Continue) if self.turns < TURNS => {
                self.turns += 1;
                self.upload.client.expect_nothing();
                Ok(Verdict::Again)
            }
            Failed::Sent(reason) if reason.is_permanent() => {
                Err(self.upload.unreachable(here, reason))
            }
            Failed::Sent(reason) => Ok(Verdict::Retry(reason.to_string())),
        }
    }

    /// Waits before the next attempt, and decides where it begins.
    fn retry(&mut self, here: &Place, reason: String) -> Result<(), ClientError> {
        let upload = self.upload;
        self.attempt += 1;
        if self.attempt == ATTEMPTS {
            return Err(upload.unreachable(here, NoAnswer::Broken(reason)));
        }
        upload.client.pause(self.attempt - 1, &upload.digest, &reason)?;
        self.authenticated = false;
        // If resuming has failed once, the registry's offset can't be relied on: begin again.
        let may_resume = self.step == Step::Patch && here.offset == 0;
        self.next = if may_resume { upload.where_it_is(here) } else { None };
        // If the registry refuses the request in the middle of the bytes, this client only sees a
        // broken connection.
        if self.next.is_none() && self.attempt == PATCHES {
            self.step = Step::Put;
        }
        Ok(())
    }
}

/// The request that contains a blob's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A request that can be resumed. Another one completes the upload.
    Patch,
    /// The request that completes the upload.
    Put,
}

enum Sent {
    /// The bytes have arrived. After a `PATCH`, the upload is completed at this address.
    All(String),
    /// The registry did not accept the bytes.
    Refused(Answer),
}

enum Failed {
    /// The blob could not be made.
    Made(ClientError),
    /// The blob did not arrive.
    Sent(NoAnswer),
}

/// An upload's address, and the number of bytes that have arrived there.
struct Place {
    location: String,
    offset: u64,
}

/// Returns whether an answer asks to send the same bytes in another way, or to another address.
fn is_turned(answer: &Answer) -> bool {
    match answer.status {
        417 => true,
        301 | 302 | 307 | 308 => answer.header("location").is_some(),
        _ => false,
    }
}

/// Returns whether a registry that answers a `PATCH` with this status may not support `PATCH`.
fn may_be_no_patch(status: u16) -> bool {
    matches!(status, 400 | 404 | 405 | 411 | 415 | 416 | 501)
}

/// Returns whether an upload that was refused may succeed in another attempt. An upload that was
/// resumed may have been refused only because of its offset.
fn may_be_sent_again(status: u16, offset: u64) -> bool {
    is_transient(status)
        || matches!(status, 404 | 416)
        || (offset > 0 && matches!(status, 400 | 405 | 409 | 411))
}

/// Parses `0-N`, in which N is the offset of the last byte that arrived, and returns the number of
/// bytes. Registries answer `0-0` for no byte as well as for one: then returns `None`, and the blob
/// is sent again.
fn arrived(range: &str, size: u64) -> Option<u64> {
    let (first, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.parse().ok()?;
    (first == "0" && last > 0 && last < size).then_some(last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_read() {
        for (range, expected) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-0", None),
            ("5-99", None),
            ("0-999", None),
            ("0-1000", None),
            ("", None),
            ("0-x", None),
        ] {
            assert_eq!(arrived(range, 999), expected, "{range}");
        }
    }
}
