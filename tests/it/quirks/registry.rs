//! A registry in memory with the quirks of real ones, each of which can be switched on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::{Value, json};
use stowage::digest::Digest;
use tokio::sync::Barrier;

use super::access::{Access, Token};
use crate::tls::{TlsListener, server_config};

/// The quirks of a registry. The default has none.
#[derive(Clone, Debug, Default)]
pub struct Quirks {
    /// The status of an upload that begins, in place of 202.
    pub post: Option<u16>,
    /// The status after bytes have arrived, in place of 202.
    pub patch: Option<u16>,
    /// The status with which every `PATCH` is refused, and whether the upload then no longer
    /// exists.
    pub no_patch: Option<(u16, bool)>,
    /// The status by which every `PUT` with the bytes of a blob is refused.
    pub no_whole: Option<u16>,
    /// The status of an upload that is complete, in place of 201.
    pub put_blob: Option<u16>,
    /// The status of a manifest that is stored, in place of 201.
    pub put_manifest: Option<u16>,
    /// The status with which every read of a manifest is refused.
    pub get_manifest: Option<u16>,
    /// The status with which every `HEAD` of a blob is refused.
    pub head_blob: Option<u16>,
    /// The status with which every `GET` of a blob is refused.
    pub get_blob: Option<u16>,
    /// The status with which every mount is refused.
    pub mount: Option<u16>,
    /// True if mounts are answered 201 with the address of an upload.
    pub mount_begins: bool,
    /// True if every `Expect` is answered 417.
    pub no_expect: bool,
    /// The status with which every request is redirected to the same path below `/real`.
    pub redirect: Option<u16>,
    /// The address to which every request is redirected, with status 307.
    pub redirect_to: Option<String>,
    /// The `Location` of an upload that begins, if there is one: `Some(None)` stands for none.
    pub place: Option<Option<&'static str>>,
    /// The address to which uploads are to be sent.
    pub location: Option<String>,
    /// The status and code with which replacing a tag is refused.
    pub immutable: Option<(u16, &'static str)>,
    /// The fewest bytes of a `PATCH` that has a `Content-Range`.
    pub minimum_chunk: Option<usize>,
    /// Returns the `Range` of an answer for a number of bytes that arrived, in place of `0-` and
    /// the last byte's offset.
    pub range: Option<fn(usize) -> Option<String>>,
    /// The number of bytes after which the first longer upload breaks off.
    pub cut: Option<usize>,
    /// The status and body with which a manifest is refused whose blobs are missing; `{}` stands
    /// for their digests.
    pub unknown: Option<(u16, &'static str)>,
    /// True if `HEAD` answers for every blob that it is there.
    pub stale: bool,
    /// True if every blob is answered with success, without its length and digest, as portals do.
    pub vague: bool,
    /// The length that `HEAD` answers for every blob.
    pub length: Option<u64>,
    /// The status, media type and body with which a manifest is refused.
    pub refusal: Option<(u16, &'static str, String)>,
    /// The number of reads of manifests and blobs that must be waiting before they are answered.
    pub together: usize,
    /// The rules for access.
    pub access: Access,
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub authorization: Option<String>,
    pub body: String,
    pub status: u16,
}

#[derive(Default)]
pub struct Contents {
    /// The blobs, by repository and digest.
    pub blobs: BTreeMap<(String, String), Vec<u8>>,
    /// The manifests, by repository and tag or digest.
    pub manifests: BTreeMap<(String, String), Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// The digests of uploads that were completed, in their order.
    pub received: Vec<String>,
}

pub struct Quirky(Arc<Inner>);

struct Inner {
    quirks: Mutex<Quirks>,
    contents: Mutex<Contents>,
    seen: Mutex<Vec<Seen>>,
    tokens: Mutex<BTreeMap<String, BTreeSet<(String, String)>>>,
    number: AtomicUsize,
    barrier: Mutex<Arc<Barrier>>,
    base: String,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
}

type Answer = Response<Body>;

pub fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

pub fn error(status: u16, code: &str) -> Answer {
    answer(status, &[], json!({"errors": [{"code": code, "message": code}]}).to_string())
}

impl Quirky {
    pub fn start(quirks: Quirks) -> Self {
        Self::start_at("127.0.0.1", quirks, None)
    }

    /// Starts a registry with HTTPS, with the certificate and key of `tls`.
    pub fn start_tls(quirks: Quirks, tls: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Self {
        Self::start_at("127.0.0.1", quirks, Some(tls))
    }

    /// Starts a registry at an address of this machine.
    pub fn start_at(
        address: &str,
        quirks: Quirks,
        tls: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind((address, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let inner = Arc::new(Inner {
            barrier: Mutex::new(Arc::new(Barrier::new(quirks.together.max(1)))),
            quirks: Mutex::new(quirks),
            contents: Mutex::default(),
            seen: Mutex::default(),
            tokens: Mutex::default(),
            number: AtomicUsize::default(),
            base: format!("{scheme}://{address}:{port}"),
            runtime: Mutex::default(),
        });
        let router = Router::new().fallback(handle).with_state(Arc::clone(&inner));
        match tls {
            None => runtime.spawn(async move { axum::serve(listener, router).await }),
            Some(tls) => {
                let config = server_config(&tls.cert, &tls.signing_key, None);
                let listener = TlsListener::new(listener, config);
                runtime.spawn(async move { axum::serve(listener, router).await })
            }
        };
        *inner.runtime.lock().unwrap() = Some(runtime);
        Self(inner)
    }

    /// Returns the host and the port.
    pub fn host(&self) -> String {
        self.0.base.split_once("://").unwrap().1.to_owned()
    }

    pub fn base(&self) -> &str {
        &self.0.base
    }

    /// Changes the quirks from now on.
    pub fn set(&self, quirks: Quirks) {
        *self.0.barrier.lock().unwrap() = Arc::new(Barrier::new(quirks.together.max(1)));
        *self.0.quirks.lock().unwrap() = quirks;
    }

    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.contents.lock().unwrap()
    }

    /// Returns the requests since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.seen.lock().unwrap())
    }

    /// Checks that the image of a tag can be pulled completely, and has this manifest.
    pub fn check(&self, repository: &str, tag: &str, manifest: &[u8]) {
        let contents = self.contents();
        let name = |name: &str| (repository.to_owned(), name.to_owned());
        assert_eq!(contents.manifests[&name(tag)], manifest);
        let mut documents = vec![manifest.to_vec()];
        while let Some(bytes) = documents.pop() {
            let document: Value = serde_json::from_slice(&bytes).unwrap();
            let listed = |key: &str| document[key].as_array().cloned().unwrap_or_default();
            for entry in listed("manifests") {
                documents
                    .push(contents.manifests[&name(entry["digest"].as_str().unwrap())].clone());
            }
            for blob in listed("layers").iter().chain(document.get("config")) {
                let digest = blob["digest"].as_str().unwrap();
                let bytes = contents.blobs.get(&name(digest));
                let bytes = bytes.unwrap_or_else(|| panic!("{digest} is not there"));
                assert_eq!(Digest::of(bytes).to_string(), digest);
            }
        }
    }

    /// Removes blobs, as a garbage collection does.
    pub fn lose(&self, digests: &[String]) {
        self.contents().blobs.retain(|(_, digest), _| !digests.contains(digest));
    }
}

impl Drop for Quirky {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

async fn handle(State(registry): State<Arc<Inner>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let quirks = registry.quirks.lock().unwrap().clone();
    let authorization =
        parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let place = {
        let mut seen = registry.seen.lock().unwrap();
        seen.push(Seen {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            authorization: authorization.clone(),
            body: String::new(),
            status: 0,
        });
        seen.len() - 1
    };
    let response = registry.answer(&quirks, &parts, authorization, body, place).await;
    if let Some(seen) = registry.seen.lock().unwrap().get_mut(place) {
        seen.status = response.status().as_u16();
    }
    response
}

impl Inner {
    async fn answer(
        &self,
        quirks: &Quirks,
        parts: &Parts,
        authorization: Option<String>,
        body: Body,
        place: usize,
    ) -> Answer {
        let whole = parts.uri.path_and_query().unwrap().as_str();
        let path = parts.uri.path();
        if path == "/token" {
            return self.token(quirks, parts, authorization, body, place).await;
        }
        if let Some(status) = quirks.redirect.filter(|_| !path.starts_with("/real/")) {
            return answer(status, &[("location", &format!("/real{whole}"))], "");
        }
        if let Some(other) = &quirks.redirect_to {
            return answer(307, &[("location", &format!("{other}{whole}"))], "");
        }
        let path = path.strip_prefix("/real").unwrap_or(path);
        let method = parts.method.as_str();
        let reads = matches!(method, "GET" | "HEAD");
        let (repository, kind, rest) = match route(path) {
            Some(route) => route,
            None if path == "/v2/" => ("", "", ""),
            None => return error(404, "NOT_FOUND"),
        };
        let mut parameters = BTreeMap::new();
        for (key, value) in url::form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes())
        {
            parameters.insert(key.into_owned(), value.into_owned());
        }
        let mut needed = BTreeSet::new();
        if !repository.is_empty() {
            needed.insert((repository.to_owned(), if reads { "pull" } else { "push" }.to_owned()));
        }
        if let Some(from) = parameters.get("from") {
            needed.insert((from.clone(), "pull".to_owned()));
        }
        let tokens = self.tokens.lock().unwrap().clone();
        let refused = quirks.access.refusal(
            &self.base,
            authorization.as_deref(),
            repository,
            reads,
            &needed,
            &tokens,
        );
        if let Some(refused) = refused {
            return refused;
        }
        if reads && quirks.together > 0 && !rest.starts_with("uploads/") && !repository.is_empty() {
            let barrier = Arc::clone(&self.barrier.lock().unwrap());
            // This limit is longer than any machine takes: a request that waits in vain gets an
            // error.
            if tokio::time::timeout(Duration::from_secs(20), barrier.wait()).await.is_err() {
                return error(400, "NOT_TOGETHER");
            }
        }
        match kind {
            "" => answer(200, &[], "{}"),
            "manifests" => self.manifest(quirks, parts, repository, rest, body).await,
            _ if rest.starts_with("uploads/") => {
                self.upload(quirks, parts, repository, &rest[8..], &parameters, body).await
            }
            _ => self.blob(quirks, method, repository, rest),
        }
    }

    async fn token(
        &self,
        quirks: &Quirks,
        parts: &Parts,
        authorization: Option<String>,
        body: Body,
        place: usize,
    ) -> Answer {
        let Access::Token(token) = &quirks.access else { return error(404, "NOT_FOUND") };
        let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
        let is_form = parts.method.as_str() == "POST";
        let form = if is_form {
            String::from_utf8(body.to_vec()).unwrap()
        } else {
            parts.uri.query().unwrap_or_default().to_owned()
        };
        if let Some(seen) = self.seen.lock().unwrap().get_mut(place) {
            seen.body.clone_from(&form);
        }
        let fields: Vec<(String, String)> =
            url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        match Token::grant(token, is_form, authorization.as_deref(), &fields) {
            Err(refused) => *refused,
            Ok(granted) => {
                let number = self.number.fetch_add(1, Ordering::Relaxed);
                let name = format!("t{number}");
                self.tokens.lock().unwrap().insert(name.clone(), granted);
                answer(200, &[], token.answer(&name).to_string())
            }
        }
    }

    async fn manifest(
        &self,
        quirks: &Quirks,
        parts: &Parts,
        repository: &str,
        name: &str,
        body: Body,
    ) -> Answer {
        let key = |name: &str| (repository.to_owned(), name.to_owned());
        if parts.method.as_str() != "PUT" {
            if let Some(status) = quirks.get_manifest {
                return error(status, "DENIED");
            }
            return match self.contents.lock().unwrap().manifests.get(&key(name)) {
                Some(bytes) => answer(200, &[], bytes.clone()),
                None => error(404, "MANIFEST_UNKNOWN"),
            };
        }
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec();
        if let Some((status, media_type, body)) = &quirks.refusal {
            return answer(*status, &[("content-type", media_type)], body.clone());
        }
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let mut contents = self.contents.lock().unwrap();
        let blobs = document["layers"].as_array().into_iter().flatten();
        let blobs = blobs.chain(document.get("config")).map(|blob| &blob["digest"]);
        let missing: Vec<_> = blobs
            .map(|digest| digest.as_str().unwrap())
            .filter(|digest| !contents.blobs.contains_key(&key(digest)))
            .collect();
        if !missing.is_empty() {
            let default = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","detail":"{}"}]}"#;
            let (status, body) = quirks.unknown.unwrap_or((404, default));
            return answer(status, &[], body.replace("{}", &missing.join(" ")));
        }
        if let Some((status, code)) = quirks.immutable
            && contents.manifests.contains_key(&key(name))
        {
            return answer(
                status,
                &[],
                json!({"errors": [{"code": code, "message": "it may not be changed"}]}).to_string(),
            );
        }
        let digest = Digest::of(&bytes).to_string();
        for name in [name, &digest] {
            contents.manifests.insert(key(name), bytes.clone());
        }
        answer(quirks.put_manifest.unwrap_or(201), &[("docker-content-digest", &digest)], "")
    }

    fn blob(&self, quirks: &Quirks, method: &str, repository: &str, digest: &str) -> Answer {
        let refused = if method == "HEAD" { quirks.head_blob } else { quirks.get_blob };
        if let Some(status) = refused {
            return error(status, "UNSUPPORTED");
        }
        if quirks.vague {
            let page = tokio_stream::once(Ok::<_, std::io::Error>("please log in"));
            return answer(200, &[], Body::from_stream(page));
        }
        let contents = self.contents.lock().unwrap();
        let blob = contents.blobs.get(&(repository.to_owned(), digest.to_owned()));
        match blob {
            Some(bytes) if method == "HEAD" => {
                let length = quirks.length.unwrap_or(bytes.len() as u64);
                answer(200, &[("content-length", &length.to_string())], "")
            }
            Some(bytes) => answer(200, &[], bytes.clone()),
            None if quirks.stale && method == "HEAD" => {
                answer(200, &[("docker-content-digest", digest)], "")
            }
            None => error(404, "BLOB_UNKNOWN"),
        }
    }

    async fn upload(
        &self,
        quirks: &Quirks,
        parts: &Parts,
        repository: &str,
        id: &str,
        parameters: &BTreeMap<String, String>,
        body: Body,
    ) -> Answer {
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap());
        if quirks.no_expect && header("expect").is_some() {
            return answer(417, &[], "no such expectation");
        }
        let location = |id: &str| {
            let base = quirks.location.as_deref().unwrap_or_default();
            format!("{base}/v2/{repository}/blobs/uploads/{id}?state=a%2Fb")
        };
        let key = |repository: &str, digest: &str| (repository.to_owned(), digest.to_owned());
        if parts.method.as_str() == "POST" {
            if let (Some(digest), Some(from)) = (parameters.get("mount"), parameters.get("from")) {
                if let Some(status) = quirks.mount {
                    return error(status, "UNSUPPORTED");
                }
                let mut contents = self.contents.lock().unwrap();
                let blob = contents.blobs.get(&key(from, digest)).cloned();
                if let Some(blob) = blob.filter(|_| !quirks.mount_begins) {
                    contents.blobs.insert(key(repository, digest), blob);
                    let place = format!("/v2/{repository}/blobs/{digest}");
                    return answer(201, &[("location", &place)], "");
                }
            }
            let id = format!("u{}", self.number.fetch_add(1, Ordering::Relaxed));
            self.contents.lock().unwrap().uploads.insert(id.clone(), Vec::new());
            let is_mount = parameters.contains_key("mount");
            let usual = if is_mount && quirks.mount_begins { 201 } else { 202 };
            let place = quirks.place.map(|place| place.map(str::to_owned));
            let place = place.unwrap_or_else(|| Some(location(&id)));
            let mut headers = vec![("range", "0-0".to_owned())];
            headers.extend(place.map(|place| ("location", place)));
            if let Some(least) = quirks.minimum_chunk {
                headers.push(("oci-chunk-min-length", least.to_string()));
            }
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            return answer(quirks.post.unwrap_or(usual), &headers, "");
        }
        if !self.contents.lock().unwrap().uploads.contains_key(id) {
            return error(404, "BLOB_UPLOAD_UNKNOWN");
        }
        let range = |arrived: usize| match quirks.range {
            Some(range) => range(arrived),
            None => Some(format!("0-{}", arrived.saturating_sub(1))),
        };
        match parts.method.as_str() {
            "GET" => {
                let arrived = self.contents.lock().unwrap().uploads[id].len();
                let place = location(id);
                let mut headers = vec![("location", &*place)];
                let range = range(arrived);
                headers.extend(range.as_deref().map(|range| ("range", range)));
                answer(204, &headers, "")
            }
            "DELETE" => {
                self.contents.lock().unwrap().uploads.remove(id);
                answer(204, &[], "")
            }
            "PATCH" if quirks.no_patch.is_some() => {
                let (status, is_lost) = quirks.no_patch.unwrap_or_default();
                if is_lost {
                    self.contents.lock().unwrap().uploads.remove(id);
                }
                error(status, "UNSUPPORTED")
            }
            "PATCH" => {
                let had = self.contents.lock().unwrap().uploads[id].len();
                let begins = header("content-range").map(|range| {
                    let (first, _) = range.split_once('-').unwrap();
                    first.parse::<usize>().unwrap()
                });
                let length: usize = header("content-length").unwrap().parse().unwrap();
                let short = begins.is_some() && quirks.minimum_chunk.is_some_and(|l| length < l);
                if short || begins.is_some_and(|begins| begins != had) {
                    return answer(416, &[("location", &location(id)), ("range", "0-0")], "");
                }
                let cut = self.quirks.lock().unwrap().cut;
                if let Some(cut) = cut.filter(|cut| *cut < length) {
                    self.quirks.lock().unwrap().cut = None;
                    self.take_some(id, body, cut).await;
                    return answer(202, &[], broken());
                }
                let bytes = axum::body::to_bytes(body, 1 << 26).await.unwrap();
                let mut contents = self.contents.lock().unwrap();
                let upload = contents.uploads.get_mut(id).unwrap();
                upload.extend_from_slice(&bytes);
                let arrived = upload.len();
                let place = location(id);
                let mut headers = vec![("location", &*place)];
                let range = range(arrived);
                headers.extend(range.as_deref().map(|range| ("range", range)));
                answer(quirks.patch.unwrap_or(202), &headers, "")
            }
            "PUT" => {
                let last = axum::body::to_bytes(body, 1 << 26).await.unwrap();
                if let Some(status) = quirks.no_whole.filter(|_| !last.is_empty()) {
                    return error(status, "UNSUPPORTED");
                }
                let mut contents = self.contents.lock().unwrap();
                let mut bytes = contents.uploads.remove(id).unwrap();
                bytes.extend_from_slice(&last);
                let digest = &parameters["digest"];
                if Digest::of(&bytes).to_string() != *digest {
                    return error(400, "DIGEST_INVALID");
                }
                contents.received.push(digest.clone());
                contents.blobs.insert(key(repository, digest), bytes);
                let place = format!("/v2/{repository}/blobs/{digest}");
                answer(quirks.put_blob.unwrap_or(201), &[("location", &place)], "")
            }
            _ => answer(405, &[], ""),
        }
    }

    /// Reads `count` bytes, and no more.
    async fn take_some(&self, id: &str, body: Body, count: usize) {
        use tokio_stream::StreamExt;
        let mut stream = body.into_data_stream();
        let mut left = count;
        while let Some(Ok(chunk)) = stream.next().await {
            let taken = chunk.len().min(left);
            let mut contents = self.contents.lock().unwrap();
            contents.uploads.get_mut(id).unwrap().extend_from_slice(&chunk[..taken]);
            left -= taken;
            if left == 0 {
                return;
            }
        }
    }
}

/// Splits a path into repository, kind and rest.
fn route(path: &str) -> Option<(&str, &str, &str)> {
    let rest = path.strip_prefix("/v2/")?;
    ["blobs", "manifests"].into_iter().find_map(|kind| {
        let (repository, rest) = rest.split_once(&format!("/{kind}/"))?;
        Some((repository, kind, rest))
    })
}

/// Returns a body that breaks the connection.
fn broken() -> Body {
    let error = Err::<axum::body::Bytes, _>(std::io::Error::other("cut"));
    Body::from_stream(tokio_stream::iter([error]))
}
