//! The tree of a layer's entries, before any byte is written.
//! Stage: layer. Input: [`LayerContents`]. Output: [`Children`], ready to be walked in order.
//!
//! Store paths are leaves here, to be walked when they are written: a layer's size
//! in memory is that of `copyToRoot` and not of its store paths.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::contents::LayerContents;
use super::scan::{Child, Directory, Kind};
use crate::store::{Store, StorePath};

/// `nix/` and `nix/store/`, the same in every layer: a later layer's entry for a
/// directory replaces an earlier one's attributes, and a host's own mode (1775, of
/// a group of builders) has no meaning in an image.
const STORE_MODE: u32 = 0o755;
/// Every other directory, as Nix has them.
const DIRECTORY_MODE: u32 = 0o555;
/// Describes packaging to Nix, and is in nearly every package: no use in an image's root.
const NIX_SUPPORT: &[u8] = b"nix-support";

/// A directory's entries by name.
pub type Children = BTreeMap<Vec<u8>, Node>;

/// An entry of a layer.
#[derive(Debug)]
pub enum Node {
    /// A directory made of one or more sources.
    Directory {
        /// Permission bits.
        mode: u32,
        /// What is in it.
        children: Children,
        /// The directory on this machine, for messages; none for `nix/` and `nix/store/`.
        source: Option<PathBuf>,
    },
    /// A file below `/`.
    File {
        /// The file on this machine.
        source: PathBuf,
    },
    /// A link below `/`.
    Symlink {
        /// Where it points, as bytes.
        target: Vec<u8>,
        /// The link on this machine, for messages.
        source: PathBuf,
    },
    /// Everything of a store path, in its place.
    StorePath(StorePath),
}

/// Builds the tree.
///
/// # Errors
/// What [`Directory`] refuses, [`Error::NotADirectory`], and [`Error::Conflict`]
/// where two sources disagree: equal files, equal links and two directories don't.
pub fn layer_tree(store: &Store, contents: &LayerContents) -> Result<Children, Error> {
    let mut root = Children::new();
    if !contents.store_paths.is_empty() {
        let mut children = &mut root;
        for component in store.dir().split('/').filter(|component| !component.is_empty()) {
            let node = children.entry(component.into()).or_insert(Node::Directory {
                mode: STORE_MODE,
                children: Children::new(),
                source: None,
            });
            let Node::Directory { children: below, .. } = node else { unreachable!("just made") };
            children = below;
        }
        for path in &contents.store_paths {
            children.insert(path.to_base_path().into(), Node::StorePath(path.clone()));
        }
    }
    let directory = Directory::open(&store.physical_dir())?;
    for path in &contents.copy_to_root {
        let child = directory.child(path.to_base_path())?;
        if child.kind != Kind::Directory {
            return Err(Error::NotADirectory { path: directory.path_of(&child) });
        }
        let merge = Merge { store };
        merge.directory(directory.open_directory(&child)?, &mut root, &mut Vec::new())?;
    }
    Ok(root)
}

struct Merge<'s> {
    store: &'s Store,
}

impl Merge<'_> {
    /// Adds what is in `from`, which is `/name` in the image, to `into`.
    fn directory(
        &self,
        mut from: Directory,
        into: &mut Children,
        name: &mut Vec<u8>,
    ) -> Result<(), Error> {
        for child in from.children()? {
            if name.is_empty() && child.name() == NIX_SUPPORT {
                continue;
            }
            let parent = name.len();
            if parent > 0 {
                name.push(b'/');
            }
            name.extend_from_slice(child.name());
            self.child(&from, &child, into, name)?;
            name.truncate(parent);
        }
        Ok(())
    }

    fn child(
        &self,
        from: &Directory,
        child: &Child,
        into: &mut Children,
        name: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let source = from.path_of(child);
        let slot = into.entry(child.name().to_vec());
        if child.kind == Kind::Directory {
            let node = slot.or_insert_with(|| Node::Directory {
                mode: directory_mode(self.store, name),
                children: Children::new(),
                source: Some(source.clone()),
            });
            let Node::Directory { children, .. } = node else {
                return Err(self.conflict(name, node, source));
            };
            return self.directory(from.open_directory(child)?, children, name);
        }
        let node = match child.kind {
            Kind::Symlink => {
                Node::Symlink { target: from.read_link(child)?, source: source.clone() }
            }
            _ => Node::File { source: source.clone() },
        };
        match slot {
            Slot::Vacant(slot) => {
                slot.insert(node);
            }
            Slot::Occupied(slot) if !same(slot.get(), &node)? => {
                return Err(self.conflict(name, slot.get(), source));
            }
            Slot::Occupied(_) => {}
        }
        Ok(())
    }

    fn conflict(&self, name: &[u8], first: &Node, second: PathBuf) -> Error {
        let first = match first {
            Node::Directory { source: Some(source), .. }
            | Node::File { source }
            | Node::Symlink { source, .. } => source.clone(),
            Node::Directory { source: None, .. } => self.store.physical_dir(),
            Node::StorePath(path) => self.store.physical(path),
        };
        Error::Conflict { name: name.escape_ascii().to_string(), first, second }
    }
}

/// What is copied to `/` may have a `nix/` too, perhaps in a layer without store paths.
fn directory_mode(store: &Store, name: &[u8]) -> u32 {
    let store_dir = Path::new(store.dir().trim_start_matches('/'));
    let holds_store = store_dir.starts_with(OsStr::from_bytes(name));
    if holds_store { STORE_MODE } else { DIRECTORY_MODE }
}

/// Whether two entries would be written alike.
fn same(first: &Node, second: &Node) -> Result<bool, Error> {
    Ok(match (first, second) {
        (Node::Symlink { target: first, .. }, Node::Symlink { target: second, .. }) => {
            first == second
        }
        (Node::File { source: first }, Node::File { source: second }) => same_file(first, second)?,
        _ => false,
    })
}

fn same_file(first: &Path, second: &Path) -> Result<bool, Error> {
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &Path| -> std::io::Result<_> {
        let file = std::fs::File::open(path)?;
        let metadata = file.metadata()?;
        Ok((metadata.len(), metadata.permissions().mode() & 0o100, std::io::BufReader::new(file)))
    };
    let error = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Read { path, source }
    };
    let (size, executable, a) = open(first).map_err(error(first))?;
    let (other_size, other_executable, b) = open(second).map_err(error(second))?;
    if (size, executable) != (other_size, other_executable) {
        return Ok(false);
    }
    for (a, b) in a.bytes().zip(b.bytes()) {
        if a.map_err(error(first))? != b.map_err(error(second))? {
            return Ok(false);
        }
    }
    Ok(true)
}
