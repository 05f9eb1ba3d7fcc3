//! The contents of a layer: enough to make its bytes again.
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
    /// Store paths whose files are copied to `/`. Their order matters for messages, and for the
    /// choice between two `nix-support` directories.
    #[serde(with = "store::full_paths", default, skip_serializing_if = "Vec::is_empty")]
    pub copy_to_root: Vec<StorePath>,
    /// Modes and owners of some of the files. For a path that is copied to `/`, they apply to the
    /// files there, and for other paths to the files in the store.
    #[serde(rename = "perms", default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<PermissionRule>,
    /// Attributes of everything in the store, unless `perms` changes them.
    #[serde(default, skip_serializing_if = "StoreAttributes::is_usual")]
    pub store_attributes: StoreAttributes,
    /// True if relative links in files that are copied to `/` are made absolute if they lead to
    /// another store path: in `/` they would lead nowhere. False in image specs of earlier
    /// versions, which left such links unchanged.
    #[serde(default, skip_serializing_if = "is_false")]
    pub links_into_store: bool,
    /// The one of `copy_to_root` that has merged files of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<MergedFiles>,
    /// The part of the base image's tree that this layer has directories in.
    #[serde(default, skip_serializing_if = "BaseTree::is_empty")]
    pub over: BaseTree,
}

/// Names the files that have what others of the same name have, such as `/etc/passwd`, and take
/// their place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MergedFiles {
    /// The store path that has these files. Where it has a directory, and another store path a link to
    /// one in the store, the link's directory is merged with it.
    #[serde(with = "store::full_path")]
    pub path: StorePath,
    /// The names of the files in the image, without a slash at the beginning.
    pub names: BTreeSet<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl LayerContents {
    /// Returns the rules of `perms` for a path in the store.
    pub(super) fn rules_in_store(&self, path: &StorePath) -> RulesOf<'_> {
        if self.copy_to_root.contains(path) {
            return RulesOf::default();
        }
        RulesOf::new(&self.permissions, path)
    }

    /// Returns whether this layer has a store path with unusual modes or owners.
    pub fn alters(&self, path: &StorePath) -> bool {
        self.store_paths.contains(path) && !self.rules_in_store(path).is_empty()
    }

    /// Returns every store path that is read to make the layer.
    pub fn sources(&self) -> impl Iterator<Item = &StorePath> {
        self.store_paths.iter().chain(&self.copy_to_root)
    }

    /// Returns the names of the sources without their hashes, sorted, each once.
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.sources().map(|path| path.name().to_string()).collect();
        names.into_iter().collect()
    }
}
