//! An image's manifest, and where each blob is from that it names.
//! Stage: report (pure). Input: [`ImageSpec`] and its file. Output: [`Locations`], for programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::digest::BlobDigest;
use crate::oci::Form;
use crate::oci::Image;
use crate::oci::ImageSpec;

/// What one has to know to serve an image: by the names that Nixery has for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Locations {
    manifest: Value,
    layer_locations: BTreeMap<BlobDigest, Location>,
}

/// Where a blob is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Location {
    /// From here: it is the configuration.
    Content { content: String },
    /// It is made whenever it is asked for.
    Layer {
        /// The image spec that says of what.
        spec: PathBuf,
        /// Which of its layers it is, from 0.
        layer: usize,
    },
}

/// Describes the image whose spec is in `file`.
pub fn locations(spec: &ImageSpec, file: &Path) -> Locations {
    let Image { config, manifest, .. } = Image::new(spec);
    let layers = spec.layers.iter().enumerate().map(|(layer, from)| {
        (from.blob(Form::AsStored).digest, Location::Layer { spec: file.to_owned(), layer })
    });
    // Of equal layers the topmost stands for all.
    let mut layer_locations: BTreeMap<_, _> = layers.collect();
    let content = String::from_utf8(config.bytes).expect("JSON is UTF-8");
    layer_locations.insert(config.digest, Location::Content { content });
    let manifest = serde_json::from_slice(&manifest.bytes).expect("a manifest is JSON");
    Locations { manifest, layer_locations }
}
