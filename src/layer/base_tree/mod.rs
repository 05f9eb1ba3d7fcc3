//! The directories and links of the base image, which the layers above must respect.
//! Stage: layer (pure). Input: the entries of each layer of the base. Output: [`BaseTree`].
//!
//! A later layer's entry for a directory replaces an earlier directory's attributes; if there was a
//! link in its place, the entry replaces the link (image-spec, layer.md, "Changeset over existing
//! files"). So an entry for `tmp/` would take away the mode 1777, and an entry for `bin/` would
//! hide everything that `bin -> usr/bin` leads to. Layers are therefore built with this tree.

mod changes;
mod json;
mod names;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use changes::{BaseEntry, BaseLayerTree};
pub use names::normal as normal_name;
use names::{Name, components, join, split};

/// The files of Nix's database in its directory (Nix, `src/libstore/local-store.cc`; SQLite's
/// "Temporary Files").
const STATE_FILES: [&str; 4] = ["db.sqlite", "db.sqlite-journal", "db.sqlite-wal", "schema"];

/// The files of accounts in `/etc` (passwd(5), group(5), shadow(5), gshadow(5), nsswitch.conf(5)).
pub const ACCOUNT_FILES: [&str; 5] = ["passwd", "group", "shadow", "gshadow", "nsswitch.conf"];

/// The largest number of links that a path may lead through, as on Linux (`MAXSYMLINKS`).
const LINKS: usize = 40;

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
    nodes: BTreeMap<Name, BaseNode>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum BaseNode {
    Directory(Attributes),
    /// A symbolic link, with its target as written.
    Symlink(Vec<u8>),
    /// A file of Nix's database, or of accounts.
    State,
}

/// Says where the base has a file of accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountFile {
    /// The base has a regular file of this name.
    Here(Vec<u8>),
    /// The base has a link to this path, or something that is no file.
    Elsewhere(Vec<u8>),
}

/// Says which links form a circle.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("in the base image, /{link} is a symbolic link that leads to itself")]
pub struct LinkLoop {
    /// The first of the links.
    pub link: String,
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
    /// `path` and the result are relative to the image's root. As in a container, `..` at the root
    /// stays there.
    ///
    /// # Errors
    /// Fails with [`LinkLoop`] if links form a circle.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, LinkLoop> {
        let mut place = Name::new();
        for component in components(path) {
            place = self.resolve_below(&place, component)?;
        }
        Ok(place)
    }

    /// Resolves one more component below a directory that was resolved, like [`BaseTree::resolve`].
    ///
    /// # Errors
    /// Fails with [`LinkLoop`] if links form a circle.
    pub fn resolve_below(&self, place: &[u8], component: &[u8]) -> Result<Vec<u8>, LinkLoop> {
        let path = join(place, component);
        match self.nodes.get(&path) {
            Some(BaseNode::Symlink(_)) => {}
            _ => return Ok(path),
        }
        let end = self.follow(&path)?;
        let leads_to_directory =
            end.is_empty() || matches!(self.nodes.get(&end), Some(BaseNode::Directory(_)));
        Ok(if leads_to_directory { end } else { path })
    }

    /// Returns whether a link in a directory leads to a resolved place.
    pub fn leads_to(&self, parent: &[u8], target: &[u8], place: &[u8]) -> bool {
        let path = match target.starts_with(b"/") {
            true => target.to_vec(),
            false => join(parent, target),
        };
        self.follow(&path).is_ok_and(|end| end == place)
    }

    /// Returns whether the base has a directory at a resolved place.
    pub fn has_directory(&self, place: &[u8]) -> bool {
        place.is_empty() || self.attributes(place).is_some()
    }

    /// Follows links to their end. There need not be anything at the end.
    fn follow(&self, path: &[u8]) -> Result<Name, LinkLoop> {
        let mut place = Name::new();
        // Components are taken from the end.
        let mut left: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        left.reverse();
        let mut links = 0;
        while let Some(component) = left.pop() {
            match &component[..] {
                b"." => continue,
                b".." => {
                    place.truncate(split(&place).0.len());
                    continue;
                }
                _ => {}
            }
            let next = join(&place, &component);
            let Some(BaseNode::Symlink(target)) = self.nodes.get(&next) else {
                place = next;
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(LinkLoop { link: path.escape_ascii().to_string() });
            }
            if target.starts_with(b"/") {
                place.clear();
            }
            left.extend(
                components(target).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter().rev(),
            );
        }
        Ok(place)
    }

    /// Returns mode and owner of the base's directory at a resolved path, if the base has one
    /// there.
    pub fn attributes(&self, path: &[u8]) -> Option<Attributes> {
        match self.nodes.get(path) {
            Some(BaseNode::Directory(attributes)) => Some(*attributes),
            _ => None,
        }
    }

    /// Returns the files of Nix's database that the base has, each with its name in a layer's
    /// archive: links to the directory are followed.
    ///
    /// # Errors
    /// Fails with [`LinkLoop`].
    pub fn state_files(&self, directory: &str) -> Result<Vec<(&'static str, Vec<u8>)>, LinkLoop> {
        let place = self.follow(directory.as_bytes())?;
        let named = STATE_FILES.into_iter().map(|name| (name, join(&place, name.as_bytes())));
        Ok(named.filter(|(_, path)| self.nodes.get(path) == Some(&BaseNode::State)).collect())
    }

    /// Returns where the base has a file of accounts, such as `/etc/passwd`, if it has one.
    ///
    /// # Errors
    /// [`LinkLoop`].
    pub fn account_file(&self, name: &str) -> Result<Option<AccountFile>, LinkLoop> {
        let path = join(&self.resolve(b"etc")?, name.as_bytes());
        let Some(node) = self.nodes.get(&path) else { return Ok(None) };
        let end = match node {
            BaseNode::Symlink(_) => self.follow(&path)?,
            _ => path,
        };
        Ok(Some(match self.nodes.get(&end) {
            Some(BaseNode::State) => AccountFile::Here(end),
            _ => AccountFile::Elsewhere(end),
        }))
    }

    /// Returns the names of the directories in a directory, sorted.
    ///
    /// # Errors
    /// Fails with [`LinkLoop`].
    pub fn directories_in(&self, directory: &str) -> Result<Vec<&[u8]>, LinkLoop> {
        let place = join(&self.follow(directory.as_bytes())?, b"");
        let below = self.nodes.range(place.clone()..);
        let below = below.take_while(|(name, _)| name.starts_with(&place));
        let names = below.filter(|(_, node)| matches!(node, BaseNode::Directory(_)));
        let names = names.map(|(name, _)| &name[place.len()..]);
        Ok(names.filter(|name| !name.contains(&b'/')).collect())
    }

    /// Adds a directory and its attributes to this tree, as a part of another tree.
    pub(super) fn insert_directory(&mut self, path: &[u8], attributes: Attributes) {
        self.nodes.insert(path.to_vec(), BaseNode::Directory(attributes));
    }

    /// Adds a link that leads to a directory to this tree, as a part of another tree.
    pub(super) fn insert_link(&mut self, path: &[u8], directory: &[u8]) {
        self.nodes.insert(path.to_vec(), BaseNode::Symlink([b"/", directory].concat()));
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

    pub fn tree(layers: &[&[(&str, BaseEntry)]]) -> BaseTree {
        let mut tree = BaseTree::default();
        for entries in layers {
            let mut layer = BaseLayerTree::default();
            for (name, entry) in *entries {
                layer.add(name.as_bytes(), *entry);
            }
            tree.apply(&layer);
        }
        tree
    }

    fn resolve(tree: &BaseTree, path: &str) -> Result<String, String> {
        let resolved = tree.resolve(path.as_bytes()).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(resolved).unwrap())
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
