//! A registry, which is sent what it lacks (OCI distribution-spec 1.1, "Push").
//! Stage: registry. Input: [`Artifact`]. Output: an image in a registry.
//!
//! Every digest is known before a byte is made: what the registry has is not made again. What
//! names the blobs is sent last, so that a push that ends early leaves nothing wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use serde_json::Value;

use super::error::ClientError;
use super::repository::{Access, Client, ClientOptions, Payload};
use super::reuse::compressed_blobs;
use super::upload::{Mount, Upload};
use crate::digest::BlobDigest;
use crate::oci::{Artifact, Blob, Documents, LayerBlob, ManifestFormat};
use crate::outgoing;
use crate::outgoing::{
    Copied, Hashing, ImageLayer, LayerStep, Reference, Tally, Watch, Watched, WatchedLayer,
    write_checked_layer,
};
use crate::sink::Plain;
use crate::store::Store;

/// How many blobs are on their way at a time: a single one waits for the network most of it.
const AT_ONCE: usize = 4;
/// Manifests that we may find where ours is to be.
pub(super) const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Sends an image, or several with their index, to where `reference` says. A digest in it must be
/// that of what is sent; without a tag, it is what the image is called.
///
/// # Errors
/// [`ClientError`], or whatever keeps a layer from being made.
pub fn copy_to_registry(
    store: &Store,
    artifact: &Artifact,
    reference: &Reference,
    format: ManifestFormat,
    options: &ClientOptions,
    watch: &dyn Watch,
) -> Result<Copied, ClientError> {
    let tag = reference.tag_or_digest();
    let documents = artifact.documents(format.form(), format);
    if !options.reuse_compressed {
        check_digest(reference, &documents)?;
    }
    let client = Client::connect(reference, Access::Push, options, watch)?;
    let there = client.get(&format!("manifests/{tag}"), MANIFESTS)?;
    let reusing = match &there {
        Some(manifest) if options.reuse_compressed => {
            Some(artifact.with_compressed(&compressed_blobs(&client, manifest)?))
        }
        _ => None,
    };
    let documents = match &reusing {
        Some(artifact) => artifact.documents(format.form(), format),
        None => documents,
    };
    check_digest(reference, &documents)?;
    let artifact = reusing.as_ref().unwrap_or(artifact);
    let layers = layers(artifact, format);
    if there.as_ref().is_some_and(|bytes| *bytes == documents.top().bytes) {
        let mut tally = Tally::default();
        for layer in layers.values() {
            watch.layer(layer.layer, LayerStep::Skipped);
            tally.skipped(layer.blob.size);
        }
        return Ok(Copied::new(&documents, tally));
    }
    let known = there.map(|bytes| blobs_of(&bytes)).unwrap_or_default();
    let push = Push { store, client: &client, watch, tally: Mutex::default() };
    let missing = push.missing(layers.values(), &known)?;
    watch.expect(missing.iter().map(|layer| layer.blob.size).sum());
    push.send_all(missing, options)?;
    push.documents(&documents, &tag, &known)?;
    let tally = push.tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Copied::new(&documents, tally))
}

/// Checks that what is to be sent is what `reference` asks for, if that has a digest.
fn check_digest(reference: &Reference, documents: &Documents) -> Result<(), ClientError> {
    let found = documents.top().digest;
    match reference.digest() {
        Some(digest) if digest != found => {
            Err(ClientError::OtherImage { name: reference.to_string(), found })
        }
        _ => Ok(()),
    }
}

/// A layer, and how to make it.
#[derive(Clone, Copy)]
struct PushLayer<'a> {
    layer: ImageLayer<'a>,
    blob: LayerBlob,
}

/// Each layer once, whichever of the images have it.
fn layers(artifact: &Artifact, format: ManifestFormat) -> BTreeMap<BlobDigest, PushLayer<'_>> {
    let layers = artifact.images().iter().flat_map(|spec| {
        (0..spec.layers.len()).map(move |index| {
            let layer = ImageLayer { spec, index, form: format.form() };
            PushLayer { layer, blob: layer.blob() }
        })
    });
    layers.map(|layer| (layer.blob.digest, layer)).collect()
}

/// The blobs that a manifest names: its registry has them.
fn blobs_of(manifest: &[u8]) -> BTreeSet<BlobDigest> {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let digests = layers.chain([&manifest["config"]]).filter_map(|blob| blob["digest"].as_str());
    digests.filter_map(|digest| digest.parse().ok()).collect()
}

struct Push<'a> {
    store: &'a Store,
    client: &'a Client<'a>,
    watch: &'a dyn Watch,
    tally: Mutex<Tally>,
}

impl Push<'_> {
    /// Which layers the registry lacks, in the order in which they are best sent.
    fn missing<'l>(
        &self,
        layers: impl Iterator<Item = &'l PushLayer<'l>>,
        known: &BTreeSet<BlobDigest>,
    ) -> Result<Vec<PushLayer<'l>>, ClientError> {
        let layers: Vec<_> = layers.copied().collect();
        let is_there = |layer: &PushLayer| {
            let digest = &layer.blob.digest;
            Ok(known.contains(digest) || self.client.has_blob(digest)?)
        };
        let there = in_parallel(&layers, is_there)?;
        let mut missing = Vec::new();
        let mut tally = self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (layer, there) in layers.into_iter().zip(there) {
            if there {
                self.watch.layer(layer.layer, LayerStep::Skipped);
                tally.skipped(layer.blob.size);
            } else {
                missing.push(layer);
            }
        }
        missing.sort_by_key(|layer| layer.layer.turn());
        Ok(missing)
    }

    fn send_all(&self, layers: Vec<PushLayer>, options: &ClientOptions) -> Result<(), ClientError> {
        in_parallel(&layers, |layer| self.send(layer, options)).map(drop)
    }

    fn send(&self, layer: &PushLayer, options: &ClientOptions) -> Result<(), ClientError> {
        let LayerBlob { digest, size, .. } = layer.blob;
        let upload = Upload { client: self.client, digest, size };
        let mounted = match upload.mount(&options.mount_from)? {
            Mount::Mounted => true,
            Mount::Begun(location) => {
                upload.send(Some(location), |out| {
                    let out = Plain(Watched { out, watch: self.watch });
                    let out = WatchedLayer::begin(out, layer.layer, self.watch);
                    write_checked_layer(self.store, layer.layer, Hashing::Beside, out)?;
                    Ok(())
                })?;
                false
            }
        };
        let mut tally = self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if mounted {
            tally.mounted();
            self.watch.layer(layer.layer, LayerStep::Mounted);
        } else {
            tally.sent(size);
            self.watch.layer(layer.layer, LayerStep::Sent);
        }
        Ok(())
    }

    /// Configurations, then manifests, and the tag last of all.
    fn documents(
        &self,
        documents: &Documents,
        tag: &str,
        known: &BTreeSet<BlobDigest>,
    ) -> Result<(), ClientError> {
        for image in &documents.images {
            let Blob { digest, bytes } = &image.config;
            if !known.contains(digest) && !self.client.has_blob(digest)? {
                let upload =
                    Upload { client: self.client, digest: *digest, size: bytes.len() as u64 };
                upload.send(None, |out| {
                    Ok(out.write_all(bytes).map_err(outgoing::Error::Write)?)
                })?;
            }
        }
        if documents.index.is_some() {
            for image in &documents.images {
                let media_type = image.descriptor().media_type().to_string();
                self.manifest(&image.manifest, &image.manifest.digest.to_string(), &media_type)?;
            }
        }
        let media_type = documents.descriptor().media_type().to_string();
        self.manifest(documents.top(), tag, &media_type)
    }

    fn manifest(&self, blob: &Blob, name: &str, media_type: &str) -> Result<(), ClientError> {
        let url = self.client.url(&format!("manifests/{name}"));
        let payload = Payload::Bytes { bytes: &blob.bytes, media_type };
        let answer = self.client.request("PUT", &url, payload)?;
        if answer.status != 201 {
            return Err(self.client.refused("the manifest", &answer));
        }
        match answer.header("docker-content-digest") {
            Some(digest) if digest != blob.digest.to_string() => {
                Err(ClientError::OtherDigest { expected: blob.digest, found: digest.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// Does something for each, a few at a time and in order. After an error none is begun.
fn in_parallel<I: Sync, O: Send>(
    items: &[I],
    each: impl Fn(&I) -> Result<O, ClientError> + Sync,
) -> Result<Vec<O>, ClientError> {
    let next = Mutex::new(0);
    let results: Mutex<BTreeMap<usize, Result<O, ClientError>>> = Mutex::default();
    let work = || loop {
        let index = {
            let mut next = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *next += 1;
            *next - 1
        };
        let Some(item) = items.get(index) else { return };
        let result = each(item);
        if result.is_err() {
            *next.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = items.len();
        }
        results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(index, result);
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(work);
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.into_values().collect()
}
