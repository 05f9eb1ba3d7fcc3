//! Merges the roots of a layer, its store paths and the directories of its base into one tree.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::same::is_same;
use super::{DIRECTORY, DirectoryLinks};
use crate::image_path::{ImagePath, MOST_LINKS, components, split};
use crate::layer::Error;
use crate::layer::base_tree::{Attributes, BaseTree};
use crate::layer::contents::{LayerContents, MergedFiles};
use crate::layer::links::{Within, child_target, directory_behind, into_store};
use crate::layer::nix_database::DATABASE_DIR;
use crate::layer::node::{Children, Node, TreeEntry};
use crate::layer::permissions::{Given, RulesOf};
use crate::layer::scan::{Child, Directory, Kind};
use crate::store::{Store, StorePath};

/// The attributes of `nix/` and `nix/store/`, which are the same in every layer: a later layer's
/// entry for a directory replaces an earlier one's attributes. A host's own mode (1775, with a
/// group of builders) has no meaning in an image.
const STORE: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
/// The name of directories that describe packaging to Nix. Nearly every package has one, which is
/// useless in an image's root.
const NIX_SUPPORT: &[u8] = b"nix-support";

/// Merges the entries of a layer with the directories of its base.
///
/// # Errors
/// Fails with the errors of [`super::layer_tree`], and with [`Error::LinkOverDirectory`] and
/// [`Error::FileOverDirectory`] if `links` refuses them.
pub(super) fn merge<'c>(
    store: &'c Store,
    contents: &'c LayerContents,
    base: &'c BaseTree,
    links: DirectoryLinks,
) -> Result<Merge<'c>, Error> {
    let mut merge = Merge {
        store,
        base,
        database: base.resolve(&ImagePath::normal(DATABASE_DIR.as_bytes())).ok(),
        links,
        links_into_store: contents.links_into_store,
        merged: contents.merged.as_ref(),
        root: Children::default(),
        followed: BTreeMap::default(),
        into_store: false,
        replacing: Vec::new(),
    };
    if !contents.store_paths.is_empty() {
        let mut place = ImagePath::root();
        let source = store.physical_dir();
        for component in store.dir().split('/').filter(|component| !component.is_empty()) {
            place = merge.resolve(&place, component.as_bytes(), &source)?;
            merge.directory_at(&place, STORE, None)?;
        }
        let children = merge.directory_at(&place, STORE, None)?;
        for path in &contents.store_paths {
            children.insert(path.base_path().as_bytes().into(), Node::StorePath(path));
        }
    }
    let directory = Directory::of_store(store)?;
    // Others give way to what is merged.
    let is_merged =
        |path: &&StorePath| contents.merged.as_ref().is_some_and(|merged| merged.path == **path);
    let (first, others): (Vec<_>, Vec<_>) = contents.copy_to_root.iter().partition(is_merged);
    for path in first.into_iter().chain(others) {
        let child = directory.child(path.base_path())?;
        let from = match child.kind {
            Kind::Directory => Some(directory.open_directory(&child)?),
            Kind::Symlink => directory_behind(store, store.print(path).as_bytes())?,
            Kind::File => None,
        };
        let not_one = || Error::NotADirectory { path: directory.path_of(&child) };
        let rules = RulesOf::new(&contents.permissions, path);
        merge.directory(from.ok_or_else(not_one)?, &ImagePath::root(), &rules)?;
    }
    merge.check_links()?;
    Ok(merge)
}

/// A link of the base through which entries of the layer are written.
pub(super) struct Followed {
    /// The directory that the link leads to.
    pub(super) place: ImagePath,
    /// The path of the layer's entry, for messages.
    source: PathBuf,
}

/// The tree of a layer, while entries are added to it.
pub(super) struct Merge<'c> {
    store: &'c Store,
    base: &'c BaseTree,
    /// The place of the directory of Nix's database in the base.
    database: Option<ImagePath>,
    links: DirectoryLinks,
    /// True if relative links into the store are made absolute.
    links_into_store: bool,
    /// The merged files, which take precedence over the files of all roots.
    merged: Option<&'c MergedFiles>,
    /// The entries of `/`.
    pub(super) root: Children<'c>,
    /// The links of the base through which entries are written, by their names.
    pub(super) followed: BTreeMap<ImagePath, Followed>,
    /// True if there is a relative link into the store.
    pub(super) into_store: bool,
    /// The links and files that replace directories of the base.
    pub(super) replacing: Vec<String>,
}

impl<'c> Merge<'c> {
    /// Adds the entries of `from`, which is `/place` in the image.
    fn directory(
        &mut self,
        mut from: Directory,
        place: &ImagePath,
        rules: &RulesOf<'c>,
    ) -> Result<(), Error> {
        for child in from.children()? {
            if !(place.is_root() && child.name() == NIX_SUPPORT) {
                self.child(&from, &child, place, rules)?;
            }
        }
        Ok(())
    }

    fn child(
        &mut self,
        from: &Directory,
        child: &Child,
        parent: &ImagePath,
        rules: &RulesOf<'c>,
    ) -> Result<(), Error> {
        let source = from.path_of(child);
        let of = |mode| rules.given(self.store, (child.kind, mode), || source.clone());
        match child.kind {
            Kind::Directory => {
                let place = self.resolve(parent, child.name(), &source)?;
                let attributes = usual_attributes(self.store, &place);
                let given = of(self.base.attributes(&place).unwrap_or(attributes).mode);
                self.directory_at(&place, attributes, Some(&source))?;
                self.permit(&place, given, &source)?;
                self.directory(from.open_directory(child)?, &place, rules)
            }
            Kind::Symlink => {
                let mut target = from.read_link(child)?;
                if let Some(absolute) = into_store(self.store, from.path(), &target) {
                    self.into_store = true;
                    if self.links_into_store {
                        target = absolute;
                    }
                }
                let given = of(DIRECTORY.mode);
                let link = TreeEntry::Symlink { target, source, given };
                self.link(parent, child.name(), link, 0)
            }
            Kind::File => {
                let given = of(DIRECTORY.mode).or(self.owner_of_database(parent));
                self.check_file(parent, child.name(), &source)?;
                self.insert(parent, child.name(), TreeEntry::File { source, given })
            }
        }
    }

    /// Notes that a file replaces a directory of the base, or a link to one, or fails if that is
    /// refused.
    fn check_file(&mut self, parent: &ImagePath, name: &[u8], source: &Path) -> Result<(), Error> {
        let place = self
            .base
            .resolve_below(parent, name)
            .map_err(|link| Error::BadLink { path: source.to_owned(), link })?;
        if !self.base.has_directory(&place) {
            return Ok(());
        }
        let name = parent.join(name).as_bytes().escape_ascii().to_string();
        if self.links == DirectoryLinks::Refuse {
            return Err(Error::FileOverDirectory { name, path: source.to_owned() });
        }
        self.replacing.push(name);
        Ok(())
    }

    /// Returns the owner of the base's database of Nix, if `parent` is the directory of that
    /// database: the same user must be able to write to the new one.
    fn owner_of_database(&self, parent: &ImagePath) -> Given<'c> {
        let is_database = self.database.as_ref() == Some(parent);
        match self.base.attributes(parent).filter(|_| is_database) {
            Some(Attributes { uid, gid, .. }) => {
                Given { uid: Some(uid), gid: Some(gid), ..Given::default() }
            }
            None => Given::default(),
        }
    }

    /// Adds a link. If the base has a directory in its place, and links are merged, adds a link to
    /// each entry of the link's directory there.
    fn link(
        &mut self,
        parent: &ImagePath,
        name: &[u8],
        link: TreeEntry<'c>,
        depth: usize,
    ) -> Result<(), Error> {
        let TreeEntry::Symlink { target, source, given } = &link else {
            return self.insert(parent, name, link);
        };
        let own = parent.join(name);
        let place = self
            .base
            .resolve_below(parent, name)
            .map_err(|link| Error::BadLink { path: source.clone(), link })?;
        // A link to the directory that the base's own link leads to hides nothing.
        let is_same = || place != own && self.base.leads_to(parent, target, &place);
        let is_over_base = self.base.has_directory(&place) && !is_same();
        let is_over_merged = || {
            let node = node_at(&self.root, &place);
            self.merged.is_some() && node.is_some_and(|node| node.children().is_some())
        };
        if !is_over_base && !is_over_merged() {
            return self.insert(parent, name, link);
        }
        if is_over_base && self.links == DirectoryLinks::Refuse {
            let name = own.as_bytes().escape_ascii().to_string();
            return Err(Error::LinkOverDirectory { name, path: source.clone() });
        }
        let is_merging = self.links == DirectoryLinks::Merge || !is_over_base;
        let (stored, target) = self.ends_of(target, source, depth);
        let behind = match is_merging && depth < MOST_LINKS {
            true => directory_behind(self.store, &stored)?,
            false => None,
        };
        let Some(mut behind) = behind else {
            if is_over_base {
                self.replacing.push(own.as_bytes().escape_ascii().to_string());
            }
            return self.insert(parent, name, link);
        };
        let (source, given) = (source.clone(), *given);
        let place = self.resolve(parent, name, &source)?;
        let attributes = usual_attributes(self.store, &place);
        self.directory_at(&place, attributes, Some(&source))?;
        for child in behind.children()? {
            let entry = TreeEntry::Symlink {
                target: child_target(&target, &child),
                source: behind.path_of(&child),
                given,
            };
            self.link(&place, child.name(), entry, depth + 1)?;
        }
        Ok(())
    }

    /// Returns where a link leads in the store, and in the image. The links that merging makes, at a depth, are for
    /// files of the store.
    fn ends_of(&self, target: &[u8], source: &Path, depth: usize) -> (Vec<u8>, Vec<u8>) {
        if depth > 0 {
            let stored = self.store.logical(source).as_os_str().as_bytes().to_vec();
            return (stored, target.to_vec());
        }
        let directory = source.parent().unwrap_or(source);
        match Within::of(self.store, directory, target) {
            Some(Within { stored, copied }) => (stored, copied),
            None => (target.to_vec(), target.to_vec()),
        }
    }

    /// Adds a file or a link.
    fn insert(
        &mut self,
        parent: &ImagePath,
        name: &[u8],
        entry: TreeEntry<'c>,
    ) -> Result<(), Error> {
        let node = Node::Entry(entry.into());
        let store = self.store;
        let (source, given) = (node.source(store), node.given());
        let is_merged = self.merged.is_some_and(|merged| {
            let place = parent.join(name);
            std::str::from_utf8(place.as_bytes()).is_ok_and(|place| merged.names.contains(place))
        });
        let children = self.directory_at(parent, DIRECTORY, Some(&source))?;
        match children.entry(name.to_vec().into()) {
            Slot::Vacant(slot) => {
                slot.insert(node);
            }
            Slot::Occupied(_) if is_merged => {}
            Slot::Occupied(slot) if !is_same(slot.get(), &node)? => {
                let first = slot.get().source(store);
                return Err(conflict(&parent.join(name), first, source));
            }
            Slot::Occupied(slot) if slot.get().given() != given => {
                let first = slot.get().source(store);
                return Err(permission_conflict(&parent.join(name), first, source));
            }
            Slot::Occupied(_) => {}
        }
        Ok(())
    }

    /// Sets the attributes that `perms` has for the directory at a resolved place.
    fn permit(&mut self, place: &ImagePath, wanted: Given<'c>, from: &Path) -> Result<(), Error> {
        // A link of the base to its root leads to a place that has no entry.
        if wanted == Given::default() || place.is_root() {
            return Ok(());
        }
        let store = self.store;
        let Some(node) = node_at_mut(&mut self.root, place) else { return Ok(()) };
        let differs = node.given() != wanted;
        match node.entry_mut() {
            Some(TreeEntry::Directory { given, source, .. }) if *given == Given::default() => {
                *given = wanted;
                *source = Some(from.to_owned());
                Ok(())
            }
            _ if differs => Err(permission_conflict(place, node.source(store), from.to_owned())),
            _ => Ok(()),
        }
    }

    /// Returns the place of a layer's directory.
    fn resolve(
        &mut self,
        parent: &ImagePath,
        name: &[u8],
        source: &Path,
    ) -> Result<ImagePath, Error> {
        let place = self
            .base
            .resolve_below(parent, name)
            .map_err(|link| Error::BadLink { path: source.to_owned(), link })?;
        let link = parent.join(name);
        if place != link {
            let followed = Followed { place: place.clone(), source: source.to_owned() };
            self.followed.entry(link).or_insert(followed);
        }
        Ok(place)
    }

    /// Returns the entries of the directory at a resolved place, and makes the directory if it does
    /// not exist. A directory of the base keeps its mode and owner.
    fn directory_at(
        &mut self,
        place: &ImagePath,
        attributes: Attributes,
        source: Option<&Path>,
    ) -> Result<&mut Children<'c>, Error> {
        let mut children = &mut self.root;
        let mut name = ImagePath::root();
        for component in place.components() {
            name.push(component);
            let node = children.entry(component.to_vec().into()).or_insert_with(|| {
                let directory = TreeEntry::Directory {
                    attributes: self.base.attributes(&name).unwrap_or(attributes),
                    given: Given::default(),
                    children: Children::default(),
                    source: source.map(Path::to_owned),
                };
                Node::Entry(directory.into())
            });
            if node.children().is_none() {
                let second = source.map_or_else(|| self.store.physical_dir(), Path::to_owned);
                return Err(conflict(&name, node.source(self.store), second));
            }
            children = node.children_mut().expect("it is a directory");
        }
        Ok(children)
    }

    /// Checks that the layer does not replace a link of the base through which it also writes: the
    /// written entries would not be found under that name.
    fn check_links(&self) -> Result<(), Error> {
        for (link, Followed { source, .. }) in &self.followed {
            if let Some(node) = node_at(&self.root, link) {
                return Err(conflict(link, node.source(self.store), source.clone()));
            }
        }
        Ok(())
    }
}

/// Returns the usual attributes of a directory that is copied to `/`. The directory may be `nix/`
/// or `nix/store/`, also in a layer without store paths.
fn usual_attributes(store: &Store, name: &ImagePath) -> Attributes {
    let store_dir = Path::new(store.dir().trim_start_matches('/'));
    let holds_store = store_dir.starts_with(OsStr::from_bytes(name.as_bytes()));
    if holds_store { STORE } else { DIRECTORY }
}

fn node_at<'t, 'c>(children: &'t Children<'c>, path: &ImagePath) -> Option<&'t Node<'c>> {
    let (directory, name) = split(path.as_bytes());
    let mut children = children;
    for component in components(directory) {
        children = children.get(component)?.children()?;
    }
    children.get(name)
}

fn node_at_mut<'t, 'c>(
    children: &'t mut Children<'c>,
    path: &ImagePath,
) -> Option<&'t mut Node<'c>> {
    let (directory, name) = split(path.as_bytes());
    let mut children = children;
    for component in components(directory) {
        children = children.get_mut(component)?.children_mut()?;
    }
    children.get_mut(name)
}

fn permission_conflict(name: &ImagePath, first: PathBuf, second: PathBuf) -> Error {
    Error::PermissionConflict { name: name.as_bytes().escape_ascii().to_string(), first, second }
}

fn conflict(name: &ImagePath, first: PathBuf, second: PathBuf) -> Error {
    Error::Conflict { name: name.as_bytes().escape_ascii().to_string(), first, second }
}
