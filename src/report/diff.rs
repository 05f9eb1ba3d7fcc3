//! Computes the cost of an update from one image to another.
//! Stage: report (pure). Input: two [`ImageSpec`]s. Output: [`Diff`].

use std::collections::BTreeSet;

use serde::Serialize;

use super::pieces::PieceCost;
use crate::oci::ImageSpec;
use crate::oci::SpecLayer;
use crate::store::{Store, StorePath};

/// The differences between an old and a new image.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// Layers of the new image that the old one has.
    pub layers_kept: usize,
    /// Bytes of the layers that are kept.
    pub bytes_kept: u64,
    /// Layers of the new image that the old one lacks, from the bottom up.
    pub layers_new: Vec<NewLayer>,
    /// Bytes of the new layers, uncompressed: what is sent to a registry that has the old image.
    pub bytes_new: u64,
    /// Bytes of the lowest new layer and of all layers above it: what is sent to a Docker daemon
    /// that has the old image, since Docker keys a layer by all layers below it.
    pub bytes_to_docker: u64,
    /// Bytes for clients that fetch pieces of layers, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pieces: Option<PieceCost>,
    /// Store paths of the new image that the old one lacks, sorted by name.
    pub paths_new: Vec<String>,
    /// Store paths of the old image that the new one lacks, sorted by name.
    pub paths_gone: Vec<String>,
}

/// A layer that has to be sent.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewLayer {
    /// The layer's number, from 1 at the bottom.
    pub number: usize,
    /// Bytes of the uncompressed tar.
    pub size: u64,
    /// The layer's store paths that are new, and so the cause.
    pub caused_by: Vec<String>,
    /// The layer's store paths that the old image has in another layer, and that are sent once
    /// more.
    pub moved: Vec<String>,
}

/// Compares two images.
pub fn diff(old: &ImageSpec, new: &ImageSpec) -> Diff {
    let had: BTreeSet<_> = old.layers.iter().map(|layer| layer.diff_id).collect();
    let is_kept = |layer: &SpecLayer| had.contains(&layer.diff_id);
    let (old_paths, new_paths) = (paths(old), paths(new));
    let mut sent = BTreeSet::new();
    let layers_new: Vec<_> = new
        .layers
        .iter()
        .enumerate()
        .filter(|(_, layer)| !is_kept(layer) && sent.insert(layer.diff_id))
        .map(|(index, layer)| {
            let (moved, caused_by) = layer.sources().partition(|path| old_paths.contains(path));
            NewLayer {
                number: index + 1,
                size: layer.size,
                caused_by: print(caused_by),
                moved: print(moved),
            }
        })
        .collect();
    let kept = || new.layers.iter().filter(|layer| is_kept(layer));
    let in_common = old
        .layers
        .iter()
        .zip(&new.layers)
        .take_while(|(old, new)| old.diff_id == new.diff_id)
        .count();
    Diff {
        layers_kept: kept().count(),
        bytes_kept: kept().map(|layer| layer.size).sum(),
        bytes_new: layers_new.iter().map(|layer| layer.size).sum(),
        bytes_to_docker: new.layers[in_common..].iter().map(|layer| layer.size).sum(),
        layers_new,
        pieces: None,
        paths_new: print(new_paths.difference(&old_paths).copied().collect()),
        paths_gone: print(old_paths.difference(&new_paths).copied().collect()),
    }
}

fn paths(spec: &ImageSpec) -> BTreeSet<&StorePath> {
    spec.layers.iter().flat_map(SpecLayer::sources).collect()
}

/// Returns whole paths, sorted by name.
fn print(mut paths: Vec<&StorePath>) -> Vec<String> {
    paths.sort_by_key(|path| (path.name(), *path));
    paths.into_iter().map(|path| Store::default().print(path)).collect()
}
