//! A layer from the cache, or made and kept there.
//! Stage: transport. Input: an image's layer. Output: its bytes to a client.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Instant;

use super::cache::{Cache, Entry};
use super::layer_body::{CHUNK, Chunks};
use super::server::Shared;
use crate::oci::{Form, ImageSpec, LayerBlob, LayerSource};
use crate::store::Store;
use crate::transport::Error;
use crate::transport::checked_layer::write_checked_layer;

/// One layer of an image.
pub struct Layer {
    /// Where it is made.
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
    /// Writes it to a client, or as much of it as was asked for.
    pub fn write(&self, out: &mut Chunks) -> Result<(), Error> {
        let metrics = &self.shared.metrics;
        let cache = self.shared.cache.as_ref().filter(|_| !self.is_file());
        let kept = cache.and_then(|cache| cache.get(&self.blob.digest, self.blob.size));
        if let Some(file) = kept {
            metrics.cache_hits.add(1);
            return send_file(file, out).map_err(Error::Write);
        }
        if cache.is_some() {
            metrics.cache_misses.add(1);
        }
        out.take_place().map_err(Error::Write)?;
        let (begin, waited) = (Instant::now(), out.waited());
        let made = self.make(&self.shared.store, cache, out);
        metrics.made_in(begin.elapsed().saturating_sub(out.waited() - waited));
        match &made {
            Ok(()) => metrics.layers_made.add(1),
            Err(_) if out.gone() => {}
            Err(_) => metrics.layers_failed.add(1),
        }
        made
    }

    fn make(
        &self,
        store: &Store,
        cache: Option<&Arc<Cache>>,
        out: &mut Chunks,
    ) -> Result<(), Error> {
        let Self { spec, index, form, blob, .. } = self;
        let hashing = self.shared.hashing();
        let Some(entry) = cache.and_then(|cache| cache.begin(blob.digest, blob.size)) else {
            return write_checked_layer(store, spec, *index, *form, hashing, out);
        };
        let mut both = Both { out, entry, sent: 0, behind: false };
        write_checked_layer(store, spec, *index, *form, hashing, &mut both)?;
        let Both { out, entry, sent, behind } = both;
        let file = entry.keep();
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
    entry: Entry,
    /// Bytes that the client was given.
    sent: u64,
    /// Whether it has to wait for the rest.
    behind: bool,
}

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        self.entry.write(bytes);
        if self.behind && !self.entry.is_whole() {
            return Err(io::Error::other("there is no place for the layer"));
        }
        self.behind |= self.entry.is_whole() && self.out.would_wait(bytes.len());
        if self.behind {
            // Nobody else asked for it.
            self.out.check_client()?;
        } else {
            self.out.write_all(bytes)?;
            self.sent += bytes.len() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
