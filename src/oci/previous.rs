//! The layers of an earlier image, which need not be made again.
//! Stage: oci. Input: an image spec. Output: [`PreviousImage`].

use std::collections::BTreeMap;
use std::path::Path;

use super::Error;
use super::spec::ImageSpec;
use super::spec_layer::SpecLayer;
use crate::closure::{Closure, NarHash};
use crate::layer::LayerContents;
use crate::store::StorePath;

/// The layers of an earlier image, and what they were made of.
///
/// A layer's bytes depend on what it holds and on these store paths' NARs, and on nothing else
/// (docs/determinism.md) but this program, whose next version of the image spec's format is one
/// that makes other bytes. So one that is made of the same has the same digest.
#[derive(Debug, Default)]
pub struct PreviousImage {
    layers: Vec<SpecLayer>,
    hashes: BTreeMap<StorePath, NarHash>,
}

impl PreviousImage {
    /// Reads an image spec.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Json`].
    pub fn read(file: &Path) -> Result<Self, Error> {
        Ok(Self::from(ImageSpec::read_outline(file)?))
    }

    /// The layer that was made of the same.
    pub fn find(&self, contents: &LayerContents, closure: &Closure) -> Option<&SpecLayer> {
        let is_same = |path: &StorePath| {
            let before = self.hashes.get(path);
            before.is_some() && before == closure.get(path).map(|info| &info.nar_hash)
        };
        let layer = self.layers.iter().find(|layer| layer.contents() == Some(contents))?;
        contents.sources().all(is_same).then_some(layer)
    }
}

impl From<ImageSpec> for PreviousImage {
    fn from(spec: ImageSpec) -> Self {
        let hashes = spec.sources.into_iter().map(|source| (source.path, source.nar_hash));
        Self { layers: spec.layers, hashes: hashes.collect() }
    }
}
