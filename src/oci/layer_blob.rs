//! The description of a layer's blob.
//! Stage: oci (pure).

use serde::{Deserialize, Serialize};

use super::chunked::TocPlace;
use super::compression::Compression;
use super::layer_compression::LayerCompression;
use super::media_type::LayerMediaType;
use crate::digest::BlobDigest;

/// A layer's blob (image-spec, descriptor.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerBlob {
    /// Digest of the bytes that are transferred.
    pub digest: BlobDigest,
    /// The number of these bytes.
    pub size: u64,
    /// The media type of these bytes.
    pub media_type: LayerMediaType,
    /// The place of the table of contents, if the blob has one (`zstd:chunked`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toc: Option<TocPlace>,
}

impl LayerBlob {
    /// Returns the compression by which the blob was made.
    pub const fn compression(&self) -> LayerCompression {
        match (self.media_type.compression, self.toc) {
            (Compression::None, _) => LayerCompression::None,
            (Compression::Gzip, _) => LayerCompression::Gzip,
            (Compression::Zstd, None) => LayerCompression::Zstd,
            (Compression::Zstd, Some(_)) => LayerCompression::ZstdChunked,
        }
    }
}
