//! Writes the root file system of an image, the files that a container sees, as one tar.
//! Stage: oci. Input: layers. Output: a tar.
//!
//! Layers are read twice: first to find the entries that are left in the end, then to copy these.
//! Directories come first, sorted; then the other entries, in the order of the layers. Contents are
//! never held in memory.

mod attributes;
mod tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};

use self::attributes::Attributes;
pub use self::tree::Problem;
use self::tree::{Change, EntryId, RootTree};
use super::Error;
use super::architecture::Architecture;
use super::base;
use super::build::base_layers;
use super::layer_reader::read_tar;
use super::spec::ImageSpec;
use super::spec_layer::SpecLayer;
use crate::store::Store;

/// Reads the layers of an image: of an image spec, or of any format that [`super::base::read_base`]
/// reads.
///
/// # Errors
/// Fails if the image can't be read, or does not have its digests.
pub fn layers_of(
    store: &Store,
    image: &Path,
    architecture: &Architecture,
) -> Result<Vec<SpecLayer>, Error> {
    // An archive begins with a name, or with a compressor's magic number.
    let mut start = [0];
    let is_json = File::open(image).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == *b"{";
    if is_json {
        return Ok(ImageSpec::read_outline(image)?.layers);
    }
    Ok(base_layers(base::read_base(store, image, architecture)?).layers)
}

/// Writes the files that `layers`, from the bottom up, have together.
///
/// # Errors
/// Fails with [`Error::Flatten`] if a layer is not valid, or if a layer can't be made or written.
pub fn flatten(store: &Store, layers: &[SpecLayer], out: impl Write) -> Result<(), Error> {
    let Plan { tree, directories } = plan(store, layers)?;
    let mut names = tree.names();
    let mut tar = Tar { builder: Builder::new(out) };
    let mut sorted: Vec<_> = directories
        .iter()
        .filter_map(|(entry, attributes)| Some((*names.remove(entry)?.first()?, attributes)))
        .collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    for (name, attributes) in sorted {
        let name = [name, b"/"].concat();
        tar.entry(&name, attributes, EntryType::Directory, 0, io::empty()).map_err(write_error)?;
    }
    for (number, layer) in layers.iter().enumerate() {
        read_tar(store, layer, |reader| tar.layer(number, reader, &names))?;
    }
    let mut out = tar.builder.into_inner().map_err(write_error)?;
    out.flush().map_err(write_error)
}

fn write_error(error: io::Error) -> Error {
    crate::layer::Error::Write(error).into()
}

/// The entries of all layers that are left.
#[derive(Default)]
struct Plan {
    tree: RootTree,
    directories: BTreeMap<EntryId, Attributes>,
}

fn plan(store: &Store, layers: &[SpecLayer]) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    for (number, layer) in layers.iter().enumerate() {
        let problem = read_tar(store, layer, |reader| plan.layer(number, reader))?;
        problem.map_err(|problem| Error::Flatten {
            layer: number + 1,
            count: layers.len(),
            problem,
        })?;
    }
    Ok(plan)
}

impl Plan {
    /// Reads a layer. The outer error is one of reading, the inner one a problem with the layer
    /// itself.
    fn layer(&mut self, layer: usize, tar: impl Read) -> io::Result<Result<(), Problem>> {
        for (index, entry) in Archive::new(tar).entries()?.enumerate() {
            let mut entry = entry?;
            let id = EntryId { layer, index };
            let name = entry.path_bytes().into_owned();
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let change = match entry.header().entry_type() {
                EntryType::Directory => {
                    self.directories.insert(id, Attributes::of(&mut entry)?);
                    Change::Directory
                }
                EntryType::Symlink => Change::Symlink(&target),
                EntryType::Link => Change::HardLink(&target),
                EntryType::XGlobalHeader => continue,
                _ => Change::Other,
            };
            if let Err(problem) = self.tree.apply(id, &name, change) {
                return Ok(Err(problem));
            }
        }
        Ok(Ok(()))
    }
}

struct Tar<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> Tar<W> {
    /// Adds those entries of a layer that have a name.
    fn layer(
        &mut self,
        layer: usize,
        tar: impl Read,
        names: &BTreeMap<EntryId, Vec<&[u8]>>,
    ) -> io::Result<()> {
        for (index, entry) in Archive::new(tar).entries()?.enumerate() {
            let mut entry = entry?;
            let Some((first, others)) =
                names.get(&EntryId { layer, index }).and_then(|names| names.split_first())
            else {
                continue;
            };
            let attributes = Attributes::of(&mut entry)?;
            let kind = match entry.header().entry_type() {
                EntryType::Continuous | EntryType::GNUSparse => EntryType::Regular,
                kind => kind,
            };
            let size = entry.size();
            self.entry(first, &attributes, kind, size, entry)?;
            for other in others {
                let link = attributes.linked_to(first);
                self.entry(other, &link, EntryType::Link, 0, io::empty())?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        name: &[u8],
        attributes: &Attributes,
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
