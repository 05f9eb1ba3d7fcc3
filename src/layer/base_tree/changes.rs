//! Collects the changes of each layer of a base to the layers below it, including whiteouts.
//! Stage: layer (pure). Input: the entries of a layer. Output: [`BaseTree`] with that layer on top.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use super::entry_log::EntryLog;
use super::{ACCOUNT_FILES, Attributes, BaseNode, BaseTree, STATE_FILES};
use crate::image_path::{ImagePath, split};
use crate::layer::root_tree::Change;
use crate::store::StorePath;

/// The changes of one layer of a base to the layers below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseLayerTree {
    /// All entries, in the order of the archive.
    pub(super) log: EntryLog,
    /// The last entry of each name that is a directory or a link.
    entries: BTreeMap<ImagePath, BaseChange>,
    /// Names that a whiteout removes from the layers below.
    removed: BTreeSet<ImagePath>,
    /// Directories whose contents an opaque whiteout removes from the layers below.
    emptied: BTreeSet<ImagePath>,
    /// Hashes of all other names, sorted: enough to notice that an entry replaces a directory or
    /// link below.
    others: Vec<u64>,
    /// The files among these names that belong to Nix's database, that have accounts, or that are
    /// store paths.
    state: BTreeSet<ImagePath>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum BaseChange {
    Node(BaseNode),
    /// A directory that has entries but none of its own: if it exists below, it keeps its
    /// attributes.
    Implied,
}

/// The kind of an entry of a base layer, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseEntry<'a> {
    /// A directory.
    Directory(Attributes),
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A further name of the file with this name.
    HardLink(&'a [u8]),
    /// A file or a device.
    Other,
}

impl<'a> BaseEntry<'a> {
    fn change(self) -> Change<'a> {
        match self {
            Self::Directory(_) => Change::Directory,
            Self::Symlink(target) => Change::Symlink(target),
            Self::HardLink(target) => Change::HardLink(target),
            Self::Other => Change::Other,
        }
    }
}

/// Collects the entries of a layer in the order of its archive.
#[derive(Debug, Default)]
pub struct BaseLayerBuilder {
    tree: BaseLayerTree,
}

impl BaseLayerBuilder {
    /// Adds an entry, by its name in the archive. Of several entries with one name, the last
    /// counts. Returns an estimate of the memory that the entry takes, in bytes.
    pub fn add(&mut self, name: &[u8], entry: BaseEntry) -> u64 {
        let tree = &mut self.tree;
        let written = name;
        let logged = tree.log.add(written, entry.change());
        let name = ImagePath::normal(written);
        let size = memory(&name);
        let (parent, last) = (name.parent(), split(name.as_bytes()).1);
        if last == b".wh..wh..opq" {
            tree.emptied.insert(parent);
            return logged + size;
        }
        // aufs kept such names for itself, and old images have them.
        if last.starts_with(b".wh..wh.") {
            return logged;
        }
        if let Some(hidden) = last.strip_prefix(b".wh.") {
            tree.removed.insert(parent.join(hidden));
            return logged + size;
        }
        let implied = tree.imply(parent);
        let own = match entry {
            BaseEntry::Directory(attributes) => {
                tree.state.remove(&name);
                tree.entries.insert(name, BaseChange::Node(BaseNode::Directory(attributes)));
                size
            }
            BaseEntry::Symlink(target) => {
                tree.state.remove(&name);
                tree.entries.insert(name, BaseChange::Node(BaseNode::Symlink(target.to_vec())));
                size + target.len() as u64
            }
            // The file at its target is kept while links are checked.
            BaseEntry::HardLink(target) => HARD_LINK + target.len() as u64 + tree.add_file(name),
            BaseEntry::Other => tree.add_file(name),
        };
        logged + implied + own
    }

    /// Returns the changes of the layer, after its last entry.
    pub fn finish(self) -> BaseLayerTree {
        let mut tree = self.tree;
        tree.others.sort_unstable();
        tree.others.dedup();
        tree
    }
}

impl BaseLayerTree {
    fn add_file(&mut self, name: ImagePath) -> u64 {
        self.others.push(hash(name.as_bytes()));
        self.entries.remove(&name);
        // A hash has eight bytes, and the list doubles when it grows.
        let mut size = 16;
        if is_state(name.as_bytes()) {
            size += memory(&name);
            self.state.insert(name);
        }
        size
    }

    fn has_other(&self, name: &[u8]) -> bool {
        self.others.binary_search(&hash(name)).is_ok()
    }

    /// Returns whether the layer has this file of Nix's database, or of accounts.
    pub fn has_state(&self, name: &ImagePath) -> bool {
        self.state.contains(name)
    }

    /// Returns whether the layer has a link of this name.
    pub fn has_link(&self, name: &ImagePath) -> bool {
        self.entries.get(name).is_some_and(BaseChange::is_link)
    }

    /// Returns whether the layer removes or replaces the file that the layers below have under a
    /// name.
    pub fn hides(&self, name: &ImagePath) -> bool {
        let mut name = name.as_bytes();
        loop {
            let is_link = || self.entries.get(name).is_some_and(BaseChange::is_link);
            if self.removed.contains(name) || self.has_other(name) || is_link() {
                return true;
            }
            if name.is_empty() {
                return false;
            }
            name = split(name).0;
            if self.emptied.contains(name) {
                return true;
            }
        }
    }

    /// Adds a directory, and those above it, unless it has an entry.
    fn imply(&mut self, mut directory: ImagePath) -> u64 {
        let mut size = 0;
        while !directory.is_root() && !self.entries.contains_key(&directory) {
            size += memory(&directory);
            let parent = directory.parent();
            self.entries.insert(directory, BaseChange::Implied);
            directory = parent;
        }
        size
    }
}

impl BaseChange {
    fn is_link(&self) -> bool {
        matches!(self, Self::Node(BaseNode::Symlink(_)))
    }
}

impl BaseTree {
    /// Applies one more layer to the tree.
    pub fn apply(&mut self, layer: &BaseLayerTree) {
        let BaseLayerTree { entries, removed, emptied, state, .. } = layer;
        for name in removed {
            self.remove(name);
        }
        for name in emptied {
            self.empty(name);
        }
        let replaced = |name: &&ImagePath| layer.has_other(name.as_bytes());
        let replaced: Vec<ImagePath> = self.nodes.keys().filter(replaced).cloned().collect();
        for name in &replaced {
            self.remove(name);
        }
        for (name, change) in entries {
            match change {
                BaseChange::Implied => {
                    self.nodes
                        .entry(name.clone())
                        .or_insert(BaseNode::Directory(Attributes::IMPLIED));
                }
                BaseChange::Node(node) => {
                    if matches!(node, BaseNode::Symlink(_)) {
                        self.empty(name);
                    }
                    self.nodes.insert(name.clone(), node.clone());
                }
            }
        }
        for name in state {
            self.nodes.insert(name.clone(), BaseNode::State);
        }
    }

    fn remove(&mut self, name: &ImagePath) {
        self.nodes.remove(name);
        self.empty(name);
    }

    /// Removes everything below a name.
    fn empty(&mut self, name: &ImagePath) {
        let below: Vec<ImagePath> = if name.is_root() {
            self.nodes.keys().filter(|name| !name.is_root()).cloned().collect()
        } else {
            let (from, to) = below(name);
            let range = (Bound::Excluded(&from[..]), Bound::Excluded(&to[..]));
            self.nodes.range::<[u8], _>(range).map(|(name, _)| name.clone()).collect()
        };
        for name in below {
            self.nodes.remove(&name);
        }
    }
}

/// Returns the ends of the range that covers all names that go on with a slash: from `/` to the byte
/// after it.
fn below(name: &ImagePath) -> (Vec<u8>, Vec<u8>) {
    (name.prefix(), [name.as_bytes(), b"0"].concat())
}

/// The memory that the target of a hard link takes besides its path, in bytes.
const HARD_LINK: u64 = 120;

/// Estimates the memory, in bytes, that a name takes in the tree of its layer and in the tree of
/// the whole base.
fn memory(name: &ImagePath) -> u64 {
    160 + 2 * name.as_bytes().len() as u64
}

/// Returns whether a file has the path of one of the files of Nix's database, or of accounts, or is
/// a store path itself. The directory may be reached through links.
fn is_state(name: &[u8]) -> bool {
    let (parent, last) = split(name);
    let is_one = |files: &[&str]| files.iter().any(|name| name.as_bytes() == last);
    match split(parent).1 {
        b"db" => is_one(&STATE_FILES),
        b"etc" => is_one(&ACCOUNT_FILES),
        b"store" => std::str::from_utf8(last).is_ok_and(|last| last.parse::<StorePath>().is_ok()),
        _ => false,
    }
}

/// Returns a hash that stands for the name of a file while layers are combined: a base has too many
/// files to remember all names.
fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STICKY, USUAL, directory, file, link, tree};
    use super::*;

    fn names(tree: &BaseTree) -> Vec<&str> {
        tree.nodes.keys().map(|name| std::str::from_utf8(name.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn attributes_are_those_of_the_topmost_entry() {
        let tree = tree(&[
            &[("tmp/", BaseEntry::Directory(STICKY)), ("./srv", BaseEntry::Directory(STICKY))],
            &[directory("/srv/"), file("tmp/x"), file("opt/a/b")],
        ]);
        for (path, attributes) in [
            ("tmp", Some(STICKY)), // implied by a file in the second layer: keeps what it had
            ("srv", Some(USUAL)),
            ("opt/a", Some(USUAL)),
            ("opt/a/b", None),
            ("", None),
        ] {
            assert_eq!(tree.attributes(&ImagePath::normal(path.as_bytes())), attributes, "{path}");
        }
    }

    /// Checks that what is kept for hard links is counted: 300,000 of them took 140 MiB.
    #[test]
    fn hard_links_cost_the_memory_of_their_targets() {
        let cost = |entry| BaseLayerBuilder::default().add(b"h", entry);
        let (target, file) = ([b'a'; 100], cost(BaseEntry::Other));
        assert!(cost(BaseEntry::HardLink(&target)) >= file + HARD_LINK + 2 * target.len() as u64);
    }

    #[test]
    fn what_is_hidden_is_known() {
        let mut layer = BaseLayerBuilder::default();
        for (name, entry) in
            [file("a/.wh.b"), file("c/.wh..wh..opq"), directory("d"), link("e", "x"), file("f")]
        {
            layer.add(name.as_bytes(), entry);
        }
        let layer = layer.finish();
        for (name, hidden) in [
            ("a", false),
            ("a/b", true),
            ("a/b/c", true),
            ("a/bc", false),
            ("c", false),
            ("c/x", true),
            ("d/x", false),
            ("e/x", true),
            ("f", true),
        ] {
            assert_eq!(layer.hides(&ImagePath::normal(name.as_bytes())), hidden, "{name}");
        }
    }

    #[test]
    fn layers_change_what_is_below_them() {
        type Layer<'a> = &'a [(&'a str, BaseEntry<'a>)];
        let below: Layer = &[directory("a/b/c"), directory("a-b"), link("a/l", "b")];
        let all = ["a", "a-b", "a/b", "a/b/c", "a/l"];
        for (what, above, expected) in [
            ("nothing", &[][..], &all[..]),
            ("whiteout of a directory", &[file("a/.wh.b")], &["a", "a-b", "a/l"]),
            ("whiteout of a link", &[file("a/.wh.l")], &["a", "a-b", "a/b", "a/b/c"]),
            ("whiteout at the top", &[file(".wh.a")], &["a-b"]),
            ("opaque", &[directory("a"), file("a/.wh..wh..opq")], &["a", "a-b"]),
            (
                "opaque, after a new entry",
                &[directory("a/n"), file("a/.wh..wh..opq")],
                &["a", "a-b", "a/n"],
            ),
            ("opaque root", &[file(".wh..wh..opq"), directory("z")], &["z"]),
            (
                "whiteouts spare their own layer",
                &[directory("a/b"), file("a/.wh.b")],
                &["a", "a-b", "a/b", "a/l"],
            ),
            ("aufs's own", &[directory(".wh..wh.plnk")], &all),
            ("a file over a directory", &[file("a/b")], &["a", "a-b", "a/l"]),
            ("a file over a link", &[file("a/l")], &["a", "a-b", "a/b", "a/b/c"]),
            ("a link over a directory", &[link("a", "x")], &["a", "a-b"]),
            ("a directory over a link", &[directory("a/l")], &all),
            (
                "a file, then a directory",
                &[file("a/b"), directory("a/b")],
                &["a", "a-b", "a/b", "a/l"],
            ),
        ] {
            assert_eq!(names(&tree(&[below, above])), expected, "{what}");
        }
        let state = "nix/var/nix/db/db.sqlite";
        for (what, above, there) in [
            ("nothing", &[][..], true),
            ("another", &[file(state)], true),
            ("whiteout", &[file("nix/var/nix/db/.wh.db.sqlite")], false),
            ("whiteout of all", &[file(".wh.nix")], false),
            ("a directory", &[directory(state)], false),
        ] {
            let found = tree(&[&[file(state), file("srv/db.sqlite")], above]);
            let names = found.state_files("/nix/var/nix/db").unwrap();
            assert_eq!(names.len(), usize::from(there), "{what}");
        }
        let linked = tree(&[&[link("nix", "data/nix"), file("data/nix/var/nix/db/schema")]]);
        let names = linked.state_files("/nix/var/nix/db").unwrap();
        assert_eq!(names, [("schema", ImagePath::normal(b"data/nix/var/nix/db/schema"))]);
        let replaced = tree(&[below, &[directory("a/l")]]);
        assert_eq!(replaced.attributes(&ImagePath::normal(b"a/l")), Some(USUAL));
    }
}
