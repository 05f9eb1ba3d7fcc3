//! Pushes images to a registry (OCI distribution-spec 1.1, "Push").
//! Stage: registry. Input: [`Artifact`]. Output: an image in a registry.
//!
//! Every digest is known before a byte is made: a layer that the registry has is not made again.
//! The documents that name the blobs are sent last, so that a push that ends early leaves nothing
//! wrong. A manifest in the registry does not prove that its blobs are there too, since a garbage
//! collection may have removed them: the registry is asked for each blob, at the same time as for
//! the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::answer::Answer;
use super::error::ClientError;
use super::exchange::CONNECTIONS;
use super::parallel::in_parallel;
use super::repository::{Access, Client, ClientOptions, Presence};
use super::reuse::compressed_blobs;
use super::upload::{Mount, Upload};
use crate::digest::{BlobDigest, Digest};
use crate::foreign::plain_text;
use crate::oci::{Artifact, Blob, Documents, Form, LayerBlob, ManifestFormat};
use crate::outgoing;
use crate::outgoing::{
    Copied, Hashing, ImageLayer, LayerStep, Reference, Tally, Watch, Watched, WatchedLayer,
    write_checked_layer,
};
use crate::sink::Plain;
use crate::store::Store;

/// The number of blobs that are sent at a time: a single one mostly waits for the network.
const AT_ONCE: usize = 4;

/// Pushes an image, or several with their index, to the name `reference`. A digest in the name must
/// be that of the image, and is the reference to push to if there is no tag.
///
/// # Errors
/// Fails with [`ClientError`] if the registry refuses something or does not answer, or if a layer
/// can't be made.
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
    let location = options.registries.target(reference)?;
    let options = &options.at(reference, &location);
    let client = Client::connect(reference, Access::Push, options, watch)?;
    let reusing = if options.reuse_compressed {
        let there = client.manifest(&tag)?.unwrap_or_default();
        Some(artifact.with_compressed(&compressed_blobs(&client, &there)?))
    } else {
        None
    };
    let documents = match &reusing {
        Some(artifact) => artifact.documents(format.form(), format),
        None => documents,
    };
    check_digest(reference, &documents)?;
    let artifact = reusing.as_ref().unwrap_or(artifact);
    let layers = layers(artifact, format);
    let ends = Mutex::default();
    let (client, documents, form) = (&client, &documents, format.form());
    Push { store, client, options, artifact, documents, form, layers, watch, ends }.run(&tag)
}

/// Checks that the image has the digest of `reference`, if that has one.
fn check_digest(reference: &Reference, documents: &Documents) -> Result<(), ClientError> {
    let found = documents.top().digest;
    match reference.digest() {
        Some(digest) if digest != found => {
            Err(ClientError::OtherImage { name: reference.to_string(), found })
        }
        _ => Ok(()),
    }
}

/// A layer to push, and its blob.
#[derive(Clone, Copy)]
struct PushLayer<'a> {
    layer: ImageLayer<'a>,
    blob: LayerBlob,
}

/// Returns each layer once, even if several images have it.
fn layers(artifact: &Artifact, format: ManifestFormat) -> BTreeMap<BlobDigest, PushLayer<'_>> {
    let layers = artifact.images().iter().flat_map(|spec| {
        (0..spec.layers.len()).map(move |index| {
            let layer = ImageLayer { spec, index, form: format.form() };
            PushLayer { layer, blob: layer.blob() }
        })
    });
    layers.map(|layer| (layer.blob.digest, layer)).collect()
}

struct Push<'a> {
    store: &'a Store,
    client: &'a Client<'a>,
    options: &'a ClientOptions,
    artifact: &'a Artifact,
    documents: &'a Documents,
    form: Form,
    layers: BTreeMap<BlobDigest, PushLayer<'a>>,
    watch: &'a dyn Watch,
    /// The result for each layer.
    ends: Mutex<BTreeMap<BlobDigest, LayerStep>>,
}

/// A question to the registry.
#[derive(Clone, Copy)]
enum Question<'q> {
    /// The manifest that the tag stands for.
    Tag(&'q str),
    /// A blob of this size.
    Blob(BlobDigest, u64),
    /// A manifest that the index names.
    Manifest(BlobDigest),
}

/// The things that the registry has.
#[derive(Default)]
struct There {
    /// True if the tag stands for the manifest that is to be pushed.
    top: bool,
    /// The blobs and manifests that the registry has.
    digests: BTreeSet<BlobDigest>,
}

impl Push<'_> {
    fn run(self, tag: &str) -> Result<Copied, ClientError> {
        let there = self.ask(tag)?;
        let mut missing = self.missing_layers(&there);
        let configs = self.configs().filter(|config| !there.digests.contains(&config.digest));
        let configs: Vec<_> = configs.collect();
        let children = self.children().filter(|(child, _)| !there.digests.contains(&child.digest));
        let children: Vec<_> = children.collect();
        let is_whole = missing.is_empty() && configs.is_empty() && children.is_empty();
        if !(there.top && is_whole) {
            self.watch.expect(missing.iter().map(|layer| layer.blob.size).sum());
            missing.sort_by_key(|layer| layer.layer.turn());
            in_parallel(AT_ONCE, &missing, |layer| self.send(layer))?;
            in_parallel(AT_ONCE, &configs, |config| self.send_document(config, true))?;
            for (child, media_type) in children {
                self.put_image(child, &child.digest.to_string(), &media_type)?;
            }
            self.put_top(tag)?;
        }
        Ok(Copied::new(self.documents, self.tally()))
    }

    /// Asks for all parts of the image at once: all questions together take one round trip.
    fn ask(&self, tag: &str) -> Result<There, ClientError> {
        let blobs = self.layers.values().map(|layer| (layer.blob.digest, layer.blob.size));
        let configs = self.configs().map(|config| (config.digest, config.bytes.len() as u64));
        let blobs = blobs.chain(configs).map(|(digest, size)| Question::Blob(digest, size));
        let children = self.children().map(|(child, _)| Question::Manifest(child.digest));
        let questions: Vec<_> =
            [Question::Tag(tag)].into_iter().chain(blobs).chain(children).collect();
        let answers = in_parallel(CONNECTIONS, &questions, |question| match question {
            Question::Tag(tag) => {
                let there = self.client.manifest(tag)?;
                Ok::<_, ClientError>(there.is_some_and(|bytes| bytes == self.documents.top().bytes))
            }
            Question::Blob(digest, size) => {
                Ok(self.client.has_blob(digest, *size)? == Presence::There)
            }
            Question::Manifest(digest) => Ok(self.client.has_manifest(digest)? == Presence::There),
        })?;
        let mut there = There::default();
        for (question, is_there) in questions.iter().zip(answers) {
            match question {
                Question::Tag(_) => there.top = is_there,
                Question::Blob(digest, _) | Question::Manifest(digest) if is_there => {
                    there.digests.insert(*digest);
                }
                Question::Blob(..) | Question::Manifest(_) => {}
            }
        }
        Ok(there)
    }

    fn missing_layers(&self, there: &There) -> Vec<PushLayer<'_>> {
        let (there, missing): (Vec<_>, Vec<_>) =
            self.layers.values().partition(|layer| there.digests.contains(&layer.blob.digest));
        there.into_iter().for_each(|layer| self.ended(layer, LayerStep::Skipped));
        missing.into_iter().copied().collect()
    }

    /// Returns each configuration once.
    fn configs(&self) -> impl Iterator<Item = &Blob> {
        let configs = self.documents.images.iter().map(|image| &image.config);
        let configs: BTreeMap<_, _> = configs.map(|config| (config.digest, config)).collect();
        configs.into_values()
    }

    /// Returns the manifests that the index names, with their media types; none for a single image.
    fn children(&self) -> impl Iterator<Item = (&Blob, String)> {
        let images = self.documents.images.iter().filter(|_| self.documents.index.is_some());
        images.map(|image| (&image.manifest, image.descriptor().media_type().to_string()))
    }

    fn send(&self, layer: &PushLayer) -> Result<(), ClientError> {
        let upload = self.upload(layer.blob.digest, layer.blob.size, true);
        match upload.mount(&self.options.mount_from)? {
            Mount::Mounted => self.ended(layer, LayerStep::Mounted),
            Mount::Begun(location) => {
                self.make(&upload, Some(location), layer)?;
                self.ended(layer, LayerStep::Sent);
            }
        }
        Ok(())
    }

    fn make(
        &self,
        upload: &Upload,
        location: Option<String>,
        layer: &PushLayer,
    ) -> Result<(), ClientError> {
        upload.send(location, |out| {
            let out = Plain(Watched { out, watch: self.watch });
            let out = WatchedLayer::begin(out, layer.layer, self.watch);
            Ok(write_checked_layer(self.store, layer.layer, Hashing::Beside, out)?)
        })
    }

    fn send_document(&self, document: &Blob, trusts: bool) -> Result<(), ClientError> {
        let upload = self.upload(document.digest, document.bytes.len() as u64, trusts);
        upload
            .send(None, |out| Ok(out.write_all(&document.bytes).map_err(outgoing::Error::Write)?))
    }

    fn upload(&self, digest: BlobDigest, size: u64, trusts: bool) -> Upload<'_> {
        Upload { client: self.client, digest, size, trusts }
    }

    /// Stores the manifest or index under the tag, which is the last step.
    fn put_top(&self, tag: &str) -> Result<(), ClientError> {
        let media_type = self.documents.descriptor().media_type().to_string();
        let top = self.documents.top();
        if self.documents.index.is_none() {
            return self.put_image(top, tag, &media_type);
        }
        let mut answer = self.client.put_manifest(tag, &top.bytes, &media_type)?;
        if answer.unknown_blobs().is_some() {
            // In such an answer, "blobs" are manifests: those that were there have been removed.
            for (child, media_type) in self.children() {
                self.put_image(child, &child.digest.to_string(), &media_type)?;
            }
            answer = self.client.put_manifest(tag, &top.bytes, &media_type)?;
        }
        self.stored(top, tag, &answer)
    }

    /// Stores an image's manifest. If the registry then says that blobs are unknown, sends these
    /// again, each once, although it said before that it has them.
    fn put_image(&self, manifest: &Blob, name: &str, media_type: &str) -> Result<(), ClientError> {
        let image = self.documents.images.iter();
        let image = image.zip(0..).find(|(image, _)| image.manifest.digest == manifest.digest);
        let mut unsent = image.map(|(_, number)| self.blobs_of(number)).unwrap_or_default();
        loop {
            let answer = self.client.put_manifest(name, &manifest.bytes, media_type)?;
            let Some(named) = answer.unknown_blobs().filter(|_| !unsent.is_empty()) else {
                return self.stored(manifest, name, &answer);
            };
            let named: BTreeSet<_> =
                named.into_iter().filter(|blob| unsent.contains(blob)).collect();
            let again = if named.is_empty() { unsent.clone() } else { named };
            unsent = &unsent - &again;
            self.send_again(&again)?;
        }
    }

    /// Returns the blobs of one of the images.
    fn blobs_of(&self, number: usize) -> BTreeSet<BlobDigest> {
        let config = self.documents.images[number].config.digest;
        let form = self.form;
        let layers = self.artifact.images()[number].layers.iter();
        layers.map(|layer| layer.blob(form).digest).chain([config]).collect()
    }

    fn send_again(&self, blobs: &BTreeSet<BlobDigest>) -> Result<(), ClientError> {
        let blobs: Vec<_> = blobs.iter().copied().collect();
        in_parallel(AT_ONCE, &blobs, |digest| {
            if let Some(layer) = self.layers.get(digest) {
                self.make(&self.upload(*digest, layer.blob.size, false), None, layer)?;
                self.ended(layer, LayerStep::Sent);
            } else if let Some(config) = self.configs().find(|config| config.digest == *digest) {
                self.send_document(config, false)?;
            }
            Ok::<_, ClientError>(())
        })?;
        Ok(())
    }

    /// Checks that a manifest was stored.
    fn stored(&self, manifest: &Blob, name: &str, answer: &Answer) -> Result<(), ClientError> {
        if !answer.is_success() {
            return self.not_stored(manifest, name, answer);
        }
        match answer.header("docker-content-digest") {
            Some(digest) if digest != manifest.digest.to_string() => {
                Err(ClientError::OtherDigest {
                    expected: manifest.digest,
                    found: plain_text(digest),
                })
            }
            _ => Ok(()),
        }
    }

    /// Handles a refused manifest. If the tag can't be overwritten but stands for this very
    /// manifest, the push has succeeded.
    fn not_stored(&self, manifest: &Blob, name: &str, answer: &Answer) -> Result<(), ClientError> {
        let error = self.client.refused("the manifest", answer);
        if !matches!(answer.status, 400 | 403 | 405 | 409 | 412 | 422) {
            return Err(error);
        }
        // If this request fails, report the refusal.
        match self.client.manifest(name) {
            Ok(Some(there)) if there == manifest.bytes => Ok(()),
            Ok(Some(there)) if !name.contains(':') => Err(ClientError::TagExists {
                registry: self.client.name(),
                tag: name.to_owned(),
                found: BlobDigest::new(Digest::of(&there)),
                status: answer.status,
                message: answer.message(),
            }),
            _ => Err(error),
        }
    }

    /// Notes the result for a layer. A layer that was there may have to be sent again later.
    fn ended(&self, layer: &PushLayer, step: LayerStep) {
        self.watch.layer(layer.layer, step);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.insert(layer.blob.digest, step);
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (digest, step) in &*ends {
            let size = self.layers[digest].blob.size;
            match step {
                LayerStep::Sent => tally.sent(size),
                LayerStep::Mounted => tally.mounted(),
                _ => tally.skipped(size),
            }
        }
        tally
    }
}
