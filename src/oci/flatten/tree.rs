//! Computes which entry of which layer has each name after all layers.
//! Stage: oci (pure). Input: layers' entries in order. Output: [`RootTree`].
//!
//! An upper layer's entry replaces a lower layer's entry and everything below it, unless both are
//! directories; whiteouts remove entries of lower layers (image-spec, layer.md, "Whiteouts").

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::oci::unpack::{self, TarError};

/// The largest number of links in a row, as in Linux.
const LINKS: usize = 40;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// An entry of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    /// The number of the layer, from 0 at the bottom.
    pub layer: usize,
    /// The index of the entry in the layer's tar, from 0.
    pub index: usize,
}

/// The kind of an entry, as far as it affects others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(&'a [u8]),
    /// A further name of the file with this name.
    HardLink(&'a [u8]),
    /// A file, a device or another kind.
    Other,
}

/// Says why a layer is not valid.
#[derive(Debug, Error)]
pub enum Problem {
    /// The archive can't be read, or has a member that is not valid.
    #[error("{0}")]
    Archive(#[from] TarError),
    /// Links lead to a path that is too long for Linux.
    #[error("the links on the way to `{0}` make too long a path")]
    LongPath(String),
    /// A name leads out of the image.
    #[error("`{0}` leads out of the image")]
    LeadsOut(String),
    /// A hard link has a target that does not exist.
    #[error("`{name}` is a hard link to `{target}`, which does not exist")]
    NoTarget {
        /// The link.
        name: String,
        /// The target.
        target: String,
    },
    /// Symbolic links form a circle.
    #[error("the links on the way to `{0}` lead in a circle")]
    Loop(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    /// The entry that has the contents.
    entry: EntryId,
    /// The layer that gave the entry this name.
    layer: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    Symlink(Vec<u8>),
    Other,
}

/// The last entry of a path, after all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootNode<'t> {
    /// A directory. One that only has entries below it has none of its own.
    Directory(Option<EntryId>),
    /// A symbolic link, with its target.
    Symlink(EntryId, &'t [u8]),
    /// A file, a device or another kind.
    Other(EntryId),
}

/// A root file system that is being composed.
#[derive(Debug, Default)]
pub struct RootTree {
    nodes: BTreeMap<Vec<u8>, Node>,
    /// The number of the current layer, and the paths that it has removed from those below.
    removed: (usize, BTreeSet<Vec<u8>>),
}

impl RootTree {
    /// Adds an entry. Entries come layer by layer from the bottom up, in the order of each layer.
    ///
    /// # Errors
    /// Fails with [`Problem`] if the entry is not valid.
    pub fn apply(&mut self, entry: EntryId, name: &[u8], change: Change) -> Result<(), Problem> {
        let Some(path) = self.resolve(name)? else {
            // The root itself always exists.
            return Ok(());
        };
        let (parent, base) = split(&path);
        if base == OPAQUE {
            if self.removes_first(entry.layer, parent) {
                self.remove_below(parent, entry.layer);
            }
            return Ok(());
        }
        if let Some(hidden) = base.strip_prefix(WHITEOUT) {
            let hidden = joined(parent, hidden);
            if !self.removes_first(entry.layer, &hidden) {
                return Ok(());
            }
            self.remove_below(&hidden, entry.layer);
            if self.nodes.get(&hidden).is_some_and(|node| node.layer < entry.layer) {
                self.nodes.remove(&hidden);
            }
            return Ok(());
        }
        let node = match change {
            Change::HardLink(target) => {
                let missing = || Problem::NoTarget { name: shown(name), target: shown(target) };
                let found = self.resolve(target)?.and_then(|target| self.nodes.get(&target));
                let found =
                    found.filter(|node| node.kind != Kind::Directory).ok_or_else(missing)?;
                Node { layer: entry.layer, ..found.clone() }
            }
            Change::Directory => Node { entry, layer: entry.layer, kind: Kind::Directory },
            Change::Symlink(target) => {
                Node { entry, layer: entry.layer, kind: Kind::Symlink(target.to_vec()) }
            }
            Change::Other => Node { entry, layer: entry.layer, kind: Kind::Other },
        };
        if node.kind != Kind::Directory {
            self.remove_below(&path, usize::MAX);
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Returns the names that entries have in the end. Entries without a name are gone.
    pub fn names(&self) -> Names<'_> {
        let mut names: Vec<_> =
            self.nodes.iter().map(|(name, node)| (node.entry, &**name)).collect();
        names.sort_unstable();
        Names(names)
    }

    /// Returns what is at a path without following any link. The path is relative to the root.
    pub fn at(&self, path: &[u8]) -> Option<RootNode<'_>> {
        match self.nodes.get(path) {
            Some(Node { entry, kind, .. }) => Some(match kind {
                Kind::Directory => RootNode::Directory(Some(*entry)),
                Kind::Symlink(target) => RootNode::Symlink(*entry, target),
                Kind::Other => RootNode::Other(*entry),
            }),
            None if path.is_empty() => Some(RootNode::Directory(None)),
            None => self.below(path).next().map(|_| RootNode::Directory(None)),
        }
    }

    /// Returns the names in a directory, sorted, each once.
    pub fn names_in(&self, directory: &[u8]) -> BTreeSet<&[u8]> {
        let first = if directory.is_empty() { 0 } else { directory.len() + 1 };
        let names = self.below(directory).map(|(path, _)| parts(&path[first..]).next());
        names.flatten().collect()
    }

    /// Returns every path, sorted, with its entry.
    pub fn paths(&self) -> impl Iterator<Item = (&[u8], EntryId)> {
        self.nodes.iter().map(|(path, node)| (&path[..], node.entry))
    }

    /// Returns the entries in a directory and below.
    fn below(&self, directory: &[u8]) -> impl Iterator<Item = (&[u8], &Node)> {
        let first = if directory.is_empty() { Vec::new() } else { joined(directory, b"") };
        let nodes = self.nodes.range(first.clone()..);
        nodes
            .take_while(move |(name, _)| name.starts_with(&first))
            .map(|(name, node)| (&name[..], node))
    }

    /// Records that a layer removes a path of those below. Returns whether it is the first time.
    fn removes_first(&mut self, layer: usize, path: &[u8]) -> bool {
        if self.removed.0 != layer {
            self.removed = (layer, BTreeSet::new());
        }
        self.removed.1.insert(path.to_vec())
    }

    /// Removes from a directory the entries of layers below `layer`.
    fn remove_below(&mut self, directory: &[u8], layer: usize) {
        let gone: Vec<_> = self
            .below(directory)
            .filter(|(_, node)| node.layer < layer)
            .map(|(name, _)| name.to_vec())
            .collect();
        for name in gone {
            self.nodes.remove(&name);
        }
    }

    /// Returns the path that a name stands for, after following the links of its parents; `None`
    /// for the root.
    fn resolve(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        let parts: Vec<_> = parts(name).collect();
        if parts.contains(&&b".."[..]) {
            return Err(Problem::LeadsOut(shown(name)));
        }
        let Some((base, parents)) = parts.split_last() else { return Ok(None) };
        let mut open: Vec<Vec<u8>> = parents.iter().rev().map(|part| part.to_vec()).collect();
        let mut path = Vec::new();
        let mut links = 0;
        while let Some(part) = open.pop() {
            if part == b".." {
                path = split(&path).0.to_vec();
                continue;
            }
            let next = joined(&path, &part);
            let Some(Node { kind: Kind::Symlink(target), .. }) = self.nodes.get(&next) else {
                path = next;
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(Problem::Loop(shown(name)));
            }
            if target.starts_with(b"/") {
                path.clear();
            }
            if path.len() + target.len() > unpack::PATH {
                return Err(Problem::LongPath(shown(name)));
            }
            let target: Vec<_> = self::parts(target).map(<[u8]>::to_vec).collect();
            open.extend(target.into_iter().rev());
        }
        let path = joined(&path, base);
        if path.len() > unpack::PATH {
            return Err(Problem::LongPath(shown(name)));
        }
        Ok(Some(path))
    }
}

/// The names of entries, sorted by entry and name.
pub struct Names<'t>(Vec<(EntryId, &'t [u8])>);

impl<'t> Names<'t> {
    /// Returns the names of an entry, sorted.
    pub fn of(&self, entry: EntryId) -> impl Iterator<Item = &'t [u8]> {
        let first = self.0.partition_point(|(other, _)| *other < entry);
        self.0[first..].iter().take_while(move |(other, _)| *other == entry).map(|(_, name)| *name)
    }
}

fn parts(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

fn shown(name: &[u8]) -> String {
    unpack::shown(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Applies lines such as `d NAME`, `f NAME`, `s NAME TARGET`, `h NAME TARGET`; `-` begins
    /// another layer. Returns the names that are left, each with its entry.
    fn tree(lines: &[&str]) -> Result<Vec<String>, Problem> {
        let mut tree = RootTree::default();
        let (mut layer, mut index) = (0, 0);
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let change = match words[0] {
                "-" => {
                    (layer, index) = (layer + 1, 0);
                    continue;
                }
                "d" => Change::Directory,
                "s" => Change::Symlink(words[2].as_bytes()),
                "h" => Change::HardLink(words[2].as_bytes()),
                _ => Change::Other,
            };
            tree.apply(EntryId { layer, index }, words[1].as_bytes(), change)?;
            index += 1;
        }
        let names = tree.names();
        let shown = |(entry, name): &(EntryId, &[u8])| {
            format!("{} {}.{}", shown(name), entry.layer, entry.index)
        };
        let mut all: Vec<_> = names.0.iter().map(shown).collect();
        all.sort();
        Ok(all)
    }

    #[test]
    fn upper_layers_replace_lower_ones() {
        for (lines, expected) in [
            (&["d ./", "d a/", "f ./a/x", "-", "f a/x"][..], &["a 0.1", "a/x 1.0"][..]),
            // A directory keeps its entries, and has the attributes of the upper layer.
            (&["d a", "f a/x", "-", "d a"], &["a 1.0", "a/x 0.1"]),
            // A file in place of a directory hides the whole directory; and the reverse.
            (&["d a", "f a/x", "f ab", "-", "f a"], &["a 1.0", "ab 0.2"]),
            (&["f a", "-", "d a", "f a/x"], &["a 1.0", "a/x 1.1"]),
            // Whiteouts.
            (&["d a", "f a/x", "f a/y", "-", "f a/.wh.x"], &["a 0.0", "a/y 0.2"]),
            (&["d a", "f a/x", "-", "f .wh.a"], &[]),
            (&["d a", "f a/x", "-", "d a", "f a/y", "f a/.wh..wh..opq"], &["a 1.0", "a/y 1.1"]),
            (&["f x", "-", "f x", "f .wh.x"], &["x 1.0"]),
            (&["f x", "f y", "-", "f .wh..wh..opq"], &[]),
            // Hidden entries stay hidden.
            (&["f x", "-", "f .wh.x", "-", "d y"], &["y 2.0"]),
            // If a layer has two entries of one name, the last one counts.
            (&["f x", "f x"], &["x 0.1"]),
        ] {
            assert_eq!(tree(lines).unwrap(), expected, "{lines:?}");
        }
    }

    #[test]
    fn hard_links_are_names() {
        for (lines, expected) in [
            (&["f a", "h b a"][..], &["a 0.0", "b 0.0"][..]),
            // A file stays as long as it has a name.
            (&["f a", "h b a", "-", "f .wh.a"], &["b 0.0"]),
            (&["f a", "-", "h b a", "f a"], &["a 1.1", "b 0.0"]),
        ] {
            assert_eq!(tree(lines).unwrap(), expected, "{lines:?}");
        }
    }

    #[test]
    fn links_to_directories_are_followed() {
        for (lines, expected) in [
            (&["d usr", "d usr/bin", "s bin usr/bin", "-", "f bin/x"][..], "usr/bin/x 1.0"),
            (&["d usr", "s bin /usr", "-", "f bin/x"], "usr/x 1.0"),
            (&["d a", "d b", "s a/up ../b", "-", "f a/up/x"], "b/x 1.0"),
            (&["s a ../../../b", "-", "f a/x"], "b/x 1.0"),
        ] {
            assert!(tree(lines).unwrap().contains(&expected.to_owned()), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_layer_is_refused() {
        for (lines, expected) in [
            (&["f ../x"][..], "`../x` leads out of the image"),
            (&["h b a"], "`b` is a hard link to `a`, which does not exist"),
            (&["d a", "h b a"], "`b` is a hard link to `a`, which does not exist"),
            (&["s a b", "s b a", "f a/x"], "the links on the way to `a/x` lead in a circle"),
        ] {
            assert_eq!(tree(lines).unwrap_err().to_string(), expected);
        }
    }

    proptest! {
        /// Checks, for any layers, that only directories have entries below them, and that no
        /// whiteout is left.
        #[test]
        fn it_is_a_tree(
            lines in prop::collection::vec(
                (prop::sample::select(vec!["d", "f", "s", "-"]), "[ab](/[ab])?(/(\\.wh\\.)?[ab])?"),
                0..30,
            ),
        ) {
            let lines: Vec<_> = lines.iter().map(|(kind, name)| format!("{kind} {name} /c")).collect();
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let left = tree(&lines).unwrap();
            for name in &left {
                prop_assert!(!name.contains(".wh."), "{}", name);
            }
        }
    }
}
