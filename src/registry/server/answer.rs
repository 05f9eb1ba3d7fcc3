//! Answers requests (distribution-spec, "Pull" and "Content discovery").
//! Stage: registry. Input: a request. Output: a response.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::kept_layer::ServedLayer;
use super::layer_body;
use super::page::{Page, page};
use super::parts::{Parts, Picker};
use super::permissions::Asker;
use super::range::{WantedPart, part};
use super::referrers::{Referrers, list_referrers};
use super::route::{NoRoute, Route};
use super::shared::Shared;
use super::start_page::{Offers, start_page};
use crate::digest::BlobDigest;
use crate::oci::IMAGE_INDEX;
use crate::outgoing::{RepositoryName, Tag, TagOrDigest};
use crate::registry::catalog::{Content, Manifest, Repository};
use crate::registry::headers::CONTENT_DIGEST;
use crate::registry::on_demand::OnDemandError;
use crate::registry::storage::StorageError;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OCTETS: &str = "application/octet-stream";
const FILTERS: &str = "oci-filters-applied";

/// The path by which monitoring asks whether the server is alive.
pub const HEALTH: &str = "/healthz";
/// The path of figures for monitoring.
pub const METRICS: &str = "/metrics";
/// The value of `Retry-After`, in seconds, if too many images are being built.
const RETRY_AFTER: &str = "10";

/// Answers a request, of which `found` is the route. Also returns the kind of the request, for the
/// metrics.
pub fn answer(
    shared: &Arc<Shared>,
    asker: &Asker,
    request: &Request,
    found: &Result<Route, NoRoute>,
) -> (&'static str, Response) {
    let (kind, mut response) = match (request.uri().path(), found) {
        (_, found) if !reads(request.method()) => {
            (found.as_ref().map_or("none", kind), read_only())
        }
        (HEALTH, _) => ("healthz", bytes(StatusCode::OK, TEXT, b"ok\n".to_vec())),
        (METRICS, _) => {
            if let Some(cache) = &shared.cache {
                shared.metrics.cache_bytes.set(cache.size().cast_signed());
            }
            ("metrics", bytes(StatusCode::OK, PROMETHEUS, shared.metrics.to_text().into_bytes()))
        }
        ("/", _) => ("start", start(shared, asker, request.headers())),
        (_, Ok(found)) => (kind(found), found_route(shared, asker, request, found)),
        (_, Err(problem)) => ("none", no_route(*problem)),
    };
    if request.method() == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    (kind, of_registry(response))
}

/// Returns whether a method only reads.
pub fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Returns the answer for an image that can't be built.
pub fn not_built(failed: &OnDemandError, method: &Method) -> Response {
    use OnDemandError as E;
    let (status, code) = match failed {
        E::NoPackages(_)
        | E::Unavailable(_)
        | E::NoTag(_)
        | E::NotServed { .. }
        | E::NoRevision(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        E::TooManyPackages { .. } => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
        E::Busy(_) | E::Abandoned => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
        E::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "UNKNOWN"),
        E::TooLarge { .. }
        | E::TooMuchToFetch { .. }
        | E::TooMuchMemory(_)
        | E::NotSigned(_)
        | E::NotBuiltHere(_) => (StatusCode::FORBIDDEN, "DENIED"),
        E::Storage(StorageError::Full { .. }) => (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN"),
        E::Storage(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN"),
        E::Failed(_) | E::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
    };
    let detail = match failed {
        E::NoPackages(names) => json!({ "packages": names }),
        _ => Value::Null,
    };
    let mut response = error_with(status, code, &failed.to_string(), &detail);
    if let E::Busy(_) = failed {
        set(&mut response, header::RETRY_AFTER, RETRY_AFTER);
    }
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    of_registry(response)
}

fn start(shared: &Shared, asker: &Asker, headers: &HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".:-[]".contains(c);
    let host = host.filter(|host| host.chars().all(is_plain)).unwrap_or("HOST");
    let catalog = shared.catalog.load();
    let permissions = shared.permissions.load();
    let may = |name: &&RepositoryName| permissions.as_ref().is_none_or(|it| it.allow(asker, name));
    let names = catalog.names().filter(may);
    let repositories = names.filter_map(|name| Some((name, catalog.repository(name)?)));
    let has = Offers { packages: shared.on_demand.is_some(), maps: shared.explain.is_some() };
    html(start_page(host, has, repositories))
}

/// Returns a page, which may only run its own scripts and fetch nothing.
pub fn html(page: String) -> Response {
    let mut response = bytes(StatusCode::OK, HTML, page.into_bytes());
    set(&mut response, header::CONTENT_SECURITY_POLICY, POLICY);
    response
}

/// Returns the answer for a client without valid credentials.
pub fn unauthorized() -> Response {
    let message = "a user's name and password are needed";
    let mut response = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message);
    set(&mut response, header::WWW_AUTHENTICATE, "Basic realm=\"stowage\", charset=\"UTF-8\"");
    of_registry(response)
}

/// Returns the answer for a client that must wait before its next password is checked.
pub fn too_many_passwords() -> Response {
    let message = "too many passwords were wrong, or are being tried: try again later";
    later(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
}

/// Returns the answer for a request that waited too long for its turn, or was displaced.
pub fn crowded() -> Response {
    let message = "too many requests are being answered: try again later";
    later(StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS", message)
}

fn later(status: StatusCode, code: &str, message: &str) -> Response {
    let mut response = error(status, code, message);
    set(&mut response, header::RETRY_AFTER, RETRY_AFTER);
    of_registry(response)
}

/// Returns the answer for a user that may not pull from a repository. It does not tell whether the
/// repository exists.
pub fn denied(name: &RepositoryName) -> Response {
    of_registry(error(
        StatusCode::FORBIDDEN,
        "DENIED",
        &format!("`{name}` is for others, as this registry is set up"),
    ))
}

/// Returns the answer for a request that is not valid HTTP.
pub fn bad_request(problem: &str) -> Response {
    of_registry(error(StatusCode::BAD_REQUEST, "UNSUPPORTED", problem))
}

/// Returns the answer for a body with a transfer coding that is not supported. The end of the body is not
/// known for sure, so that nothing else is read from the connection.
pub fn unknown_coding() -> Response {
    let message = "the body has a transfer coding other than `chunked`";
    let mut response = error(StatusCode::NOT_IMPLEMENTED, "UNSUPPORTED", message);
    set(&mut response, header::CONNECTION, "close");
    of_registry(response)
}

/// Returns the answer for a path that does not exist at the address for monitoring.
pub fn nothing_here() -> Response {
    let message = "there are `/healthz` and `/metrics` here, and nothing else";
    error(StatusCode::NOT_FOUND, "UNSUPPORTED", message)
}

/// Returns the answer for a request during which the server panicked.
pub fn panicked() -> Response {
    let message = "something went wrong here, which the log has";
    of_registry(error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message))
}

/// Adds the header that old versions of docker ask for.
pub fn of_registry(mut response: Response) -> Response {
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

fn kind(found: &Route) -> &'static str {
    match found {
        Route::Base => "base",
        Route::Catalog => "catalog",
        Route::Tags(_) => "tags",
        Route::Manifest(..) => "manifest",
        Route::Blob(..) => "blob",
        Route::Referrers(..) => "referrers",
        Route::Upload(_) => "upload",
        Route::Map(..) => "map",
    }
}

fn found_route(shared: &Arc<Shared>, asker: &Asker, request: &Request, found: &Route) -> Response {
    match found {
        Route::Base => json_body(&json!({})),
        Route::Catalog => {
            let catalog = shared.catalog.load();
            let permissions = shared.permissions.load();
            let may = |name: &&RepositoryName| {
                permissions.as_ref().is_none_or(|it| it.allow(asker, name))
            };
            let names = catalog.names().filter(may).map(RepositoryName::as_str);
            list(request, names, "/v2/_catalog", |names| json!({ "repositories": names }))
        }
        Route::Tags(name) => in_repository(shared, name, |repository| {
            let path = format!("/v2/{name}/tags/list");
            let tags = repository.tags().map(Tag::as_str);
            list(request, tags, &path, |tags| json!({ "name": name.as_str(), "tags": tags }))
        }),
        Route::Manifest(name, reference) => in_repository(shared, name, |repository| {
            manifest(repository, reference, request.headers())
        }),
        Route::Blob(name, digest) => {
            in_repository(shared, name, |repository| blob(shared, repository, digest, request))
        }
        Route::Referrers(name, digest) => in_repository(shared, name, |repository| {
            referrers(repository, name, digest, request.uri().query().unwrap_or_default())
        }),
        Route::Upload(_) => read_only(),
        // `map.rs` answers these, if there are maps.
        Route::Map(..) => no_route(NoRoute::NotFound),
    }
}

fn in_repository(
    shared: &Shared,
    name: &RepositoryName,
    answer: impl FnOnce(&Repository) -> Response,
) -> Response {
    shared.catalog_with(name).repository(name).map_or_else(
        || {
            let message = format!("there is no repository `{name}`");
            error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", &message)
        },
        answer,
    )
}

fn read_only() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry is read-only")
}

fn no_route(problem: NoRoute) -> Response {
    match problem {
        NoRoute::NotFound => {
            error(StatusCode::NOT_FOUND, "UNSUPPORTED", "registries have no such path")
        }
        NoRoute::Name => {
            error(StatusCode::BAD_REQUEST, "NAME_INVALID", "no repository can have that name")
        }
        NoRoute::Digest => error(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "a digest is `sha256:` and 64 hex digits",
        ),
        NoRoute::Reference => {
            error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "neither a tag nor a digest")
        }
    }
}

/// Returns a list of the documents that refer to a manifest, or a page of it.
fn referrers(
    repository: &Repository,
    name: &RepositoryName,
    digest: &BlobDigest,
    query: &str,
) -> Response {
    let Referrers { index, is_filtered, next } =
        list_referrers(query, repository.referrers(digest));
    let mut response = bytes(StatusCode::OK, IMAGE_INDEX, index.to_string().into_bytes());
    if is_filtered {
        set(&mut response, header::HeaderName::from_static(FILTERS), "artifactType");
    }
    if let Some(query) = next {
        let next = format!("</v2/{name}/referrers/{digest}?{query}>; rel=\"next\"");
        set(&mut response, header::LINK, &next);
    }
    response
}

fn manifest(repository: &Repository, reference: &TagOrDigest, headers: &HeaderMap) -> Response {
    let found = repository.manifest(reference);
    found.map_or_else(|| no_manifest(reference), |found| manifest_body(found, headers))
}

/// Returns the answer for a manifest that does not exist.
pub fn no_manifest(reference: &TagOrDigest) -> Response {
    let message = format!("there is no manifest `{reference}`");
    error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", &message)
}

/// Returns the answer if the contents of an image can't be shown.
pub fn no_map() -> Response {
    let message =
        "the image's file is gone or has changed, or it has no image for that architecture";
    error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message)
}

/// Returns the answer for a blob that does not exist.
pub fn no_blob(digest: &BlobDigest) -> Response {
    error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", &format!("there is no blob `{digest}`"))
}

/// Returns a manifest, unless the client has it.
pub fn manifest_body(found: &Manifest, headers: &HeaderMap) -> Response {
    let Manifest { blob, media_type } = found;
    if is_known(headers, &blob.digest) {
        return not_modified(&blob.digest);
    }
    with_digest(bytes(StatusCode::OK, media_type, blob.bytes.clone()), &blob.digest)
}

fn blob(
    shared: &Arc<Shared>,
    repository: &Repository,
    digest: &BlobDigest,
    request: &Request,
) -> Response {
    let Some(content) = repository.blob(digest) else { return no_blob(digest) };
    if is_known(request.headers(), digest) {
        return not_modified(digest);
    }
    let size = content.size();
    let parts = match wanted_part(request.headers(), digest, size) {
        WantedPart::Whole => None,
        WantedPart::Bytes(range) => Some(Parts::one(range)),
        WantedPart::Several(ranges) => Some(Parts::several(ranges, size, digest)),
        WantedPart::Unsatisfiable => return unsatisfiable(size),
    };
    let body = if request.method() == Method::HEAD {
        Body::empty()
    } else {
        content_body(shared, content, parts.as_ref())
    };
    blob_body(body, parts.as_ref(), size, digest)
}

/// Returns the part of a blob of `size` bytes that a request asks for.
pub fn wanted_part(headers: &HeaderMap, digest: &BlobDigest, size: u64) -> WantedPart {
    let value = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(wanted) = value(header::RANGE) else { return WantedPart::Whole };
    // A client that has parts of another blob wants all of this one (RFC 9110, 13.1.5).
    if headers.contains_key(header::IF_RANGE) && value(header::IF_RANGE) != Some(&*tag(digest)) {
        return WantedPart::Whole;
    }
    part(wanted, size)
}

/// Returns the answer for a range that the blob does not have.
pub fn unsatisfiable(size: u64) -> Response {
    let message = format!("the blob has {size} bytes");
    let mut response = error(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", &message);
    set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

/// Returns the answer with a blob of `size` bytes, or parts of it.
pub fn blob_body(body: Body, parts: Option<&Parts>, size: u64, digest: &BlobDigest) -> Response {
    let mut response = Response::new(body);
    let Some(parts) = parts else {
        set(&mut response, header::CONTENT_TYPE, OCTETS);
        set(&mut response, header::CONTENT_LENGTH, &size.to_string());
        set(&mut response, header::ACCEPT_RANGES, "bytes");
        return with_digest(response, digest);
    };
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    set(&mut response, header::CONTENT_TYPE, parts.media_type().as_deref().unwrap_or(OCTETS));
    set(&mut response, header::CONTENT_LENGTH, &parts.length().to_string());
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    if let Some(Range { start, end }) = parts.only() {
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {start}-{}/{size}", end - 1));
    }
    with_digest(response, digest)
}

fn content_body(shared: &Arc<Shared>, content: Content, parts: Option<&Parts>) -> Body {
    let whole = || Parts::one(0..content.size());
    match &content {
        Content::Config(blob) => match parts {
            None => Body::from(blob.bytes.clone()),
            Some(parts) => Body::from(Picker::new(parts.clone()).picked(&blob.bytes)),
        },
        Content::Layer { layer, blob } => {
            let (is_part, parts) = (parts.is_some(), parts.cloned().unwrap_or_else(whole));
            shared.count(blob.digest, parts.of_blob());
            let (layer, shared) = (layer.clone(), Arc::clone(shared));
            let failed = Arc::clone(&shared);
            let makers = shared.makers.clone();
            let layer = ServedLayer { shared, layer, blob: *blob, is_part };
            let chunks = layer_body::send(
                makers,
                parts,
                move |out| layer.write(out),
                move |error| failed.fail(error),
            );
            Body::from_stream(ReceiverStream::new(chunks))
        }
    }
}

/// Returns a list, or a page of it.
fn list<'n>(
    request: &Request,
    names: impl Iterator<Item = &'n str>,
    path: &str,
    document: impl Fn(Vec<&str>) -> Value,
) -> Response {
    let Page { names, next } = page(request.uri().query().unwrap_or_default(), names);
    let mut response = json_body(&document(names));
    if let Some(query) = next {
        set(&mut response, header::LINK, &format!("<{path}?{query}>; rel=\"next\""));
    }
    response
}

/// Returns whether the client already has the contents of a digest.
pub fn is_known(headers: &HeaderMap, digest: &BlobDigest) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let tag = tag(digest);
    known.is_some_and(|known| {
        known.split(',').any(|known| known.trim() == tag || known.trim() == "*")
    })
}

/// Returns the answer for a client that already has the contents.
pub fn not_modified(digest: &BlobDigest) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    with_digest(response, digest)
}

fn tag(digest: &BlobDigest) -> String {
    format!("\"{digest}\"")
}

/// Adds the digest of the contents, which clients compare.
pub fn with_digest(mut response: Response, digest: &BlobDigest) -> Response {
    set(&mut response, header::ETAG, &tag(digest));
    set(&mut response, header::HeaderName::from_static(CONTENT_DIGEST), &digest.to_string());
    response
}

/// Returns an error as JSON (distribution-spec, "Error Codes").
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    error_with(status, code, message, &Value::Null)
}

/// Returns an error as JSON, with details for programs (distribution-spec, "Error Codes").
fn error_with(status: StatusCode, code: &str, message: &str, detail: &Value) -> Response {
    let mut error = json!({ "code": code, "message": message });
    if !detail.is_null() {
        error["detail"] = detail.clone();
    }
    let errors = json!({ "errors": [error] });
    bytes(status, JSON, errors.to_string().into_bytes())
}

fn json_body(value: &Value) -> Response {
    bytes(StatusCode::OK, JSON, value.to_string().into_bytes())
}

fn bytes(status: StatusCode, media_type: &str, bytes: Vec<u8>) -> Response {
    let length = bytes.len();
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_TYPE, media_type);
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    response
}

/// Sets a header. If a value is not valid for headers, logs this and leaves the header out: media
/// types are checked where they are read, and other values come from this program.
pub fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => drop(response.headers_mut().insert(name, value)),
        Err(_) => tracing::error!(%name, ?value, "not sent: no header can have that value"),
    }
}
