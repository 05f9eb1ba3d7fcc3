//! One blob on its way to a registry (distribution-spec, "Pushing Blobs").
//! Stage: registry. Input: a blob's digest and what makes it. Output: the blob, there.

use std::io::{self, BufReader, Read, Write};

use super::answer::Answer;
use super::error::ClientError;
use super::repository::{Client, Payload};
use super::retry::{ATTEMPTS, is_transient};
use crate::digest::BlobDigest;
use crate::outgoing;

const BUFFER: usize = 256 << 10;

/// A blob that the registry lacks.
pub struct Upload<'a> {
    /// Its repository.
    pub client: &'a Client<'a>,
    /// What it is.
    pub digest: BlobDigest,
    /// How many bytes.
    pub size: u64,
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
    /// begin to send it.
    pub fn mount(&self, from: &[String]) -> Result<Mount, ClientError> {
        let mut begun = None;
        for repository in from {
            let path = format!("blobs/uploads/?mount={}&from={repository}", self.digest);
            let answer = self.client.request("POST", &self.client.url(&path), Payload::None)?;
            let earlier: Option<String> = match answer.status {
                201 => begun.take(),
                // The blob isn't there, or we may not know: an upload has begun in its place.
                202 => self.client.location(&answer).and_then(|location| begun.replace(location)),
                _ => None,
            };
            if let Some(earlier) = earlier {
                self.cancel(&earlier);
            }
            if answer.status == 201 {
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
        let _ = self.client.attempt("DELETE", location, Payload::None);
    }

    fn begin(&self) -> Result<String, ClientError> {
        let answer =
            self.client.request("POST", &self.client.url("blobs/uploads/"), Payload::None)?;
        match self.client.location(&answer) {
            Some(location) if answer.status == 202 => Ok(location),
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
        let mut location = begun;
        let mut offset = 0;
        let mut attempt = 0;
        let mut authenticated = false;
        loop {
            let here = match location.take() {
                Some(location) => location,
                None => {
                    offset = 0;
                    self.begin()?
                }
            };
            let sent = self.patch(&here, offset, &make);
            let reason = match sent {
                Ok(answer) if answer.status == 202 => {
                    let next = self.client.location(&answer).unwrap_or_else(|| here.clone());
                    match self.finish(&next)? {
                        None => return Ok(()),
                        // It can't be what was sent, which was checked here. An upload that is
                        // no more was lost by the registry.
                        Some(answer)
                            if is_transient(answer.status)
                                || matches!(answer.status, 400 | 404 | 416) =>
                        {
                            format!("status {} at the end", answer.status)
                        }
                        Some(answer) => return Err(self.client.refused("a blob", &answer)),
                    }
                }
                Ok(answer) if answer.status == 401 && !authenticated => {
                    authenticated = true;
                    self.client.authenticate(&answer)?;
                    (location, offset) = self.where_it_is(&here);
                    continue;
                }
                Ok(answer) if is_transient(answer.status) || matches!(answer.status, 404 | 416) => {
                    format!("status {}", answer.status)
                }
                Ok(answer) => return Err(self.client.refused("a blob", &answer)),
                Err(Failed::Made(error)) => {
                    // Nobody will want to go on with it.
                    self.cancel(&here);
                    return Err(error);
                }
                Err(Failed::Sent(error)) => error.to_string(),
            };
            attempt += 1;
            if attempt == ATTEMPTS {
                return Err(super::error::ClientError::Unreachable { url: here, reason });
            }
            self.client.pause(attempt - 1, &format!("{}: {reason}", self.digest))?;
            authenticated = false;
            (location, offset) = self.where_it_is(&here);
        }
    }

    /// How much of the blob has arrived, and where the rest goes (distribution-spec, "Resuming
    /// an interrupted upload"); none if it has to be sent anew.
    fn where_it_is(&self, location: &str) -> (Option<String>, u64) {
        let Ok(answer) = self.client.request("GET", location, Payload::None) else {
            return (None, 0);
        };
        let next = self.client.location(&answer).unwrap_or_else(|| location.to_owned());
        let arrived = answer.header("range").and_then(|range| arrived(range, self.size));
        match (answer.status, arrived) {
            (204, Some(offset)) => (Some(next), offset),
            _ => (None, 0),
        }
    }

    /// Ends the upload; an answer, if the registry does not have the blob then.
    fn finish(&self, location: &str) -> Result<Option<Answer>, ClientError> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", self.digest);
        let answer = self.client.request("PUT", &url, Payload::None)?;
        // An answer that was lost may have been a good one: then the upload is no more, and who
        // asks again for its end is told just that. What counts is whether the blob is there.
        if answer.status == 201 || matches!(self.client.has_blob(&self.digest), Ok(true)) {
            return Ok(None);
        }
        Ok(Some(answer))
    }

    fn patch(
        &self,
        location: &str,
        offset: u64,
        make: &(impl Fn(&mut dyn Write) -> Result<(), ClientError> + Sync),
    ) -> Result<Answer, Failed> {
        let (reader, writer) =
            io::pipe().map_err(|error| Failed::Made(outgoing::Error::Write(error).into()))?;
        std::thread::scope(|scope| {
            let made = scope.spawn(move || {
                let mut out = Rest { out: writer, skip: offset, gone: false };
                let result = make(&mut out);
                // Who stopped reading says why itself.
                (result, out.gone)
            });
            let length = self.size - offset;
            let mut reader =
                Whole { reader: BufReader::with_capacity(BUFFER, reader), left: length };
            let payload = Payload::Stream { reader: &mut reader, length, offset };
            let sent = self.client.attempt("PATCH", location, payload);
            drop(reader);
            match made.join() {
                Ok((Err(error), false)) => Err(Failed::Made(error)),
                _ => sent.map_err(|error| Failed::Sent(Box::new(error))),
            }
        })
    }
}

enum Failed {
    /// The blob could not be made.
    Made(ClientError),
    /// It did not arrive.
    Sent(Box<ureq::Error>),
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
