//! Pushes images to a registry (OCI distribution-spec 1.1, "Push").
//! Stage: registry. Input: [`Artifact`]. Output: an image in a registry.
//!
//! Every digest is known before a byte is made: a layer that the registry has is not made again.
//! The documents that name the blobs are sent last, so that a push that ends early leaves nothing
//! wrong. A manifest in the registry does not prove that its blobs are there too, since a garbage
//! collection may have removed them: the registry is asked for each blob, at the same time as for
//! the manifest, and is sent those that it lacks meanwhile (`work.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::answer::Answer;
use super::error::ClientError;
use super::exchange::CONNECTIONS;
use super::repository::{Access, Client, ClientOptions, Presence};
use super::reuse::compressed_blobs;
use super::upload::{Mount, SMALL, Upload};
use super::work::{SendLimits, Sendable, Weight, ask_and_send};
use crate::digest::{BlobDigest, Digest};
use crate::foreign::plain_text;
use crate::oci::{Artifact, Blob, Documents, Form, IMAGE_MANIFEST, LayerBlob, ManifestFormat};
use crate::outgoing::{
    Copied, Hashing, ImageLayer, LayerStep, Reference, TagOrDigest, Tally, Turn, Watch, Watched,
    WatchedLayer, write_checked_layer,
};
use crate::proof::{AttestedImage, Subject};
use crate::registry::parallel::in_parallel;
use crate::sink::Plain;
use crate::store::Store;

/// The number of blobs that are sent at a time: a small one waits for answers most of the time.
const AT_ONCE: usize = 16;

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
    let planned = Planned::new(artifact, format, options)?;
    if !options.reuse_compressed {
        check_digest(reference, &planned.documents)?;
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
    let Planned { documents, attested } = match &reusing {
        Some(artifact) => Planned::new(artifact, format, options)?,
        None => planned,
    };
    check_digest(reference, &documents)?;
    if let Some(attested) = &attested {
        send_attestation(&client, attested)?;
    }
    let artifact = reusing.as_ref().unwrap_or(artifact);
    let layers = layers(artifact, format);
    let ends = Mutex::default();
    let (client, documents, form) = (&client, &documents, format.form());
    Push { store, client, options, artifact, documents, form, layers, watch, ends }.run(&tag)
}

/// The documents to push.
struct Planned {
    documents: Documents,
    /// The documents that put statements beside the image; its index is also that of `documents`.
    attested: Option<AttestedImage>,
}

impl Planned {
    fn new(
        artifact: &Artifact,
        format: ManifestFormat,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let mut documents = artifact.documents(format.form(), format);
        if options.attestations.is_empty() {
            return Ok(Self { documents, attested: None });
        }
        let ([spec], [image], None) = (artifact.images(), &documents.images[..], &documents.index)
        else {
            return Err(ClientError::AttestedIndex);
        };
        let subject = Subject::new(image.descriptor().media_type().as_ref(), &image.manifest);
        let attested = AttestedImage::new(&subject, &spec.platform(), &options.attestations);
        documents.index = Some(attested.index.clone());
        Ok(Self { documents, attested: Some(attested) })
    }
}

/// Sends the statements about an image, unless the registry has them.
fn send_attestation(client: &Client<'_>, attested: &AttestedImage) -> Result<(), ClientError> {
    for blob in &attested.blobs {
        client.send_small(blob)?;
    }
    let Blob { digest, bytes } = &attested.manifest;
    if client.has_manifest(digest, bytes.len() as u64)? == Presence::There {
        return Ok(());
    }
    let name = (*digest).into();
    client.store_manifest(&name, bytes, IMAGE_MANIFEST, "the attestations").map(drop)
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
    /// The last step of each layer.
    ends: Mutex<BTreeMap<BlobDigest, LayerStep>>,
}

/// A question to the registry.
#[derive(Clone, Copy)]
enum Question<'q> {
    /// The manifest that the tag stands for.
    Tag(&'q TagOrDigest),
    /// A layer.
    Layer(PushLayer<'q>),
    /// A configuration.
    Config(&'q Blob),
    /// A manifest that the index names.
    Manifest(&'q Blob),
}

/// A blob that the registry lacks.
enum MissingBlob<'q> {
    Layer(PushLayer<'q>),
    Config(&'q Blob),
}

impl Sendable for MissingBlob<'_> {
    /// The turn of a layer; none for a configuration, which comes first.
    type Turn = Option<Turn>;

    fn turn(&self) -> (Weight, Self::Turn) {
        match self {
            Self::Layer(PushLayer { layer, blob }) => {
                let turn = layer.turn();
                // Members of an archive keep their order.
                let is_small = blob.size <= SMALL && matches!(turn, Turn::OfSize(_));
                (if is_small { Weight::Small } else { Weight::Large }, Some(turn))
            }
            Self::Config(_) => (Weight::Small, None),
        }
    }
}

/// The answers of the registry.
#[derive(Default)]
struct There {
    /// True if the tag stands for the manifest that is to be pushed.
    top: bool,
    /// The manifests that the index names and that the registry has.
    children: BTreeSet<BlobDigest>,
    /// True if a blob was missing.
    lacked_blobs: bool,
}

impl Push<'_> {
    fn run(self, tag: &TagOrDigest) -> Result<Copied, ClientError> {
        let there = self.ask_and_send(tag)?;
        let children = self.children().filter(|(child, _)| !there.children.contains(&child.digest));
        let children: Vec<_> = children.collect();
        let is_whole = !there.lacked_blobs && children.is_empty();
        if !(there.top && is_whole) {
            for (child, media_type) in children {
                self.put_image(child, &child.digest.into(), &media_type)?;
            }
            self.put_top(tag)?;
        }
        Ok(Copied::new(self.documents, self.tally()))
    }

    /// Asks for all parts of the image, and sends the blobs that are missing. If nothing is missing,
    /// all questions together take one round trip.
    fn ask_and_send(&self, tag: &TagOrDigest) -> Result<There, ClientError> {
        // Ask in the order of the digests, which mixes large layers and small ones: with the largest
        // first, large layers would take all places before the first small one is asked for.
        let layers = self.layers.values().copied().map(Question::Layer);
        let children = self.children().map(|(child, _)| Question::Manifest(child));
        let questions = [Question::Tag(tag)].into_iter().chain(layers);
        let questions = questions.chain(self.configs().map(Question::Config)).chain(children);
        let questions: Vec<_> = questions.collect();
        let there: Mutex<There> = Mutex::default();
        let limits = SendLimits { workers: CONNECTIONS, sends: AT_ONCE };
        self.watch.expect(0);
        ask_and_send(
            limits,
            &questions,
            |question| self.ask(question, &there),
            |blob| match blob {
                MissingBlob::Layer(layer) => self.send(&layer),
                MissingBlob::Config(config) => self.send_document(config, true),
            },
        )?;
        Ok(there.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks one question. Returns the blob that is asked for, if the registry lacks it.
    fn ask<'q>(
        &self,
        question: Question<'q>,
        there: &Mutex<There>,
    ) -> Result<Option<MissingBlob<'q>>, ClientError> {
        let there = || there.lock().unwrap_or_else(PoisonError::into_inner);
        let lacks = |digest: &BlobDigest, size: u64| {
            let lacks = self.client.has_blob(digest, size)? != Presence::There;
            there().lacked_blobs |= lacks;
            Ok::<_, ClientError>(lacks)
        };
        match question {
            Question::Tag(tag) => {
                let manifest = self.client.manifest(tag)?;
                there().top = manifest.is_some_and(|bytes| bytes == self.documents.top().bytes);
            }
            Question::Layer(layer) => {
                if lacks(&layer.blob.digest, layer.blob.size)? {
                    self.watch.expect_more(layer.blob.size);
                    return Ok(Some(MissingBlob::Layer(layer)));
                }
                self.ended(&layer, LayerStep::Skipped);
            }
            Question::Config(config) => {
                if lacks(&config.digest, config.bytes.len() as u64)? {
                    return Ok(Some(MissingBlob::Config(config)));
                }
            }
            Question::Manifest(manifest) => {
                let size = manifest.bytes.len() as u64;
                if self.client.has_manifest(&manifest.digest, size)? == Presence::There {
                    there().children.insert(manifest.digest);
                }
            }
        }
        Ok(None)
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
        upload.send_bytes(&document.bytes)
    }

    fn upload(&self, digest: BlobDigest, size: u64, trusts: bool) -> Upload<'_> {
        Upload { client: self.client, digest, size, trusts }
    }

    /// Stores the manifest or index under the tag, which is the last step.
    fn put_top(&self, tag: &TagOrDigest) -> Result<(), ClientError> {
        let media_type = self.documents.descriptor().media_type().to_string();
        let top = self.documents.top();
        if self.documents.index.is_none() {
            return self.put_image(top, tag, &media_type);
        }
        let mut answer = self.client.put_manifest(tag, &top.bytes, &media_type)?;
        if answer.unknown_blobs().is_some() {
            // In the answer to an index, the unknown "blobs" are manifests, which the registry has
            // removed meanwhile.
            for (child, media_type) in self.children() {
                self.put_image(child, &child.digest.into(), &media_type)?;
            }
            answer = self.client.put_manifest(tag, &top.bytes, &media_type)?;
        }
        self.stored(top, tag, &answer)
    }

    /// Stores an image's manifest. If the registry then says that blobs are unknown, sends these
    /// again, each once, although it said before that it has them.
    fn put_image(
        &self,
        manifest: &Blob,
        name: &TagOrDigest,
        media_type: &str,
    ) -> Result<(), ClientError> {
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
    fn stored(
        &self,
        manifest: &Blob,
        name: &TagOrDigest,
        answer: &Answer,
    ) -> Result<(), ClientError> {
        if !answer.is_success() {
            return self.not_stored(manifest, name, answer);
        }
        match answer.contradicts(&manifest.digest) {
            Some(found) => Err(ClientError::OtherDigest {
                expected: manifest.digest,
                found: plain_text(found),
            }),
            None => Ok(()),
        }
    }

    /// Handles a refused manifest. If the tag can't be overwritten but stands for this very
    /// manifest, the push has succeeded.
    fn not_stored(
        &self,
        manifest: &Blob,
        name: &TagOrDigest,
        answer: &Answer,
    ) -> Result<(), ClientError> {
        let error = self.client.refused("the manifest", answer);
        if !matches!(answer.status, 400 | 403 | 405 | 409 | 412 | 422) {
            return Err(error);
        }
        // If this request fails, report the refusal.
        match (self.client.manifest(name), name) {
            (Ok(Some(there)), _) if there == manifest.bytes => Ok(()),
            (Ok(Some(there)), TagOrDigest::Tag(tag)) => Err(ClientError::TagExists {
                registry: self.client.name(),
                tag: tag.clone(),
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
