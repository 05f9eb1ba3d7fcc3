//! Answers requests from an object storage: redirects to blobs, and sends manifests that another
//! server has stored.
//! Stage: registry. Input: a request. Output: a response.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::request::Parts as Head;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use tokio::sync::mpsc::channel;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::answer;
use super::parts::{Parts, Picker};
use super::range::WantedPart;
use super::route::{NoRoute, Route};
use super::shared::Shared;
use crate::digest::BlobDigest;
use crate::error::with_causes;
use crate::oci::Blob;
use crate::outgoing::{RepositoryName, TagOrDigest};
use crate::registry::catalog::Manifest;
use crate::registry::storage::{BlobSource, Document, ObjectStorage, StorageError};

/// The largest number of bytes between two ranges that are read from the storage together: reading so
/// many is faster than another request.
const GAP: u64 = 1 << 20;
/// The number of pieces of an answer that are ready before the client takes them.
const READY: usize = 2;

/// Answers a request from the storage. Returns `None` if the request is to be answered from the
/// catalogs.
pub async fn answer(
    shared: &Shared,
    request: &Head,
    found: &Result<Route, NoRoute>,
) -> Option<(&'static str, Response)> {
    let on_demand = shared.on_demand.as_ref()?;
    let storage = on_demand.storage()?;
    let found = found.as_ref().ok()?;
    let ours = |name: &RepositoryName| shared.catalog.load().repository(name).is_some();
    if !answer::reads(&request.method) {
        return None;
    }
    let (kind, answered) = match found {
        Route::Blob(name, digest) if !ours(name) => {
            let answered = blob(storage, name, digest, request).await;
            if matches!(&answered, Ok(answer) if answer.status() == StatusCode::NOT_FOUND) {
                on_demand.note_missing(name, digest);
            }
            ("blob", answered)
        }
        Route::Manifest(name, reference) if !ours(name) => {
            let TagOrDigest::Digest(digest) = reference else { return None };
            let catalog = shared.catalog_with(name);
            let known = catalog.repository(name).and_then(|found| found.manifest(reference));
            if known.is_some() {
                return None;
            }
            ("manifest", manifest(storage, name, digest, request).await)
        }
        _ => return None,
    };
    let mut response = answered.unwrap_or_else(|error| unanswered(&error));
    if request.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    Some((kind, answer::of_registry(response)))
}

/// Returns the answer for a storage that failed. The details go to the log, not to the client.
fn unanswered(error: &StorageError) -> Response {
    tracing::error!(error = with_causes(error), "cannot read from the storage");
    answer::error(StatusCode::BAD_GATEWAY, "UNKNOWN", "the storage of images can't be read")
}

async fn manifest(
    storage: &ObjectStorage,
    name: &RepositoryName,
    digest: &BlobDigest,
    request: &Head,
) -> Result<Response, StorageError> {
    if !storage.has_manifest(name, digest).await? {
        return Ok(answer::no_manifest(&(*digest).into()));
    }
    Ok(match storage.document(digest).await? {
        Some(Document { bytes, media_type: Some(media_type) }) => {
            let blob = Arc::new(Blob { digest: *digest, bytes: bytes.into() });
            answer::manifest_body(&Manifest { blob, media_type }, &request.headers)
        }
        _ => answer::no_manifest(&(*digest).into()),
    })
}

/// Redirects the client to the storage, or passes on the blob's bytes.
async fn blob(
    storage: &ObjectStorage,
    name: &RepositoryName,
    digest: &BlobDigest,
    request: &Head,
) -> Result<Response, StorageError> {
    // A client that may pull from one repository must not get blobs of other repositories through
    // it.
    if !storage.has(name, digest).await? {
        return Ok(answer::no_blob(digest));
    }
    if answer::is_known(&request.headers, digest) {
        return Ok(answer::not_modified(digest));
    }
    // Ask for the whole blob first: only the storage knows the blob's size.
    let Some(source) = storage.blob(digest, None).await? else {
        return Ok(answer::no_blob(digest));
    };
    let size = source.size();
    let part = answer::wanted_part(&request.headers, digest, size);
    let (url, stream) = match source {
        BlobSource::Url { url, .. } => (Some(url), None),
        BlobSource::Stream { body, .. } => (None, Some(body)),
    };
    let is_get = request.method == Method::GET;
    // An address is signed for GET only, and the answer to HEAD is known here.
    let range = match (part, url.filter(|_| is_get)) {
        // Storages answer several ranges with the whole object, so the client is not redirected.
        (WantedPart::Several(ranges), _) => {
            let parts = Parts::several(ranges, size, digest);
            let body =
                if is_get { several(storage, digest, size, parts.clone()) } else { Body::empty() };
            return Ok(answer::blob_body(body, Some(&parts), size, digest));
        }
        (_, Some(url)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            answer::set(&mut response, header::LOCATION, url.as_str());
            answer::set(&mut response, header::CONTENT_LENGTH, "0");
            return Ok(answer::with_digest(response, digest));
        }
        (WantedPart::Whole, None) => None,
        (WantedPart::Bytes(range), None) => Some(range),
        (WantedPart::Unsatisfiable, None) => return Ok(answer::unsatisfiable(size)),
    };
    let body = match (stream, &range) {
        (None, _) => Body::empty(),
        (Some(stream), None) => Body::from_stream(stream),
        (Some(_), Some(range)) => match storage.blob(digest, Some(range.clone())).await? {
            Some(BlobSource::Stream { body, .. }) => Body::from_stream(body),
            _ => return Ok(answer::no_blob(digest)),
        },
    };
    Ok(answer::blob_body(body, range.map(Parts::one).as_ref(), size, digest))
}

/// Returns several parts of a blob, which this server reads from the storage one after another.
fn several(storage: &ObjectStorage, digest: &BlobDigest, size: u64, parts: Parts) -> Body {
    let (storage, digest) = (storage.clone(), *digest);
    let (sender, receiver) = channel(READY);
    tokio::spawn(async move {
        let ranges = parts.joined(GAP);
        let mut picker = Picker::new(parts);
        for range in ranges {
            picker.go_to(range.start);
            let mut left = range.end - range.start;
            let mut stream = match storage.part(&digest, range, size).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::error!(error = with_causes(&error), "cannot read from the storage");
                    return drop(sender.send(Err(io::Error::other("it can't be read"))).await);
                }
            };
            while let Some(bytes) = stream.next().await {
                let bytes = bytes.and_then(|bytes| {
                    left =
                        left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                    Ok(Bytes::from(picker.picked(&bytes)))
                });
                let (is_broken, is_gap) =
                    (bytes.is_err(), matches!(&bytes, Ok(it) if it.is_empty()));
                if is_gap {
                    continue;
                }
                if sender.send(bytes).await.is_err() || is_broken {
                    return; // the client went away, or the storage did
                }
            }
            if left > 0 {
                let short = io::ErrorKind::UnexpectedEof.into();
                return drop(sender.send(Err(short)).await);
            }
        }
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::digest::Digest;

    /// Checks that ranges near to each other and far from each other come in one answer, and that a
    /// blob that is shorter than it was breaks the answer off.
    #[tokio::test]
    async fn several_parts_are_read_from_the_storage() {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("file://{}", directory.path().display());
        let storage = ObjectStorage::open(&address).await.unwrap();
        let blob: Vec<u8> = (0..4_u32 << 20).map(|place| (place >> 7) as u8).collect();
        let (digest, size) = (BlobDigest::new(Digest::of(&blob)), blob.len() as u64);
        let file = directory.path().join(format!("blobs/sha256/{}", digest.digest().hex()));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &blob).unwrap();
        let parts = Parts::several(vec![1..9, 800..90_000, 3 << 20..size], size, &digest);
        let answer =
            || async { to_bytes(several(&storage, &digest, size, parts.clone()), 5 << 20).await };
        assert!(answer().await.unwrap() == Picker::new(parts.clone()).picked(&blob));
        std::fs::write(&file, &blob[..4000]).unwrap();
        assert!(answer().await.is_err());
    }
}
