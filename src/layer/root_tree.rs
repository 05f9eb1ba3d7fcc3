//! Computes which entry of which layer has each name after all layers, and checks on the way that
//! the links of these layers can be followed.
//! Stage: layer (pure). Input: layers' entries in order. Output: [`RootTree`].
//!
//! An upper layer's entry replaces a lower layer's entry and everything below it, unless both are
//! directories; whiteouts remove entries of lower layers (image-spec, layer.md, "Whiteouts").

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use thiserror::Error;

use crate::image_path::{
    ImagePath, LONGEST_PATH, Last, NodeKind, Obstacle, Tree, components, resolve, shown, split,
};

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

/// Says why the entries of a layer are not valid together.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LinkProblem {
    /// Links lead to a path that is too long for Linux.
    #[error("the links on the way to `{0}` make too long a path")]
    LongPath(String),
    /// A name leads out of the image.
    #[error("`{0}` leads out of the image")]
    LeadsOut(String),
    /// A hard link has a target that does not exist.
    #[error("`{name}` is a hard link to `{target}`, and there is no such file before it")]
    NoTarget {
        /// The link.
        name: String,
        /// The target.
        target: String,
    },
    /// Symbolic links form a circle.
    #[error("the links on the way to `{0}` lead in a circle")]
    Loop(String),
    /// Following the links on the ways of entries would take too much time or memory.
    #[error("`{0}` and names before it are behind too many links, or too long ones")]
    Costly(String),
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
    nodes: BTreeMap<ImagePath, Node>,
    /// The number of the current layer, and the paths that it has removed from those below.
    removed: (usize, BTreeSet<ImagePath>),
    /// The parent of the last name that was resolved, and its path without links.
    last_parent: Option<(ImagePath, ImagePath)>,
    files: KeptFiles,
}

/// The files that a tree keeps. Others only take the place of what was there.
#[derive(Debug, Default)]
enum KeptFiles {
    #[default]
    All,
    /// Those whose last components have these hashes, sorted.
    Named(Vec<u64>),
}

impl KeptFiles {
    fn are_kept(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Named(hashes) => hashes.binary_search(&hash(name)).is_ok(),
        }
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The price of a step on a link's way, in bytes of a budget of memory: it limits the time as well.
const STEP: u64 = 4;

impl RootTree {
    /// Makes a tree that keeps, of all files, those that hard links may name: it takes less memory,
    /// and has the same problems. `give` gives the target of each hard link.
    pub fn for_hard_links(give: impl FnOnce(&mut dyn FnMut(&[u8]))) -> Self {
        let mut hashes = Vec::new();
        give(&mut |target| {
            hashes.extend(components(target).filter(|part| *part != b".").last().map(hash));
        });
        hashes.sort_unstable();
        hashes.dedup();
        Self { files: KeptFiles::Named(hashes), ..Self::default() }
    }

    /// Adds an entry. Entries come layer by layer from the bottom up, in the order of each layer.
    /// Returns an estimate of what the links on the way of its names cost, in bytes: an entry below a
    /// short link may have a long path, and takes that much more memory and time than its name.
    ///
    /// # Errors
    /// Fails with [`LinkProblem`] if the entry is not valid.
    pub fn apply(
        &mut self,
        entry: EntryId,
        name: &[u8],
        change: Change,
    ) -> Result<u64, LinkProblem> {
        let Some((path, way)) = self.resolve(name)? else {
            // The root itself always exists.
            return Ok(0);
        };
        let mut cost = way + growth(name, &path);
        let (parent, base) = (path.parent(), split(path.as_bytes()).1);
        if base == OPAQUE {
            if self.removes_first(entry.layer, &parent) {
                self.remove_below(&parent, entry.layer);
            }
            return Ok(cost);
        }
        if let Some(hidden) = base.strip_prefix(WHITEOUT) {
            let hidden = parent.join(hidden);
            if !self.removes_first(entry.layer, &hidden) {
                return Ok(cost);
            }
            self.remove_below(&hidden, entry.layer);
            if self.nodes.get(&hidden).is_some_and(|node| node.layer < entry.layer) {
                self.remove(&hidden);
            }
            return Ok(cost);
        }
        let node = match change {
            Change::HardLink(target) => {
                let missing = || LinkProblem::NoTarget { name: shown(name), target: shown(target) };
                let resolved = self.resolve(target)?;
                let of_target = |(path, way): &(ImagePath, u64)| way + growth(target, path);
                cost += resolved.as_ref().map_or(0, of_target);
                let found = resolved.and_then(|(target, _)| self.nodes.get(&target));
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
        if node.kind == Kind::Other && !self.files.are_kept(split(path.as_bytes()).1) {
            self.remove(&path);
            return Ok(way);
        }
        self.insert(path, node);
        Ok(cost)
    }

    /// Returns the names that entries have in the end. Entries without a name are gone.
    pub fn names(&self) -> EntryNames<'_> {
        let mut names: Vec<_> =
            self.nodes.iter().map(|(name, node)| (node.entry, name.as_bytes())).collect();
        names.sort_unstable();
        EntryNames(names)
    }

    /// Returns what is at a path without following any link. The path is relative to the root.
    pub fn at(&self, path: &ImagePath) -> Option<RootNode<'_>> {
        match self.nodes.get(path) {
            Some(Node { entry, kind, .. }) => Some(match kind {
                Kind::Directory => RootNode::Directory(Some(*entry)),
                Kind::Symlink(target) => RootNode::Symlink(*entry, target),
                Kind::Other => RootNode::Other(*entry),
            }),
            None if path.is_root() => Some(RootNode::Directory(None)),
            None => self.below(path).next().map(|_| RootNode::Directory(None)),
        }
    }

    /// Returns the names in a directory, sorted, each once.
    pub fn names_in(&self, directory: &ImagePath) -> BTreeSet<&[u8]> {
        let first = directory.prefix().len();
        let names =
            self.below(directory).map(|(path, _)| components(&path.as_bytes()[first..]).next());
        names.flatten().collect()
    }

    /// Returns every path, sorted, with its entry.
    pub fn paths(&self) -> impl Iterator<Item = (&ImagePath, EntryId)> {
        self.nodes.iter().map(|(path, node)| (path, node.entry))
    }

    /// Returns the entries in a directory and below.
    fn below(&self, directory: &ImagePath) -> impl Iterator<Item = (&ImagePath, &Node)> {
        let first = directory.prefix();
        let nodes = self.nodes.range::<[u8], _>((Bound::Included(&first[..]), Bound::Unbounded));
        nodes.take_while(move |(path, _)| path.as_bytes().starts_with(&first))
    }

    /// Records that a layer removes a path of those below. Returns whether it is the first time.
    fn removes_first(&mut self, layer: usize, path: &ImagePath) -> bool {
        if self.removed.0 != layer {
            self.removed = (layer, BTreeSet::new());
        }
        self.removed.1.insert(path.clone())
    }

    /// Removes from a directory the entries of layers below `layer`.
    fn remove_below(&mut self, directory: &ImagePath, layer: usize) {
        let gone: Vec<_> = self
            .below(directory)
            .filter(|(_, node)| node.layer < layer)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.remove(&name);
        }
    }

    fn insert(&mut self, path: ImagePath, node: Node) {
        self.forget_parent_if_link(&node);
        if let Some(old) = self.nodes.insert(path, node) {
            self.forget_parent_if_link(&old);
        }
    }

    fn remove(&mut self, path: &ImagePath) {
        if let Some(old) = self.nodes.remove(path) {
            self.forget_parent_if_link(&old);
        }
    }

    /// Forgets the resolved parent if the node, which comes or goes, is a link: names may lead
    /// elsewhere now.
    fn forget_parent_if_link(&mut self, node: &Node) {
        if matches!(node.kind, Kind::Symlink(_)) {
            self.last_parent = None;
        }
    }

    /// Returns the path that a name stands for, after following the links of its parents, and the
    /// cost of their steps; `None` for the root.
    fn resolve(&mut self, name: &[u8]) -> Result<Option<(ImagePath, u64)>, LinkProblem> {
        let long_path = || LinkProblem::LongPath(shown(name));
        if components(name).any(|part| part == b"..") {
            return Err(LinkProblem::LeadsOut(shown(name)));
        }
        let path = ImagePath::normal(name);
        let (parents, base) = split(path.as_bytes());
        if path.is_root() {
            return Ok(None);
        }
        let known = self.last_parent.as_ref().filter(|(parent, _)| parent.as_bytes() == parents);
        let (parent, way) = match known {
            Some((_, place)) => (place.clone(), 0),
            None => {
                let mut links = Links { tree: self, steps: 0 };
                let followed = resolve(&mut links, parents, Last::Followed);
                let extra = links.steps.saturating_sub(1 + components(parents).count() as u64);
                let (place, _) = followed.map_err(|stopped| match stopped.obstacle() {
                    Obstacle::LongPath(_) => long_path(),
                    _ => LinkProblem::Loop(shown(name)),
                })?;
                self.last_parent = Some((path.parent(), place.clone()));
                (place, STEP * extra)
            }
        };
        // A new path has no spare memory behind it.
        let place = parent.join(base);
        if place.as_bytes().len() > LONGEST_PATH {
            return Err(long_path());
        }
        Ok(Some((place, way)))
    }
}

/// Returns by how many bytes a path is longer than the name that leads to it.
fn growth(name: &[u8], path: &ImagePath) -> u64 {
    path.as_bytes().len().saturating_sub(name.len()) as u64
}

/// The links of a tree that is being composed. Layers need no entries for their directories.
struct Links<'t> {
    tree: &'t RootTree,
    /// The number of nodes that were looked up.
    steps: u64,
}

impl<'t> Tree for Links<'t> {
    type Node = NodeKind<'t>;
    type Error = Infallible;

    fn node(&mut self, path: &ImagePath) -> Result<Option<NodeKind<'t>>, Infallible> {
        self.steps += 1;
        Ok(Some(match self.tree.nodes.get(path) {
            Some(Node { kind: Kind::Symlink(target), .. }) if !target.is_empty() => {
                NodeKind::Symlink(target)
            }
            _ => NodeKind::Directory,
        }))
    }

    fn kind<'n>(node: &'n NodeKind<'t>) -> NodeKind<'n> {
        *node
    }
}

/// The names of entries, sorted by entry and name.
pub struct EntryNames<'t>(Vec<(EntryId, &'t [u8])>);

impl<'t> EntryNames<'t> {
    /// Returns the names of an entry, sorted.
    pub fn of(&self, entry: EntryId) -> impl Iterator<Item = &'t [u8]> {
        let first = self.0.partition_point(|(other, _)| *other < entry);
        self.0[first..].iter().take_while(move |(other, _)| *other == entry).map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Applies lines such as `d NAME`, `f NAME`, `s NAME TARGET`, `h NAME TARGET`; `-` begins
    /// another layer. Returns the names that are left, each with its entry.
    fn tree(lines: &[&str]) -> Result<Vec<String>, LinkProblem> {
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
    fn names_below_links_cost_their_paths() {
        let mut tree = RootTree::default();
        let mut index = 0;
        let mut apply = |name: &str, change| {
            index += 1;
            tree.apply(EntryId { layer: 0, index }, name.as_bytes(), change).unwrap()
        };
        let (deep, roundabout) = (["a"; 2000].join("/"), "a/../".repeat(800));
        assert_eq!(apply("bin", Change::Symlink(b"usr/bin")), 0);
        assert_eq!(apply("usr/bin/x", Change::Other), 0);
        // The link leads over two more directories, and the path is four bytes longer.
        assert_eq!(apply("bin/y", Change::Other), 2 * STEP + 4);
        assert_eq!(apply("bin/z", Change::Other), 4);
        apply("l", Change::Symlink(deep.as_bytes()));
        assert!(apply("l/x", Change::Other) > 8000);
        assert!((3900..4100).contains(&apply("l/y", Change::Other)));
        assert!(apply("l/.wh.x", Change::Other) > 3900);
        assert!(apply("h", Change::HardLink(b"l/y")) > 3900);
        apply("r", Change::Symlink(roundabout.as_bytes()));
        assert!(apply("r/x", Change::Other) >= 800 * STEP);
    }

    #[test]
    fn a_link_that_changes_leads_elsewhere_at_once() {
        for (lines, expected) in [
            (&["s l a", "f l/x", "s l b", "f l/y"][..], &["a/x 0.1", "b/y 0.3", "l 0.2"][..]),
            (&["s l a", "f l/x", "d l", "f l/y"], &["a/x 0.1", "l 0.2", "l/y 0.3"]),
            (&["f l/x", "s l b", "f l/y"], &["b/y 0.2", "l 0.1"]),
            (
                &["s l a", "f l/x", "-", "f l/y", "f .wh.l", "f l/z"],
                &["a/x 0.1", "a/y 1.0", "l/z 1.2"],
            ),
            (
                &["s d/l a", "f d/l/x", "-", "f d/l/y", "f .wh.d", "f d/l/z"],
                &["d/a/y 1.0", "d/l/z 1.2"],
            ),
            (
                &["s k l", "s l a", "f k/x", "s l b", "f k/y"],
                &["a/x 0.2", "b/y 0.4", "k 0.0", "l 0.3"],
            ),
            (&["s l a", "h m l", "f m/x"], &["a/x 0.2", "l 0.0", "m 0.0"]),
        ] {
            assert_eq!(tree(lines).unwrap(), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_layer_is_refused() {
        for (lines, expected) in [
            (&["f ../x"][..], "`../x` leads out of the image"),
            (&["h b a"], "`b` is a hard link to `a`, and there is no such file before it"),
            (&["d a", "h b a"], "`b` is a hard link to `a`, and there is no such file before it"),
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
