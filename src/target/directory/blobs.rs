//! Writes images' blobs as files in a directory, except those that are there.
//! Stage: target. Input: [`ImageSpec`]. Output: files that do not have their names yet.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::digest::{BlobDigest, DigestWriter};
use crate::oci::{Blob, Form, ImageSpec, LayerBlob};
use crate::outgoing::{
    Error, Hashing, ImageLayer, LayerStep, NewFile, Tally, Watch, WatchedLayer, check_place,
    write_hashed_layer,
};
use crate::sink::{PIECE, Plain};
use crate::store::Store;

/// The blobs of some images, and the directory for them.
pub struct Blobs<'a> {
    pub store: &'a Store,
    pub specs: &'a [&'a ImageSpec],
    pub form: Form,
    /// The directory, in which a blob's name is the hex digits of its digest.
    pub directory: &'a Path,
    pub watch: &'a dyn Watch,
}

/// The blobs that were missing, as files under temporary names. The caller gives them their names,
/// and does so before it writes the documents that name the blobs.
#[derive(Default)]
pub struct NewBlobs {
    pub files: Vec<NewFile>,
    pub tally: Tally,
}

impl Blobs<'_> {
    /// Writes the layers that are missing, one on each thread at a time, and those of `documents`
    /// that are missing.
    ///
    /// # Errors
    /// Fails with [`Error::LayerChanged`] if a layer differs from what was built, with
    /// [`Error::Occupied`], or if a layer can't be made or written.
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
        let layers: Vec<_> = layers.filter(|layer| seen.insert(layer.blob().digest)).collect();
        let is_there = |layer: &ImageLayer| self.has(layer.blob());
        let there = layers.par_iter().map(is_there).collect::<Result<Vec<_>, _>>()?;
        for (layer, there) in layers.into_iter().zip(there) {
            let blob = layer.blob();
            if there {
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
                // Other images find the blob by its digest.
                write_hashed_layer(store, layer, Hashing::Beside, out)
            })?;
            watch.layer(layer, LayerStep::Sent);
            Ok(file)
        };
        // Each thread takes one layer at a time.
        new.files = missing.into_iter().par_bridge().map(make).collect::<Result<_, _>>()?;
        for Blob { digest, bytes } in documents {
            let path = self.path(digest);
            check_place(&path)?;
            // Documents are small: compare all of their bytes, not only the size.
            if fs::read(&path).is_ok_and(|there| there == *bytes) {
                continue;
            }
            new.tally.bytes_sent += bytes.len() as u64;
            new.files.push(NewFile::of(&path, bytes, watch)?);
        }
        Ok(new)
    }

    /// Returns whether the directory has a blob, by the bytes of its file: the file may have been
    /// altered, or be incomplete after a power failure.
    fn has(&self, LayerBlob { digest, size, .. }: LayerBlob) -> Result<bool, Error> {
        let path = self.path(&digest);
        check_place(&path)?;
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.len() == size) {
            return Ok(false);
        }
        let Ok(mut file) = File::open(&path) else { return Ok(false) };
        let mut hashed = DigestWriter::new(io::sink());
        let mut buffer = vec![0; PIECE];
        loop {
            // The copy can be ended meanwhile.
            self.watch.advance(0).map_err(Error::Write)?;
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hashed.finish() == (*digest.digest(), size)),
                Ok(read) => hashed.write_all(&buffer[..read]).map_err(Error::Write)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A file that can't be read is made again.
                Err(_) => return Ok(false),
            }
        }
    }

    fn path(&self, digest: &BlobDigest) -> PathBuf {
        self.directory.join(digest.digest().hex())
    }
}
