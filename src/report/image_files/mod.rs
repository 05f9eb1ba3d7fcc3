//! Finds the files of an image by their paths, as a container would, without unpacking it.
//! Stage: report. Input: the layers of an image. Output: [`ImageFile`]s.
//!
//! Files of store paths are looked up in the store, so memory is taken for what is copied to `/`,
//! and for the names in a base image's layers. These layers are read only on demand.

mod bodies;
mod walk;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::bodies::Bodies;
pub use self::bodies::{Body, ReadAt};
pub use self::walk::{Absent, Found, Last, Searched};
use crate::image_path::ImagePath;
use crate::layer::{
    self, Attributes, Change, EntryId, LINK_MODE, LayerContents, LayerEntry, LayerFile,
    LayerFileKind, RootNode, RootTree, file_in_store, layer_entries,
};
use crate::oci::unpack::{Budget, TarError, TarReader};
use crate::oci::{self, ImageSpec, LayerSource, RootProblem, SpecLayer, read_tar};
use crate::store::{Store, StorePath};

/// The memory for names: enough for some 400,000 files of a base image.
const MEMORY: u64 = 80 << 20;

/// The files of an image.
pub struct ImageFiles<'i> {
    store: &'i Store,
    layers: &'i [SpecLayer],
    tree: RootTree,
    /// The entries of each layer, in order.
    entries: Vec<Vec<Entry<'i>>>,
    /// True if some layers were not read, so that a file that is not found may be in one of them.
    incomplete: bool,
    bodies: Bodies,
}

/// An entry of a layer, with the place of its contents.
struct Entry<'i> {
    attributes: Attributes,
    place: Place<'i>,
}

/// The place of a file's bytes.
#[derive(Clone, Debug)]
enum Place<'i> {
    /// A file on this machine.
    Disk(PathBuf),
    /// A store path of a layer: a whole tree.
    StorePath(&'i LayerContents, StorePath),
    /// The body of a member of a layer's tar, with its size.
    Member(u64),
    /// A device or a FIFO.
    Special(SpecialKind),
    /// A directory or a link.
    None,
}

/// A file of an image, found by its path.
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// The path in the image, without links on the way.
    pub path: ImagePath,
    /// The mode and the owner.
    pub attributes: Attributes,
    /// The kind of the file.
    pub kind: FileKind,
}

/// The kind of an image's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file, with the place of its bytes.
    File(Contents),
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
    /// A device or a FIFO.
    Special(SpecialKind),
}

/// The kind of a file that is no directory, link or regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialKind {
    /// A FIFO.
    Fifo,
    /// A block device.
    Block,
    /// A character device, or what no other kind is for.
    Character,
}

/// The place of a regular file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// A file on this machine.
    Disk(PathBuf),
    /// The body of an entry in a layer's tar, and its size.
    Member(EntryId, u64),
}

/// Says why a file of an image can't be read.
#[derive(Debug, Error)]
pub enum FilesError {
    /// A layer can't be read.
    #[error("layer {layer}: {problem}")]
    Layer {
        /// The number of the layer, from 1 at the bottom.
        layer: usize,
        /// The reason.
        problem: RootProblem,
    },
    /// A layer can't be made, or a file of the store can't be read.
    #[error(transparent)]
    Made(#[from] layer::Error),
    /// A file is too large to be read.
    #[error("has {size} bytes, and only files of up to {most} bytes are read")]
    Large {
        /// The number of bytes.
        size: u64,
        /// The largest number of bytes of a file that is read.
        most: u64,
    },
}

impl<'i> ImageFiles<'i> {
    /// Reads the names of the files in every layer.
    ///
    /// # Errors
    /// Fails if a layer can't be read, or has more names than fit in memory.
    pub fn read(store: &'i Store, spec: &'i ImageSpec) -> Result<Self, FilesError> {
        let mut files = Self::new(store, &spec.layers);
        let budget = Budget::of(MEMORY);
        for (number, layer) in spec.layers.iter().enumerate() {
            match &layer.source {
                LayerSource::Made(contents) => files.add_made(number, contents)?,
                LayerSource::Kept(..) | LayerSource::Stored(_) => {
                    files.add_stored(number, layer, &budget)?;
                }
            }
        }
        Ok(files)
    }

    /// Prepares to find the files of the layers that are made of store paths. Other layers are not
    /// read, nor are layers whose store paths no longer exist.
    pub fn of_store_paths(store: &'i Store, spec: &'i ImageSpec) -> Self {
        let mut files = Self::new(store, &spec.layers);
        for (number, layer) in spec.layers.iter().enumerate() {
            let added = layer.contents().map(|contents| files.add_made(number, contents));
            files.incomplete |= !matches!(added, Some(Ok(())));
        }
        files
    }

    fn new(store: &'i Store, layers: &'i [SpecLayer]) -> Self {
        Self {
            store,
            layers,
            tree: RootTree::default(),
            entries: layers.iter().map(|_| Vec::new()).collect(),
            incomplete: false,
            bodies: Bodies::default(),
        }
    }

    /// Returns whether some layers were not read.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Adds the entries of a layer that is made of store paths.
    fn add_made(&mut self, number: usize, contents: &'i LayerContents) -> Result<(), FilesError> {
        let Self { tree, entries, .. } = self;
        let entries = &mut entries[number];
        let mut problem = None;
        layer_entries(self.store, contents, |name, entry| {
            let change = match &entry {
                LayerEntry::File(LayerFile { kind: LayerFileKind::Directory, .. }) => {
                    Change::Directory
                }
                LayerEntry::File(LayerFile { kind: LayerFileKind::Symlink(target), .. }) => {
                    Change::Symlink(target)
                }
                LayerEntry::File(_) | LayerEntry::StorePath(_) => Change::Other,
            };
            let id = EntryId { layer: number, index: entries.len() };
            if let Err(error) = tree.apply(id, name, change) {
                problem.get_or_insert(error);
            }
            entries.push(match entry {
                LayerEntry::StorePath(path) => Entry {
                    attributes: Attributes::IMPLIED,
                    place: Place::StorePath(contents, path.clone()),
                },
                LayerEntry::File(LayerFile { attributes, kind }) => Entry {
                    attributes,
                    place: match kind {
                        LayerFileKind::File(file) => Place::Disk(file),
                        LayerFileKind::Directory | LayerFileKind::Symlink(_) => Place::None,
                    },
                },
            });
        })?;
        match problem {
            Some(problem) => Err(FilesError::Layer { layer: number + 1, problem: problem.into() }),
            None => Ok(()),
        }
    }

    /// Adds the entries of a layer's tar.
    fn add_stored(
        &mut self,
        number: usize,
        layer: &SpecLayer,
        budget: &Budget,
    ) -> Result<(), FilesError> {
        let Self { tree, entries, .. } = self;
        let entries = &mut entries[number];
        let read = read_tar(self.store, layer, |tar| -> Result<(), RootProblem> {
            let mut archive = TarReader::new(tar);
            while let Some(member) = archive.next_member()? {
                let id = EntryId { layer: number, index: entries.len() };
                let kind = member.kind();
                let header = member.header();
                let taken = budget.take(224 + (member.path().len() + member.target().len()) as u64);
                taken.map_err(TarError::from)?;
                let number = |number: std::io::Result<u64>| number.unwrap_or_default();
                let attributes = Attributes {
                    mode: header.mode().unwrap_or_default() & 0o7777,
                    uid: number(header.uid()),
                    gid: number(header.gid()),
                };
                let place = match kind {
                    kind if kind.is_file()
                        || matches!(
                            kind,
                            tar::EntryType::Continuous | tar::EntryType::GNUSparse
                        ) =>
                    {
                        Place::Member(member.size())
                    }
                    tar::EntryType::Directory | tar::EntryType::Symlink => Place::None,
                    tar::EntryType::Fifo => Place::Special(SpecialKind::Fifo),
                    tar::EntryType::Block => Place::Special(SpecialKind::Block),
                    _ => Place::Special(SpecialKind::Character),
                };
                // An entry is pushed for each member: its index is its number in the tar.
                entries.push(Entry { attributes, place });
                if kind == tar::EntryType::XGlobalHeader {
                    continue;
                }
                member.check()?;
                let change = match kind {
                    tar::EntryType::Directory => Change::Directory,
                    tar::EntryType::Symlink => Change::Symlink(member.target()),
                    tar::EntryType::Link => Change::HardLink(member.target()),
                    _ => Change::Other,
                };
                let links = tree.apply(id, member.path(), change)?;
                budget.take(links).map_err(TarError::from)?;
            }
            Ok(())
        })?;
        read.map_err(|problem| FilesError::Layer { layer: number + 1, problem })
    }

    fn entry(&self, id: EntryId) -> &Entry<'i> {
        &self.entries[id.layer][id.index]
    }

    /// Returns the file at a path, without following any link.
    ///
    /// # Errors
    /// Fails if a file of the store can't be read.
    fn at(&self, path: &ImagePath) -> Result<Option<ImageFile>, FilesError> {
        let file = |attributes, kind| Some(ImageFile { path: path.clone(), attributes, kind });
        let id = match self.tree.at(path) {
            None => return self.within_store_path(path),
            Some(RootNode::Directory(id)) => {
                let attributes = id.map_or(Attributes::IMPLIED, |id| self.entry(id).attributes);
                return Ok(file(attributes, FileKind::Directory));
            }
            Some(RootNode::Symlink(id, target)) => {
                let attributes = Attributes { mode: LINK_MODE, ..self.entry(id).attributes };
                return Ok(file(attributes, FileKind::Symlink(target.to_vec())));
            }
            Some(RootNode::Other(id)) => id,
        };
        let Entry { attributes, place } = self.entry(id);
        Ok(match place {
            Place::StorePath(contents, store_path) => {
                self.in_store(contents, store_path, path, Path::new(""))?
            }
            Place::Disk(disk) => file(*attributes, FileKind::File(Contents::Disk(disk.clone()))),
            Place::Member(size) => file(*attributes, FileKind::File(Contents::Member(id, *size))),
            Place::Special(kind) => file(*attributes, FileKind::Special(*kind)),
            Place::None => file(*attributes, FileKind::Special(SpecialKind::Character)),
        })
    }

    /// Returns the file at a path, if the path is in a store path that a layer has.
    fn within_store_path(&self, path: &ImagePath) -> Result<Option<ImageFile>, FilesError> {
        let Some((contents, store_path, below)) = self.store_path_above(path) else {
            return Ok(None);
        };
        self.in_store(contents, store_path, path, below)
    }

    fn store_path_above<'p>(
        &self,
        path: &'p ImagePath,
    ) -> Option<(&'i LayerContents, &StorePath, &'p Path)> {
        let below = Path::new(OsStr::from_bytes(path.as_bytes()))
            .strip_prefix(self.store.dir().trim_start_matches('/'))
            .ok()?;
        let mut parts = below.components();
        let name = parts.next()?.as_os_str().as_bytes();
        let place = ImagePath::normal(self.store.dir().as_bytes()).join(name);
        let Some(RootNode::Other(id)) = self.tree.at(&place) else {
            return None;
        };
        match &self.entry(id).place {
            Place::StorePath(contents, store_path) => Some((contents, store_path, parts.as_path())),
            _ => None,
        }
    }

    fn in_store(
        &self,
        contents: &LayerContents,
        store_path: &StorePath,
        path: &ImagePath,
        below: &Path,
    ) -> Result<Option<ImageFile>, FilesError> {
        let found = file_in_store(self.store, contents, store_path, below)?;
        Ok(found.map(|LayerFile { attributes, kind }| ImageFile {
            path: path.clone(),
            attributes,
            kind: match kind {
                LayerFileKind::Directory => FileKind::Directory,
                LayerFileKind::Symlink(target) => FileKind::Symlink(target),
                LayerFileKind::File(file) => FileKind::File(Contents::Disk(file)),
            },
        }))
    }

    /// Returns the names in a directory that was found, sorted.
    ///
    /// # Errors
    /// Fails if a directory of the store can't be read.
    pub fn names_in(&self, directory: &ImageFile) -> Result<BTreeSet<Vec<u8>>, FilesError> {
        let path = &directory.path;
        let mut names: BTreeSet<_> =
            self.tree.names_in(path).into_iter().map(<[u8]>::to_vec).collect();
        let in_store = match self.tree.at(path) {
            Some(RootNode::Other(_)) | None => self.store_path_above(path),
            _ => None,
        };
        if let Some((_, store_path, below)) = in_store {
            let physical = self.store.physical(store_path).join(below);
            let read_error = |source| layer::Error::Read { path: physical.clone(), source };
            for entry in fs::read_dir(&physical).map_err(read_error)? {
                names.insert(entry.map_err(read_error)?.file_name().as_bytes().to_vec());
            }
        }
        Ok(names)
    }

    /// Calls `each` with every link that is copied to `/`: those of layers that are made of store
    /// paths, but not those in the store.
    pub fn each_copied_link(&self, mut each: impl FnMut(&ImagePath, &[u8])) {
        for (path, id) in self.tree.paths() {
            let is_made = self.layers[id.layer].contents().is_some();
            if let Some(RootNode::Symlink(_, target)) = self.tree.at(path)
                && is_made
            {
                each(path, target);
            }
        }
    }
}

impl From<FilesError> for oci::Error {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Made(error) => error.into(),
            other => layer::Error::Write(std::io::Error::other(other)).into(),
        }
    }
}
