//! Layers that others have pushed compressed, for images whose layers are the same.
//! Stage: registry. Input: the manifest that a tag has. Output: what its layers are called.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ClientError;
use super::repository::Client;
use crate::digest::{BlobDigest, DiffId};
use crate::oci::{Compression, LayerBlob};

/// Of an image manifest (image-spec, manifest.md; Docker's schema 2 has the same names).
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
}

/// Of an image configuration (image-spec, config.md).
#[derive(Deserialize)]
struct ImageConfig {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<DiffId>,
}

/// Which blobs an image in the registry has for which layers, as far as they are compressed. It is
/// the registry's word: who runs the image checks diff IDs when it unpacks.
///
/// Something that isn't an image, or not one of ours to understand, has none.
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
        let Layer { digest, size, media_type } = layer;
        let media_type = media_type.parse().ok()?;
        let blob = LayerBlob { digest, size, media_type };
        (blob.media_type.compression != Compression::None).then_some((diff_id, blob))
    });
    Ok(blobs.collect())
}
