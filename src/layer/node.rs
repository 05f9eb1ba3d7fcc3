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
    /// Everything of a store path, in its place. Many layers have nothing else.
    StorePath(&'c StorePath),
    /// All else, in few places.
    Entry(Box<TreeEntry<'c>>),
}

/// An entry of a layer that is not a store path.
#[derive(Debug)]
pub enum TreeEntry<'c> {
    /// A directory made of one or more sources.
    Directory {
        /// Mode and owner.
        attributes: Attributes,
        /// What `perms` gives it instead.
        given: Given<'c>,
        /// What is in it.
        children: Children<'c>,
        /// The directory on this machine, for messages; none for `nix/` and `nix/store/`.
        source: Option<PathBuf>,
    },
    /// A file below `/`.
    File {
        /// The file on this machine.
        source: PathBuf,
        /// What `perms` gives it.
        given: Given<'c>,
    },
    /// A link below `/`.
    Symlink {
        /// Where it points, as bytes.
        target: Vec<u8>,
        /// The link on this machine, for messages.
        source: PathBuf,
        /// What `perms` gives it.
        given: Given<'c>,
    },
}

impl<'c> Node<'c> {
    /// What is in it, if it is a directory.
    pub fn children(&self) -> Option<&Children<'c>> {
        match self.entry()? {
            TreeEntry::Directory { children, .. } => Some(children),
            _ => None,
        }
    }

    /// [`Node::children`], to add to.
    pub fn children_mut(&mut self) -> Option<&mut Children<'c>> {
        match self.entry_mut()? {
            TreeEntry::Directory { children, .. } => Some(children),
            _ => None,
        }
    }

    /// None of a store path.
    pub fn entry(&self) -> Option<&TreeEntry<'c>> {
        match self {
            Node::StorePath(_) => None,
            Node::Entry(entry) => Some(entry),
        }
    }

    /// [`Node::entry`], to change.
    pub fn entry_mut(&mut self) -> Option<&mut TreeEntry<'c>> {
        match self {
            Node::StorePath(_) => None,
            Node::Entry(entry) => Some(entry),
        }
    }

    /// What `perms` gives it.
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

    /// Where it is from, for messages.
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
