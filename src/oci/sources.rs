//! What Nix registered of the store paths that an image is made of.
//! Stage: oci. Vocabulary of the image spec.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

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

/// The records, with all references left out.
#[derive(Debug)]
pub struct WithoutReferences(Vec<SourceInfo>);

impl From<WithoutReferences> for Vec<SourceInfo> {
    fn from(sources: WithoutReferences) -> Self {
        sources.0
    }
}

impl<'de> Deserialize<'de> for WithoutReferences {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Records).map(Self)
    }
}

struct Records;

impl<'de> Visitor<'de> for Records {
    type Value = Vec<SourceInfo>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<Self::Value, A::Error> {
        let mut sources = Vec::new();
        while let Some(info) = records.next_element::<SourceInfo>()? {
            sources.push(SourceInfo { references: Vec::new(), ..info });
        }
        Ok(sources)
    }
}
