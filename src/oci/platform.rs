//! The platform that an image is for.
//! Stage: oci (pure). Vocabulary of images and indexes.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::architecture::Architecture;

/// The operating system of stowage's images: containers of Nix packages are Linux containers.
pub const LINUX: &str = "linux";

/// An operating system and a processor by Go's names (image-spec, image-index.md, "platform").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Platform {
    /// The operating system (`GOOS`).
    pub os: String,
    /// The processor (`GOARCH`).
    pub architecture: String,
    /// The variant, such as `v7`, if the architecture has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl fmt::Display for Platform {
    /// Writes the platform as engines do, such as `linux/arm/v7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self { os: LINUX.to_owned(), architecture: "amd64".to_owned(), variant: None }
    }
}

impl Platform {
    /// Returns Linux on an architecture, in any variant.
    pub fn linux(architecture: &Architecture) -> Self {
        let (os, architecture) = (LINUX.to_owned(), architecture.to_string());
        Self { os, architecture, variant: None }
    }

    /// Reads the platform of an index's entry, or of an image's configuration, if it has one. Other
    /// programs wrote these documents: a variant that is no text counts as none.
    pub fn of(document: &Value) -> Option<Self> {
        let text = |key: &str| document[key].as_str().map(str::to_owned);
        let (os, architecture) = (text("os")?, text("architecture")?);
        Some(Self { os, architecture, variant: text("variant") })
    }

    /// Returns whether operating system and architecture are equal. Variants do not count.
    pub fn is(&self, wanted: &Self) -> bool {
        (&self.os, &self.architecture) == (&wanted.os, &wanted.architecture)
    }

    /// Returns whether the platform is a real one. BuildKit marks attestations, which it puts
    /// beside images, with "unknown".
    pub fn is_known(&self) -> bool {
        self.os != "unknown" && self.architecture != "unknown"
    }

    /// Returns whether every machine of the architecture supports this variant.
    pub fn has_common_variant(&self) -> bool {
        matches!(
            (&self.architecture[..], self.variant.as_deref()),
            (_, None) | ("amd64", Some("v1")) | ("arm64", Some("v8"))
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn platforms_are_read_leniently() {
        for (document, expected) in [
            (json!({"os": "linux", "architecture": "arm", "variant": "v7"}), Some("linux/arm/v7")),
            (json!({"os": "linux", "architecture": "arm", "variant": 7}), Some("linux/arm")),
            (json!({"os": "linux", "architecture": "arm", "more": []}), Some("linux/arm")),
            (json!({"os": "linux"}), None),
            (json!({"os": 1, "architecture": "arm"}), None),
            (json!(["linux"]), None),
            (Value::Null, None),
        ] {
            let found = Platform::of(&document).map(|platform| platform.to_string());
            assert_eq!(found.as_deref(), expected, "{document}");
        }
    }
}
