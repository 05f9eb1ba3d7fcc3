//! Sends a layer from the cache, or makes it and keeps it there.
//! Stage: registry. Input: an image's layer. Output: its bytes to a client.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::cache::{Cache, CachePlace, Follower, Growth, NewEntry};
use super::layer_body::{CHUNK, Chunks};
use super::shared::Shared;
use crate::oci::{LayerBlob, LayerSource};
use crate::outgoing::{Error, SharedLayer, write_checked_layer, write_hashed_layer};
use crate::sink::Plain;

/// A layer that a client asked for.
pub struct ServedLayer {
    /// The state of the server.
    pub shared: Arc<Shared>,
    /// The layer of an image.
    pub layer: SharedLayer,
    /// Digest and size of the bytes.
    pub blob: LayerBlob,
    /// True if not all of the layer is sent.
    pub is_part: bool,
}

impl ServedLayer {
    /// Writes the layer to a client, or the part that was asked for. Of concurrent requests for a
    /// layer that is to be kept, one makes the layer and the others are sent what it writes.
    pub fn write(&self, out: &mut Chunks) -> Result<(), Error> {
        let metrics = &self.shared.metrics;
        let cache = if self.is_file() { None } else { self.cache() };
        let Some(cache) = cache else {
            return self.make(None, out);
        };
        let LayerBlob { digest, size, .. } = self.blob;
        loop {
            match cache.place(digest, size) {
                CachePlace::Kept(file) => {
                    metrics.cache_hits.inc();
                    return send_file(file, out).map_err(Error::Write);
                }
                CachePlace::Followed(follower) => {
                    metrics.cache_joins.inc();
                    if self.follow(follower, out).map_err(Error::Write)? {
                        return Ok(());
                    }
                }
                CachePlace::Begun(entry) => {
                    metrics.cache_misses.inc();
                    return self.make(Some(entry), out);
                }
                CachePlace::Nowhere => {
                    metrics.cache_misses.inc();
                    return self.make(None, out);
                }
            }
        }
    }

    /// Returns the cache for the layer. A layer with a table of contents is read in parts, by
    /// several requests: without a cache, its file is kept for a while.
    fn cache(&self) -> Option<Arc<Cache>> {
        if self.shared.cache.is_none() && self.is_part && self.blob.toc.is_some() {
            return self.shared.for_parts.cache();
        }
        self.shared.cache.clone()
    }

    fn make(&self, entry: Option<NewEntry>, out: &mut Chunks) -> Result<(), Error> {
        let metrics = &self.shared.metrics;
        out.take_place().map_err(Error::Write)?;
        let (begin, waited) = (Instant::now(), out.waited());
        let mut both = Both { out, entry, behind: false };
        let hashing = self.shared.hashing();
        let layer = self.layer.borrowed();
        let (store, to_be_kept) = (&self.shared.store, both.entry.is_some());
        let out = Plain(&mut both);
        // Other images use the kept blob as well. Their specs may be right even if this one is
        // wrong: check the digest.
        let made = if to_be_kept {
            write_hashed_layer(store, layer, hashing, out)
        } else {
            write_checked_layer(store, layer, hashing, out)
        };
        let Both { out, entry, behind } = both;
        metrics.made_in(begin.elapsed().saturating_sub(out.waited() - waited));
        if let Err(error) = made {
            if !out.gone() {
                metrics.layers_failed.inc();
                if let Some(entry) = entry {
                    entry.fail();
                }
            }
            return Err(error);
        }
        metrics.layers_made.inc();
        let file = entry.and_then(NewEntry::keep);
        if !behind {
            return Ok(());
        }
        out.give_place_back();
        let lost = || io::Error::other("what was kept of a layer is lost");
        let file = file.ok_or_else(lost).map_err(Error::Write)?;
        send_file(file, out).map_err(Error::Write)
    }

    /// Sends the bytes that another request writes. Returns false if that request gave up, and the
    /// rest is still to be sent.
    fn follow(&self, mut follower: Follower, out: &mut Chunks) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK];
        loop {
            // This also holds for the last byte: until all bytes were checked, the last chunk is
            // held back.
            let beyond = out.wanted().map_or(u64::MAX, |wanted| wanted.start);
            let growth = out.wait(follower.grown(beyond))?;
            let there = match growth {
                Growth::Written(size) => size,
                Growth::Whole => self.blob.size,
                Growth::Failed => {
                    return Err(io::Error::other("it could not be made for another request"));
                }
                Growth::Abandoned => {
                    out.go_to(0);
                    return Ok(false);
                }
            };
            while let Some(Range { start, end }) = out.wanted()
                && start < there
            {
                let length = (there.min(end) - start).min(CHUNK as u64) as usize;
                follower.read(&mut buffer[..length], start)?;
                out.go_to(start);
                out.write_all(&buffer[..length])?;
            }
            if growth == Growth::Whole {
                return Ok(true);
            }
        }
    }

    /// Returns whether the layer is already in a file in this form: a second copy would be of no
    /// use.
    fn is_file(&self) -> bool {
        match &self.layer.layer().source {
            LayerSource::Made(_) => false,
            LayerSource::Kept(_, stored) | LayerSource::Stored(stored) => {
                stored.digest == self.blob.digest
            }
        }
    }
}

/// Sends the parts of a file that were asked for.
fn send_file(mut file: File, out: &mut Chunks) -> io::Result<()> {
    while let Some(Range { start, end }) = out.wanted() {
        file.seek(SeekFrom::Start(start))?;
        out.go_to(start);
        if io::copy(&mut (&file).take(end - start), out)? != end - start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Writes to a client and to the cache. A client that is too slow is sent the rest from the cache,
/// so that it does not hold up the layer, nor the memory that making it takes.
struct Both<'o> {
    out: &'o mut Chunks,
    /// The blob in the cache; none if the layer is only for the client.
    entry: Option<NewEntry>,
    /// True if the client gets the rest later.
    behind: bool,
}

impl Both<'_> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.behind {
            return self.out.check_client();
        }
        self.out.write_all(bytes)
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
            // The client went away, but other requests may follow the blob.
            self.behind = true;
            if !self.entry.as_ref().is_some_and(NewEntry::is_followed) {
                return Err(error);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
