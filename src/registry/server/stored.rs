//! Answers requests from an object storage: redirects to blobs, and sends manifests that another
//! server has stored.
//! Stage: registry. Input: a request. Output: a response.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;

use super::answer;
use super::range::Part;
use super::route::{Route, route};
use super::shared::Shared;
use crate::digest::BlobDigest;
use crate::error::with_causes;
use crate::oci::Blob;
use crate::registry::catalog::Manifest;
use crate::registry::storage::{BlobSource, Document, ObjectStorage, StorageError};

/// Answers a request from the storage. Returns `None` if the request is to be answered from the
/// catalogs.
pub async fn answer(shared: &Shared, request: &Parts) -> Option<(&'static str, Response)> {
    let on_demand = shared.on_demand.as_ref()?;
    let storage = on_demand.storage()?;
    let found = route(request.uri.path()).ok()?;
    let ours = |name| shared.catalog.load().repository(name).is_some();
    if !answer::reads(&request.method) {
        return None;
    }
    let (kind, answered) = match found {
        Route::Blob(name, digest) if !ours(name) => {
            let answered = blob(storage, name, &digest, request).await;
            if matches!(&answered, Ok(answer) if answer.status() == StatusCode::NOT_FOUND) {
                on_demand.note_missing(name, &digest);
            }
            ("blob", answered)
        }
        Route::Manifest(name, reference) if !ours(name) => {
            let digest = reference.parse().ok()?;
            let catalog = shared.catalog_with(name);
            let known = catalog.repository(name).and_then(|found| found.manifest(&reference));
            if known.is_some() {
                return None;
            }
            ("manifest", manifest(storage, name, &digest, request).await)
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
    name: &str,
    digest: &BlobDigest,
    request: &Parts,
) -> Result<Response, StorageError> {
    if !storage.has_manifest(name, digest).await? {
        return Ok(answer::no_manifest(&digest.to_string()));
    }
    Ok(match storage.document(digest).await? {
        Some(Document { bytes, media_type: Some(media_type) }) => {
            let blob = Arc::new(Blob { digest: *digest, bytes: bytes.into() });
            answer::manifest_body(&Manifest { blob, media_type }, &request.headers)
        }
        _ => answer::no_manifest(&digest.to_string()),
    })
}

/// Redirects the client to the storage, or passes on the blob's bytes.
async fn blob(
    storage: &ObjectStorage,
    name: &str,
    digest: &BlobDigest,
    request: &Parts,
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
    let (part, size) = (answer::wanted_part(&request.headers, source.size()), source.size());
    let (url, stream) = match source {
        BlobSource::Url { url, .. } => (Some(url), None),
        BlobSource::Stream { body, .. } => (None, Some(body)),
    };
    // An address is signed for GET only, and the answer to HEAD is known here.
    if let Some(url) = url.filter(|_| request.method == Method::GET) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        answer::set(&mut response, header::LOCATION, url.as_str());
        answer::set(&mut response, header::CONTENT_LENGTH, "0");
        return Ok(answer::with_digest(response, digest));
    }
    let range = match part {
        Part::Whole => None,
        Part::Bytes(range) => Some(range),
        Part::Unsatisfiable => return Ok(answer::unsatisfiable(size)),
    };
    let body = match (stream, &range) {
        (None, _) => Body::empty(),
        (Some(stream), None) => Body::from_stream(stream),
        (Some(_), Some(range)) => match storage.blob(digest, Some(range.clone())).await? {
            Some(BlobSource::Stream { body, .. }) => Body::from_stream(body),
            _ => return Ok(answer::no_blob(digest)),
        },
    };
    Ok(answer::blob_body(body, range, size, digest))
}
