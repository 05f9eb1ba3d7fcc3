//! The information that Nix registered about the store paths from which an image is made.
//! Stage: oci. Vocabulary of the image spec.

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

/// A record without its references: deserialising drops them at once, so that the references of a
/// whole spec are never in memory.
#[derive(Debug, Deserialize)]
#[serde(from = "SourceInfo")]
pub struct WithoutReferences(SourceInfo);

impl From<SourceInfo> for WithoutReferences {
    fn from(info: SourceInfo) -> Self {
        Self(SourceInfo { references: Vec::new(), ..info })
    }
}

impl From<WithoutReferences> for SourceInfo {
    fn from(info: WithoutReferences) -> Self {
        info.0
    }
}
