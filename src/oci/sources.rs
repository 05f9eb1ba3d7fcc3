//! The information that Nix registered about the store paths from which an image is made.
//! Stage: oci. Vocabulary of the image spec.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::closure::NarHash;
use crate::store::{self, StorePath};

/// A store path with its size and references when the image was made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceInfo {
    /// The store path.
    #[serde(with = "store::full_path")]
    pub path: StorePath,
    /// The digest of its NAR serialisation.
    pub nar_hash: NarHash,
    /// The number of bytes of its NAR serialisation.
    pub nar_size: u64,
    /// The other store paths of the image that it refers to, sorted.
    #[serde(with = "store::full_paths")]
    pub references: Vec<StorePath>,
}

/// A record without its references, which are skipped: they are half of an image spec, and do not
/// affect the image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WithoutReferences {
    #[serde(with = "store::full_path")]
    path: StorePath,
    nar_hash: NarHash,
    nar_size: u64,
    #[serde(rename = "references")]
    _references: IgnoredAny,
}

impl From<WithoutReferences> for SourceInfo {
    fn from(info: WithoutReferences) -> Self {
        let WithoutReferences { path, nar_hash, nar_size, .. } = info;
        Self { path, nar_hash, nar_size, references: Vec::new() }
    }
}

/// The size of a record's NAR: all that is kept of the record where only layers are made.
#[derive(Debug, Deserialize)]
#[serde(from = "WithoutReferences")]
pub struct NarSize(pub u64);

impl From<WithoutReferences> for NarSize {
    fn from(info: WithoutReferences) -> Self {
        Self(info.nar_size)
    }
}
