//! The layers of an earlier image, which need not be made again.
//! Stage: oci. Input: an image spec. Output: [`PreviousImage`].

use std::path::Path;

use serde::Deserialize;

use crate::closure::{Closure, NarHash};
use crate::digest::{Checksum, DiffId, Digest, DigestWriter};
use crate::layer::LayerContents;
use crate::oci::Error;
use crate::oci::blob::LayerBlob;
use crate::oci::compression::Compression;
use crate::oci::json_file;
use crate::oci::sources::SourceInfo;
use crate::oci::spec::{self, ImageSpecJson};
use crate::oci::spec_layer::{LayerSource, SpecLayer};
use crate::store::{self, StorePath};

/// The layers of an earlier image, and what they were made of.
///
/// A layer's bytes depend on what it holds and on these store paths' NARs, and on nothing else
/// (docs/determinism.md) but this program, whose next version of the image spec's format is one
/// that makes other bytes. So one that is made of the same has the same digest.
///
/// Of what they were made of there are digests alone: it may be as much as the new image.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "ImageSpecJson<PreviousLayer, PreviousSource>")]
pub struct PreviousImage {
    layers: Vec<PreviousLayer>,
    /// Sorted.
    sources: Vec<PreviousSource>,
}

/// What there is to keep of a layer.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(from = "SpecLayer")]
pub struct PreviousLayer {
    /// Of its contents; none for a base image's.
    contents: Option<Digest>,
    diff_id: DiffId,
    size: u64,
    checksum: Option<Checksum>,
    compressed: Option<LayerBlob>,
}

/// A store path and the hash of its NAR, by their digest.
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
        // No store path has a space.
        Self(Digest::of(format!("{path} {nar_hash}").as_bytes()))
    }
}

impl From<SourceInfo> for PreviousSource {
    fn from(SourceInfo { path, nar_hash, .. }: SourceInfo) -> Self {
        Self::of(&path, &nar_hash)
    }
}

/// Of contents as an image spec has them: equal ones are written alike, and others are not.
fn digest_of(contents: &LayerContents) -> Digest {
    let mut digest = DigestWriter::new(std::io::sink());
    serde_json::to_writer(&mut digest, contents).expect("contents are JSON");
    digest.finish().0
}

impl PreviousImage {
    /// Reads an image spec of about the same store paths as those of `closure`.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Json`].
    pub fn read(file: &Path, closure: &Closure) -> Result<Self, Error> {
        let known = closure.infos().iter().map(|info| info.path.clone());
        store::sharing_known(known, || json_file::read(file, spec::WHAT))
    }

    /// The layer that was made of the same.
    pub fn find(&self, contents: &LayerContents, closure: &Closure) -> Option<PreviousLayer> {
        if self.layers.is_empty() {
            return None;
        }
        let digest = Some(digest_of(contents));
        // One without a checksum is made once more, to have one.
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
    /// The same layer in another image. Where the earlier one kept a copy of it is another matter.
    pub fn made_of(self, contents: LayerContents, compression: Compression) -> SpecLayer {
        SpecLayer {
            diff_id: self.diff_id,
            size: self.size,
            checksum: self.checksum,
            source: LayerSource::Made(contents),
            compressed: self.compressed.filter(|blob| blob.media_type.compression == compression),
        }
    }
}
