//! Reads a base image that stowage made: its layers are known, and none of them is read.
//! Stage: oci. Input: an image spec or an index spec. Output: [`BaseImage`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::error::Problem;
use super::image::{BaseImage, LayerTree, check_trees};
use super::scan::scan;
use crate::layer::{BaseLayerTree, outline_layer};
use crate::oci::index_spec::IndexSpec;
use crate::oci::platform::Platform;
use crate::oci::recognise::{GivenFile, recognise};
use crate::oci::spec::ImageSpec;
use crate::oci::spec_layer::{LayerSource, SpecLayer};
use crate::oci::unpack::Budget;
use crate::store::Store;

/// Reads an image that stowage made, by its image spec, its index spec, or the script that writes
/// it. Returns none for an image of another program.
///
/// # Errors
/// Fails with [`Problem`], also for a file of stowage that has no image.
pub fn own_image(
    store: &Store,
    path: &Path,
    wanted: &Platform,
) -> Result<Option<BaseImage>, Problem> {
    let read_error = |source| Problem::Read { file: path.to_owned(), source };
    let problem = |error| Problem::Own(Box::new(error));
    let specs = match recognise(store, path).map_err(read_error)? {
        GivenFile::Image(spec) => vec![spec],
        GivenFile::Index(index) => {
            let spec = IndexSpec::read(&store.locate(&index)).map_err(problem)?;
            spec.files().map(Path::to_owned).collect()
        }
        GivenFile::Layers => {
            return Err(Problem::NotAnImage("it is what `buildLayer` made".to_owned()));
        }
        GivenFile::Script | GivenFile::Other => return Ok(None),
    };
    let read = |spec: &PathBuf| ImageSpec::read(&store.locate(spec)).map_err(problem);
    let mut there = Vec::new();
    for file in &specs {
        let spec = read(file)?;
        let platform = spec.platform();
        if platform.is(wanted) {
            return of_spec(store, spec, platform).map(Some);
        }
        there.push(platform.to_string());
    }
    Err(Problem::Platform { found: there.join(", "), wanted: wanted.clone() })
}

fn of_spec(store: &Store, spec: ImageSpec, platform: Platform) -> Result<BaseImage, Problem> {
    let ImageSpec { config, history, layers, sources, .. } = spec;
    let (mut trees, budget) = (Vec::new(), Budget::default());
    for layer in &layers {
        trees.push(LayerTree {
            tree: tree_of(store, layer, &budget)?,
            of_store_paths: layer.contents().is_some(),
        });
    }
    check_trees(&trees).map_err(|(_, problem)| problem)?;
    let Platform { os, architecture, variant } = platform;
    let mut configuration = json!({"os": os, "architecture": architecture, "config": config});
    if let Some(variant) = variant {
        configuration["variant"] = Value::String(variant);
    }
    BaseImage::new(configuration, history, layers, sources, trees)
}

fn tree_of(
    store: &Store,
    layer: &SpecLayer,
    budget: &Budget,
) -> Result<Arc<BaseLayerTree>, Problem> {
    match &layer.source {
        LayerSource::Made(contents) | LayerSource::Kept(contents, _) => {
            let outline = outline_layer(store, contents);
            outline.map(Arc::new).map_err(|error| Problem::Own(Box::new(error.into())))
        }
        LayerSource::Stored(blob) => {
            let read_error = |source| Problem::Read { file: blob.file.clone(), source };
            scan(blob.open(store).map_err(read_error)?, budget).map(|scanned| scanned.tree)
        }
    }
}
