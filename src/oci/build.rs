//! From a closure and options to an image spec.
//! Stage: oci. Input: [`Closure`] and [`BuildOptions`]. Output: [`ImageSpec`].

use std::collections::BTreeSet;

use oci_spec::image::{History, HistoryBuilder};

use super::Error;
use super::options::BuildOptions;
use super::previous::read_previous_plan;
use super::spec::{ImageSpec, SourceInfo, SpecLayer};
use crate::closure::Closure;
use crate::layer::{self, Layer, LayerContents, LayerPlan, PlanOptions};
use crate::store::{Store, StorePath};

/// Plans and makes every layer, and keeps what is needed to make them again.
///
/// `done` is told of each layer as it is finished.
///
/// # Errors
/// Whatever keeps a store path from being in the image.
pub fn build_image(
    store: &Store,
    closure: Closure,
    options: BuildOptions,
    done: impl Fn(&Layer) + Sync,
) -> Result<ImageSpec, Error> {
    for path in &options.copy_to_root {
        if closure.get(path).is_none() {
            return Err(Error::NotInClosure(store.print(path)));
        }
    }
    // Before the exclusion: what an excluded file refers to was asked for by name.
    let copied_only = copied_only(&closure, &options.copy_to_root);
    let closure = closure.without(&options.exclude)?;
    let contents = contents(closure.clone().without(&copied_only)?, &options)?;
    let size = |contents: &LayerContents| {
        contents.sources().filter_map(|path| closure.get(path)).map(|info| info.nar_size).sum()
    };
    let layers = layer::build_layers(store, &contents, size, done)?;
    Ok(ImageSpec {
        history: layers.iter().map(|layer| history(&layer.contents, &options)).collect(),
        layers: layers.into_iter().map(SpecLayer::from).collect(),
        sources: sources(&closure, &contents),
        architecture: options.architecture,
        created: options.created,
        config: options.config,
    })
}

/// What goes in each layer: store paths as planned, and what is copied to `/` on top,
/// in a layer of its own if the budget has one for it.
fn contents(in_store: Closure, options: &BuildOptions) -> Result<Vec<LayerContents>, Error> {
    let copies = !options.copy_to_root.is_empty();
    let (budget, merged) = match options.max_layers.less(1).filter(|_| copies) {
        Some(budget) => (budget, false),
        None => (options.max_layers, copies),
    };
    let plan =
        LayerPlan::new(&in_store, budget, &plan_options(options)?).map_err(layer::Error::Plan)?;
    let mut layers: Vec<_> = plan
        .into_layers()
        .into_iter()
        .map(|paths| LayerContents {
            store_paths: paths.into_iter().collect(),
            copy_to_root: vec![],
        })
        .collect();
    if copies && (!merged || layers.is_empty()) {
        layers.push(LayerContents::default());
    }
    if let Some(top) = layers.last_mut() {
        top.copy_to_root = options.copy_to_root.clone();
    }
    Ok(layers)
}

fn plan_options(options: &BuildOptions) -> Result<PlanOptions, Error> {
    Ok(PlanOptions {
        layering: options.layering.clone(),
        hints: options.layering_hints.clone(),
        previous: options.previous_plan.as_deref().map(read_previous_plan).transpose()?,
    })
}

/// The `copyToRoot` paths that the store needs not hold: their files are in `/`.
///
/// One that another path refers to (the file with the image's `config`, say), or that
/// refers to itself (as a program does that finds its data by its own store path),
/// stays in the store too: else these references would lead nowhere.
fn copied_only(closure: &Closure, copy_to_root: &[StorePath]) -> BTreeSet<StorePath> {
    let referred: BTreeSet<_> = closure.infos().iter().flat_map(|info| &info.references).collect();
    copy_to_root.iter().filter(|path| !referred.contains(path)).cloned().collect()
}

fn sources(closure: &Closure, contents: &[LayerContents]) -> Vec<SourceInfo> {
    let paths: BTreeSet<_> = contents.iter().flat_map(LayerContents::sources).collect();
    let info =
        |path: &StorePath| closure.get(path).expect("layers are made of the closure's paths");
    paths
        .into_iter()
        .map(info)
        .map(|info| SourceInfo {
            path: info.path.clone(),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
        })
        .collect()
}

/// What `docker history` shows of a layer: the names of what is in it, without
/// hashes, the first few if there are many.
fn history(contents: &LayerContents, options: &BuildOptions) -> History {
    const SHOWN: usize = 4;
    let names = contents.names();
    let mut text = format!("stowage: {}", names[..names.len().min(SHOWN)].join(", "));
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    HistoryBuilder::default()
        .created(options.created.to_string())
        .created_by(text)
        .build()
        .expect("history has no required field")
}
