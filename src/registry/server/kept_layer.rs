//! A layer from the cache, or made and kept there.
//! Stage: registry. Input: an image's layer. Output: its bytes to a client.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::cache::{Entry, Follower, Growth, Place};
use super::layer_body::{CHUNK, Chunks};
use super::shared::Shared;
use crate::oci::{Form, ImageSpec, LayerBlob, LayerSource};
use crate::outgoing::{Error, ImageLayer};
use crate::outgoing::{write_checked_layer, write_hashed_layer};
use crate::sink::Plain;

/// One layer of an image.
pub struct Layer {
    /// The state of the server.
    pub shared: Arc<Shared>,
    /// The image.
    pub spec: Arc<ImageSpec>,
    /// Which of its layers.
    pub index: usize,
    /// Which of its bytes.
    pub form: Form,
    /// Digest and size of these.
    pub blob: LayerBlob,
}

impl Layer {
    /// Writes it to a client, or as much of it as was asked for. Of all who ask at once for what
    /// is to be kept, one makes it and the others are sent what it writes.
    pub fn write(&self, out: &mut Chunks) -> Result<(), Error> {
        let metrics = &self.shared.metrics;
        let Some(cache) = self.shared.cache.as_ref().filter(|_| !self.is_file()) else {
            return self.make(None, out);
        };
        let LayerBlob { digest, size, .. } = self.blob;
        loop {
            match cache.place(digest, size) {
                Place::Kept(file) => {
                    metrics.cache_hits.add(1);
                    return send_file(file, out).map_err(Error::Write);
                }
                Place::Followed(follower) => {
                    metrics.cache_joins.add(1);
                    if self.follow(follower, out).map_err(Error::Write)? {
                        return Ok(());
                    }
                }
                Place::Begun(entry) => {
                    metrics.cache_misses.add(1);
                    return self.make(Some(entry), out);
                }
                Place::Nowhere => {
                    metrics.cache_misses.add(1);
                    return self.make(None, out);
                }
            }
        }
    }

    fn make(&self, entry: Option<Entry>, out: &mut Chunks) -> Result<(), Error> {
        let metrics = &self.shared.metrics;
        out.take_place().map_err(Error::Write)?;
        let (begin, waited) = (Instant::now(), out.waited());
        let mut both = Both { out, entry, sent: 0, behind: false };
        let Self { spec, index, form, .. } = self;
        let hashing = self.shared.hashing();
        let layer = ImageLayer { spec, index: *index, form: *form };
        let (store, to_be_kept) = (&self.shared.store, both.entry.is_some());
        let out = Plain(&mut both);
        // What is kept is for other images as well, whose specs may be right where this one isn't.
        let made = if to_be_kept {
            write_hashed_layer(store, layer, hashing, out)
        } else {
            write_checked_layer(store, layer, hashing, out)
        };
        let Both { out, entry, sent, behind } = both;
        metrics.made_in(begin.elapsed().saturating_sub(out.waited() - waited));
        if let Err(error) = made {
            if !out.gone() {
                metrics.layers_failed.add(1);
                if let Some(entry) = entry {
                    entry.fail();
                }
            }
            return Err(error);
        }
        metrics.layers_made.add(1);
        let file = entry.and_then(Entry::keep);
        if !behind {
            return Ok(());
        }
        out.give_place_back();
        let lost = || io::Error::other("what was kept of a layer is lost");
        file.ok_or_else(lost)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(sent))?;
                io::copy(&mut file, out).map(drop)
            })
            .map_err(Error::Write)
    }

    /// Sends what another request has made. Returns whether that came to its end: if not, the
    /// rest is still to be sent.
    fn follow(&self, mut follower: Follower, out: &mut Chunks) -> io::Result<bool> {
        let Range { start: mut position, end } = out.begin_at_part();
        let mut buffer = vec![0; CHUNK];
        loop {
            // Also for the last byte: until all of it was checked, the last chunk is held back.
            let beyond = if position < end { position } else { u64::MAX };
            let growth = out.wait(follower.grown(beyond))?;
            let there = match growth {
                Growth::Written(size) => size,
                Growth::Whole => self.blob.size,
                Growth::Failed => {
                    return Err(io::Error::other("it could not be made for another request"));
                }
                Growth::Abandoned => {
                    out.go_on_at(position);
                    return Ok(false);
                }
            };
            while position < there.min(end) {
                let length = (there.min(end) - position).min(CHUNK as u64) as usize;
                follower.read(&mut buffer[..length], position)?;
                out.write_all(&buffer[..length])?;
                position += length as u64;
            }
            if growth == Growth::Whole {
                return Ok(true);
            }
        }
    }

    /// Whether it is in a file as it is: another one would be of no use.
    fn is_file(&self) -> bool {
        match &self.spec.layers[self.index].source {
            LayerSource::Made(_) => false,
            LayerSource::Kept(_, stored) | LayerSource::Stored(stored) => {
                stored.digest == self.blob.digest
            }
        }
    }
}

/// Sends a part of a file from where it begins.
fn send_file(mut file: File, out: &mut Chunks) -> io::Result<()> {
    let part = out.begin_at_part();
    file.seek(SeekFrom::Start(part.start))?;
    let size = part.end - part.start;
    if io::copy(&mut file.take(size), out)? == size {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// To a client and into the cache. A client that can't keep up is sent the rest from there: it
/// is not to hold up what is made, nor what that needs in memory.
struct Both<'o> {
    out: &'o mut Chunks,
    /// None if it is for the client alone.
    entry: Option<Entry>,
    /// Bytes that the client was given.
    sent: u64,
    /// Whether it has to wait for the rest.
    behind: bool,
}

impl Both<'_> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.behind {
            return self.out.check_client();
        }
        self.out.write_all(bytes)?;
        self.sent += bytes.len() as u64;
        Ok(())
    }
}

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        let Some(entry) = &mut self.entry else {
            self.out.write_all(bytes)?;
            return Ok(bytes.len());
        };
        entry.write(bytes);
        if self.behind && !entry.is_whole() {
            return Err(io::Error::other("there is no place for the layer"));
        }
        self.behind |= entry.is_whole() && self.out.would_wait(bytes.len());
        if let Err(error) = self.send(bytes) {
            // The client went away, and others may have asked for it.
            self.behind = true;
            if !self.entry.as_ref().is_some_and(Entry::is_followed) {
                return Err(error);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
