//! Writes a layer's bytes: the entries of its tree in order, with every store path read as it is
//! written.
//! Stage: layer. Input: [`LayerContents`]. Output: an uncompressed tar.

use std::cmp::Ordering;
use std::io;
use std::path::Path;

use super::Error;
use super::base_tree::{Attributes, BaseEntry, BaseLayerBuilder, BaseLayerTree, BaseTree};
use super::contents::LayerContents;
use super::header::Entry;
use super::node::{Children, Node, TreeEntry};
use super::permissions::{Given, RulesOf};
use super::pieces::Pieces;
use super::scan::{Child, Directory, Kind};
use super::tar::TarWriter;
use super::tree::{DIRECTORY, DirectoryLinks, layer_tree, root_outline};
use crate::sink::Sink;
use crate::store::Store;

/// Writes the uncompressed tar of a layer. The bytes are the same on every machine and every time.
///
/// Names are relative, and a directory's name ends in `/`. As written, names are sorted by their
/// bytes (`tar -tf … | LC_ALL=C sort -c` agrees), so that parents come before their children and
/// nothing has to be kept in memory to sort it.
///
/// # Errors
/// Fails if the sources can't be read, and with [`Error::Write`] if `out` fails.
pub fn write_layer(store: &Store, contents: &LayerContents, out: impl Sink) -> Result<(), Error> {
    let tar = walk(store, contents, TarWriter::new(Pieces::new(out)))?;
    tar.finish().map_err(Error::Write)?;
    Ok(())
}

/// Returns the changes that a layer makes to the layers below it: the same as a scan of its tar,
/// without opening a file.
///
/// # Errors
/// Fails if a directory or link of the sources can't be read.
pub fn outline_layer(store: &Store, contents: &LayerContents) -> Result<BaseLayerTree, Error> {
    walk(store, contents, Outline(BaseLayerBuilder::default())).map(|outline| outline.0.finish())
}

/// Notes the directories whose mode or owner the rules of a layer set, in the tree that the layers above meet: they
/// keep these where no rule of their own says otherwise.
///
/// # Errors
/// Fails if a directory or link of the sources can't be read.
pub fn note_given(
    store: &Store,
    contents: &LayerContents,
    below: &mut BaseTree,
) -> Result<(), Error> {
    let found = root_outline(store, contents, &contents.over, DirectoryLinks::Merge)?;
    let given: Vec<_> = found.directories.into_iter().filter(|(_, is_given)| *is_given).collect();
    if given.is_empty() {
        return Ok(());
    }
    let mut tree = BaseTree::default();
    tree.apply(&outline_layer(store, contents)?);
    for (name, _) in given {
        if let Some(attributes) = tree.attributes(&name) {
            below.insert_directory(name, attributes);
        }
    }
    Ok(())
}

fn walk<E: Entries>(store: &Store, contents: &LayerContents, out: E) -> Result<E, Error> {
    let tree = layer_tree(store, contents)?;
    let mut walk = Walk { out, store, contents, name: Vec::with_capacity(256) };
    walk.nodes(&tree)?;
    Ok(walk.out)
}

/// Receives the entries of a layer, in order.
trait Entries {
    /// Receives a directory or a link.
    fn entry(&mut self, name: &[u8], entry: Entry, given: Given) -> Result<(), Error>;

    /// Receives a file of a directory.
    fn file(
        &mut self,
        name: &[u8],
        parent: &Directory,
        child: &Child,
        given: Given,
    ) -> Result<(), Error>;
}

impl<S: Sink> Entries for TarWriter<Pieces<S>> {
    fn entry(&mut self, name: &[u8], entry: Entry, given: Given) -> Result<(), Error> {
        Ok(TarWriter::entry(self, name, entry, given)?)
    }

    fn file(
        &mut self,
        name: &[u8],
        parent: &Directory,
        child: &Child,
        given: Given,
    ) -> Result<(), Error> {
        let file = parent.open_file(child)?;
        let (executable, size) = (file.executable, file.size);
        TarWriter::file(self, name, (executable, size), given, |out| {
            file.copy_to(out, || parent.path_of(child))
        })
    }
}

/// Collects the changes of a layer to those below, without its files.
struct Outline(BaseLayerBuilder);

impl Entries for Outline {
    fn entry(&mut self, name: &[u8], entry: Entry, given: Given) -> Result<(), Error> {
        let entry = match entry {
            Entry::Directory(Attributes { mode, uid, gid }) => BaseEntry::Directory(Attributes {
                mode: given.mode.unwrap_or(mode),
                uid: given.uid.unwrap_or(uid),
                gid: given.gid.unwrap_or(gid),
            }),
            Entry::Symlink { target } => BaseEntry::Symlink(target),
            Entry::File { .. } => BaseEntry::Other,
        };
        self.0.add(name, entry);
        Ok(())
    }

    fn file(&mut self, name: &[u8], _: &Directory, _: &Child, _: Given) -> Result<(), Error> {
        self.0.add(name, BaseEntry::Other);
        Ok(())
    }
}

/// Takes an `io::Error` for one of the writer. Errors of reading a file are converted before.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Write(error)
    }
}

struct Walk<'s, E> {
    out: E,
    store: &'s Store,
    contents: &'s LayerContents,
    /// The name of the current entry, without a final slash.
    name: Vec<u8>,
}

impl<E: Entries> Walk<'_, E> {
    /// Runs `step` at the entry `name` below the current one.
    fn below<T>(
        &mut self,
        name: &[u8],
        step: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let parent = self.name.len();
        if parent > 0 {
            self.name.push(b'/');
        }
        self.name.extend_from_slice(name);
        let result = step(self);
        self.name.truncate(parent);
        result
    }

    fn nodes(&mut self, children: &Children) -> Result<(), Error> {
        let mut children: Vec<_> = children.iter().collect();
        children.sort_unstable_by(|(a, node_a), (b, node_b)| {
            let is_directory = |node: &Node| node.children().is_some();
            tar_order((a, is_directory(node_a)), (b, is_directory(node_b)))
        });
        for (name, node) in children {
            self.below(name, |walk| walk.node(node))?;
        }
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Result<(), Error> {
        let entry = match node {
            Node::Entry(entry) => &**entry,
            Node::StorePath(path) => {
                let directory = Directory::of_store(self.store)?;
                let child = directory.child(path.base_path())?;
                let rules = self.contents.rules_in_store(path);
                return self.child(&directory, &child, &rules);
            }
        };
        match entry {
            TreeEntry::Directory { attributes, given, children, source } => {
                let given = match source {
                    Some(_) => *given,
                    None => given.or(self.contents.store_attributes.given()),
                };
                self.out.entry(&self.name, Entry::Directory(*attributes), given)?;
                self.nodes(children)
            }
            TreeEntry::Symlink { target, given, .. } => {
                self.out.entry(&self.name, Entry::Symlink { target }, *given)
            }
            TreeEntry::File { source, given } => {
                let parent = Directory::open(source.parent().unwrap_or(Path::new("/")))?;
                let name = source.file_name().unwrap_or_default();
                let child = parent.child(name)?;
                self.out.file(&self.name, &parent, &child, *given)
            }
        }
    }

    fn child(&mut self, parent: &Directory, child: &Child, rules: &RulesOf) -> Result<(), Error> {
        let given = rules.given(self.store, (child.kind, DIRECTORY.mode), || parent.path_of(child));
        let given = given.or(self.contents.store_attributes.given());
        match child.kind {
            Kind::File => self.out.file(&self.name, parent, child, given),
            Kind::Symlink => {
                let target = parent.read_link(child)?;
                self.out.entry(&self.name, Entry::Symlink { target: &target }, given)
            }
            Kind::Directory => {
                self.out.entry(&self.name, Entry::Directory(DIRECTORY), given)?;
                let mut directory = parent.open_directory(child)?;
                let mut children = directory.children()?;
                children.sort_unstable_by(|a, b| {
                    let is_directory = |child: &Child| child.kind == Kind::Directory;
                    tar_order((a.name(), is_directory(a)), (b.name(), is_directory(b)))
                });
                for child in children {
                    self.below(child.name(), |walk| walk.child(&directory, &child, rules))?;
                }
                Ok(())
            }
        }
    }
}

/// Compares names as they are written: a directory's name ends in a slash, so `a-b` comes before
/// `a/`, and `a/` and everything in it before `a0`.
fn tar_order((a, a_is_directory): (&[u8], bool), (b, b_is_directory): (&[u8], bool)) -> Ordering {
    let written = |name, is_directory: bool| -> std::iter::Chain<std::slice::Iter<u8>, _> {
        <[u8]>::iter(name).chain(is_directory.then_some(&b'/'))
    };
    written(a, a_is_directory).cmp(written(b, b_is_directory))
}
