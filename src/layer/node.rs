//! The entries of a layer's tree.
//! Stage: layer. Vocabulary of the tree.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::base_tree::Attributes;
use super::permissions::Given;
use crate::store::{Store, StorePath};

/// A directory's entries by name.
pub type Children<'c> = BTreeMap<Cow<'c, [u8]>, Node<'c>>;

/// An entry of a layer.
#[derive(Debug)]
pub enum Node<'c> {
    /// A whole store path, in its place. Many layers have nothing else.
    StorePath(&'c StorePath),
    /// Any other entry, of which there are few.
    Entry(Box<TreeEntry<'c>>),
}

/// An entry of a layer that is not a store path.
#[derive(Debug)]
pub enum TreeEntry<'c> {
    /// A directory made of one or more sources.
    Directory {
        /// The mode and the owner.
        attributes: Attributes,
        /// The attributes that `perms` sets instead.
        given: Given<'c>,
        /// The entries of the directory.
        children: Children<'c>,
        /// The directory on this machine, for messages; none for `nix/` and `nix/store/`.
        source: Option<PathBuf>,
    },
    /// A file below `/`.
    File {
        /// The file on this machine.
        source: PathBuf,
        /// The attributes that `perms` sets.
        given: Given<'c>,
    },
    /// A link below `/`.
    Symlink {
        /// The target, as bytes.
        target: Vec<u8>,
        /// The link on this machine, for messages.
        source: PathBuf,
        /// The attributes that `perms` sets.
        given: Given<'c>,
    },
}

impl<'c> Node<'c> {
    /// Returns the entries of the node, if it is a directory.
    pub fn children(&self) -> Option<&Children<'c>> {
        match self.entry()? {
            TreeEntry::Directory { children, .. } => Some(children),
            _ => None,
        }
    }

    /// Returns the entries of the node, to add to them, if it is a directory.
    pub fn children_mut(&mut self) -> Option<&mut Children<'c>> {
        match self.entry_mut()? {
            TreeEntry::Directory { children, .. } => Some(children),
            _ => None,
        }
    }

    /// Returns the entry, or `None` for a store path.
    pub fn entry(&self) -> Option<&TreeEntry<'c>> {
        match self {
            Node::StorePath(_) => None,
            Node::Entry(entry) => Some(entry),
        }
    }

    /// Returns the entry, to change it, or `None` for a store path.
    pub fn entry_mut(&mut self) -> Option<&mut TreeEntry<'c>> {
        match self {
            Node::StorePath(_) => None,
            Node::Entry(entry) => Some(entry),
        }
    }

    /// Returns the attributes that `perms` sets.
    pub fn given(&self) -> Given<'c> {
        match self.entry() {
            Some(
                TreeEntry::Directory { given, .. }
                | TreeEntry::File { given, .. }
                | TreeEntry::Symlink { given, .. },
            ) => *given,
            None => Given::default(),
        }
    }

    /// Returns the place on this machine that the node comes from, for messages.
    pub fn source(&self, store: &Store) -> PathBuf {
        let entry = match self {
            Node::StorePath(path) => return store.physical(path),
            Node::Entry(entry) => &**entry,
        };
        match entry {
            TreeEntry::Directory { source: Some(source), .. }
            | TreeEntry::File { source, .. }
            | TreeEntry::Symlink { source, .. } => source.clone(),
            TreeEntry::Directory { source: None, .. } => store.physical_dir(),
        }
    }
}
