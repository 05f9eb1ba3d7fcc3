//! The parts of an image that declared files are put on: base, layers, and what is copied to `/`.
//! Stage: oci. Input: [`SystemOptions`]. Output: [`Beneath`].

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::accounts::{AccountSource, FILES};
use super::{SystemError, SystemOptions};
use crate::image_path::ImagePath;
use crate::layer::{self, AccountFile, Attributes, BaseTree, LayerContents};
use crate::oci::Error;
use crate::oci::base::{self, BaseImage};
use crate::oci::build::layer_set::LayerSet;
use crate::oci::spec_layer::SpecLayer;
use crate::store::{Store, StorePath};

/// The largest file of accounts that is read.
const LARGEST: u64 = 16 << 20;

/// A file of accounts: its bytes, and its mode and owner.
type OfBase = (Vec<u8>, Option<Attributes>);

/// The parts of an image that the declared files are added to: the base, the layers below, and the
/// image's own roots.
pub struct Beneath<'s> {
    store: &'s Store,
    base: Option<BaseImage>,
    /// The store paths whose files are copied to `/`, of each layer below and of the image itself, each
    /// with the name of its argument for messages.
    roots: Vec<(&'static str, StorePath)>,
    /// The base's tree with the layers' on it.
    below: BaseTree,
    /// The tree of each store path that the image itself copies to `/`.
    own: Vec<BaseTree>,
    /// Modes and owners of the base's files of accounts.
    attributes: BTreeMap<&'static str, Attributes>,
    files: BTreeMap<&'static str, Vec<u8>>,
}

impl<'s> Beneath<'s> {
    /// Reads the trees of all parts, and the base's accounts.
    ///
    /// # Errors
    /// Fails if one of them can't be read.
    pub fn read(store: &'s Store, options: &SystemOptions) -> Result<Self, Error> {
        let base = options.from_image.as_deref();
        let base = base.map(|path| base::read_base(store, path, &options.architecture));
        let base = base.transpose()?;
        let mut below = base.as_ref().map(|base| base.tree.clone()).unwrap_or_default();
        let layers = LayerSet::read_all(store, &options.layers)?;
        let mut roots = Vec::new();
        for contents in layers.layers.iter().filter_map(SpecLayer::contents) {
            let mut copied = LayerContents {
                store_paths: Default::default(),
                permissions: contents
                    .permissions
                    .iter()
                    .filter(|rule| contents.copy_to_root.contains(&rule.path))
                    .cloned()
                    .collect(),
                ..contents.clone()
            };
            copied.over = layer::met_by(store, &copied, &below, options.directory_links)?;
            below.apply(&layer::outline_layer(store, &copied)?);
            roots.extend(contents.copy_to_root.iter().map(|root| ("`layers`", root.clone())));
        }
        let mut own = Vec::new();
        // Read each root by itself: if two disagree on a file, the build of the image reports it.
        for root in &options.copy_to_root {
            let permissions = options.perms.iter().filter(|rule| rule.path == *root);
            let mut contents = LayerContents {
                copy_to_root: vec![root.clone()],
                permissions: permissions.cloned().collect(),
                links_into_store: true,
                ..LayerContents::default()
            };
            contents.over = layer::met_by(store, &contents, &below, options.directory_links)?;
            let mut tree = BaseTree::default();
            tree.apply(&layer::outline_layer(store, &contents)?);
            own.push(tree);
            roots.push(("`copyToRoot`", root.clone()));
        }
        let (attributes, files) = (BTreeMap::new(), BTreeMap::new());
        let mut beneath = Self { store, base, roots, below, own, attributes, files };
        // Files that nothing depends on need not be readable.
        for name in FILES.into_iter().filter(|_| options.needs_accounts()) {
            if let Some((bytes, attributes)) = beneath.of_base(name)? {
                beneath.files.insert(name, bytes);
                beneath.attributes.extend(attributes.map(|attributes| (name, attributes)));
            }
        }
        Ok(beneath)
    }

    /// Returns the accounts of each part, from the bottom up.
    ///
    /// # Errors
    /// Fails if one of the files can't be read.
    pub fn sources(&self) -> Result<Vec<AccountSource>, Error> {
        let mut sources = Vec::new();
        if !self.files.is_empty() {
            sources.push(AccountSource {
                name: "the base image".to_owned(),
                files: self.files.clone(),
            });
        }
        for (of, root) in &self.roots {
            let mut files = BTreeMap::new();
            for name in FILES {
                if let Some(bytes) = self.of_root(of, root, name)? {
                    files.insert(name, bytes);
                }
            }
            if !files.is_empty() {
                let name = format!("{of} ({})", self.store.print(root));
                sources.push(AccountSource { name, files });
            }
        }
        Ok(sources)
    }

    /// Returns a file of accounts that the base has, with its mode and owner where the base has the file
    /// itself and no link to one in the store.
    fn of_base(&self, name: &'static str) -> Result<Option<OfBase>, Error> {
        let Some(base) = &self.base else { return Ok(None) };
        let unreadable = |reason: String| SystemError::Unreadable {
            file: name,
            of: "the base image".to_owned(),
            reason,
        };
        let found = base.tree.account_file(name).map_err(|error| unreadable(error.to_string()))?;
        match found {
            None => Ok(None),
            Some(AccountFile::Here(_)) => {
                let (bytes, attributes) = base
                    .read_account_file(self.store, name)
                    .map_err(|error| unreadable(chain(&error)))?;
                Ok(Some((bytes, Some(attributes))))
            }
            Some(AccountFile::Elsewhere(place)) => {
                let path = Path::new("/").join(OsStr::from_bytes(place.as_bytes()));
                match layer::place_behind(self.store, path.as_os_str().as_encoded_bytes()) {
                    Some(file) if path.starts_with(self.store.dir()) => {
                        Ok(Some((read(&file).map_err(unreadable)?, None)))
                    }
                    _ => Err(unreadable(format!("it leads to {}", path.display())).into()),
                }
            }
        }
    }

    /// Returns a file of accounts of what is copied to `/`.
    fn of_root(
        &self,
        of: &str,
        root: &StorePath,
        name: &'static str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let unreadable = |reason: String| SystemError::Unreadable {
            file: name,
            of: format!("{of} ({})", self.store.print(root)),
            reason,
        };
        let path = format!("{}/etc/{name}", self.store.print(root));
        match layer::place_behind(self.store, path.as_bytes()) {
            Some(file) => Ok(Some(read(&file).map_err(unreadable)?)),
            None if fs::symlink_metadata(self.store.locate(Path::new(&path))).is_ok() => {
                Err(unreadable("it is a link to what is not in the store".to_owned()).into())
            }
            None => Ok(None),
        }
    }

    /// Returns mode and owner of a file of accounts that the base has.
    pub fn attributes_of(&self, name: &str) -> Option<Attributes> {
        self.attributes.get(name).copied()
    }

    /// Returns mode and owner of a directory of the base or of the layers, at a resolved place.
    pub fn directory_below(&self, place: &str) -> Option<Attributes> {
        self.below.attributes(&ImagePath::normal(place.as_bytes()))
    }

    /// Returns whether any part has a directory at a resolved place.
    pub fn has_directory(&self, place: &str) -> bool {
        let place = ImagePath::normal(place.as_bytes());
        let has = |tree: &BaseTree| tree.has_directory(&place);
        has(&self.below) || self.own.iter().any(has)
    }

    /// Returns the place of a directory, through links of the base and of the layers.
    ///
    /// # Errors
    /// Fails if links lead in a circle, or into a store path, which no other file may be put into.
    pub fn place(&self, path: &str, option: &str) -> Result<String, SystemError> {
        let wrong = |reason: String| SystemError::Place { option: option.to_owned(), reason };
        let path = ImagePath::normal(path.as_bytes());
        let place = self.below.resolve(&path).map_err(|error| wrong(error.to_string()))?;
        let place = String::from_utf8(place.as_bytes().to_vec())
            .map_err(|_| wrong("links lead to a name that is not UTF-8".to_owned()))?;
        let absolute = PathBuf::from(format!("/{place}"));
        let linked = self.link_into_store(&place);
        if absolute.starts_with(self.store.dir()) || linked.is_some() {
            let where_to = linked.unwrap_or(place);
            return Err(wrong(format!(
                "/{where_to} is in the Nix store, or in `layers` a link there: put it into `copyToRoot`, which is merged"
            )));
        }
        Ok(place)
    }

    /// Returns the directory on the way that a layer has as a link into the store.
    fn link_into_store(&self, place: &str) -> Option<String> {
        let store = self.store;
        let linked = |name: &str| {
            self.roots.iter().filter(|(of, _)| *of == "`layers`").any(|(_, root)| {
                let path = format!("{}/{name}", store.print(root));
                fs::read_link(store.locate(Path::new(&path)))
                    .is_ok_and(|target| target.starts_with(store.dir()))
            })
        };
        let ends = place.match_indices('/').map(|(end, _)| end).chain([place.len()]);
        ends.map(|end| &place[..end])
            .find(|name| !name.is_empty() && linked(name))
            .map(str::to_owned)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let open = File::open(file).map_err(|error| error.to_string())?;
    open.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 > LARGEST {
        true => Err(format!("it has more than {} MiB", LARGEST >> 20)),
        false => Ok(bytes),
    }
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
