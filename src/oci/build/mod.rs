//! Builds an image spec, or layers for other images, from a closure and options.
//! Stage: oci. Input: [`Closure`] and [`BuildOptions`]. Output: [`ImageSpec`] or [`LayerSet`].

mod layer_set;
mod nix_state;
mod options;
mod plan_files;
mod previous;
mod roots;
mod system;
mod warning;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use oci_spec::image::{History, HistoryBuilder};
use serde_json::Value;

use crate::oci::Error;
use crate::oci::base::{self, BaseImage};
use crate::oci::compression::Compression;
use crate::oci::config::ContainerConfig;
use crate::oci::layer_blob::LayerBlob;
use crate::oci::layer_compression::LayerCompression;
pub use layer_set::{FILE as LAYER_SET_FILE, LayerSet};
pub use nix_state::{NixState, nix_state};
pub use options::{BuildOptions, Metadata};
pub use plan_files::{read_layering_hints, read_popularity, read_previous_plan};
pub use warning::{Built, Warning};

use crate::closure::Closure;
use crate::digest::{BlobDigest, DiffId, DigestWriter};
use crate::layer::{
    self, BaseTree, Layer, LayerBudget, LayerContents, LayerPlan, MergedFiles, PermissionRule,
    PlanOptions, StoreAttributes,
};
use crate::oci::media_type::LayerMediaType;
use crate::oci::sources::SourceInfo;
use crate::oci::spec::ImageSpec;
use crate::oci::spec_layer::{LayerSource, SpecLayer};
use crate::oci::stored::StoredBlob;
use crate::store::{Store, StorePath};
use previous::{PreviousImage, PreviousLayer};
use roots::Roots;
use system::SystemRecord;
pub use system::{RECORD, SystemEntry, SystemError, SystemFiles, SystemOptions, system_files};
use warning::idle_rules;

/// Plans and makes every layer, and records what is needed to make the layers again.
///
/// The base image's layers are the lowest, unchanged. Layers that were built on their own come
/// next, in the order given. A store path that several of these hold stays in the lowest of them.
///
/// `done` is called for each layer when it is finished.
///
/// # Errors
/// Fails if a store path can't be put into the image, and with [`Error::TooManyLayers`].
pub fn build_image(
    store: &Store,
    closure: Closure,
    mut options: BuildOptions,
    done: impl Fn(&Layer) + Sync,
) -> Result<Built<ImageSpec>, Error> {
    SystemRecord::apply(store, &mut options)?;
    let base = options.from_image.as_deref();
    let base = base.map(|path| base::read_base(store, path, &options.architecture)).transpose()?;
    let nothing = BaseTree::default();
    let tree = base.as_ref().map_or(&nothing, |base| &base.tree);
    let mut given = LayerSet::read_all(store, &options.layers)?;
    if options.max_layers_is_total {
        options.max_layers = left_for_store(base.as_ref(), &given, &options)?;
    }
    let in_base = base.as_ref().map(|base| base.store_paths.clone()).unwrap_or_default();
    let (present, below) = given.settle(store, in_base, (tree, options.directory_links), &done)?;
    let Built { made: own, mut warnings } =
        own_layers(store, closure, &present, &below, &options, done)?;
    let set = given.followed_by(own);
    if let Some(base) = &base {
        let contents: Vec<_> = set.layers.iter().filter_map(SpecLayer::contents).collect();
        warnings.extend(nix_state::unregistered(store, base, &contents, &options)?);
    }
    let (config, variant) = inherited(base.as_ref(), &options)?;
    let set = base.map_or_else(LayerSet::default, base_layers).followed_by(set);
    let set = set.followed_by(tar_layers(store, &options)?);
    let LayerSet { mut layers, history, sources, .. } = set;
    if layers.len() > usize::from(LayerBudget::MAX) {
        return Err(Error::TooManyLayers(layers.len()));
    }
    compress_layers(store, &mut layers, &options)?;
    let BuildOptions { architecture, created, annotations, .. } = options;
    let made =
        ImageSpec { architecture, variant, created, config, annotations, history, layers, sources };
    Ok(Built { made, warnings })
}

/// Returns the number of layers that are left for the store, without those below and those on top.
fn left_for_store(
    base: Option<&BaseImage>,
    given: &LayerSet,
    options: &BuildOptions,
) -> Result<LayerBudget, Error> {
    let base = base.map_or(0, |base| base.layers.len());
    let taken = base + given.layers.len() + options.tars.len();
    options.max_layers.less(taken).ok_or(Error::NoLayersLeft {
        max_layers: options.max_layers,
        base,
        others: taken - base,
    })
}

/// Makes layers of tars that other programs made, which stay in their files.
fn tar_layers(store: &Store, options: &BuildOptions) -> Result<LayerSet, Error> {
    let mut set = LayerSet::default();
    for file in &options.tars {
        let mut digest = DigestWriter::new(io::sink());
        File::open(store.locate(file))
            .and_then(|mut tar| io::copy(&mut tar, &mut digest))
            .map_err(|source| Error::Read { file: file.clone(), source })?;
        let (digest, size) = digest.finish();
        let blob = StoredBlob {
            file: file.clone(),
            offset: 0,
            archive: Compression::None,
            digest: BlobDigest::new(digest),
            size,
            media_type: LayerMediaType::oci(Compression::None),
            toc: None,
        };
        let source = LayerSource::Stored(blob);
        let diff_id = DiffId::new(digest);
        let (checksum, compressed, compressed_file) = (None, None, None);
        let layer = SpecLayer { diff_id, size, checksum, source, compressed, compressed_file };
        set.layers.push(layer);
        set.history.push(history_of(&[name_of(file)], options));
    }
    Ok(set)
}

/// Returns a store path's name without its hash, or the file's name.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let parsed = Store::default().parse(&file.to_string_lossy());
    parsed.map_or_else(|_| name.into_owned(), |path| path.name().to_string())
}

/// Records the digests of the compressed layers, except for the base's layers, which stay as they
/// are. A push then knows these digests beforehand. Keeps the compressed layers too, if that is
/// wanted.
fn compress_layers(
    store: &Store,
    layers: &mut [SpecLayer],
    options: &BuildOptions,
) -> Result<(), Error> {
    let compression = options.compression;
    if let Some(directory) = &options.keep_compressed {
        fs::create_dir(store.locate(directory)).map_err(kept_error)?;
    }
    if compression == LayerCompression::None {
        return Ok(());
    }
    let ours = layers.iter_mut().filter(|layer| !matches!(layer.source, LayerSource::Stored(_)));
    // One layer at a time: the compressor keeps all processors busy.
    for layer in ours.filter(|layer| layer.compressed.is_none()) {
        let Some(directory) = &options.keep_compressed else {
            layer.compressed = Some(compressed_blob(store, layer, compression, || Ok(io::sink()))?);
            continue;
        };
        let unfinished = store.locate(&directory.join("unfinished"));
        let begin = || File::create(&unfinished);
        let blob = compressed_blob(store, layer, compression, begin)?;
        let name = directory.join(blob.digest.digest().hex());
        fs::rename(&unfinished, store.locate(&name)).map_err(kept_error)?;
        layer.compressed = Some(blob);
        layer.compressed_file = Some(name);
    }
    Ok(())
}

/// Compresses a layer into what `begin` opens.
fn compressed_blob<W: Write>(
    store: &Store,
    layer: &SpecLayer,
    compression: LayerCompression,
    begin: impl Fn() -> io::Result<W>,
) -> Result<LayerBlob, Error> {
    let digest = DigestWriter::new(begin().map_err(kept_error)?);
    let (digest, toc) = layer.write_compressed(store, compression, digest)?;
    if compression == LayerCompression::ZstdChunked && toc.is_none() {
        return compressed_blob(store, layer, LayerCompression::Zstd, begin);
    }
    let (digest, size) = digest.finish();
    let digest = BlobDigest::new(digest);
    let media_type = LayerMediaType::oci(compression.format());
    Ok(LayerBlob { digest, size, media_type, toc })
}

/// Returns the error that a compressed layer can't be kept.
fn kept_error(error: io::Error) -> Error {
    layer::Error::Write(error).into()
}

/// Returns the config and the architecture's variant, merged with those of the base if there is
/// one.
fn inherited(
    base: Option<&BaseImage>,
    options: &BuildOptions,
) -> Result<(ContainerConfig, Option<String>), Error> {
    let Some(BaseImage { configuration, .. }) = base else {
        return Ok((options.config.clone(), None));
    };
    let config = configuration.get("config").unwrap_or(&Value::Null);
    let config = base::inherit(config, &options.config).map_err(|error| base::Error {
        role: base::ImageRole::Base,
        file: options.from_image.clone().unwrap_or_default(),
        layer: None,
        problem: Box::new(error.into()),
    })?;
    let variant = configuration.get("variant").and_then(Value::as_str).map(str::to_owned);
    Ok((config, variant))
}

/// Returns a base's layers as a set, on which other layers can be put.
pub fn base_layers(base: BaseImage) -> LayerSet {
    let BaseImage { layers, history, sources, .. } = base;
    LayerSet { layers, history, sources, parents: Vec::new() }
}

/// Builds the layers of a `buildLayer`. Leaves out what the layers below hold.
///
/// # Errors
/// Returns the errors of [`build_image`].
pub fn build_layer_set(
    store: &Store,
    closure: Closure,
    options: BuildOptions,
    done: impl Fn(&Layer) + Sync,
) -> Result<Built<LayerSet>, Error> {
    let below = LayerSet::read_all(store, &options.layers)?;
    let nothing = BaseTree::default();
    let Built { made, warnings } =
        own_layers(store, closure, &below.store_paths(), &nothing, &options, done)?;
    Ok(Built { made: LayerSet { parents: options.layers, ..made }, warnings })
}

/// Returns the part of a closure that is in the image's store: without the excluded paths, and
/// without paths that are only copied to `/`.
fn in_store(closure: Closure, options: &BuildOptions) -> Closure {
    in_store_or(closure, options, &BTreeSet::new())
}

/// Returns [`in_store`], and those of the paths `with` that are only copied to `/`.
fn in_store_or(closure: Closure, options: &BuildOptions, with: &BTreeSet<StorePath>) -> Closure {
    // Do this before the exclusion: a path that an excluded file refers to was asked for by name.
    let mut copied_only = copied_only(&closure, &options.copy_to_root);
    copied_only.retain(|path| !with.contains(path));
    closure.without(&options.exclude).without(&copied_only)
}

/// Builds the layers of the paths that the layers below do not have.
fn own_layers(
    store: &Store,
    closure: Closure,
    below: &BTreeSet<StorePath>,
    base: &BaseTree,
    options: &BuildOptions,
    done: impl Fn(&Layer) + Sync,
) -> Result<Built<LayerSet>, Error> {
    for path in &options.copy_to_root {
        if closure.get(path).is_none() {
            return Err(Error::NotInClosure(store.print(path)));
        }
    }
    let own = in_store(closure.clone(), options);
    let in_image = |path: &StorePath| own.get(path).is_some() || below.contains(path);
    let unaltered = unaltered(below, options);
    let own_here = own.clone().without(&unaltered);
    let roots = Roots::new(store, &closure, &own_here, in_image, base, options)?;
    let mut warnings = warning::of_links(&roots.links, in_image, base);
    let planned = in_store_or(closure.clone(), options, &roots.planned).without(&unaltered);
    let mut contents = contents(planned, roots, options)?;
    for contents in &mut contents {
        contents.over = layer::met_by(store, contents, base, options.directory_links)?;
    }
    let size = |contents: &LayerContents| {
        contents.sources().filter_map(|path| closure.get(path)).map(|info| info.nar_size).sum()
    };
    let known = known(store, &closure, &contents, options)?;
    let new = contents.iter().zip(&known).filter(|(_, known)| known.is_none());
    let new: Vec<_> = new.map(|(contents, _)| contents).collect();
    let mut made = layer::build_layers(store, &new, size, done)?.into_iter();
    warnings.extend(idle_rules(store, &options.perms, &contents)?);
    let history = contents.iter().map(|contents| history(contents, options)).collect();
    let sources = sources(&closure, &contents);
    let layers = contents.into_iter().zip(known).map(|(contents, known)| match known {
        Some(layer) => layer.made_of(contents, options.compression),
        None => (contents, made.next().expect("what is not known was made")).into(),
    });
    let made = LayerSet { parents: Vec::new(), history, layers: layers.collect(), sources };
    Ok(Built { made, warnings })
}

/// Returns, for each layer, the earlier image's record of it, if there is one.
fn known(
    store: &Store,
    closure: &Closure,
    contents: &[LayerContents],
    options: &BuildOptions,
) -> Result<Vec<Option<PreviousLayer>>, Error> {
    let Some(file) = &options.previous_image else { return Ok(vec![None; contents.len()]) };
    let previous = PreviousImage::read(&store.locate(file), closure)?;
    Ok(contents.iter().map(|contents| previous.find(contents, closure)).collect())
}

/// Returns the paths that are left out since layers below have them. A path to which `perms`
/// applies is not left out.
fn unaltered(below: &BTreeSet<StorePath>, options: &BuildOptions) -> BTreeSet<StorePath> {
    let altered: BTreeSet<_> = in_store_rules(options).map(|rule| &rule.path).collect();
    below.iter().filter(|path| !altered.contains(path)).cloned().collect()
}

/// Returns the rules of `perms` for store paths in the store.
fn in_store_rules(options: &BuildOptions) -> impl Iterator<Item = &PermissionRule> {
    options.perms.iter().filter(|rule| !options.copy_to_root.contains(&rule.path))
}

/// Returns the contents of each layer: the planned layers of store paths, and among them the layers
/// of files that are copied to `/`.
fn contents(
    in_store: Closure,
    roots: Roots,
    options: &BuildOptions,
) -> Result<Vec<LayerContents>, Error> {
    let links_into_store = roots.links.into_store;
    let plan = PlanOptions { copies: roots.copies.clone(), ..plan_options(options)? };
    let layers = roots.among(&in_store, options, |budget| {
        Ok(LayerPlan::new(&in_store, budget, plan).map_err(layer::Error::Plan)?)
    })?;
    let contents = |(store_paths, copy_to_root): (Vec<_>, Vec<StorePath>)| {
        let store_paths: BTreeSet<_> = store_paths.into_iter().collect();
        // The rules for copied files come after the others.
        let in_store = in_store_rules(options).filter(|rule| store_paths.contains(&rule.path));
        let copied = options.perms.iter().filter(|rule| copy_to_root.contains(&rule.path));
        let permissions = in_store.chain(copied).cloned().collect();
        let is_copy = store_paths.is_empty();
        LayerContents {
            links_into_store: links_into_store && !copy_to_root.is_empty(),
            merged: merged_of(options, &copy_to_root),
            store_attributes: match is_copy {
                true => StoreAttributes::default(),
                false => options.store_attributes.clone(),
            },
            permissions,
            store_paths,
            copy_to_root,
            over: BaseTree::default(),
        }
    };
    Ok(layers.into_iter().map(contents).collect())
}

/// Returns the declared files that are merged with others, where they are among these roots.
fn merged_of(options: &BuildOptions, roots: &[StorePath]) -> Option<MergedFiles> {
    options.merged_files.clone().filter(|merged| roots.contains(&merged.path))
}

fn plan_options(options: &BuildOptions) -> Result<PlanOptions, Error> {
    let previous = options.previous_plan.as_deref().or(options.previous_image.as_deref());
    let previous = previous.map(read_previous_plan);
    let popularity = options.popularity.as_deref().map(read_popularity).transpose()?;
    Ok(PlanOptions {
        layering: options.layering.clone(),
        hints: options.layering_hints.clone(),
        popularity: popularity.unwrap_or_default(),
        previous: previous.transpose()?,
        copies: BTreeSet::new(),
    })
}

/// Returns the `copyToRoot` paths that are not needed in the store: their files are in `/`.
///
/// A path to which another path refers (the file with the image's `config`, say), or that refers to
/// itself (like a program that finds its data by its own store path), also stays in the store:
/// otherwise these references would lead nowhere.
fn copied_only(closure: &Closure, copy_to_root: &[StorePath]) -> BTreeSet<StorePath> {
    let mut alone: BTreeSet<_> = copy_to_root.iter().cloned().collect();
    for reference in closure.nodes().flat_map(|node| closure.references(node)) {
        if alone.is_empty() {
            break;
        }
        alone.remove(reference);
    }
    alone
}

fn sources(closure: &Closure, contents: &[LayerContents]) -> Vec<SourceInfo> {
    let paths: BTreeSet<_> = contents.iter().flat_map(LayerContents::sources).collect();
    let info = |path: &StorePath| {
        let node = closure.node(path).expect("layers are made of the closure's paths");
        let info = closure.info(node);
        let others = closure.graph().references(node);
        SourceInfo {
            path: info.path.clone(),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            references: others.map(|node| closure.info(node).path.clone()).collect(),
        }
    };
    paths.into_iter().map(info).collect()
}

/// Returns a layer's entry for `docker history`: the author's text, or the names of the layer's
/// paths without hashes, the first few if there are many.
fn history(contents: &LayerContents, options: &BuildOptions) -> History {
    history_of(&contents.names(), options)
}

fn history_of(names: &[String], options: &BuildOptions) -> History {
    const SHOWN: usize = 4;
    let mut text = format!("stowage: {}", names[..names.len().min(SHOWN)].join(", "));
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    let metadata = &options.metadata;
    let mut history = HistoryBuilder::default()
        .created(options.created.to_string())
        .created_by(metadata.created_by.clone().unwrap_or(text))
        .build()
        .expect("history has no required field");
    history.set_author(metadata.author.clone());
    history.set_comment(metadata.comment.clone());
    history
}
