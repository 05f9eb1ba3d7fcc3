//! Compares an image that exists somewhere with the image that an image spec describes.
//! Stage: report. Input: [`ImageSpec`], the store and the image. Output: [`Comparison`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use serde::Serialize;
use serde_json::Value;

use crate::digest::{DiffId, Digest, DigestReader};
use crate::error::with_causes;
use crate::oci::base::BaseImage;
use crate::oci::unpack::{Budget, TarReader};
use crate::oci::{Form, Image, ImageSpec, SpecLayer};
use crate::sink::Plain;
use crate::store::Store;

/// The largest number of layers whose files are compared.
const MOST_LAYERS: usize = 8;
/// The largest number of files and store paths that are reported for a layer.
const MOST_NAMES: usize = 20;

/// The differences between an image and an image spec.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The keys of the configuration that differ, such as `config.Env`.
    pub config: Vec<String>,
    /// The layers that differ, from the bottom up.
    pub layers: Vec<LayerDifference>,
}

/// A layer that differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerDifference {
    /// The number of the layer, from 1 at the bottom.
    pub layer: usize,
    /// The digest of the uncompressed layer by the image spec; none if the image spec has fewer
    /// layers.
    pub expected: Option<DiffId>,
    /// The digest of the uncompressed layer in the image; none if the image has fewer layers.
    pub found: Option<DiffId>,
    /// The store paths and other files that differ.
    pub differs_in: Vec<String>,
    /// The reason if the files could not be compared.
    pub error: Option<String>,
}

impl Comparison {
    /// Returns whether there is no difference.
    pub fn is_same(&self) -> bool {
        self.config.is_empty() && self.layers.is_empty()
    }
}

/// Compares configurations key by key, and layers by the digests of their bytes, which were computed when
/// `found` was read.
pub fn against(store: &Store, spec: &ImageSpec, found: &BaseImage) -> Comparison {
    let expected: Value =
        serde_json::from_slice(&Image::new(spec).config.bytes).expect("a configuration is JSON");
    let mut config = BTreeSet::new();
    for key in keys(&expected, &found.configuration) {
        match &*key {
            // The layers are compared below.
            "rootfs" => {}
            "config" => {
                let (one, other) = (&expected["config"], &found.configuration["config"]);
                let differing = keys(one, other).into_iter().filter(|key| one[key] != other[key]);
                config.extend(differing.map(|key| format!("config.{key}")));
            }
            _ if expected[&key] == found.configuration[&key] => {}
            _ => {
                config.insert(key);
            }
        }
    }
    let mut layers = Vec::new();
    for index in 0..spec.layers.len().max(found.layers.len()) {
        let (ours, theirs) = (spec.layers.get(index), found.layers.get(index));
        let (expected, there) =
            (ours.map(|layer| layer.diff_id), theirs.map(|layer| layer.diff_id));
        if expected == there {
            continue;
        }
        let (differs_in, error) = match (ours, theirs) {
            (Some(ours), Some(theirs)) if layers.len() < MOST_LAYERS => {
                match differing(store, ours, theirs) {
                    Ok(names) => (names, None),
                    Err(error) => (Vec::new(), Some(error)),
                }
            }
            _ => (Vec::new(), None),
        };
        layers.push(LayerDifference {
            layer: index + 1,
            expected,
            found: there,
            differs_in,
            error,
        });
    }
    Comparison { config: config.into_iter().collect(), layers }
}

fn keys(one: &Value, other: &Value) -> BTreeSet<String> {
    let keys = [one, other].into_iter().filter_map(Value::as_object);
    keys.flat_map(|object| object.keys().cloned()).collect()
}

/// Returns the store paths and files that differ between two layers.
fn differing(store: &Store, ours: &SpecLayer, theirs: &SpecLayer) -> Result<Vec<String>, String> {
    let text = |error: io::Error| error.to_string();
    let expected = digests(made(store, ours)?).map_err(text)?;
    let found = match theirs.stored() {
        Some(blob) => digests(blob.open_uncompressed(store).map_err(text)?),
        None => digests(made(store, theirs)?),
    };
    let found = found.map_err(text)?;
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differs = names.into_iter().filter(|name| expected.get(*name) != found.get(*name));
    Ok(differs.take(MOST_NAMES).cloned().collect())
}

/// Makes a layer in a temporary file and returns its tar.
fn made(store: &Store, layer: &SpecLayer) -> Result<impl Read + use<>, String> {
    let file = tempfile::tempfile().map_err(|error| error.to_string())?;
    layer.write_blob(store, Form::Loadable, Plain(&file)).map_err(|error| with_causes(&error))?;
    (&file).seek(SeekFrom::Start(0)).map_err(|error| error.to_string())?;
    Ok(BufReader::new(file))
}

/// Computes a digest for each store path of a tar, and for each of its other files.
fn digests(tar: impl Read) -> io::Result<BTreeMap<String, Digest>> {
    let mut found: BTreeMap<String, Digest> = BTreeMap::new();
    let budget = Budget::default();
    let mut archive = TarReader::new(tar);
    while let Some(mut member) = archive.next_member()? {
        member.check()?;
        let path = String::from_utf8_lossy(member.path()).into_owned();
        let mut record = member.header().as_bytes().to_vec();
        record.extend_from_slice(member.path());
        record.extend_from_slice(member.target());
        let (content, _) = DigestReader::new(&mut member).finish()?;
        let owner = owner(&path);
        budget.take(owner.len() as u64)?;
        let digest = found.entry(owner).or_insert_with(|| Digest::of(b""));
        record.extend_from_slice(&content.bytes());
        record.extend_from_slice(&digest.bytes());
        *digest = Digest::of(&record);
    }
    Ok(found)
}

/// Returns the store path that a file belongs to, or else the file.
fn owner(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    let mut parts = path.splitn(4, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("nix"), Some("store"), Some(name)) => format!("/nix/store/{name}"),
        _ => format!("/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_store_paths() {
        for (path, expected) in [
            ("nix/store/a-b/c/d", "/nix/store/a-b"),
            ("./nix/store/a-b", "/nix/store/a-b"),
            ("nix/store/", "/nix/store"),
            ("etc/passwd", "/etc/passwd"),
        ] {
            assert_eq!(owner(path), expected);
        }
    }
}
