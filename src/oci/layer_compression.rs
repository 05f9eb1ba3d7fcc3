//! The compression that an author chooses for an image's layers.
//! Stage: oci (pure).

use serde::Deserialize;

use super::compression::Compression;

/// The compression of layers for registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerCompression {
    /// No compression.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// Zstandard with a table of contents, of which some readers fetch only what they lack.
    #[serde(rename = "zstd:chunked")]
    ZstdChunked,
}

impl LayerCompression {
    /// Returns the compression as media types name it.
    pub const fn format(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip => Compression::Gzip,
            Self::Zstd | Self::ZstdChunked => Compression::Zstd,
        }
    }
}
