//! Finds likely mistakes in a valid image.
//! Stage: report. Input: [`ImageSpec`]. Output: [`Finding`]s.

mod config;
mod files;
mod lookup;
mod program;

use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

use crate::layer::Error;
use crate::oci::ImageSpec;
use crate::store::Store;

/// The largest number of layers that Docker's classic store takes (moby, `layer/layer_store.go`,
/// `maxLayerDepth`).
const DOCKER_LAYERS: usize = 125;
/// The largest user or group ID that exists where containers run without root: `/etc/subuid` has as
/// many for each user.
const LARGEST_ID: u64 = 65_535;

/// A likely mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check that found it.
    pub check: Check,
    /// The number of its layer, from 1 at the bottom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// The file in the image that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The description of the mistake.
    pub message: String,
    /// The number of further files of the layer that show the same mistake.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// More layers than some engines take.
    Layers,
    /// The config names a file that the image lacks.
    MissingFile,
    /// The config names a user that the image lacks.
    MissingUser,
    /// A name that leads out of the image, or that a layer has twice.
    Name,
    /// A program for another machine.
    Machine,
    /// A program that runs with its owner's or group's rights for every user.
    SetId,
    /// An owner that containers without root can't have.
    Owner,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "layer {layer}: ")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        if self.more > 0 {
            write!(f, " (and {} more)", self.more)?;
        }
        Ok(())
    }
}

/// Checks the image spec alone, and the few files that its `config` names.
pub fn lint_config(store: &Store, spec: &ImageSpec) -> Vec<Finding> {
    let mut findings = Vec::new();
    let layers = spec.layers.len();
    if layers > DOCKER_LAYERS {
        findings.push(Finding {
            check: Check::Layers,
            layer: None,
            path: None,
            message: format!("{layers} layers: Docker takes {DOCKER_LAYERS} at most"),
            more: 0,
        });
    }
    findings.extend(config::lint(store, spec));
    findings
}

/// Checks the image spec, and reads every layer to check its files.
///
/// # Errors
/// Fails if a layer can't be read.
pub fn lint(
    store: &Store,
    spec: &ImageSpec,
    done: impl Fn(u64) + Sync,
) -> Result<Vec<Finding>, Error> {
    let mut findings = lint_config(store, spec);
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
    Ok(findings)
}
