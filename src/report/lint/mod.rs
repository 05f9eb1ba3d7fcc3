//! Finds likely mistakes in a valid image.
//! Stage: report. Input: [`ImageSpec`]. Output: [`Finding`]s.

mod config;
mod config_values;
mod files;
mod finding;
mod health;
mod identity;
mod libraries;
mod links;
mod program;
mod provided;
mod script;
mod start;
mod surroundings;
mod volumes;

use rayon::prelude::*;

pub use self::finding::{Check, Finding, Level};
pub use self::script::{Head, head_of};
use super::image_files::ImageFiles;
use crate::layer::Error;
use crate::oci::ImageSpec;
use crate::store::Store;

/// The largest number of layers that Docker's classic store takes (moby, `layer/layer_store.go`,
/// `maxLayerDepth`).
const DOCKER_LAYERS: usize = 125;
/// The largest user or group ID that exists where containers run without root: `/etc/subuid` has as
/// many for each user.
const LARGEST_ID: u64 = 65_535;

/// Checks the image spec alone, and the few files that its `config` names, as far as they are in
/// the store: a base image's layers are not read.
pub fn lint_config(store: &Store, spec: &ImageSpec) -> Vec<Finding> {
    lint_documents(&ImageFiles::of_store_paths(store, spec), spec)
}

fn lint_documents(files: &ImageFiles, spec: &ImageSpec) -> Vec<Finding> {
    let mut findings = Vec::new();
    let layers = spec.layers.len();
    if layers > DOCKER_LAYERS {
        findings.push(Finding {
            check: Check::Layers,
            level: Level::Warning,
            layer: None,
            path: None,
            message: format!("{layers} layers: Docker takes {DOCKER_LAYERS} at most"),
            more: 0,
        });
    }
    findings.extend(config::lint(files, spec));
    findings.extend(links::lint_directories(files));
    findings
}

/// Checks the image spec, and reads every layer to check its files. What surely fails comes first.
///
/// # Errors
/// Fails if a layer can't be read.
pub fn lint(
    store: &Store,
    spec: &ImageSpec,
    done: impl Fn(u64) + Sync,
) -> Result<Vec<Finding>, Error> {
    // If the files can't be read because a layer has invalid names, the check of that layer reports
    // these below.
    let files =
        ImageFiles::read(store, spec).unwrap_or_else(|_| ImageFiles::of_store_paths(store, spec));
    let mut findings = lint_documents(&files, spec);
    findings.extend(links::lint(&files, spec));
    let layers: Result<Vec<_>, Error> = spec
        .layers
        .par_iter()
        .enumerate()
        .map(|(index, layer)| {
            let found = files::lint(store, layer, index + 1, &spec.architecture)?;
            done(layer.size);
            Ok(found)
        })
        .collect();
    findings.extend(layers?.into_iter().flatten());
    findings.sort_by_key(|finding| finding.level);
    Ok(findings)
}
