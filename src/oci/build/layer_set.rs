//! Layers that were built on their own, for images to use.
//! Stage: oci. Input: `layers.json` of one or more `buildLayer`s. Output: [`LayerSet`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::History;
use serde::{Deserialize, Serialize};

use crate::digest::DigestWriter;
use crate::layer::{self, BaseTree, DirectoryLinks, Layer, LayerContents, PermissionRule};
use crate::oci::Error;
use crate::oci::blob::Form;
use crate::oci::compression::Compression;
use crate::oci::json_file;
use crate::oci::layer_blob::LayerBlob;
use crate::oci::sources::SourceInfo;
use crate::oci::spec_layer::{LayerSource, SpecLayer};
use crate::oci::stored::StoredBlob;
use crate::store::{self, Store, StorePath};

/// The file in a `buildLayer`'s output.
pub const FILE: &str = "layers.json";

/// A list of layers, with everything that an image spec says about them.
///
/// A set refers to the sets below it and does not repeat them: a long chain of sets takes as much
/// space as its layers need.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerSet {
    /// The outputs of the `buildLayer`s below, from the bottom up.
    #[serde(with = "store::full_paths")]
    pub parents: Vec<StorePath>,
    /// The history: one entry for each layer.
    pub history: Vec<History>,
    /// The layers, from the bottom up.
    pub layers: Vec<SpecLayer>,
    /// The information that Nix registered about every store path from which a layer is made,
    /// sorted by path.
    #[serde(rename = "storePaths")]
    pub sources: Vec<SourceInfo>,
}

impl LayerSet {
    /// Reads the outputs of `buildLayer`s and of all sets below them, each once, parents first. All
    /// of them are parents of the result.
    ///
    /// # Errors
    /// Fails with [`Error::Read`] or [`Error::Json`] if a file is not valid.
    pub fn read_all(store: &Store, roots: &[StorePath]) -> Result<Self, Error> {
        let mut whole = Self::default();
        let mut seen = BTreeSet::new();
        // Without recursion, since a chain of sets may be long. A set is read, then its parents,
        // and it is added when these are done.
        let mut open: Vec<(StorePath, Option<Self>)> =
            roots.iter().rev().map(|root| (root.clone(), None)).collect();
        while let Some((path, read)) = open.pop() {
            match read {
                Some(set) => {
                    whole = whole.followed_by(set);
                    whole.parents.push(path);
                }
                None if seen.insert(path.clone()) => {
                    let mut set = json_file::read::<Self>(
                        &store.physical(&path).join(FILE),
                        "layers of `buildLayer`",
                    )?;
                    set.locate_kept(Path::new(&store.print(&path)));
                    let parents = set.parents.clone();
                    open.push((path, Some(set)));
                    open.extend(parents.into_iter().rev().map(|parent| (parent, None)));
                }
                None => {}
            }
        }
        Ok(whole)
    }

    /// Writes each layer to a file in `directory`, and uses it from there from then on.
    /// `layers.json` names the file relative to itself, since Nix does not allow outputs that name
    /// themselves.
    ///
    /// # Errors
    /// Fails if a layer can't be made or written, and with [`Error::Unsteady`] if it came out
    /// differently.
    pub fn keep_in(self, store: &Store, directory: &Path) -> Result<Self, Error> {
        let keep = |layer: SpecLayer| {
            let LayerBlob { digest, size, media_type, toc } = layer.blob(Form::AsStored);
            let file = PathBuf::from(format!("{}.tar", digest.digest().hex()));
            let out = fs::File::create(directory.join(&file)).map_err(layer::Error::Write)?;
            let mut out = DigestWriter::new(out);
            layer.write_blob(store, Form::AsStored, &mut out)?;
            if out.finish() != (*digest.digest(), size) {
                return Err(Error::Unsteady { names: layer.names() });
            }
            let archive = Compression::None;
            let blob = StoredBlob { file, offset: 0, archive, digest, size, media_type, toc };
            Ok(match layer.source {
                LayerSource::Made(contents) => {
                    SpecLayer { source: LayerSource::Kept(contents, blob), ..layer }
                }
                LayerSource::Kept(..) | LayerSource::Stored(_) => layer,
            })
        };
        let layers = self.layers.into_iter().map(keep).collect::<Result<_, _>>()?;
        Ok(Self { layers, ..self })
    }

    fn locate_kept(&mut self, output: &Path) {
        for layer in &mut self.layers {
            if let LayerSource::Kept(_, blob) = &mut layer.source {
                blob.file = output.join(&blob.file);
            }
        }
    }

    /// Writes `layers.json`.
    ///
    /// # Errors
    /// Returns the errors of `out`.
    pub fn write_json(&self, out: impl Write) -> io::Result<()> {
        json_file::write(self, out)
    }

    /// Returns the bytes of `layers.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_json(&mut bytes).expect("layers are JSON");
        bytes
    }

    /// Returns this set with another one on top.
    pub fn followed_by(mut self, above: Self) -> Self {
        self.history.extend(above.history);
        self.layers.extend(above.layers);
        match self.sources.is_empty() {
            // The list may be long: do not copy it.
            true => self.sources = above.sources,
            false => self.sources.extend(above.sources),
        }
        self.sources.sort_by(|a, b| a.path.cmp(&b.path));
        self.sources.dedup_by(|a, b| a.path == b.path);
        self
    }

    /// Returns the store paths that an image with these layers has in its store.
    pub fn store_paths(&self) -> BTreeSet<StorePath> {
        let contents = self.layers.iter().filter_map(SpecLayer::contents);
        contents.flat_map(|contents| &contents.store_paths).cloned().collect()
    }

    /// Leaves each store path in the first layer that has it. Removes layers that are there twice,
    /// or that have nothing left. Makes layers again that lost a path, or that have directories of
    /// the base image, or of layers below whose rules set mode or owner; the others keep their digests. The base
    /// image already has the store paths in `present`. Returns all store paths of the base image and of these
    /// layers, and the base's tree with the directories of these rules.
    ///
    /// # Errors
    /// Fails if a layer can't be made.
    pub fn settle<'t>(
        &mut self,
        store: &Store,
        mut present: BTreeSet<StorePath>,
        (base, links): (&'t BaseTree, DirectoryLinks),
        done: impl Fn(&Layer) + Sync,
    ) -> Result<(BTreeSet<StorePath>, Cow<'t, BaseTree>), Error> {
        let mut below = Cow::Borrowed(base);
        let note = |contents: &LayerContents, below: &mut Cow<BaseTree>| match contents
            .permissions
            .is_empty()
        {
            true => Ok(()),
            false => layer::note_given(store, contents, below.to_mut()),
        };
        let mut copied = Vec::new();
        let mut kept = Vec::new();
        for (layer, history) in
            std::mem::take(&mut self.layers).into_iter().zip(std::mem::take(&mut self.history))
        {
            let mut contents = match &layer.source {
                LayerSource::Made(contents) => contents.clone(),
                LayerSource::Kept(contents, _) => {
                    if layer::met_by(store, contents, base, links)? != contents.over {
                        return Err(Error::KeptLayerOnBase { names: layer.names() });
                    }
                    present.extend(contents.store_paths.iter().cloned());
                    note(contents, &mut below)?;
                    kept.push((layer, None, history));
                    continue;
                }
                LayerSource::Stored(_) => {
                    kept.push((layer, None, history));
                    continue;
                }
            };
            let altered: BTreeSet<_> =
                contents.store_paths.iter().filter(|path| contents.alters(path)).cloned().collect();
            contents
                .store_paths
                .retain(|path| present.insert(path.clone()) || altered.contains(path));
            let in_root = (contents.copy_to_root.clone(), contents.permissions.clone());
            if copied.contains(&in_root) {
                contents.copy_to_root.clear();
            }
            let LayerContents { store_paths, copy_to_root, permissions, .. } = &mut contents;
            // A rule for a path that another layer copies to `/` does not apply to the same path in
            // the store.
            permissions.retain(|PermissionRule { path, .. }| {
                copy_to_root.contains(path)
                    || store_paths.contains(path) && !in_root.0.contains(path)
            });
            if contents.sources().next().is_some() {
                copied.push(in_root);
                contents.over = layer::met_by(store, &contents, &below, links)?;
                note(&contents, &mut below)?;
                let changed = (layer.contents() != Some(&contents)).then_some(contents);
                kept.push((layer, changed, history));
            }
        }
        let changed: Vec<_> = kept.iter().filter_map(|(_, changed, _)| changed.as_ref()).collect();
        let sources = &self.sources;
        let size = |path: &StorePath| {
            let source = sources.binary_search_by(|source| source.path.cmp(path)).ok();
            source.map_or(0, |place| sources[place].nar_size)
        };
        let weight =
            |contents: &LayerContents| contents.sources().map(size).fold(0, u64::saturating_add);
        let mut made = layer::build_layers(store, &changed, weight, done)?.into_iter();
        for (layer, changed, history) in kept {
            let made = changed.and_then(|contents| Some((contents, made.next()?)));
            self.layers.push(made.map_or(layer, SpecLayer::from));
            self.history.push(history);
        }
        Ok((present, below))
    }
}
