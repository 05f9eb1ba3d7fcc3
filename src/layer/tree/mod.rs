//! Builds the tree of a layer's entries, before any byte is written.
//! Stage: layer. Input: [`LayerContents`]. Output: [`Children`], ready to be walked in order.
//!
//! Store paths are leaves of this tree, and are read when they are written: a layer takes memory
//! for `copyToRoot`, not for its store paths.
//!
//! Directories have the place and the attributes that they have in the base image: [`BaseTree`]
//! says why.

mod merge;
mod same;

use std::collections::BTreeMap;

use serde::Deserialize;

use self::merge::{Followed, merge};
use super::Error;
use super::base_tree::{Attributes, BaseTree};
use super::contents::LayerContents;
use super::links::store_path_of;
use super::node::{Children, TreeEntry};
use super::permissions::Given;
use crate::image_path::ImagePath;
use crate::store::{Store, StorePath};

/// The attributes of every other directory, as Nix sets them.
pub const DIRECTORY: Attributes = Attributes { mode: 0o555, uid: 0, gid: 0 };

/// The ways to add a link to a directory where the base image has a directory, such as `bin ->
/// /nix/store/…-tools/bin` where the base has `/bin`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryLinks {
    /// Keep the base's directory, and add a link to each entry of the link's directory.
    #[default]
    Merge,
    /// Replace the base's directory and all that is in it by the link.
    Replace,
    /// Fail.
    Refuse,
}

/// Builds the tree, with the part of the base in `contents`.
///
/// # Errors
/// Fails with the errors of [`Directory`](super::scan::Directory), with [`Error::NotADirectory`] or [`Error::BadLink`],
/// and with [`Error::Conflict`] if two sources have different entries of one name; equal files,
/// equal links and two directories are no conflict.
pub fn layer_tree<'c>(
    store: &'c Store,
    contents: &'c LayerContents,
) -> Result<Children<'c>, Error> {
    // The part of the base in `over` is only there if links were merged: so merge here as well.
    merge(store, contents, &contents.over, DirectoryLinks::Merge).map(|merged| merged.root)
}

/// Returns the part of the base's tree that a layer meets: the base's directories for which the
/// layer has an entry, and the links that lead there. With this part in place of the whole tree,
/// the layer's bytes are the same.
///
/// # Errors
/// Fails with the errors of [`super::write_layer`] before the first byte, and with
/// [`Error::OddName`] if the part can't be written as JSON.
pub fn met_by(
    store: &Store,
    contents: &LayerContents,
    base: &BaseTree,
    links: DirectoryLinks,
) -> Result<BaseTree, Error> {
    if base.is_empty() {
        return Ok(BaseTree::default());
    }
    let merged = merge(store, contents, base, links)?;
    let mut met = BaseTree::default();
    each_directory(&merged.root, &mut ImagePath::root(), &mut |name| {
        if let Some(attributes) = base.attributes(name) {
            met.insert_directory(name.clone(), attributes);
        }
    });
    for (link, Followed { place, .. }) in &merged.followed {
        met.insert_link(link.clone(), place);
    }
    met.unwritable().map_or(Ok(met), |name| Err(Error::OddName { name }))
}

/// The links in the files that are copied to `/`.
#[derive(Debug, Default)]
pub struct RootLinks {
    /// True if at least one link is relative and leads to another store path.
    pub into_store: bool,
    /// The links that lead into the store: their names in the image, and the store paths.
    pub store_paths: Vec<(String, StorePath)>,
    /// The links and files that replace a directory of the base.
    pub replacing: Vec<String>,
}

/// Finds the links in the files that are copied to `/`, with the whole tree of the base.
///
/// # Errors
/// Fails with the errors of [`super::write_layer`] before the first byte, and with
/// [`Error::LinkOverDirectory`] and [`Error::FileOverDirectory`].
pub fn root_links(
    store: &Store,
    contents: &LayerContents,
    base: &BaseTree,
    links: DirectoryLinks,
) -> Result<RootLinks, Error> {
    let merged = merge(store, contents, base, links)?;
    let mut found = RootLinks {
        into_store: merged.into_store,
        replacing: merged.replacing.clone(),
        store_paths: Vec::new(),
    };
    each_entry(&merged.root, &mut ImagePath::root(), &mut |name, entry| {
        if let TreeEntry::Symlink { target, .. } = entry
            && let Some(path) = store_path_of(store, target)
        {
            found.store_paths.push((name.as_bytes().escape_ascii().to_string(), path));
        }
    });
    Ok(found)
}

/// The directories and the size of the files that are copied to `/`.
#[derive(Debug, Default)]
pub struct RootOutline {
    /// The directories; true for one whose mode or owner `perms` sets.
    pub directories: BTreeMap<ImagePath, bool>,
    /// The links.
    pub links: Vec<ImagePath>,
    /// The number of bytes of all files. Links count nothing.
    pub file_bytes: u64,
}

/// Returns the directories and the size of the files that are copied to `/`.
///
/// # Errors
/// Fails with the errors of [`met_by`].
pub fn root_outline(
    store: &Store,
    contents: &LayerContents,
    base: &BaseTree,
    links: DirectoryLinks,
) -> Result<RootOutline, Error> {
    let merged = merge(store, contents, base, links)?;
    let mut found = RootOutline::default();
    each_entry(&merged.root, &mut ImagePath::root(), &mut |name, entry| match entry {
        TreeEntry::Directory { given, .. } => {
            found.directories.insert(name.clone(), *given != Given::default());
        }
        TreeEntry::File { source, .. } => {
            // A file that can't be read is reported when the layer is made.
            let size = source.metadata().map_or(0, |metadata| metadata.len());
            found.file_bytes = found.file_bytes.saturating_add(size);
        }
        TreeEntry::Symlink { .. } => found.links.push(name.clone()),
    });
    Ok(found)
}

/// Calls `each` with every directory's name, from the root down.
fn each_directory(children: &Children, name: &mut ImagePath, each: &mut impl FnMut(&ImagePath)) {
    each_entry(children, name, &mut |name, entry| {
        if matches!(entry, TreeEntry::Directory { .. }) {
            each(name);
        }
    });
}

/// Calls `each` with every entry that is not a store path, and its name, from the root down.
fn each_entry(
    children: &Children,
    name: &mut ImagePath,
    each: &mut impl FnMut(&ImagePath, &TreeEntry<'_>),
) {
    for (child, node) in children {
        let Some(entry) = node.entry() else { continue };
        name.push(child);
        each(name, entry);
        if let TreeEntry::Directory { children, .. } = entry {
            each_entry(children, name, each);
        }
        name.pop();
    }
}
