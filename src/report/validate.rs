//! Verifies an image: makes every layer again and compares.
//! Stage: report. Input: [`ImageSpec`] and the store. Output: [`Report`].

use std::io;
use std::path::PathBuf;

use serde::Serialize;

use crate::closure::NarHash;
use crate::digest::{Checksum, ChecksumWriter, DiffId, DigestWriter, LanePlace, in_lanes};
use crate::error::with_causes;
use crate::layer::{self, Layer, LayerMaker};
use crate::oci::Form;
use crate::oci::ImageSpec;
use crate::oci::StoredBlob;
use crate::oci::base;
use crate::oci::unpack::Budget;
use crate::oci::{LayerSource, SpecLayer};
use crate::store::{self, Store, StorePath};

/// The result of verifying an image's layers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Layers that were made again.
    pub layers: usize,
    /// Bytes of all layers, uncompressed.
    pub size: u64,
    /// Layers that differ from the image spec, from the bottom up.
    pub differences: Vec<Difference>,
}

/// A layer that differs from the image spec.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The layer's number, from 1 at the bottom.
    pub layer: usize,
    /// Diff ID and size as recorded.
    pub expected: DigestAndSize,
    /// Diff ID and size now; none if the layer can't be made any more.
    pub found: Option<DigestAndSize>,
    /// The reason why the layer can't be made; or, if diff ID and size are as recorded, a
    /// description of what else differs.
    pub error: Option<String>,
    /// The layer's store paths that are not what Nix registered.
    pub store_paths: Vec<ChangedPath>,
    /// The layer's file, if the layer is stored and not made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// A layer's digest with its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DigestAndSize {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub size: u64,
}

/// A store path that is not what it was when the image was made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedPath {
    /// The store path.
    #[serde(with = "store::full_path")]
    pub path: StorePath,
    /// The hash that was registered when the image was made, if it was recorded.
    pub expected: Option<NarHash>,
    /// The hash now; none if the store path can't be read.
    pub found: Option<NarHash>,
    /// The reason why the store path can't be read.
    pub error: Option<String>,
}

/// Makes every layer again, in parallel, or reads it if it is stored. Names the layers that differ,
/// how they differ, and which of their store paths are not what Nix registered.
///
/// `done` is called with the size of each layer when the layer is finished.
pub fn validate(store: &Store, spec: &ImageSpec, done: impl Fn(u64) + Sync) -> Report {
    let numbered = spec.layers.iter().zip(1..);
    let jobs = rayon::current_num_threads();
    let size = |(layer, _): &(&SpecLayer, usize)| layer.size;
    let maker = LayerMaker::new(store, spec.layers.iter().map(|layer| layer.size), jobs);
    let differences = in_lanes(numbered, size, jobs, |place, (layer, number)| {
        let difference = difference(place, &maker, store, spec, number, layer);
        done(layer.size);
        difference
    });
    let differences = differences.into_iter().flatten().collect();
    Report { layers: spec.layers.len(), size: spec.size(), differences }
}

fn difference(
    place: &LanePlace<'_>,
    maker: &LayerMaker<'_>,
    store: &Store,
    spec: &ImageSpec,
    number: usize,
    layer: &SpecLayer,
) -> Option<Difference> {
    let expected = DigestAndSize { diff_id: layer.diff_id, size: layer.size };
    let found = match &layer.source {
        LayerSource::Made(contents) => match maker.make(place, contents, layer.size) {
            Ok(Layer { diff_id, size, checksum, .. }) => {
                Ok((DigestAndSize { diff_id, size }, Some(checksum)))
            }
            Err(error) => Err(with_causes(&error)),
        },
        LayerSource::Kept(_, blob) | LayerSource::Stored(blob) => {
            stored(store, blob).map(|found| (found, None))
        }
    };
    let (found, error) = match found {
        Ok((found, checksum)) if found == expected => {
            match same_checksum(store, layer, checksum).and_then(|()| recompressed(store, layer)) {
                Ok(()) => return None,
                Err(error) => (Some(found), Some(error)),
            }
        }
        Ok((found, _)) => (Some(found), None),
        Err(error) => (None, Some(error)),
    };
    let (store_paths, file) = match &layer.source {
        LayerSource::Made(contents) => {
            (contents.sources().filter_map(|path| changed(store, spec, path)).collect(), None)
        }
        LayerSource::Kept(_, blob) | LayerSource::Stored(blob) => {
            (Vec::new(), Some(blob.file.clone()))
        }
    };
    Some(Difference { layer: number, expected, found, error, store_paths, file })
}

/// Compares the layer's checksum with the recorded one, if one was recorded. Says how they differ.
/// The layer's diff ID and size are known to be as recorded.
fn same_checksum(store: &Store, layer: &SpecLayer, found: Option<Checksum>) -> Result<(), String> {
    let Some(recorded) = layer.checksum else { return Ok(()) };
    let computed = || {
        let mut out = ChecksumWriter::new(io::sink());
        layer.write_blob(store, Form::Loadable, &mut out).map(|()| out.finish())
    };
    let found = found.map_or_else(computed, Ok).map_err(|error| with_causes(&error))?;
    if found == recorded {
        return Ok(());
    }
    Err(format!("its checksum is {found}, not {recorded}"))
}

/// Compares the digest of the compressed layer with the recorded one, if one was recorded. Says how
/// they differ. The layer's uncompressed bytes are known to be as recorded.
fn recompressed(store: &Store, layer: &SpecLayer) -> Result<(), String> {
    let Some(recorded) = layer.compressed else { return Ok(()) };
    let mut digest = DigestWriter::new(io::sink());
    layer.write_blob(store, Form::AsStored, &mut digest).map_err(|error| with_causes(&error))?;
    let (digest, size) = digest.finish();
    if (digest, size) == (*recorded.digest.digest(), recorded.size) {
        return Ok(());
    }
    Err(format!(
        "compressed it is {digest} of {size} bytes, not {} of {} bytes: another version of this program wrote the image spec",
        recorded.digest, recorded.size
    ))
}

/// Reads a stored blob, compares its own digest and size with the recorded ones, and returns diff
/// ID and size of its tar.
fn stored(store: &Store, blob: &StoredBlob) -> Result<DigestAndSize, String> {
    let opened = blob.open(store).map_err(|error| error.to_string())?;
    let scan = base::scan(opened, &Budget::default());
    let scan = scan.map_err(|problem| format!("it {}", with_causes(&problem)))?;
    if (scan.digest, scan.size) != (blob.digest, blob.size) {
        return Err(format!(
            "its blob is {} of {} bytes, not {} of {} bytes",
            scan.digest, scan.size, blob.digest, blob.size
        ));
    }
    Ok(DigestAndSize { diff_id: scan.diff_id, size: scan.uncompressed_size })
}

fn changed(store: &Store, spec: &ImageSpec, path: &StorePath) -> Option<ChangedPath> {
    let expected = spec.source(path).map(|info| info.nar_hash);
    let (found, error) = match layer::nar_hash(store, path) {
        Ok(hash) => (Some(hash), None),
        Err(error) => (None, Some(with_causes(&error))),
    };
    (found.is_none() || found != expected).then(|| ChangedPath {
        path: path.clone(),
        expected,
        found,
        error,
    })
}
