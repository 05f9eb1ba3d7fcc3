//! Images in an object storage, which any number of servers share.
//! Stage: registry. Input: image specs and the store. Output: objects, and addresses of them.
//!
//! Servers need not know of each other: what has a blob's name is whole and right, and an image
//! has its name when all of its blobs are there. Nothing is removed but an object that is found not
//! to be the blob that its name says: it is stored again with the next image that has it.

mod answer;
mod backend;
mod error;
mod in_turn;
mod names;
mod source;
#[cfg(test)]
mod tests;
mod upload;
mod verified;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use error::StorageError;
pub use source::{BlobSource, BlobStream, SignedUrl};

use crate::digest::{BlobDigest, Digest};
use crate::oci::{Blob, Form, Image, ImageSpec, LayerBlob};
use crate::store::Store;
use answer::{Answer, Verdict};
use backend::{Backend, Limits};
use in_turn::InTurn;
use names::Names;
use verified::VerifiedStream;

/// Longest document, in bytes. Registries take no longer manifests (distribution-spec, "Pushing
/// Manifests").
const LONGEST_DOCUMENT: u64 = 4 << 20;
/// How long a client that wants to read is left waiting, whatever is tried again meanwhile.
const ANSWER: Duration = Duration::from_secs(20);
/// Layers that are sent at once, whatever the number of images: each takes 15 MiB ([`upload`])
/// and, while it is made, a processor.
const UPLOADS: usize = 4;
/// Blobs that are asked for at once.
const QUESTIONS: usize = 16;

/// Images and their blobs, in an object storage. Clones are of the same.
#[derive(Clone)]
pub struct ObjectStorage(Arc<Inner>);

struct Inner {
    address: String,
    store: Arc<dyn ObjectStore>,
    /// For what is passed on.
    reader: Arc<dyn ObjectStore>,
    /// [`Limits::silence`].
    silence: Duration,
    signer: Option<Arc<dyn Signer>>,
    names: Names,
    in_turn: InTurn<BlobDigest>,
    uploads: Semaphore,
    questions: Semaphore,
    /// [`ANSWER`].
    patience: Duration,
    /// The blobs that a client asked for and that were missing, or were not what their digest
    /// says. An image that names one is not there, until it is stored again.
    lost: Mutex<BTreeSet<BlobDigest>>,
    /// The objects that were read whole and had their digest, with when they were
    /// stored, in nanoseconds since 1970.
    verified: Mutex<BTreeMap<BlobDigest, Option<i64>>>,
}

/// A manifest that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Digest of the bytes.
    pub digest: BlobDigest,
    /// Their media type.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
    /// When somebody last stored it under this name.
    pub stored: OffsetDateTime,
}

/// A manifest or configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes, which are those of the digest.
    pub bytes: Bytes,
    /// The media type that they name themselves. Manifests do, configurations do not.
    pub media_type: Option<String>,
}

/// Counts what was sent to store an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Digest of its manifest.
    pub manifest: BlobDigest,
    /// Layers that were sent.
    pub layers_sent: usize,
    /// Layers that were there.
    pub layers_skipped: usize,
    /// Bytes of blobs that were sent.
    pub bytes_sent: u64,
}

/// Which manifest an image's name is.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pointer {
    digest: BlobDigest,
    media_type: String,
}

impl ObjectStorage {
    /// Takes `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or
    /// `file:///DIRECTORY`, with credentials and endpoint as the environment has them
    /// (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, `AWS_ALLOW_HTTP` …), and finds out whether it can be
    /// read and written. A full one can't be written, and is taken nevertheless.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn open(url: &str) -> Result<Self, StorageError> {
        // What is not UTF-8 is no setting.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::open_in(url, environment).await
    }

    /// Opens a storage like [`ObjectStorage::open`], with other environment variables.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn open_in(
        url: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StorageError> {
        let mut inner = Inner::new(Backend::new(url, environment, Limits::default())?);
        inner.probe().await?;
        Ok(Self(Arc::new(inner)))
    }

    /// The image that was stored under a name and a key, such as a tag.
    ///
    /// # Errors
    /// [`StorageError`]. A manifest that is gone is none: who stores the image again mends that.
    pub async fn image(
        &self,
        name: &str,
        key: &str,
    ) -> Result<Option<StoredManifest>, StorageError> {
        let object = self.0.names.image(name, key);
        let Some((meta, bytes)) = self.0.read(&object).await? else { return Ok(None) };
        let pointer: Pointer =
            serde_json::from_slice(&bytes).map_err(|error| StorageError::Damaged {
                storage: self.0.address.clone(),
                object: object.to_string(),
                expected: "a pointer to an image".to_owned(),
                found: error.to_string(),
            })?;
        let Pointer { digest, media_type } = pointer;
        let Some(Document { bytes, .. }) = self.document(&digest).await? else {
            tracing::warn!(storage = self.0.address, %object, %digest, "the image's manifest is gone");
            return Ok(None);
        };
        if self.has_lost_of(&bytes) {
            tracing::warn!(storage = self.0.address, %object, %digest, "a blob of the image is gone");
            return Ok(None);
        }
        let stored = OffsetDateTime::from_unix_timestamp(meta.last_modified.timestamp())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Ok(Some(StoredManifest { digest, media_type, bytes, stored }))
    }

    /// Returns whether a client has asked for a blob of this manifest that was not there, or not
    /// right, and that has not been stored since.
    pub fn has_lost_of(&self, manifest: &[u8]) -> bool {
        let lost = self.0.lost();
        // Most of the time nothing is.
        !lost.is_empty() && blobs_of(manifest).any(|digest| lost.contains(&digest))
    }

    /// Notes that a blob of an image is not there, if a manifest of `images` names it: anybody can
    /// ask for blobs that never were. The image is stored again when it is asked for next.
    pub fn note_missing<'m>(
        &self,
        digest: &BlobDigest,
        mut images: impl Iterator<Item = &'m [u8]>,
    ) {
        if images.any(|manifest| blobs_of(manifest).any(|named| named == *digest)) {
            self.0.lost().insert(*digest);
        }
    }

    /// A manifest or configuration, whatever it is called. A blob that is larger than such are
    /// is none.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn document(&self, digest: &BlobDigest) -> Result<Option<Document>, StorageError> {
        let object = self.0.names.blob(digest);
        let Some((_, bytes)) = self.0.read(&object).await? else { return Ok(None) };
        let found = Digest::of(&bytes);
        if found != *digest.digest() {
            let (storage, object) = (&self.0.address, object.as_ref());
            return Err(StorageError::damaged(storage, object, digest.digest(), &found));
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            media_type: String,
        }
        let typed = serde_json::from_slice::<Typed>(&bytes);
        Ok(Some(Document { bytes, media_type: typed.ok().map(|typed| typed.media_type) }))
    }

    /// Finds the place from which a client gets a blob, or a part of it. None if it isn't there.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn blob(
        &self,
        digest: &BlobDigest,
        range: Option<Range<u64>>,
    ) -> Result<Option<BlobSource>, StorageError> {
        let inner = &self.0;
        let object = inner.names.blob(digest);
        let Some(meta) = inner.in_time("read", &object, inner.head(&object)).await? else {
            return Ok(None);
        };
        let size = meta.size;
        let source = match &inner.signer {
            Some(signer) => {
                let signed = async {
                    let signed = source::sign(signer.as_ref(), &object).await;
                    signed.map_err(|error| inner.error("sign the address of", &object, &error))
                };
                BlobSource::Url { url: inner.in_time("sign", &object, signed).await?, size }
            }
            None => {
                let begun = async {
                    let reader = inner.reader.as_ref();
                    let begun = source::read(reader, &object, range, size, inner.silence).await;
                    begun.map_err(|error| inner.error("read", &object, &error))
                };
                let (body, range) = inner.in_time("read", &object, begun).await?;
                let is_whole = range == (0..size);
                let body = if is_whole { inner.verify(body, *digest, &meta) } else { body };
                BlobSource::Stream { body, size, range }
            }
        };
        Ok(Some(source))
    }

    /// Stores an image, or as much of it as is missing, under a name and a key, in place of what
    /// has them. The layers are those of [`Form::AsStored`], the manifest is [`Image::new`]'s.
    ///
    /// Several may do it at once. If it fails, or is given up, what it stored stays for the next
    /// time, and the name is as it was.
    ///
    /// # Errors
    /// [`StorageError::Layer`] if a layer is not what it was when the image was built, and
    /// whatever the storage says.
    pub async fn put_image(
        &self,
        store: &Store,
        spec: &Arc<ImageSpec>,
        name: &str,
        key: &str,
    ) -> Result<Stored, StorageError> {
        let image = Image::new(spec);
        let mut stored = Stored {
            manifest: image.manifest.digest,
            layers_sent: 0,
            layers_skipped: 0,
            bytes_sent: 0,
        };
        let layers = spec.layers.iter().enumerate();
        // Layers may be the same.
        let layers: BTreeMap<_, _> =
            layers.map(|(index, layer)| (layer.blob(Form::AsStored).digest, index)).collect();
        let mut sending = JoinSet::new();
        for index in layers.into_values() {
            let layer = upload::Layer { store: store.clone(), spec: Arc::clone(spec), index };
            let inner = Arc::clone(&self.0);
            sending.spawn(async move { inner.put_layer(layer).await });
        }
        // Dropped after an error, it ends those that are not finished.
        while let Some(sent) = sending.join_next().await {
            match sent.map_err(upload::lost)?? {
                Some(bytes) => {
                    stored.layers_sent += 1;
                    stored.bytes_sent += bytes;
                }
                None => stored.layers_skipped += 1,
            }
        }
        stored.bytes_sent += self.put_document(&image.config).await?;
        stored.bytes_sent += self.put_document(&image.manifest).await?;
        let media_type = image.descriptor().media_type().to_string();
        let pointer = Pointer { digest: image.manifest.digest, media_type };
        let pointer = serde_json::to_vec(&pointer).expect("a pointer is JSON");
        self.0.put(&self.0.names.image(name, key), pointer.into()).await?;
        Ok(stored)
    }

    /// Stores a document unless it is there, and returns how many bytes were sent. They are few:
    /// one that is not what it should be is stored anew.
    async fn put_document(&self, blob: &Blob) -> Result<u64, StorageError> {
        match self.document(&blob.digest).await {
            Ok(Some(_)) => {
                self.0.lost().remove(&blob.digest);
                return Ok(0);
            }
            Ok(None) | Err(StorageError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        self.0.put(&self.0.names.blob(&blob.digest), blob.bytes.clone().into()).await?;
        self.0.lost().remove(&blob.digest);
        Ok(blob.bytes.len() as u64)
    }
}

impl Inner {
    fn new(backend: Backend) -> Self {
        let Backend { address, store, reader, silence, signer, prefix } = backend;
        Self {
            address,
            store,
            reader,
            silence,
            signer,
            names: Names::new(prefix),
            in_turn: InTurn::default(),
            uploads: Semaphore::new(UPLOADS),
            questions: Semaphore::new(QUESTIONS),
            patience: ANSWER,
            lost: Mutex::default(),
            verified: Mutex::default(),
        }
    }

    fn lost(&self) -> MutexGuard<'_, BTreeSet<BlobDigest>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verified(&self) -> MutexGuard<'_, BTreeMap<BlobDigest, Option<i64>>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares a blob with its digest on its way, unless that was done before. If it differs, the
    /// object is removed.
    fn verify(
        self: &Arc<Self>,
        body: BlobStream,
        digest: BlobDigest,
        meta: &ObjectMeta,
    ) -> BlobStream {
        let stored = meta.last_modified.timestamp_nanos_opt();
        if self.verified().get(&digest) == Some(&stored) {
            return body;
        }
        let inner = Arc::clone(self);
        let ended = move |is_right| {
            if is_right {
                inner.verified().insert(digest, stored);
            } else {
                tokio::spawn(async move { inner.discard(&digest).await });
            }
        };
        Box::pin(VerifiedStream::new(body, digest, meta.size, ended))
    }

    /// Removes an object that is not the blob that its name says.
    async fn discard(&self, digest: &BlobDigest) {
        let object = self.names.blob(digest);
        tracing::error!(storage = self.address, %object, "not the blob that it should be: removed");
        self.lost().insert(*digest);
        if let Err(error) = self.store.delete(&object).await {
            // It is stored anew all the same.
            tracing::warn!(storage = self.address, %object, %error, "cannot remove the object");
        }
    }

    /// Finds out whether objects can be written and read, and addresses signed.
    async fn probe(&mut self) -> Result<(), StorageError> {
        let probe = self.names.probe();
        match self.put(&probe, b"stowage\n".to_vec().into()).await {
            // What is there can still be read.
            Err(error @ StorageError::Full { .. }) => {
                tracing::warn!(%error, "images are not stored as long as that is so");
            }
            result => {
                result?;
                self.read(&probe).await?;
            }
        }
        // It must be said that something is missing, not that it is secret.
        let missing = self.names.missing();
        self.in_time("look for", &missing, self.head(&missing)).await?;
        if let Some(signer) = &self.signer {
            let signed =
                tokio::time::timeout(self.patience, source::sign(signer.as_ref(), &probe)).await;
            if !matches!(signed, Ok(Ok(_))) {
                tracing::warn!(
                    storage = self.address,
                    "no addresses can be signed with these credentials: blobs are passed on"
                );
                self.signer = None;
            }
        }
        Ok(())
    }

    fn error(&self, what: &str, object: &Path, error: &object_store::Error) -> StorageError {
        StorageError::new(&self.address, format!("{what} {object}"), error)
    }

    /// Waits for `work`, and fails if it takes longer than a client is left waiting.
    async fn in_time<T>(
        &self,
        what: &str,
        object: &Path,
        work: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        match tokio::time::timeout(self.patience, work).await {
            Ok(result) => result,
            Err(_) => Err(StorageError::Unreachable {
                storage: self.address.clone(),
                what: format!("{what} {object}"),
                reason: format!("nothing came within {:?}", self.patience),
            }),
        }
    }

    /// Whether an object is there, and how large it is.
    async fn head(&self, object: &Path) -> Result<Option<ObjectMeta>, StorageError> {
        match self.store.head(object).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.error("look for", object, &error)),
        }
    }

    /// A small object with its bytes.
    async fn read(&self, object: &Path) -> Result<Option<(ObjectMeta, Bytes)>, StorageError> {
        let read = async {
            let found = self.store.get(object).await?;
            let meta = found.meta.clone();
            if meta.size > LONGEST_DOCUMENT {
                return Ok(None);
            }
            Ok(Some((meta, found.bytes().await?)))
        };
        let read = async {
            match read.await {
                Err(error) if is_missing(&error) => Ok(None),
                result => result.map_err(|error| self.error("read", object, &error)),
            }
        };
        self.in_time("read", object, read).await
    }

    /// A small object. It has its name when it is whole: the storage compares its bytes with a
    /// digest that is sent, or they come over TLS, or it is a directory and the file is renamed.
    async fn put(&self, object: &Path, bytes: PutPayload) -> Result<(), StorageError> {
        let put = self.store.put(object, bytes).await;
        put.map(drop).map_err(|error| self.error("write", object, &error))
    }

    /// Sends a layer unless it is there, and returns how many bytes were sent.
    async fn put_layer(&self, layer: upload::Layer) -> Result<Option<u64>, StorageError> {
        let LayerBlob { digest, size, .. } = layer.blob();
        let object = self.names.blob(&digest);
        // Who comes second finds it there. Images have most layers in common.
        let _turn = self.in_turn.take(digest).await;
        let found = {
            let _question = self.questions.acquire().await;
            self.head(&object).await?
        };
        let is_lost = self.lost().contains(&digest);
        match found {
            Some(meta) if meta.size == size && !is_lost => return Ok(None),
            Some(meta) => tracing::warn!(
                storage = self.address, %object, expected = size, found = meta.size,
                "not the blob that it should be: stored anew"
            ),
            None => {}
        }
        let _place = self.uploads.acquire().await;
        match upload::send(self.store.as_ref(), &object, layer).await {
            Ok(()) => {
                self.lost().remove(&digest);
                Ok(Some(size))
            }
            Err(upload::Failed::Made(error)) => Err(error.into()),
            Err(upload::Failed::Sent(error)) => Err(self.error("write", &object, &error)),
        }
    }
}

/// Returns the digests of the configuration and the layers that a manifest names.
fn blobs_of(manifest: &[u8]) -> impl Iterator<Item = BlobDigest> {
    #[derive(Deserialize, Default)]
    struct Names {
        config: Option<Named>,
        #[serde(default)]
        layers: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        digest: BlobDigest,
    }
    let names: Names = serde_json::from_slice(manifest).unwrap_or_default();
    names.config.into_iter().chain(names.layers).map(|named| named.digest)
}

fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
        && Answer::of(error).verdict == Verdict::Missing
}
