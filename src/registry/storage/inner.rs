//! Reads and writes the objects of a storage, within limits of time and number.
//! Stage: registry. Input: names of objects. Output: bytes, or [`StorageError`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;

use super::answer::{StorageAnswer, Verdict};
use super::backend::Backend;
use super::error::StorageError;
use super::image_key::ImageKey;
use super::in_turn::InTurn;
use super::keys::StorageKeys;
use super::names::Names;
use super::pointer::{Pointer, PointerPlace, Unbelievable};
use super::repositories::Repositories;
use super::source::{self, BlobStream};
use super::upload;
use super::verified::VerifiedStream;
use crate::digest::BlobDigest;
use crate::oci::LayerBlob;
use crate::outgoing::{self, RepositoryName};

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

/// The state of an [`ObjectStorage`](super::ObjectStorage).
pub struct Inner {
    pub backend: Backend,
    pub names: Names,
    /// The keys for the signatures of pointers, if there are any.
    pub keys: StorageKeys,
    /// The time of the newest pointer that was seen, by name and key.
    pub newest: Mutex<BTreeMap<(RepositoryName, ImageKey), OffsetDateTime>>,
    /// The blobs that repositories are known to have.
    pub repositories: Mutex<Repositories>,
    pub in_turn: InTurn<BlobDigest>,
    pub uploads: Semaphore,
    pub questions: Semaphore,
    /// The limit [`ANSWER`].
    pub patience: Duration,
    /// The blobs that a client asked for and that were missing or damaged. An image that names one
    /// counts as missing until it is stored again.
    pub lost: Mutex<BTreeSet<BlobDigest>>,
    /// The objects that were read completely and had their digest, with the time when they were
    /// stored, in nanoseconds since 1970.
    pub verified: Mutex<BTreeMap<BlobDigest, Option<i64>>>,
}

impl Inner {
    pub fn new(backend: Backend) -> Self {
        Self {
            names: Names::new(backend.prefix.clone()),
            backend,
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

    pub fn lost(&self) -> MutexGuard<'_, BTreeSet<BlobDigest>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn verified(&self) -> MutexGuard<'_, BTreeMap<BlobDigest, Option<i64>>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn repositories(&self) -> MutexGuard<'_, Repositories> {
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether no newer pointer with the same name and key has been seen.
    pub fn is_newest(
        &self,
        name: &RepositoryName,
        key: &ImageKey,
        signed: Option<OffsetDateTime>,
    ) -> Result<Option<OffsetDateTime>, Unbelievable> {
        let Some(time) = signed else { return Ok(None) };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.len() >= NEWEST {
            newest.clear();
        }
        let seen = newest.entry((name.clone(), key.clone())).or_insert(time);
        if *seen > time {
            return Err(Unbelievable::Old);
        }
        *seen = time;
        Ok(signed)
    }

    pub async fn put_pointer(
        &self,
        object: &Path,
        place: PointerPlace<'_>,
        digest: BlobDigest,
        media_type: String,
    ) -> Result<(), StorageError> {
        let pointer = Pointer::new(place, digest, media_type, &self.keys);
        let pointer = serde_json::to_vec(&pointer).expect("a pointer is JSON");
        self.put(object, pointer.into()).await
    }

    /// Returns whether a valid pointer lists a manifest as one of a repository.
    pub async fn is_listed(
        &self,
        name: &RepositoryName,
        digest: &BlobDigest,
    ) -> Result<bool, StorageError> {
        let object = self.names.manifest(name, digest);
        let Some((_, bytes)) = self.read(&object).await? else { return Ok(false) };
        let pointer = serde_json::from_slice::<Pointer>(&bytes);
        Ok(pointer.is_ok_and(|pointer| {
            pointer.digest == *digest
                && pointer.check(PointerPlace::Manifest(name), &self.keys).is_ok()
        }))
    }

    /// Returns the manifests that are listed for a repository, the newest first. Their pointers are
    /// not verified.
    pub async fn manifests(&self, name: &RepositoryName) -> Result<Vec<BlobDigest>, StorageError> {
        let prefix = self.names.manifests(name);
        let listed = async {
            let mut objects = self.backend.store.list(Some(&prefix));
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
    pub fn verify(
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
    pub async fn discard(&self, digest: &BlobDigest) {
        let object = self.names.blob(digest);
        tracing::error!(storage = self.backend.address, %object, "not the blob that it should be: removed");
        self.lost().insert(*digest);
        if let Err(error) = self.backend.store.delete(&object).await {
            // The blob is stored again nevertheless.
            tracing::warn!(storage = self.backend.address, %object, %error, "cannot remove the object");
        }
    }

    /// Checks that objects can be written and read, and addresses signed.
    pub async fn probe(&mut self) -> Result<(), StorageError> {
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
        if let Some(signer) = &self.backend.signer {
            let signed =
                tokio::time::timeout(self.patience, source::sign(signer.as_ref(), &probe)).await;
            if !matches!(signed, Ok(Ok(_))) {
                tracing::warn!(
                    storage = self.backend.address,
                    "no addresses can be signed with these credentials: blobs are passed on"
                );
                self.backend.signer = None;
            }
        }
        Ok(())
    }

    pub fn error(&self, what: &str, object: &Path, error: &object_store::Error) -> StorageError {
        StorageError::new(&self.backend.address, format!("{what} {object}"), error)
    }

    /// Waits for `work`, and fails if that takes longer than a client may wait.
    pub async fn in_time<T>(
        &self,
        what: &str,
        object: &Path,
        work: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        match tokio::time::timeout(self.patience, work).await {
            Ok(result) => result,
            Err(_) => Err(StorageError::Unreachable {
                storage: self.backend.address.clone(),
                what: format!("{what} {object}"),
                reason: format!("nothing came within {:?}", self.patience),
            }),
        }
    }

    /// Checks, in a directory, that an object is a regular file, or that there is nothing. Opening a
    /// FIFO would never end.
    async fn check_place(&self, object: &Path) -> Result<(), StorageError> {
        let Some(directory) = &self.backend.directory else { return Ok(()) };
        let path = directory.join(object.as_ref());
        let checked = tokio::task::spawn_blocking(move || outgoing::check_place(&path)).await;
        match checked.map_err(upload::lost)? {
            Err(outgoing::Error::Occupied { kind, .. }) => {
                let (storage, object) = (&self.backend.address, object.as_ref());
                Err(StorageError::damaged(storage, object, &"a file", &kind))
            }
            _ => Ok(()),
        }
    }

    /// Returns the properties of an object, or `None` if it does not exist.
    pub async fn head(&self, object: &Path) -> Result<Option<ObjectMeta>, StorageError> {
        self.check_place(object).await?;
        match self.backend.store.head(object).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.error("look for", object, &error)),
        }
    }

    /// Begins to read an object of `size` bytes, or a range of it. Returns the bytes and the actual
    /// range.
    pub async fn stream(
        &self,
        object: &Path,
        range: Option<Range<u64>>,
        size: u64,
    ) -> Result<(BlobStream, Range<u64>), StorageError> {
        let begun =
            source::read(self.backend.reader.as_ref(), object, range, size, self.backend.silence)
                .await;
        begun.map_err(|error| self.error("read", object, &error))
    }

    /// Reads a small object.
    pub async fn read(&self, object: &Path) -> Result<Option<(ObjectMeta, Bytes)>, StorageError> {
        self.in_time("look for", object, self.check_place(object)).await?;
        let read = async {
            let found = self.backend.store.get(object).await?;
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
    pub async fn put(&self, object: &Path, bytes: PutPayload) -> Result<(), StorageError> {
        let put = self.backend.store.put(object, bytes).await;
        put.map(drop).map_err(|error| self.error("write", object, &error))
    }

    /// Sends a layer unless it is there, and returns the number of bytes that were sent.
    pub async fn put_layer(
        &self,
        layer: upload::StorageLayer,
    ) -> Result<Option<u64>, StorageError> {
        let LayerBlob { digest, size, .. } = layer.layer.blob();
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
                storage = self.backend.address, %object, expected = size, found = meta.size,
                "not the blob that it should be: stored anew"
            ),
            None => {}
        }
        let _place = self.uploads.acquire().await;
        match upload::send(self.backend.store.as_ref(), &object, layer).await {
            Ok(()) => {
                self.lost().remove(&digest);
                Ok(Some(size))
            }
            Err(upload::Failed::Made(error)) => Err(error.into()),
            Err(upload::Failed::Sent(error)) => Err(self.error("write", &object, &error)),
        }
    }
}

fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
        && StorageAnswer::of(error).verdict == Verdict::Missing
}
