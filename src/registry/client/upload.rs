//! One blob on its way to a registry (distribution-spec, "Pushing Blobs").
//! Stage: registry. Input: a blob's digest and what makes it. Output: the blob, there.

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
use crate::outgoing;

const BUFFER: usize = 256 << 10;
/// How often an upload is sent on to another place, or is to be sent in another way.
const TURNS: usize = 5;

/// A blob that the registry lacks.
pub struct Upload<'a> {
    /// Its repository.
    pub client: &'a Client<'a>,
    /// What it is.
    pub digest: BlobDigest,
    /// How many bytes.
    pub size: u64,
    /// Whether the registry's word is taken for the blob being there. It is not where it turned
    /// out to be wrong.
    pub trusts: bool,
}

/// What came of asking for a blob of another repository.
pub enum Mount {
    /// It is here now.
    Mounted,
    /// It has to be sent, to this address.
    Begun(String),
}

impl Upload<'_> {
    /// Asks for the blob of other repositories of the registry, one after the other, or else to
    /// begin to send it. A repository that can't be asked is no error: the blob is sent, then.
    pub fn mount(&self, from: &[String]) -> Result<Mount, ClientError> {
        let mut begun = None;
        for repository in from {
            let Some(answer) = self.client.mount(&self.digest, repository)? else { continue };
            let location = self.client.location(&answer).filter(|_| answer.is_success());
            // Some say 201 of an upload that has only begun in its place.
            let is_upload =
                location.as_ref().is_some_and(|location| location.contains("/blobs/uploads/"));
            let is_mounted = answer.status == 201 && !is_upload;
            let earlier: Option<String> = match location {
                _ if is_mounted => begun.take(),
                // The blob isn't there, or we may not know.
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

    /// Tells the registry that nothing more comes. If it doesn't hear of it, it finds out itself.
    fn cancel(&self, location: &str) {
        let _ = self.client.attempt("DELETE", location, Payload::None, &self.client.said());
    }

    fn begin(&self) -> Result<String, ClientError> {
        let answer = self.client.request("POST", &self.client.url("blobs/uploads/"))?;
        match self.client.location(&answer) {
            Some(location) if answer.is_success() => Ok(location),
            _ => Err(self.client.refused("a blob", &answer)),
        }
    }

    /// Sends the bytes that `make` writes, from where the registry lost them if it did, and has
    /// it check them. A blob that could not be made is not there afterwards.
    pub fn send(
        &self,
        begun: Option<String>,
        make: impl Fn(&mut dyn Write) -> Result<(), ClientError> + Sync,
    ) -> Result<(), ClientError> {
        let mut next = begun.map(|location| Place { location, offset: 0 });
        let mut attempt = 0;
        let mut turns = 0;
        let mut authenticated = false;
        loop {
            let here = match next.take() {
                Some(place) => place,
                None => Place { location: self.begin()?, offset: 0 },
            };
            let said = self.client.said();
            let reason = match self.patch(&here, &said, &make) {
                Ok(Sent::All(end)) => match self.finish(&end)? {
                    None => return Ok(()),
                    // It can't be what was sent, which was checked here. An upload that is no
                    // more was lost by the registry.
                    Some(answer) if may_be_sent_again(answer.status, 1) => {
                        format!("status {} at the end", answer.status)
                    }
                    Some(answer) => return Err(self.client.refused("a blob", &answer)),
                },
                Ok(Sent::Refused(answer)) if answer.status == 401 && !authenticated => {
                    authenticated = true;
                    self.client.authenticate(&answer, &said)?;
                    next = self.where_it_is(&here);
                    continue;
                }
                // What was not sent yet is sent once more, otherwise.
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
                Ok(Sent::Refused(answer)) if may_be_sent_again(answer.status, here.offset) => {
                    format!("status {}", answer.status)
                }
                Ok(Sent::Refused(answer)) => return Err(self.client.refused("a blob", &answer)),
                Err(Failed::Made(error)) => {
                    // Nobody will want to go on with it.
                    self.cancel(&here.location);
                    return Err(error);
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
            // Whoever could not go on once has another idea of how far it is.
            next = if here.offset == 0 { self.where_it_is(&here) } else { None };
        }
    }

    fn unreachable(&self, place: &Place, reason: NoAnswer) -> ClientError {
        ClientError::Unreachable { url: PublicUrl::of(&place.location), reason }
    }

    /// Asks how much of the blob has arrived, and where the rest goes (distribution-spec,
    /// "Resuming an interrupted upload"); none if it has to be sent anew.
    fn where_it_is(&self, here: &Place) -> Option<Place> {
        let answer = self.client.request("GET", &here.location).ok()?;
        let location = self.client.location(&answer).unwrap_or_else(|| here.location.clone());
        let offset = answer.header("range").and_then(|range| arrived(range, self.size))?;
        answer.is_success().then_some(Place { location, offset })
    }

    /// Ends the upload; returns an answer, if the registry does not have the blob then.
    fn finish(&self, location: &str) -> Result<Option<Answer>, ClientError> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", self.digest);
        let answer = self.client.request("PUT", &url)?;
        if answer.is_success() {
            return Ok(None);
        }
        // An answer that was lost may have been a good one: then the upload is no more, and a
        // second request for its end is told just that. What counts is whether the blob is there.
        let is_there = || self.client.has_blob(&self.digest, self.size);
        if self.trusts && matches!(is_there(), Ok(Presence::There)) {
            return Ok(None);
        }
        Ok(Some(answer))
    }

    /// Sends what has not arrived yet.
    fn patch(
        &self,
        here: &Place,
        said: &Said,
        make: &(impl Fn(&mut dyn Write) -> Result<(), ClientError> + Sync),
    ) -> Result<Sent, Failed> {
        let Place { ref location, offset } = *here;
        let length = self.size - offset;
        if length == 0 && offset > 0 {
            return Ok(Sent::All(location.clone()));
        }
        let (reader, writer) =
            io::pipe().map_err(|error| Failed::Made(outgoing::Error::Write(error).into()))?;
        std::thread::scope(|scope| {
            let made = scope.spawn(move || {
                let mut out = Rest { out: writer, skip: offset, gone: false };
                let result = make(&mut out);
                // If the reader is gone, its own error says why.
                (result, out.gone)
            });
            let mut reader =
                Whole { reader: BufReader::with_capacity(BUFFER, reader), left: length };
            let payload = Payload::Stream { reader: &mut reader, length, offset };
            let sent = self.client.attempt("PATCH", location, payload, said);
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

enum Sent {
    /// All bytes have arrived; the upload is to be ended at this address.
    All(String),
    /// The registry did not take them.
    Refused(Answer),
}

enum Failed {
    /// The blob could not be made.
    Made(ClientError),
    /// It did not arrive.
    Sent(NoAnswer),
}

/// An upload's address, and how many bytes have arrived there.
struct Place {
    location: String,
    offset: u64,
}

/// Whether an answer asks to send the same bytes in another way, or to another place.
fn is_turned(answer: &Answer) -> bool {
    match answer.status {
        417 => true,
        301 | 302 | 307 | 308 => answer.header("location").is_some(),
        _ => false,
    }
}

/// Whether an upload that was refused is worth another attempt. One that was to go on somewhere
/// may have been refused for that place alone.
fn may_be_sent_again(status: u16, offset: u64) -> bool {
    is_transient(status)
        || matches!(status, 404 | 416)
        || (offset > 0 && matches!(status, 400 | 405 | 409 | 411))
}

/// `0-N`, of which N is the last byte that arrived. Registries say `0-0` of none as well as of
/// one: then it is sent anew.
fn arrived(range: &str, size: u64) -> Option<u64> {
    let (first, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.parse().ok()?;
    (first == "0" && last > 0 && last < size).then_some(last + 1)
}

/// Passes on what comes after the first `skip` bytes.
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

/// A reader whose early end is an error: the registry must not wait for what doesn't come.
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
