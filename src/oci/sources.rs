//! What Nix registered of the store paths that an image is made of.
//! Stage: oci. Vocabulary of the image spec.

use serde::{Deserialize, Serialize};

use crate::closure::NarHash;
use crate::store::{self, StorePath};

/// A store path as it was when the image was made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceInfo {
    /// The store path.
    #[serde(with = "store::full_path")]
    pub path: StorePath,
    /// Digest of its NAR serialisation.
    pub nar_hash: NarHash,
    /// Bytes of its NAR serialisation.
    pub nar_size: u64,
    /// The other store paths of the image that it refers to, sorted.
    #[serde(with = "store::full_paths")]
    pub references: Vec<StorePath>,
}

/// A record, with its references left out: read as such, they are gone before the next one.
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
