//! Describes an image's manifest and the origin of each blob that it names.
//! Stage: report (pure). Input: [`ImageSpec`] and its file. Output: [`Locations`], for programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::digest::BlobDigest;
use crate::oci::Form;
use crate::oci::Image;
use crate::oci::ImageSpec;

/// The information that a server needs to serve an image, in Nixery's format and with its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Locations {
    manifest: Value,
    layer_locations: BTreeMap<BlobDigest, Location>,
}

/// The origin of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Location {
    /// The bytes themselves: the image's configuration.
    Content { content: String },
    /// A layer, which is made on demand.
    Layer {
        /// The image spec with the layer's contents.
        spec: PathBuf,
        /// The layer's index in the spec, from 0.
        layer: usize,
    },
}

/// Describes the image whose spec is in `file`.
pub fn locations(spec: &ImageSpec, file: &Path) -> Locations {
    let Image { config, manifest, .. } = Image::new(spec);
    let layers = spec.layers.iter().enumerate().map(|(layer, from)| {
        (from.blob(Form::AsStored).digest, Location::Layer { spec: file.to_owned(), layer })
    });
    // If layers are equal, the topmost one is named.
    let mut layer_locations: BTreeMap<_, _> = layers.collect();
    let content = String::from_utf8(config.bytes).expect("JSON is UTF-8");
    layer_locations.insert(config.digest, Location::Content { content });
    let manifest = serde_json::from_slice(&manifest.bytes).expect("a manifest is JSON");
    Locations { manifest, layer_locations }
}
