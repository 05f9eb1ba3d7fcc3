//! Images' blobs as files in a directory, each made unless it is there.
//! Stage: target. Input: [`ImageSpec`]. Output: files that have yet to get their names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::digest::BlobDigest;
use crate::oci::{Blob, Form, ImageSpec};
use crate::outgoing::{
    Error, Hashing, ImageLayer, LayerStep, NewFile, Tally, Watch, WatchedLayer, write_hashed_layer,
};
use crate::sink::Plain;
use crate::store::Store;

/// Which blobs go where.
pub struct Blobs<'a> {
    pub store: &'a Store,
    pub specs: &'a [&'a ImageSpec],
    pub form: Form,
    /// Where they are, by the hex digits of their digests.
    pub directory: &'a Path,
    pub watch: &'a dyn Watch,
}

/// The blobs that were missing. Without their names nobody finds them.
#[derive(Default)]
pub struct NewBlobs {
    pub files: Vec<NewFile>,
    pub tally: Tally,
}

impl Blobs<'_> {
    /// Makes what is missing: layers, one on each thread at a time, and these documents.
    ///
    /// # Errors
    /// [`Error::LayerChanged`] if a layer is not what it was, or whatever keeps it from being
    /// made or written.
    pub fn write<'d>(
        &self,
        documents: impl IntoIterator<Item = &'d Blob>,
    ) -> Result<NewBlobs, Error> {
        let Self { store, specs, form, watch, .. } = *self;
        let mut new = NewBlobs::default();
        let mut missing = Vec::new();
        let mut seen = BTreeSet::new();
        let layers = specs.iter().flat_map(|spec| {
            (0..spec.layers.len()).map(move |index| ImageLayer { spec, index, form })
        });
        for layer in layers {
            let blob = layer.blob();
            if !seen.insert(blob.digest) {
                continue;
            }
            if has_size(&self.path(&blob.digest), blob.size) {
                new.tally.skipped(blob.size);
                watch.layer(layer, LayerStep::Skipped);
            } else {
                new.tally.sent(blob.size);
                missing.push(layer);
            }
        }
        watch.expect(new.tally.bytes_sent);
        missing.sort_by_key(ImageLayer::turn);
        let make = |layer: ImageLayer| -> Result<NewFile, Error> {
            let file = NewFile::write(&self.path(&layer.blob().digest), watch, |out| {
                let out = WatchedLayer::begin(Plain(out), layer, watch);
                // Other images find it by its digest.
                write_hashed_layer(store, layer, Hashing::Beside, out)
            })?;
            watch.layer(layer, LayerStep::Sent);
            Ok(file)
        };
        // Handed out one at a time.
        new.files = missing.into_iter().par_bridge().map(make).collect::<Result<_, _>>()?;
        for Blob { digest, bytes } in documents {
            let path = self.path(digest);
            // So few bytes are worth more than a look at their number.
            if fs::read(&path).is_ok_and(|there| there == *bytes) {
                continue;
            }
            new.tally.bytes_sent += bytes.len() as u64;
            new.files.push(NewFile::of(&path, bytes, watch)?);
        }
        Ok(new)
    }

    fn path(&self, digest: &BlobDigest) -> PathBuf {
        self.directory.join(digest.digest().hex())
    }
}

fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}
