//! Media types: those of OCI's documents, and those of layers, OCI's and Docker's.
//! Stage: oci (pure).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::compression::Compression;

/// The media type of a layer's blob (image-spec, layer.md, and Docker's image manifest V2, schema
/// 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerMediaType {
    /// The family of the name.
    pub family: Family,
    /// The compression of the tar.
    pub compression: Compression,
}

/// The family of media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `application/vnd.oci.image.layer.v1.tar…`
    Oci,
    /// `application/vnd.docker.image.rootfs.diff.tar…`
    Docker,
}

/// Says why a layer can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MediaTypeError {
    /// The layer has to be fetched from elsewhere, as its licence demands.
    #[error("is not distributed with the image (`{0}`)")]
    Foreign(String),
    /// The layer is encrypted.
    #[error("is encrypted (`{0}`)")]
    Encrypted(String),
    /// The media type is unknown.
    #[error("has the unknown media type `{0}`")]
    Unknown(String),
}

/// The media type of a manifest (image-spec, manifest.md).
pub const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index (image-spec, image-index.md).
pub const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of a configuration (image-spec, config.md).
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

const OCI: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

impl LayerMediaType {
    /// Returns OCI's media type for a compression.
    pub const fn oci(compression: Compression) -> Self {
        Self { family: Family::Oci, compression }
    }

    /// Returns the media type of the same bytes in another family: a manifest names its layers in
    /// its own family.
    pub const fn in_family(self, family: Family) -> Self {
        Self { family, ..self }
    }
}

impl fmt::Display for LayerMediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match (self.family, self.compression) {
            (_, Compression::None) => "",
            (Family::Oci, Compression::Gzip) => "+gzip",
            (Family::Oci, Compression::Zstd) => "+zstd",
            (Family::Docker, Compression::Gzip) => ".gzip",
            (Family::Docker, Compression::Zstd) => ".zstd",
        };
        let name = match self.family {
            Family::Oci => OCI,
            Family::Docker => DOCKER,
        };
        write!(f, "{name}{suffix}")
    }
}

impl FromStr for LayerMediaType {
    type Err = MediaTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Family::Oci, Family::Docker].into_iter().flat_map(|family| {
            COMPRESSIONS.into_iter().map(move |compression| Self { family, compression })
        });
        for media_type in known {
            if media_type.to_string() == text {
                return Ok(media_type);
            }
        }
        let text = text.to_owned();
        Err(if text.contains("encrypted") {
            MediaTypeError::Encrypted(text)
        } else if text.contains("foreign") || text.contains("nondistributable") {
            MediaTypeError::Foreign(text)
        } else {
            MediaTypeError::Unknown(text)
        })
    }
}

impl Serialize for LayerMediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LayerMediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("the layer {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_types_are_read_and_written() {
        for (text, family, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Family::Oci, Compression::None),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Family::Oci, Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Family::Oci, Compression::Zstd),
            ("application/vnd.docker.image.rootfs.diff.tar", Family::Docker, Compression::None),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                Family::Docker,
                Compression::Gzip,
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.zstd",
                Family::Docker,
                Compression::Zstd,
            ),
        ] {
            let media_type = LayerMediaType { family, compression };
            assert_eq!(text.parse(), Ok(media_type));
            assert_eq!(media_type.to_string(), text);
        }
    }

    #[test]
    fn others_are_named() {
        for (text, message) in [
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                "is not distributed with the image",
            ),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "is not distributed with the image",
            ),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "is encrypted"),
            ("application/vnd.oci.image.layer.v1.tar+xz", "has the unknown media type"),
            ("text/plain", "has the unknown media type"),
            ("", "has the unknown media type"),
        ] {
            let error = text.parse::<LayerMediaType>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "{message}{}",
                    if message.starts_with("has") {
                        format!(" `{text}`")
                    } else {
                        format!(" (`{text}`)")
                    }
                )
            );
        }
    }
}
