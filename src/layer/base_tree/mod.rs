//! The directories and links of the base image, which the layers above must respect.
//! Stage: layer (pure). Input: the entries of each layer of the base. Output: [`BaseTree`].
//!
//! A later layer's entry for a directory replaces an earlier directory's attributes; if there was a
//! link in its place, the entry replaces the link (image-spec, layer.md, "Changeset over existing
//! files"). So an entry for `tmp/` would take away the mode 1777, and an entry for `bin/` would
//! hide everything that `bin -> usr/bin` leads to. Layers are therefore built with this tree.

mod changes;
mod entry_log;
mod json;
mod links;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::image_path::{ImagePath, Last, NodeKind, Obstacle, Stopped, Tree, resolve, split};
pub use changes::{BaseEntry, BaseLayerBuilder, BaseLayerTree};
pub use links::check_links;

/// The files of Nix's database in its directory (Nix, `src/libstore/local-store.cc`; SQLite's
/// "Temporary Files").
const STATE_FILES: [&str; 4] = ["db.sqlite", "db.sqlite-journal", "db.sqlite-wal", "schema"];

/// The files of accounts in `/etc` (passwd(5), group(5), shadow(5), gshadow(5), nsswitch.conf(5)).
pub const ACCOUNT_FILES: [&str; 5] = ["passwd", "group", "shadow", "gshadow", "nsswitch.conf"];

/// Mode and owner of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// Permission bits, with set-ID and sticky bits.
    #[serde(with = "json::octal")]
    pub mode: u32,
    /// The number of the owner.
    pub uid: u64,
    /// The number of the group.
    pub gid: u64,
}

impl Attributes {
    /// The attributes of a directory without an entry of its own in the archive: those that
    /// unpacking tools give it.
    pub const IMPLIED: Self = Self { mode: 0o755, uid: 0, gid: 0 };
}

/// The directories and symbolic links of an image, without its files, which would take more memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "json::BaseTreeJson", into = "json::BaseTreeJson")]
pub struct BaseTree {
    nodes: BTreeMap<ImagePath, BaseNode>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum BaseNode {
    Directory(Attributes),
    /// A symbolic link, with its target as written.
    Symlink(Vec<u8>),
    /// A file of Nix's database or of accounts, or a store path that is a file.
    State,
}

/// Says where the base has a file of accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountFile {
    /// The base has a regular file of this name.
    Here(ImagePath),
    /// The base has a link to this path, or something that is no file.
    Elsewhere(ImagePath),
}

/// Says which links of a base lead to no path at all.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadLink {
    /// Links form a circle.
    #[error("in the base image, {0} is a symbolic link that leads to itself")]
    Loop(ImagePath),
    /// Links make a path that Linux does not take.
    #[error("in the base image, the links on the way to {0} make too long a path")]
    LongPath(ImagePath),
}

impl BaseTree {
    /// Returns whether there are no directories or links.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the place for the contents of a layer's directory: `path` itself, unless the base
    /// has links to directories on the way, through which the contents are written. A link that
    /// leads to a file, or to nothing, is replaced by the directory.
    ///
    /// # Errors
    /// Fails with [`BadLink`] if links form a circle.
    pub fn resolve(&self, path: &ImagePath) -> Result<ImagePath, BadLink> {
        let mut place = ImagePath::root();
        for component in path.components() {
            place = self.resolve_below(&place, component)?;
        }
        Ok(place)
    }

    /// Resolves one more component below a directory that was resolved, like [`BaseTree::resolve`].
    ///
    /// # Errors
    /// Fails with [`BadLink`] if links form a circle.
    pub fn resolve_below(&self, place: &ImagePath, component: &[u8]) -> Result<ImagePath, BadLink> {
        let path = place.join(component);
        match self.nodes.get(&path) {
            Some(BaseNode::Symlink(_)) => {}
            _ => return Ok(path),
        }
        let end = self.follow(path.as_bytes())?;
        Ok(if self.has_directory(&end) { end } else { path })
    }

    /// Returns whether a link in a directory leads to a resolved place.
    pub fn leads_to(&self, parent: &ImagePath, target: &[u8], place: &ImagePath) -> bool {
        let end = match target.starts_with(b"/") {
            true => self.follow(target),
            false => self.follow(&[parent.as_bytes(), b"/", target].concat()),
        };
        end.is_ok_and(|end| end == *place)
    }

    /// Returns whether the base has a directory at a resolved place.
    pub fn has_directory(&self, place: &ImagePath) -> bool {
        place.is_root() || self.attributes(place).is_some()
    }

    /// Follows links to their end. There need not be anything at the end.
    fn follow(&self, path: &[u8]) -> Result<ImagePath, BadLink> {
        let named = || ImagePath::normal(path);
        match resolve(&mut Links(self), path, Last::Followed).map_err(Stopped::obstacle) {
            Ok((place, _)) => Ok(place),
            Err(Obstacle::LongPath(_)) => Err(BadLink::LongPath(named())),
            Err(_) => Err(BadLink::Loop(named())),
        }
    }

    /// Returns mode and owner of the base's directory at a resolved path, if the base has one
    /// there.
    pub fn attributes(&self, path: &ImagePath) -> Option<Attributes> {
        match self.nodes.get(path) {
            Some(BaseNode::Directory(attributes)) => Some(*attributes),
            _ => None,
        }
    }

    /// Returns the files of Nix's database that the base has, each with its name in a layer's
    /// archive: links to the directory are followed. In place of a database that can't be read, since it is behind a
    /// link to a file, or to a directory of another name, this is the link.
    ///
    /// # Errors
    /// Fails with [`BadLink`].
    pub fn state_files(&self, directory: &str) -> Result<Vec<(&'static str, ImagePath)>, BadLink> {
        let place = self.follow(directory.as_bytes())?;
        let (parent, name) = split(directory.as_bytes());
        let own = self.resolve(&ImagePath::normal(parent))?.join(name);
        if self.is_link(&own) && split(place.as_bytes()).1 != name && self.has_directory(&place) {
            return Ok(vec![(STATE_FILES[0], own)]);
        }
        let named = STATE_FILES.into_iter().map(|name| (name, place.join(name.as_bytes())));
        let is_there =
            |path: &ImagePath| self.nodes.get(path) == Some(&BaseNode::State) || self.is_link(path);
        Ok(named.filter(|(_, path)| is_there(path)).collect())
    }

    fn is_link(&self, path: &ImagePath) -> bool {
        matches!(self.nodes.get(path), Some(BaseNode::Symlink(_)))
    }

    /// Returns where the base has a file of accounts, such as `/etc/passwd`, if it has one.
    ///
    /// # Errors
    /// Fails with [`BadLink`].
    pub fn account_file(&self, name: &str) -> Result<Option<AccountFile>, BadLink> {
        let etc = ImagePath::root().join(b"etc");
        let path = self.resolve(&etc)?.join(name.as_bytes());
        let Some(node) = self.nodes.get(&path) else { return Ok(None) };
        let end = match node {
            BaseNode::Symlink(_) => self.follow(path.as_bytes())?,
            _ => path,
        };
        Ok(Some(match self.nodes.get(&end) {
            Some(BaseNode::State) => AccountFile::Here(end),
            _ => AccountFile::Elsewhere(end),
        }))
    }

    /// Returns the names in a directory, sorted: of its directories, links and those files that are
    /// known.
    ///
    /// # Errors
    /// Fails with [`BadLink`].
    pub fn names_in(&self, directory: &str) -> Result<Vec<&[u8]>, BadLink> {
        let first = self.follow(directory.as_bytes())?.prefix();
        let below = self.nodes.range::<[u8], _>((Bound::Included(&first[..]), Bound::Unbounded));
        let names = below.map_while(|(path, _)| path.as_bytes().strip_prefix(&first[..]));
        Ok(names.filter(|name| !name.contains(&b'/')).collect())
    }

    /// Adds a directory and its attributes to this tree, as a part of another tree.
    pub(super) fn insert_directory(&mut self, path: ImagePath, attributes: Attributes) {
        self.nodes.insert(path, BaseNode::Directory(attributes));
    }

    /// Adds a link that leads to a directory to this tree, as a part of another tree.
    pub(super) fn insert_link(&mut self, path: ImagePath, directory: &ImagePath) {
        let target = [b"/", directory.as_bytes()].concat();
        self.nodes.insert(path, BaseNode::Symlink(target));
    }
}

/// The links of a tree. The directories on a way need not exist: a layer may make them.
struct Links<'t>(&'t BaseTree);

impl<'t> Tree for Links<'t> {
    type Node = NodeKind<'t>;
    type Error = Infallible;

    fn node(&mut self, path: &ImagePath) -> Result<Option<NodeKind<'t>>, Infallible> {
        Ok(Some(match self.0.nodes.get(path) {
            Some(BaseNode::Symlink(target)) if !target.is_empty() => NodeKind::Symlink(target),
            _ => NodeKind::Directory,
        }))
    }

    fn kind<'n>(node: &'n NodeKind<'t>) -> NodeKind<'n> {
        *node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub const USUAL: Attributes = Attributes::IMPLIED;
    pub const STICKY: Attributes = Attributes { mode: 0o1777, uid: 0, gid: 0 };

    pub fn directory(name: &str) -> (&str, BaseEntry<'_>) {
        (name, BaseEntry::Directory(USUAL))
    }

    pub fn link<'a>(name: &'a str, target: &'a str) -> (&'a str, BaseEntry<'a>) {
        (name, BaseEntry::Symlink(target.as_bytes()))
    }

    pub fn file(name: &str) -> (&str, BaseEntry<'_>) {
        (name, BaseEntry::Other)
    }

    pub fn layer(entries: &[(&str, BaseEntry)]) -> BaseLayerTree {
        let mut layer = BaseLayerBuilder::default();
        for (name, entry) in entries {
            layer.add(name.as_bytes(), *entry);
        }
        layer.finish()
    }

    pub fn tree(layers: &[&[(&str, BaseEntry)]]) -> BaseTree {
        let mut tree = BaseTree::default();
        for entries in layers {
            tree.apply(&layer(entries));
        }
        tree
    }

    fn resolve(tree: &BaseTree, path: &str) -> Result<String, String> {
        let resolved = tree.resolve(&ImagePath::normal(path.as_bytes()));
        let resolved = resolved.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(resolved.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn directories_are_written_through_links() {
        let tree = tree(&[&[
            directory("usr/bin"),
            directory("usr/lib"),
            directory("run"),
            directory("data/nix/store"),
            link("bin", "usr/bin"),
            link("lib", "/usr/lib"),
            link("var/run", "../run"),
            link("var/deep/run", "../../../../run"),
            link("usr/lib64", "lib"),
            link("lib64", "usr/lib64"),
            link("nix", "/data/nix"),
            link("root", "."),
            link("up", "/.."),
            link("dangling", "nowhere"),
            link("to-file", "etc/passwd"),
            file("etc/passwd"),
        ]]);
        for (path, place) in [
            ("", ""),
            ("usr", "usr"),
            ("new/directory", "new/directory"),
            ("bin", "usr/bin"),
            ("bin/new", "usr/bin/new"),
            ("lib/new/deep", "usr/lib/new/deep"),
            ("var/run", "run"),
            ("var/deep/run/x", "run/x"),
            ("lib64", "usr/lib"),
            ("nix/store", "data/nix/store"),
            ("root/bin", "usr/bin"),
            ("up/usr", "usr"),
            ("dangling", "dangling"),
            ("to-file", "to-file"),
            ("etc/passwd", "etc/passwd"),
        ] {
            assert_eq!(resolve(&tree, path).as_deref(), Ok(place), "{path}");
        }
    }

    #[test]
    fn links_that_lead_to_themselves_are_an_error() {
        let tree = tree(&[&[
            link("self", "self"),
            link("a", "b/x"),
            link("b", "/a"),
            link("in/a", "../in/a/b"),
        ]]);
        for (path, named) in [("self", "self"), ("a/y", "a"), ("in/a", "in/a")] {
            let error =
                format!("in the base image, /{named} is a symbolic link that leads to itself");
            assert_eq!(resolve(&tree, path), Err(error), "{path}");
        }
        // No entry of the layer is written through this link.
        assert_eq!(resolve(&tree, "c").as_deref(), Ok("c"));
    }
}
