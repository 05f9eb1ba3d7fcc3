//! Stores images in an object storage, which any number of servers share.
//! Stage: registry. Input: image specs and the store. Output: objects, and addresses of them.
//!
//! Servers need not know of each other: an object with a blob's name is complete and right, and an
//! image gets its name when all of its blobs are there. Objects are never removed, with one
//! exception: an object whose bytes do not have the digest in its name. It is stored again with the
//! next image that has the blob.

mod answer;
mod backend;
mod error;
mod in_turn;
mod names;
mod pointer;
mod repositories;
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
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

pub use error::StorageError;
pub use pointer::StorageKeys;
pub use source::{BlobSource, BlobStream, SignedUrl};

use crate::digest::{BlobDigest, Digest};
use crate::oci::{Blob, Form, Image, ImageSpec, LayerBlob};
use crate::store::Store;
use answer::{Answer, Verdict};
use backend::{Backend, Limits};
use in_turn::InTurn;
use names::Names;
use pointer::{Place, Pointer, Unbelievable, is_media_type};
use repositories::Repositories;
use verified::VerifiedStream;

/// The size of the longest document in bytes. Registries take no longer manifests
/// (distribution-spec, "Pushing Manifests").
const LONGEST_DOCUMENT: u64 = 4 << 20;
/// The longest time that a client waits for an answer, including all further attempts.
const ANSWER: Duration = Duration::from_secs(20);
/// The number of layers that are sent at once, for all images together: each takes 15 MiB
/// ([`upload`]) and, while it is made, a processor.
const UPLOADS: usize = 4;
/// The largest number of manifests of a repository that are searched for a blob. The newest ones
/// are searched.
const MANIFESTS: usize = 256;
/// The largest number of pointers whose time is remembered. Beyond it, all are forgotten.
const NEWEST: usize = 65_536;
/// The number of blobs that are asked for at once.
const QUESTIONS: usize = 16;

/// Images and their blobs in an object storage. Clones share one storage.
#[derive(Clone)]
pub struct ObjectStorage(Arc<Inner>);

struct Inner {
    address: String,
    store: Arc<dyn ObjectStore>,
    /// The client for blobs that are passed on.
    reader: Arc<dyn ObjectStore>,
    /// The limit [`Limits::silence`].
    silence: Duration,
    signer: Option<Arc<dyn Signer>>,
    names: Names,
    /// The keys for the signatures of pointers, if there are any.
    keys: StorageKeys,
    /// The time of the newest pointer that was seen, by name and key.
    newest: Mutex<BTreeMap<(String, String), OffsetDateTime>>,
    /// The blobs that repositories are known to have.
    repositories: Mutex<Repositories>,
    in_turn: InTurn<BlobDigest>,
    uploads: Semaphore,
    questions: Semaphore,
    /// The limit [`ANSWER`].
    patience: Duration,
    /// The blobs that a client asked for and that were missing or damaged. An image that names one
    /// counts as missing until it is stored again.
    lost: Mutex<BTreeSet<BlobDigest>>,
    /// The objects that were read completely and had their digest, with the time when they were
    /// stored, in nanoseconds since 1970.
    verified: Mutex<BTreeMap<BlobDigest, Option<i64>>>,
}

/// A manifest that is stored under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// The digest of the bytes.
    pub digest: BlobDigest,
    /// The media type of the bytes.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
    /// The time when it was last stored under this name.
    pub stored: OffsetDateTime,
}

/// A manifest or configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes, which have the digest.
    pub bytes: Bytes,
    /// The media type that the bytes name themselves. Manifests have one, configurations do not.
    pub media_type: Option<String>,
}

/// Counts of what was sent to store an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The digest of the image's manifest.
    pub manifest: BlobDigest,
    /// Layers that were sent.
    pub layers_sent: usize,
    /// Layers that the storage had.
    pub layers_skipped: usize,
    /// Bytes of blobs that were sent.
    pub bytes_sent: u64,
}

impl ObjectStorage {
    /// Opens `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or
    /// `file:///DIRECTORY`, with credentials and endpoint from the environment
    /// (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, `AWS_ALLOW_HTTP` …). Checks that it can be read and
    /// written. A full storage can't be written, and is accepted nevertheless.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the address or the settings can't be used, or the storage
    /// does not answer or refuses.
    pub async fn open(url: &str) -> Result<Self, StorageError> {
        Self::open_with(url, StorageKeys::default()).await
    }

    /// Opens a storage like [`ObjectStorage::open`], whose pointers are signed if there are keys.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses.
    pub async fn open_with(url: &str, keys: StorageKeys) -> Result<Self, StorageError> {
        // Variables that are not UTF-8 are no settings.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::begin(url, environment, keys).await
    }

    /// Opens a storage like [`ObjectStorage::open`], with other environment variables.
    ///
    /// # Errors
    /// Returns the errors of [`ObjectStorage::open`].
    pub async fn open_in(
        url: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StorageError> {
        Self::begin(url, environment, StorageKeys::default()).await
    }

    async fn begin(
        url: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        keys: StorageKeys,
    ) -> Result<Self, StorageError> {
        let backend = Backend::new(url, environment, Limits::default())?;
        let mut inner = Inner { keys, ..Inner::new(backend) };
        inner.probe().await?;
        Ok(Self(Arc::new(inner)))
    }

    /// Returns the image that was stored under a name and a key, such as a tag.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses. A pointer to a
    /// missing manifest counts as "no image": storing the image again repairs it.
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
        let signed = pointer.check(Place::Image(name, key), &self.0.keys);
        let signed = signed.and_then(|signed| self.0.is_newest(name, key, signed));
        let signed = match signed {
            Ok(signed) => signed,
            Err(reason) => {
                let storage = &self.0.address;
                tracing::warn!(storage, %object, %reason, "not believed: as if it were not there");
                return Ok(None);
            }
        };
        let Pointer { digest, media_type, .. } = pointer;
        let Some(Document { bytes, .. }) = self.document(&digest).await? else {
            tracing::warn!(storage = self.0.address, %object, %digest, "the image's manifest is gone");
            return Ok(None);
        };
        if self.has_lost_of(&bytes) {
            tracing::warn!(storage = self.0.address, %object, %digest, "a blob of the image is gone");
            return Ok(None);
        }
        self.0.repositories().add(name, &bytes);
        // A signed pointer has its own time, which only a server with the key can change.
        let stored = signed.unwrap_or_else(|| {
            OffsetDateTime::from_unix_timestamp(meta.last_modified.timestamp())
                .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        });
        Ok(Some(StoredManifest { digest, media_type, bytes, stored }))
    }

    /// Returns whether a client has asked for a blob of this manifest that was missing or damaged,
    /// and that has not been stored since.
    pub fn has_lost_of(&self, manifest: &[u8]) -> bool {
        let lost = self.0.lost();
        // Usually no blob is lost.
        !lost.is_empty() && blobs_of(manifest).any(|digest| lost.contains(&digest))
    }

    /// Notes that a blob is missing, if a manifest of `images` names it. Clients may ask for blobs
    /// that never existed, which are not noted. The image is stored again when it is next asked
    /// for.
    pub fn note_missing<'m>(
        &self,
        digest: &BlobDigest,
        mut images: impl Iterator<Item = &'m [u8]>,
    ) {
        if images.any(|manifest| blobs_of(manifest).any(|named| named == *digest)) {
            self.0.lost().insert(*digest);
        }
    }

    /// Returns a manifest or configuration by its digest. A blob that is larger than such documents
    /// is not one.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses.
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
        let media_type = typed.ok().map(|typed| typed.media_type);
        Ok(Some(Document { bytes, media_type: media_type.filter(|it| is_media_type(it)) }))
    }

    /// Returns whether a repository has a manifest.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses.
    pub async fn has_manifest(
        &self,
        name: &str,
        digest: &BlobDigest,
    ) -> Result<bool, StorageError> {
        if self.0.repositories().has_manifest(name, digest) {
            return Ok(true);
        }
        self.0.is_listed(name, digest).await
    }

    /// Returns whether a repository has a blob: one of its manifests, or a blob that one of them
    /// names.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses.
    pub async fn has(&self, name: &str, digest: &BlobDigest) -> Result<bool, StorageError> {
        let known = || self.0.repositories().has(name, digest);
        if known() {
            return Ok(true);
        }
        // Another server may have stored the blob.
        for manifest in self.0.manifests(name).await? {
            if self.0.repositories().has_manifest(name, &manifest)
                || !self.0.is_listed(name, &manifest).await?
            {
                continue;
            }
            if let Some(Document { bytes, .. }) = self.document(&manifest).await? {
                self.0.repositories().add(name, &bytes);
            }
            if known() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the total size of all objects, in bytes.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses.
    pub async fn size(&self) -> Result<u64, StorageError> {
        let prefix = self.0.names.all();
        let mut objects = self.0.store.list(Some(&prefix));
        let mut size = 0u64;
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| self.0.error("list", &prefix, &error))?;
            size = size.saturating_add(object.size);
        }
        Ok(size)
    }

    /// Finds the place from which a client gets a blob, or a part of it. Returns `None` if the blob
    /// does not exist.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses.
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

    /// Stores an image, or the parts of it that are missing, under a name and a key, and replaces
    /// what had these before. The layers are those of [`Form::AsStored`], the manifest is
    /// [`Image::new`]'s.
    ///
    /// Several servers may do this at once. If it fails, or the future is dropped, the stored blobs
    /// stay for the next time, and the name is unchanged.
    ///
    /// # Errors
    /// Fails with [`StorageError::Layer`] if a layer differs from what was built, and with other
    /// [`StorageError`]s if the storage does not answer or refuses.
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
        // An image may have a layer twice.
        let layers: BTreeMap<_, _> =
            layers.map(|(index, layer)| (layer.blob(Form::AsStored).digest, index)).collect();
        let mut sending = JoinSet::new();
        for index in layers.into_values() {
            let layer = upload::Layer { store: store.clone(), spec: Arc::clone(spec), index };
            let inner = Arc::clone(&self.0);
            sending.spawn(async move { inner.put_layer(layer).await });
        }
        // Dropping the set after an error ends the unfinished uploads.
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
        let digest = image.manifest.digest;
        // A client that finds the name asks for blobs next, perhaps at another server: so list the
        // manifest first.
        let listed = self.0.names.manifest(name, &digest);
        self.0.put_pointer(&listed, Place::Manifest(name), digest, media_type.clone()).await?;
        let object = self.0.names.image(name, key);
        self.0.put_pointer(&object, Place::Image(name, key), digest, media_type).await?;
        self.0.repositories().add(name, &image.manifest.bytes);
        Ok(stored)
    }

    /// Stores a document unless it is there, and returns the number of bytes that were sent.
    /// Documents are small: a damaged one is stored again.
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
            keys: StorageKeys::default(),
            newest: Mutex::default(),
            repositories: Mutex::default(),
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

    fn repositories(&self) -> MutexGuard<'_, Repositories> {
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a pointer that is older than another one that was seen of the same name and key.
    fn is_newest(
        &self,
        name: &str,
        key: &str,
        signed: Option<OffsetDateTime>,
    ) -> Result<Option<OffsetDateTime>, Unbelievable> {
        let Some(time) = signed else { return Ok(None) };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.len() >= NEWEST {
            newest.clear();
        }
        let seen = newest.entry((name.to_owned(), key.to_owned())).or_insert(time);
        if *seen > time {
            return Err(Unbelievable::Old);
        }
        *seen = time;
        Ok(signed)
    }

    async fn put_pointer(
        &self,
        object: &Path,
        place: Place<'_>,
        digest: BlobDigest,
        media_type: String,
    ) -> Result<(), StorageError> {
        let pointer = Pointer::new(place, digest, media_type, &self.keys);
        let pointer = serde_json::to_vec(&pointer).expect("a pointer is JSON");
        self.put(object, pointer.into()).await
    }

    /// Returns whether a valid pointer lists a manifest as one of a repository.
    async fn is_listed(&self, name: &str, digest: &BlobDigest) -> Result<bool, StorageError> {
        let object = self.names.manifest(name, digest);
        let Some((_, bytes)) = self.read(&object).await? else { return Ok(false) };
        let pointer = serde_json::from_slice::<Pointer>(&bytes);
        Ok(pointer.is_ok_and(|pointer| {
            pointer.digest == *digest && pointer.check(Place::Manifest(name), &self.keys).is_ok()
        }))
    }

    /// Returns the manifests that are listed for a repository, the newest first. Their pointers are
    /// not verified.
    async fn manifests(&self, name: &str) -> Result<Vec<BlobDigest>, StorageError> {
        let prefix = self.names.manifests(name);
        let listed = async {
            let mut objects = self.store.list(Some(&prefix));
            let mut found = Vec::new();
            while let Some(object) = objects.next().await {
                let object = object.map_err(|error| self.error("list", &prefix, &error))?;
                let digest = object
                    .location
                    .filename()
                    .and_then(|hex| format!("sha256:{hex}").parse::<BlobDigest>().ok());
                found.extend(digest.map(|digest| (object.last_modified, digest)));
            }
            Ok(found)
        };
        let mut found = self.in_time("list", &prefix, listed).await?;
        found.sort_by(|one, other| other.cmp(one));
        Ok(found.into_iter().take(MANIFESTS).map(|(_, digest)| digest).collect())
    }

    /// Compares a blob with its digest while it is passed on, unless that was done before. If the
    /// two differ, removes the object.
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

    /// Removes an object that does not have the digest in its name.
    async fn discard(&self, digest: &BlobDigest) {
        let object = self.names.blob(digest);
        tracing::error!(storage = self.address, %object, "not the blob that it should be: removed");
        self.lost().insert(*digest);
        if let Err(error) = self.store.delete(&object).await {
            // The blob is stored again nevertheless.
            tracing::warn!(storage = self.address, %object, %error, "cannot remove the object");
        }
    }

    /// Checks that objects can be written and read, and addresses signed.
    async fn probe(&mut self) -> Result<(), StorageError> {
        let probe = self.names.probe();
        match self.put(&probe, b"stowage\n".to_vec().into()).await {
            // The images that are there can still be read.
            Err(error @ StorageError::Full { .. }) => {
                tracing::warn!(%error, "images are not stored as long as that is so");
            }
            result => {
                result?;
                self.read(&probe).await?;
            }
        }
        // The answer must be that the object is missing, not that it is forbidden.
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

    /// Waits for `work`, and fails if that takes longer than a client may wait.
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

    /// Returns the properties of an object, or `None` if it does not exist.
    async fn head(&self, object: &Path) -> Result<Option<ObjectMeta>, StorageError> {
        match self.store.head(object).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.error("look for", object, &error)),
        }
    }

    /// Reads a small object.
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

    /// Writes a small object. It gets its name when it is complete: the storage compares the bytes
    /// with a digest that is sent along, or they come over TLS, or the storage is a directory, in
    /// which the file is renamed.
    async fn put(&self, object: &Path, bytes: PutPayload) -> Result<(), StorageError> {
        let put = self.store.put(object, bytes).await;
        put.map(drop).map_err(|error| self.error("write", object, &error))
    }

    /// Sends a layer unless it is there, and returns the number of bytes that were sent.
    async fn put_layer(&self, layer: upload::Layer) -> Result<Option<u64>, StorageError> {
        let LayerBlob { digest, size, .. } = layer.blob();
        let object = self.names.blob(&digest);
        // A second task finds the layer there. Images have most layers in common.
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
