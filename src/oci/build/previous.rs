//! Finds the layers of an earlier image, which need not be made again.
//! Stage: oci. Input: an image spec. Output: [`PreviousImage`].

use std::path::Path;

use serde::Deserialize;

use crate::closure::{Closure, NarHash};
use crate::digest::{Checksum, DiffId, Digest, DigestWriter};
use crate::layer::LayerContents;
use crate::oci::Error;
use crate::oci::json_file;
use crate::oci::layer_blob::LayerBlob;
use crate::oci::layer_compression::LayerCompression;
use crate::oci::sources::SourceInfo;
use crate::oci::spec::{self, ImageSpecJson};
use crate::oci::spec_layer::{LayerSource, SpecLayer};
use crate::store::{self, StorePath};

/// The layers of an earlier image, and the store paths that they were made from.
///
/// A layer's bytes depend on its contents, on the NARs of its store paths (docs/determinism.md),
/// and on this program. A version of the program that makes other bytes also changes the version of
/// the image spec. So a layer with the same contents has the same digest.
///
/// Only digests of the contents are kept: the contents themselves may take as much memory as the
/// new image.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "ImageSpecJson<PreviousLayer, PreviousSource>")]
pub struct PreviousImage {
    layers: Vec<PreviousLayer>,
    /// The store paths, sorted.
    sources: Vec<PreviousSource>,
}

/// The part of a layer's record that is kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(from = "SpecLayer")]
pub struct PreviousLayer {
    /// The digest of the layer's contents; none for a base image's layer.
    contents: Option<Digest>,
    diff_id: DiffId,
    size: u64,
    checksum: Option<Checksum>,
    compressed: Option<LayerBlob>,
}

/// The digest of a store path and the hash of its NAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "SourceInfo")]
struct PreviousSource(Digest);

impl TryFrom<ImageSpecJson<PreviousLayer, PreviousSource>> for PreviousImage {
    type Error = String;

    fn try_from(json: ImageSpecJson<PreviousLayer, PreviousSource>) -> Result<Self, String> {
        let ImageSpecJson { layers, store_paths: mut sources, .. } = json.checked()?;
        sources.sort_unstable();
        Ok(Self { layers, sources })
    }
}

impl From<SpecLayer> for PreviousLayer {
    fn from(layer: SpecLayer) -> Self {
        let contents = layer.contents().map(digest_of);
        let SpecLayer { diff_id, size, checksum, compressed, .. } = layer;
        Self { contents, diff_id, size, checksum, compressed }
    }
}

impl PreviousSource {
    fn of(path: &StorePath, nar_hash: &NarHash) -> Self {
        // A store path has no space in it, so this is unambiguous.
        Self(Digest::of(format!("{path} {nar_hash}").as_bytes()))
    }
}

impl From<SourceInfo> for PreviousSource {
    fn from(SourceInfo { path, nar_hash, .. }: SourceInfo) -> Self {
        Self::of(&path, &nar_hash)
    }
}

/// Returns the digest of contents as an image spec has them: equal contents are written in the same
/// way, and different ones are not.
fn digest_of(contents: &LayerContents) -> Digest {
    let mut digest = DigestWriter::new(std::io::sink());
    serde_json::to_writer(&mut digest, contents).expect("contents are JSON");
    digest.finish().0
}

impl PreviousImage {
    /// Reads an image spec that has about the same store paths as `closure`.
    ///
    /// # Errors
    /// Fails with [`Error::Read`] or [`Error::Json`] if the file is not valid.
    pub fn read(file: &Path, closure: &Closure) -> Result<Self, Error> {
        let known = closure.infos().iter().map(|info| info.path.clone());
        store::sharing_known(known, || json_file::read(file, spec::WHAT))
    }

    /// Returns the layer that was made from the same contents, if there is one.
    pub fn find(&self, contents: &LayerContents, closure: &Closure) -> Option<PreviousLayer> {
        if self.layers.is_empty() {
            return None;
        }
        let digest = Some(digest_of(contents));
        // A layer without a checksum is made once more, to get one.
        let is_it = |layer: &&PreviousLayer| layer.contents == digest && layer.checksum.is_some();
        let layer = self.layers.iter().find(is_it)?;
        let is_same = |path: &StorePath| {
            let source = closure.get(path).map(|info| PreviousSource::of(path, &info.nar_hash));
            source.is_some_and(|source| self.sources.binary_search(&source).is_ok())
        };
        contents.sources().all(is_same).then_some(*layer)
    }
}

impl PreviousLayer {
    /// Returns the layer for the new image, to be made on demand. A copy that the earlier image may
    /// have kept is not used.
    pub fn made_of(self, contents: LayerContents, compression: LayerCompression) -> SpecLayer {
        SpecLayer {
            diff_id: self.diff_id,
            size: self.size,
            checksum: self.checksum,
            source: LayerSource::Made(contents),
            compressed: self.compressed.filter(|blob| blob.compression() == compression),
            compressed_file: None,
        }
    }
}
