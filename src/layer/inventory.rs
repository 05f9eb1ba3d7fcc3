//! Lists the files that a layer has in an image, without reading any.
//! Stage: layer. Input: [`LayerContents`]. Output: [`LayerFile`]s.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::base_tree::Attributes;
use super::contents::LayerContents;
use super::header::OWNER;
use super::node::{Children, Node, TreeEntry};
use super::permissions::Given;
use super::scan::Kind;
use super::store_modes::{LINK_MODE, file_mode};
use super::tree::{DIRECTORY, layer_tree};
use crate::store::{Store, StorePath};

/// A file, directory or link of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// The mode and the owner that it has in the image.
    pub attributes: Attributes,
    /// The kind of the file, and what a reader needs of it.
    pub kind: LayerFileKind,
}

/// The kind of a layer's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerFileKind {
    /// A directory.
    Directory,
    /// A regular file, with its place on this machine.
    File(PathBuf),
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
}

/// An entry of a layer.
#[derive(Debug)]
pub enum LayerEntry<'e> {
    /// A whole store path, in its place: [`file_in_store`] finds what is in it.
    StorePath(&'e StorePath),
    /// Any other entry.
    File(LayerFile),
}

/// Calls `each` with every entry of a layer and its name, parents first.
///
/// # Errors
/// Fails if the directories and links that are copied to `/` can't be read.
pub fn layer_entries(
    store: &Store,
    contents: &LayerContents,
    mut each: impl FnMut(&[u8], LayerEntry),
) -> Result<(), Error> {
    let tree = layer_tree(store, contents)?;
    entries(contents, &tree, &mut Vec::new(), &mut each)
}

fn entries(
    contents: &LayerContents,
    children: &Children,
    name: &mut Vec<u8>,
    each: &mut impl FnMut(&[u8], LayerEntry),
) -> Result<(), Error> {
    for (child, node) in children {
        let parent = name.len();
        if parent > 0 {
            name.push(b'/');
        }
        name.extend_from_slice(child);
        match node {
            Node::StorePath(path) => each(name, LayerEntry::StorePath(path)),
            Node::Entry(entry) => each(name, LayerEntry::File(file_of(contents, entry)?)),
        }
        if let Some(children) = node.children() {
            entries(contents, children, name, each)?;
        }
        name.truncate(parent);
    }
    Ok(())
}

fn file_of(contents: &LayerContents, entry: &TreeEntry) -> Result<LayerFile, Error> {
    Ok(match entry {
        TreeEntry::Directory { attributes, given, source, .. } => {
            let given = match source {
                Some(_) => *given,
                None => given.or(contents.store_attributes.given()),
            };
            LayerFile { attributes: with(*attributes, given), kind: LayerFileKind::Directory }
        }
        TreeEntry::Symlink { target, given, .. } => link(target.clone(), *given),
        TreeEntry::File { source, given } => {
            let metadata = metadata(source)?;
            let attributes = of_file(metadata.mode(), *given);
            LayerFile { attributes, kind: LayerFileKind::File(source.clone()) }
        }
    })
}

/// Returns a file of a store path that a layer has. `below` is the file's path in the store path,
/// and empty for the store path itself. Links on the way are not followed. Returns none if there is
/// no such file, or if a layer can't hold it.
///
/// # Errors
/// Fails if the file can't be read.
pub fn file_in_store(
    store: &Store,
    contents: &LayerContents,
    path: &StorePath,
    below: &Path,
) -> Result<Option<LayerFile>, Error> {
    let mut file = store.physical(path);
    // Joining an empty path would add a slash, and a store path may be a file.
    if !below.as_os_str().is_empty() {
        file.push(below);
    }
    let metadata = match fs::symlink_metadata(&file) {
        Ok(metadata) => metadata,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(source) => return Err(Error::Read { path: file, source }),
    };
    let kind = match metadata.is_dir() {
        true => Kind::Directory,
        false if metadata.is_symlink() => Kind::Symlink,
        false => Kind::File,
    };
    let given = contents.rules_in_store(path).given(store, (kind, DIRECTORY.mode), || file.clone());
    let given = given.or(contents.store_attributes.given());
    Ok(Some(if metadata.is_symlink() {
        let target = fs::read_link(&file);
        let target = target.map_err(|source| Error::Read { path: file, source })?;
        link(target.into_os_string().into_vec(), given)
    } else if metadata.is_dir() {
        LayerFile { attributes: with(DIRECTORY, given), kind: LayerFileKind::Directory }
    } else if metadata.is_file() {
        let attributes = of_file(metadata.mode(), given);
        LayerFile { attributes, kind: LayerFileKind::File(file) }
    } else {
        return Ok(None);
    }))
}

/// Returns whether an error says that a path does not exist, and not that it can't be looked at.
fn is_absence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}

fn metadata(path: &Path) -> Result<fs::Metadata, Error> {
    fs::symlink_metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn of_file(mode: u32, given: Given) -> Attributes {
    let mode = file_mode(mode & 0o100 != 0);
    with(Attributes { mode, uid: OWNER, gid: OWNER }, given)
}

fn link(target: Vec<u8>, given: Given) -> LayerFile {
    let mode = LINK_MODE;
    let attributes = with(Attributes { mode, uid: OWNER, gid: OWNER }, given);
    // A link's mode has no meaning, and is not replaced.
    let attributes = Attributes { mode, ..attributes };
    LayerFile { attributes, kind: LayerFileKind::Symlink(target) }
}

fn with(attributes: Attributes, given: Given) -> Attributes {
    Attributes {
        mode: given.mode.unwrap_or(attributes.mode),
        uid: given.uid.unwrap_or(attributes.uid),
        gid: given.gid.unwrap_or(attributes.gid),
    }
}
