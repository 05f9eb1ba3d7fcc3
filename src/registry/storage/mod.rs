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
mod image_key;
mod in_turn;
mod inner;
mod keys;
mod names;
mod pointer;
mod repositories;
mod source;
#[cfg(test)]
mod tests;
mod upload;
mod verified;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Bytes;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

pub use error::StorageError;
pub use image_key::ImageKey;
pub use keys::{StorageKeyError, StorageKeys};
pub use source::{BlobSource, BlobStream, SignedUrl};

use crate::digest::{BlobDigest, Digest};
use crate::oci::{Blob, ForeignDocument, Form, IMAGE_MANIFEST, Image, ImageSpec};
use crate::outgoing::{RepositoryName, SharedLayer};
use crate::proof::Attachment;
use crate::store::Store;
use backend::{Backend, BackendLimits};
use inner::Inner;
use pointer::{Pointer, PointerPlace, is_media_type};

/// Images and their blobs in an object storage. Clones share one storage.
#[derive(Clone)]
pub struct ObjectStorage(Arc<Inner>);

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
        let backend = Backend::new(url, environment, BackendLimits::default())?;
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
        name: &RepositoryName,
        key: &ImageKey,
    ) -> Result<Option<StoredManifest>, StorageError> {
        let object = self.0.names.image(name, key);
        let Some((meta, bytes)) = self.0.read(&object).await? else { return Ok(None) };
        let pointer: Pointer =
            serde_json::from_slice(&bytes).map_err(|error| StorageError::Damaged {
                storage: self.0.backend.address.clone(),
                object: object.to_string(),
                expected: "a pointer to an image".to_owned(),
                found: error.to_string(),
            })?;
        let signed = pointer.check(PointerPlace::Image(name, key), &self.0.keys);
        let signed = signed.and_then(|signed| self.0.is_newest(name, key, signed));
        let signed = match signed {
            Ok(signed) => signed,
            Err(reason) => {
                let storage = &self.0.backend.address;
                tracing::warn!(storage, %object, %reason, "not believed: as if it were not there");
                return Ok(None);
            }
        };
        let Pointer { digest, media_type, .. } = pointer;
        let Some(Document { bytes, .. }) = self.document(&digest).await? else {
            tracing::warn!(storage = self.0.backend.address, %object, %digest, "the image's manifest is gone");
            return Ok(None);
        };
        if self.has_lost_of(&bytes) {
            tracing::warn!(storage = self.0.backend.address, %object, %digest, "a blob of the image is gone");
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
            let (storage, object) = (&self.0.backend.address, object.as_ref());
            return Err(StorageError::damaged(storage, object, digest.digest(), &found));
        }
        let document = ForeignDocument::parse(&bytes).unwrap_or_default();
        let media_type = document.media_type().filter(|it| is_media_type(it)).map(str::to_owned);
        Ok(Some(Document { bytes, media_type }))
    }

    /// Returns whether a repository has a manifest.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses.
    pub async fn has_manifest(
        &self,
        name: &RepositoryName,
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
    pub async fn has(
        &self,
        name: &RepositoryName,
        digest: &BlobDigest,
    ) -> Result<bool, StorageError> {
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
        let mut objects = self.0.backend.store.list(Some(&prefix));
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
        // Of an empty answer no body is read, and so none is compared.
        if size == 0 && *digest.digest() != Digest::of(b"") {
            inner.discard(digest).await;
            return Ok(None);
        }
        let source = match &inner.backend.signer {
            Some(signer) => {
                let signed = async {
                    let signed = source::sign(signer.as_ref(), &object).await;
                    signed.map_err(|error| inner.error("sign the address of", &object, &error))
                };
                BlobSource::Url { url: inner.in_time("sign", &object, signed).await?, size }
            }
            None => {
                let begun = inner.stream(&object, range, size);
                let (body, range) = inner.in_time("read", &object, begun).await?;
                let is_whole = range == (0..size);
                let body = if is_whole { inner.verify(body, *digest, &meta) } else { body };
                BlobSource::Stream { body, size, range }
            }
        };
        Ok(Some(source))
    }

    /// Reads a part of a blob of `size` bytes, which exists.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses.
    pub async fn part(
        &self,
        digest: &BlobDigest,
        range: Range<u64>,
        size: u64,
    ) -> Result<BlobStream, StorageError> {
        let inner = &self.0;
        let object = inner.names.blob(digest);
        let begun = inner.stream(&object, Some(range), size);
        let (body, _) = inner.in_time("read", &object, begun).await?;
        Ok(body)
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
        name: &RepositoryName,
        key: &ImageKey,
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
            let layer = SharedLayer { spec: Arc::clone(spec), index, form: Form::AsStored };
            let layer = upload::StorageLayer { store: store.clone(), layer };
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
        self.put_name(name, key, &image.manifest, &media_type).await?;
        Ok(stored)
    }

    /// Stores the list of an image's packages under a name and a key. Returns the number of bytes that were sent.
    ///
    /// # Errors
    /// Fails with [`StorageError`] if the storage does not answer or refuses.
    pub async fn put_list(
        &self,
        name: &RepositoryName,
        key: &ImageKey,
        list: &Attachment,
    ) -> Result<u64, StorageError> {
        let mut sent = 0;
        for blob in list.blobs.iter().chain([&list.manifest]) {
            sent += self.put_document(blob).await?;
        }
        self.put_name(name, key, &list.manifest, IMAGE_MANIFEST).await?;
        Ok(sent)
    }

    /// Gives a manifest, whose blobs are there, a name and a key.
    async fn put_name(
        &self,
        name: &RepositoryName,
        key: &ImageKey,
        manifest: &Blob,
        media_type: &str,
    ) -> Result<(), StorageError> {
        let (inner, digest) = (&self.0, manifest.digest);
        // A client that finds the name asks for blobs next, perhaps at another server: so list the
        // manifest first.
        for (object, place) in [
            (inner.names.manifest(name, &digest), PointerPlace::Manifest(name)),
            (inner.names.image(name, key), PointerPlace::Image(name, key)),
        ] {
            inner.put_pointer(&object, place, digest, media_type.to_owned()).await?;
        }
        inner.repositories().add(name, &manifest.bytes);
        Ok(())
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

/// Returns the digests of the configuration and the layers that a manifest names.
fn blobs_of(manifest: &[u8]) -> impl Iterator<Item = BlobDigest> {
    let manifest = ForeignDocument::parse(manifest).unwrap_or_default();
    let named = manifest.config().into_iter().chain(manifest.layers().into_iter().flatten());
    named.filter_map(|blob| blob.digest().ok()).collect::<Vec<_>>().into_iter()
}
