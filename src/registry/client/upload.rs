//! Sends one blob to a registry (distribution-spec, "Pushing Blobs").
//! Stage: registry. Input: a blob's digest, and a function that makes it. Output: the blob in the
//! registry.

use std::io::{self, BufReader, Read, Write};

use super::answer::Answer;
use super::authorization::Said;
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
        let mut next = begun.map(|location| Place { location, offset: 0 });
        let mut attempt = 0;
        let mut turns = 0;
        let mut authenticated = false;
        let is_put = self.size <= SMALL || self.client.takes_no_patch();
        let mut step = if is_put { Step::Put } else { Step::Patch };
        let mut patch_refused = false;
        loop {
            let here = match next.take() {
                Some(place) => place,
                None => Place { location: self.begin()?, offset: 0 },
            };
            let said = self.client.said();
            let reason = match self.step(step, &here, &said, &make) {
                Ok(Sent::All(_)) if step == Step::Put => {
                    if patch_refused {
                        self.client.patch_nothing();
                    }
                    return Ok(());
                }
                Ok(Sent::All(end)) => match self.finish(&end)? {
                    None => return Ok(()),
                    // The bytes were checked here, so they are not at fault. If the upload does not
                    // exist any more, the registry has lost it.
                    Some(answer) if may_be_sent_again(answer.status, 1) => {
                        format!("status {} at the end", answer.status)
                    }
                    Some(answer) => return Err(self.client.refused("a blob", &answer)),
                },
                Ok(Sent::Refused(answer)) if answer.asks_for_authorization() && !authenticated => {
                    authenticated = true;
                    self.client.authenticate(&answer, &said)?;
                    next = if step == Step::Patch { self.where_it_is(&here) } else { None };
                    continue;
                }
                // The upload may no longer exist: begin a new one.
                Ok(Sent::Refused(answer))
                    if step == Step::Patch
                        && here.offset == 0
                        && may_be_no_patch(answer.status) =>
                {
                    self.cancel(&here.location);
                    step = Step::Put;
                    // With one of these statuses, the upload may have been lost. With any other
                    // one, `PATCH` was refused.
                    patch_refused = !matches!(answer.status, 404 | 416);
                    continue;
                }
                // No byte has been sent yet. Send the blob in the way that the answer asks for.
                Ok(Sent::Refused(answer)) if is_turned(&answer) && turns < TURNS => {
                    turns += 1;
                    if answer.status == 417 {
                        self.client.expect_nothing();
                        next = Some(here);
                    } else {
                        let location = self.client.location(&answer);
                        next = location.map(|location| Place { location, ..here });
                    }
                    continue;
                }
                // The answer to an earlier attempt may have been lost, although the blob arrived.
                Ok(Sent::Refused(_)) if step == Step::Put && self.is_there() => return Ok(()),
                Ok(Sent::Refused(answer)) if may_be_sent_again(answer.status, here.offset) => {
                    format!("status {}", answer.status)
                }
                Ok(Sent::Refused(answer)) => return Err(self.client.refused("a blob", &answer)),
                Err(Failed::Made(error)) => {
                    // The upload will not be resumed.
                    self.cancel(&here.location);
                    return Err(error);
                }
                // Some gateways add headers to `100 Continue`. Send the body without waiting for
                // it.
                Err(Failed::Sent(NoAnswer::Continue)) if turns < TURNS => {
                    turns += 1;
                    self.client.expect_nothing();
                    continue;
                }
                Err(Failed::Sent(reason)) if reason.is_permanent() => {
                    return Err(self.unreachable(&here, reason));
                }
                Err(Failed::Sent(reason)) => reason.to_string(),
            };
            attempt += 1;
            if attempt == ATTEMPTS {
                return Err(self.unreachable(&here, NoAnswer::Broken(reason)));
            }
            self.client.pause(attempt - 1, &format!("{}: {reason}", self.digest))?;
            authenticated = false;
            // If resuming has failed once, the registry's offset can't be relied on: begin again.
            let may_resume = step == Step::Patch && here.offset == 0;
            next = if may_resume { self.where_it_is(&here) } else { None };
            // If the registry refuses the request in the middle of the bytes, this client only sees
            // a broken connection.
            if next.is_none() && attempt == PATCHES {
                step = Step::Put;
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

/// Passes on the bytes after the first `skip`.
struct Rest<W> {
    out: W,
    skip: u64,
    gone: bool,
}

impl<W: Write> Write for Rest<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = self.skip.min(bytes.len() as u64) as usize;
        if skipped > 0 {
            self.skip -= skipped as u64;
            return Ok(skipped);
        }
        let written = self.out.write(bytes);
        self.gone |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A reader that fails if the bytes end early: the registry must not wait for bytes that never
/// come.
struct Whole<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
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

    #[test]
    fn the_rest_is_what_comes_after() {
        for skip in [0, 1, 4, 5, 9, 10] {
            let mut rest = Rest { out: Vec::new(), skip, gone: false };
            rest.write_all(b"01234").unwrap();
            rest.write_all(b"56789").unwrap();
            assert_eq!(rest.out, b"0123456789"[skip as usize..]);
        }
    }

    #[test]
    fn an_early_end_is_an_error() {
        let mut whole = Whole { reader: &b"abc"[..], left: 4 };
        assert_eq!(
            whole.read_to_end(&mut Vec::new()).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        let mut whole = Whole { reader: &b"abc"[..], left: 3 };
        assert_eq!(whole.read_to_end(&mut Vec::new()).unwrap(), 3);
    }
}
