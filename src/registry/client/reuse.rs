//! Finds layers in a registry that other tools have pushed compressed, for images with the same
//! layers.
//! Stage: registry. Input: the manifest that a tag stands for. Output: the blobs of its layers.

use std::collections::BTreeMap;

use super::error::ClientError;
use super::repository::Client;
use crate::digest::DiffId;
use crate::oci::{
    Compression, ForeignConfig, ForeignDocument, LayerBlob, LayerMediaType, TocPlace,
};

/// Returns the compressed blobs of an image in the registry, by the diff IDs of the layers. The
/// registry is trusted with this: engines check the diff IDs when they unpack the image.
///
/// Returns an empty map for something that is not an image, or not of a known format.
pub fn compressed_blobs(
    client: &Client,
    manifest: &[u8],
) -> Result<BTreeMap<DiffId, LayerBlob>, ClientError> {
    let Ok(manifest) = ForeignDocument::parse(manifest) else { return Ok(BTreeMap::new()) };
    let (config, layers) = (manifest.config(), manifest.layers().unwrap_or_default());
    let Some(config) = config.and_then(|config| config.digest().ok()) else {
        return Ok(BTreeMap::new());
    };
    let Some(config) = client.get(&format!("blobs/{config}"), "*/*")? else {
        return Ok(BTreeMap::new());
    };
    let diff_ids = ForeignConfig::parse(&config).ok().and_then(|config| config.diff_ids());
    let diff_ids = diff_ids.filter(|diff_ids| diff_ids.len() == layers.len());
    let blobs = diff_ids.unwrap_or_default().into_iter().zip(layers).filter_map(|(id, layer)| {
        let digest = layer.digest().ok()?;
        let media_type: LayerMediaType = layer.media_type().parse().ok()?;
        let toc = TocPlace::of_annotations(|key| layer.annotation(key));
        let blob = LayerBlob { digest, size: layer.size()?, media_type, toc };
        (blob.media_type.compression != Compression::None).then_some((id, blob))
    });
    Ok(blobs.collect())
}
