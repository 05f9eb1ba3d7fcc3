//! Finds layers in a registry that other tools have pushed compressed, for images with the same
//! layers.
//! Stage: registry. Input: the manifest that a tag stands for. Output: the blobs of its layers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::error::ClientError;
use super::repository::Client;
use crate::digest::{BlobDigest, DiffId};
use crate::oci::{Compression, LayerBlob, TocPlace};

/// The parts of an image manifest that are read (image-spec, manifest.md; Docker's schema 2 has the
/// same names).
#[derive(Deserialize)]
struct Manifest {
    config: Config,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Config {
    digest: BlobDigest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    digest: BlobDigest,
    size: u64,
    media_type: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, Value>>,
}

/// The part of an image configuration that is read (image-spec, config.md).
#[derive(Deserialize)]
struct ImageConfig {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<DiffId>,
}

/// Returns the compressed blobs of an image in the registry, by the diff IDs of the layers. The
/// registry is trusted with this: engines check the diff IDs when they unpack the image.
///
/// Returns an empty map for something that is not an image, or not of a known format.
pub fn compressed_blobs(
    client: &Client,
    manifest: &[u8],
) -> Result<BTreeMap<DiffId, LayerBlob>, ClientError> {
    let Ok(Manifest { config, layers }) = serde_json::from_slice(manifest) else {
        return Ok(BTreeMap::new());
    };
    let Some(config) = client.get(&format!("blobs/{}", config.digest), "*/*")? else {
        return Ok(BTreeMap::new());
    };
    let diff_ids = match serde_json::from_slice::<ImageConfig>(&config) {
        Ok(config) if config.rootfs.diff_ids.len() == layers.len() => config.rootfs.diff_ids,
        _ => return Ok(BTreeMap::new()),
    };
    let blobs = diff_ids.into_iter().zip(layers).filter_map(|(diff_id, layer)| {
        let Layer { digest, size, media_type, annotations } = layer;
        let media_type = media_type.parse().ok()?;
        let toc = TocPlace::of_annotations(|key| annotations.as_ref()?.get(key)?.as_str());
        let blob = LayerBlob { digest, size, media_type, toc };
        (blob.media_type.compression != Compression::None).then_some((diff_id, blob))
    });
    Ok(blobs.collect())
}
