//! What a layer holds: enough to make its bytes again.
//! Stage: layer (pure).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::base_tree::BaseTree;
use super::permissions::{PermissionRule, RulesOf};
use super::store_attributes::StoreAttributes;
use crate::store::{self, StorePath};

/// The sources of one layer's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerContents {
    /// Store paths that are in the image where they are in the store.
    #[serde(with = "store::full_paths", default, skip_serializing_if = "BTreeSet::is_empty")]
    pub store_paths: BTreeSet<StorePath>,
    /// Store paths whose files are copied to `/`. The order counts: of two
    /// `nix-support` directories, and for messages.
    #[serde(with = "store::full_paths", default, skip_serializing_if = "Vec::is_empty")]
    pub copy_to_root: Vec<StorePath>,
    /// Modes and owners of some of their files. They are for the files in `/` of what is
    /// copied there, and for the others where they are in the store.
    #[serde(rename = "perms", default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<PermissionRule>,
    /// What all that is in the store has, where `perms` don't say otherwise.
    #[serde(default, skip_serializing_if = "StoreAttributes::is_usual")]
    pub store_attributes: StoreAttributes,
    /// What the base image has where this layer has directories.
    #[serde(default, skip_serializing_if = "BaseTree::is_empty")]
    pub over: BaseTree,
}

impl LayerContents {
    /// What `perms` says of a path where it is in the store.
    pub(super) fn rules_in_store(&self, path: &StorePath) -> RulesOf<'_> {
        if self.copy_to_root.contains(path) {
            return RulesOf::default();
        }
        RulesOf::new(&self.permissions, path)
    }

    /// Whether this layer has a store path with other modes or owners than all others would.
    pub fn alters(&self, path: &StorePath) -> bool {
        self.store_paths.contains(path) && !self.rules_in_store(path).is_empty()
    }

    /// Every store path that is read to make the layer.
    pub fn sources(&self) -> impl Iterator<Item = &StorePath> {
        self.store_paths.iter().chain(&self.copy_to_root)
    }

    /// The names of its sources without their hashes, sorted, each once.
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.sources().map(|path| path.name().to_string()).collect();
        names.into_iter().collect()
    }
}
