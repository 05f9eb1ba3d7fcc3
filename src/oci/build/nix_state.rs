//! Makes the files that a Nix in the image reads: its database, merged with that of the base image.
//! Stage: oci. Input: closure and options. Output: [`NixState`].

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::in_store;
use super::layer_set::LayerSet;
use super::options::BuildOptions;
use super::warning::{Built, Warning};
use crate::closure::{Closure, ValidPathInfo};
use crate::layer::{self, DATABASE, DATABASE_DIR, LayerContents};
use crate::oci::Error;
use crate::oci::base::{self, BaseImage};
use crate::store::{Store, StorePath};

/// The files that SQLite reads together with a database.
const JOURNALS: [&str; 2] = ["db.sqlite-journal", "db.sqlite-wal"];

/// The state of the Nix in an image.
#[derive(Debug)]
pub struct NixState {
    /// The bytes of `db.sqlite`.
    pub database: Vec<u8>,
    /// The names of journals of the base image that must be empty in the image, since their changes
    /// are already in the database.
    pub emptied: Vec<&'static str>,
    /// The new roots of the garbage collector, in addition to those of the base image.
    pub roots: Vec<StorePath>,
}

/// Makes the state of a Nix. It knows the image's own store paths, those of the layers below, and
/// those of the base image.
///
/// # Errors
/// Fails if a layer below can't be read, or the base image's database.
pub fn nix_state(
    store: &Store,
    closure: Closure,
    options: &BuildOptions,
) -> Result<Built<NixState>, Error> {
    // `closure` also contains the outputs of the layers, files that name the layers' store paths:
    // these are not in the image.
    let below = LayerSet::read_all(store, &options.layers)?;
    let files = below.parents.into_iter().collect();
    let own = in_store(closure.without(&files), options);
    let base = options.from_image.as_deref();
    let base = base.map(|path| base::read_base(store, path, &options.architecture)).transpose()?;
    let failed = |error: std::io::Error| Error::Layer(layer::Error::Write(error));
    let Some(base) = base else {
        let database =
            layer::nix_database(&own).map_err(|error| failed(std::io::Error::other(error)))?;
        let roots = own.tops().cloned().collect();
        return Ok(Built {
            made: NixState { database, emptied: Vec::new(), roots },
            warnings: Vec::new(),
        });
    };
    let known = with_base(&own, &base)?;
    let roots = known.tops().cloned().collect();
    let (database, paths, emptied) = if base.has_nix_database() {
        let copy = Copy::of(store, &base, options)?;
        // Look for journals first: SQLite deletes one after reading it.
        let there = JOURNALS.into_iter().filter(|name| copy.directory.path().join(name).exists());
        let emptied = there.collect();
        let merged = layer::merged_database(copy.directory.path(), &known);
        let merged = merged.map_err(|error| copy.error(error))?;
        (merged.bytes, merged.paths, emptied)
    } else {
        let database =
            layer::nix_database(&known).map_err(|error| failed(std::io::Error::other(error)))?;
        let paths = known.infos().iter().map(|info| info.path.clone()).collect();
        (database, paths, Vec::new())
    };
    let unknown = missing(&base, &paths);
    let warnings = match unknown.is_empty() {
        true => Vec::new(),
        false => vec![Warning::NotRegistered(unknown)],
    };
    Ok(Built { made: NixState { database, emptied, roots }, warnings })
}

/// Returns the store paths of the base image that a database lacks.
fn missing(base: &BaseImage, paths: &BTreeSet<StorePath>) -> Vec<StorePath> {
    let there = base.tree.names_in(Store::default().dir()).unwrap_or_default();
    let there = there.into_iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok());
    there.filter(|path| !paths.contains(path)).collect()
}

/// Returns the registration of the image's store paths, and of the base image's if stowage made it.
/// If both register a path with different contents, the base image's is the one in the container.
fn with_base(own: &Closure, base: &BaseImage) -> Result<Closure, Error> {
    let in_base = |path: &StorePath| base.store_paths.contains(path);
    let mut infos = Vec::new();
    for source in base.sources.iter().filter(|source| in_base(&source.path)) {
        if own.get(&source.path).is_some_and(|info| info.nar_hash == source.nar_hash) {
            continue;
        }
        let references = source.references.iter().filter(|path| in_base(path)).cloned();
        infos.push(ValidPathInfo {
            path: source.path.clone(),
            nar_hash: source.nar_hash,
            nar_size: source.nar_size,
            references: references.collect(),
        });
    }
    let others: BTreeSet<_> = infos.iter().map(|info| info.path.clone()).collect();
    for node in own.nodes() {
        let info = own.info(node);
        if !others.contains(&info.path) {
            infos.push(ValidPathInfo {
                path: info.path.clone(),
                nar_hash: info.nar_hash,
                nar_size: info.nar_size,
                references: own.references(node).cloned().collect(),
            });
        }
    }
    Ok(Closure::new(infos)?)
}

/// A copy of the base image's database.
struct Copy {
    directory: tempfile::TempDir,
    file: PathBuf,
}

impl Copy {
    fn of(store: &Store, base: &BaseImage, options: &BuildOptions) -> Result<Self, Error> {
        let file = options.from_image.clone().unwrap_or_default();
        let directory = tempfile::tempdir().map_err(layer::Error::Write)?;
        let copy = Self { directory, file };
        let copied = base.copy_nix_database(store, copy.directory.path());
        copied.map_err(|error| copy.error(error))?;
        Ok(copy)
    }

    fn error(&self, error: layer::DatabaseError) -> Error {
        let problem = Box::new(base::Problem::NixDatabase(error));
        base::Error { role: base::ImageRole::Base, file: self.file.clone(), layer: None, problem }
            .into()
    }
}

/// Returns a warning about the store paths that the database in the container will not list: the
/// base image's database, or the one that replaces it.
pub fn unregistered(
    store: &Store,
    base: &BaseImage,
    contents: &[&LayerContents],
    options: &BuildOptions,
) -> Result<Option<Warning>, Error> {
    if !base.has_nix_database() {
        return Ok(None);
    }
    let own_file = |path: &StorePath| {
        let directory = store.physical(path).join(DATABASE_DIR.trim_start_matches('/'));
        directory.join(DATABASE).is_file().then_some(directory)
    };
    let copied = contents.iter().flat_map(|contents| &contents.copy_to_root);
    let own = copied.filter_map(own_file).next_back();
    let paths = match own {
        Some(directory) => {
            // SQLite writes files beside the database, so it opens a copy.
            let copy = tempfile::tempdir().map_err(layer::Error::Write)?;
            fs::copy(directory.join(DATABASE), copy.path().join(DATABASE))
                .map_err(layer::Error::Write)?;
            layer::valid_paths(copy.path()).unwrap_or_default()
        }
        // The base image's own database stays. If it can't be read, the build goes on without this
        // warning.
        None => {
            let copy = Copy::of(store, base, options).ok();
            match copy.and_then(|copy| layer::valid_paths(copy.directory.path()).ok()) {
                Some(paths) => paths,
                None => return Ok(None),
            }
        }
    };
    let mut lost: BTreeSet<_> = missing(base, &paths).into_iter().collect();
    let here = contents.iter().flat_map(|contents| &contents.store_paths);
    lost.extend(here.filter(|path| !paths.contains(*path)).cloned());
    let lost: Vec<_> = lost.into_iter().collect();
    Ok((!lost.is_empty()).then_some(Warning::NotRegistered(lost)))
}
