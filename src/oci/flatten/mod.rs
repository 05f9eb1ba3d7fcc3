//! Writes the root file system of an image, the files that a container sees, as one tar.
//! Stage: oci. Input: layers. Output: a tar.
//!
//! Layers are read twice: first to find the entries that are left in the end, then to copy them.
//! Directories come first, sorted; then the other entries, in the order of the layers. Contents are
//! never held in memory.

mod attributes;
mod root_problem;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use self::attributes::TarAttributes;
pub use self::root_problem::RootProblem;
use super::Error;
use super::layer_reader::read_tar;
use super::spec_layer::SpecLayer;
use super::unpack::{Budget, TarError, TarReader};
use crate::image_path::shown;
use crate::layer::{Change, EntryId, EntryNames, RootTree};
use crate::store::Store;

/// Writes the files that `layers`, from the bottom up, have together.
///
/// # Errors
/// Fails with [`Error::Flatten`] if a layer is not valid, or if a layer can't be made or written.
pub fn flatten(store: &Store, layers: &[SpecLayer], out: impl Write) -> Result<(), Error> {
    let Plan { tree, directories, .. } = plan(store, layers)?;
    let names = tree.names();
    let mut tar = Tar { builder: Builder::new(out) };
    let mut sorted: Vec<_> = directories
        .iter()
        .filter_map(|(entry, attributes)| Some((names.of(*entry).next()?, attributes)))
        .collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    for (name, attributes) in sorted {
        let name = [name, b"/"].concat();
        tar.entry(&name, attributes, EntryType::Directory, 0, io::empty()).map_err(write_error)?;
    }
    for (number, layer) in layers.iter().enumerate() {
        let copied = read_tar(store, layer, |reader| tar.layer(number, reader, &names))?;
        copied.map_err(|error| match error {
            CopyError::Archive(error) => {
                Error::Flatten { layer: number + 1, count: layers.len(), problem: error.into() }
            }
            CopyError::Write(error) => write_error(error),
        })?;
    }
    let mut out = tar.builder.into_inner().map_err(write_error)?;
    out.flush().map_err(write_error)
}

fn write_error(error: io::Error) -> Error {
    crate::layer::Error::Write(error).into()
}

/// The memory for names and for attributes of directories: enough for some 400,000 files.
const MEMORY: u64 = 80 << 20;

/// The entries that are left after all layers.
struct Plan {
    tree: RootTree,
    directories: BTreeMap<EntryId, TarAttributes>,
    budget: Budget,
}

fn plan(store: &Store, layers: &[SpecLayer]) -> Result<Plan, Error> {
    let mut plan = Plan {
        tree: RootTree::default(),
        directories: BTreeMap::new(),
        budget: Budget::of(MEMORY),
    };
    for (number, layer) in layers.iter().enumerate() {
        let planned = read_tar(store, layer, |reader| plan.layer(number, reader))?;
        planned.map_err(|problem| Error::Flatten {
            layer: number + 1,
            count: layers.len(),
            problem,
        })?;
    }
    Ok(plan)
}

impl Plan {
    /// Applies the entries of a layer.
    fn layer(&mut self, layer: usize, tar: impl Read) -> Result<(), RootProblem> {
        let mut archive = TarReader::new(tar);
        let mut index = 0;
        while let Some(entry) = archive.next_member()? {
            let id = EntryId { layer, index };
            index += 1;
            if entry.kind() == EntryType::XGlobalHeader {
                continue;
            }
            entry.check()?;
            let take = |bytes| self.budget.take(bytes).map_err(TarError::from);
            take(160 + (entry.path().len() + entry.target().len()) as u64)?;
            let change = match entry.kind() {
                EntryType::Directory => {
                    let attributes = TarAttributes::of(&entry).map_err(TarError::from)?;
                    take(attributes.memory())?;
                    self.directories.insert(id, attributes);
                    Change::Directory
                }
                EntryType::Symlink => Change::Symlink(entry.target()),
                EntryType::Link => Change::HardLink(entry.target()),
                _ => Change::Other,
            };
            take(self.tree.apply(id, entry.path(), change)?)?;
        }
        Ok(())
    }
}

/// Says why the members of a layer could not be copied.
enum CopyError {
    Archive(TarError),
    Write(io::Error),
}

impl From<TarError> for CopyError {
    fn from(error: TarError) -> Self {
        Self::Archive(error)
    }
}

/// Reads a body and keeps its error, to tell it from errors of the writer.
struct Input<R> {
    body: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }
}

struct Tar<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> Tar<W> {
    /// Adds those entries of a layer that have a name.
    fn layer(&mut self, layer: usize, tar: impl Read, names: &EntryNames) -> Result<(), CopyError> {
        let mut archive = TarReader::new(tar);
        let mut index = 0;
        while let Some(entry) = archive.next_member()? {
            let mut names = names.of(EntryId { layer, index });
            index += 1;
            // Directories are written already.
            let Some(first) = names.next().filter(|_| !entry.kind().is_dir()) else { continue };
            let attributes = TarAttributes::of(&entry).map_err(TarError::from)?;
            let kind = match entry.kind() {
                EntryType::Continuous | EntryType::GNUSparse => EntryType::Regular,
                kind => kind,
            };
            let size = entry.size();
            let name = shown(entry.path());
            let mut body = Input { body: entry, failed: None };
            let written = self.entry(first, &attributes, kind, size, &mut body);
            if let Some(error) = body.failed {
                return Err(TarError::Body { name, error }.into());
            }
            written.map_err(CopyError::Write)?;
            for other in names {
                let link = attributes.linked_to(first);
                self.entry(other, &link, EntryType::Link, 0, io::empty())
                    .map_err(CopyError::Write)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        name: &[u8],
        attributes: &TarAttributes,
        kind: EntryType,
        size: u64,
        body: impl Read,
    ) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(if kind.is_file() { size } else { 0 });
        attributes.write(&mut self.builder, &mut header, name, body)
    }
}
