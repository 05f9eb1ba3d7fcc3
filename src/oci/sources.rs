//! What Nix registered of the store paths that an image is made of.
//! Stage: oci. Vocabulary of the image spec.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::closure::NarHash;
use crate::store::{self, SharedPaths, StorePath};

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

/// Reads records and keeps each store path once, however many refer to it.
///
/// For `#[serde(deserialize_with = "sources::deserialize")]`.
///
/// # Errors
/// Those of the records.
pub fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SourceInfo>, D::Error> {
    deserializer.deserialize_seq(Sources)
}

struct Sources;

impl<'de> Visitor<'de> for Sources {
    type Value = Vec<SourceInfo>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<Self::Value, A::Error> {
        let mut shared = SharedPaths::default();
        let mut sources = Vec::new();
        while let Some(SourceInfo { path, nar_hash, nar_size, references }) =
            records.next_element()?
        {
            let path = shared.share(path);
            let references: Box<[_]> =
                references.into_iter().map(|path| shared.share(path)).collect();
            sources.push(SourceInfo { path, nar_hash, nar_size, references: references.into() });
        }
        Ok(sources)
    }
}
