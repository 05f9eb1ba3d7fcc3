use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use serde_json::{Value, json};
use stowage::digest::Digest;
use tokio_stream::StreamExt;

/// A registry in memory, which misbehaves on demand.
#[derive(Clone, Default)]
pub struct Faulty(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<Contents>,
    faults: Mutex<Faults>,
    requests: AtomicUsize,
    /// The number of requests with credentials.
    authorized: AtomicUsize,
    /// Another host, to which uploads are to be sent.
    elsewhere: Mutex<Option<String>>,
    port: AtomicUsize,
}

#[derive(Default)]
pub struct Contents {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub manifests: BTreeMap<String, Vec<u8>>,
    /// The blobs of other repositories.
    pub others: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    pub uploads: BTreeMap<String, Vec<u8>>,
    /// The blobs that arrived; a blob that arrived twice is listed twice.
    pub received: Vec<String>,
}

/// The faults that are still to happen.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The numbers of bytes after which uploads are cut off.
    pub cut: Vec<usize>,
    /// The statuses with which requests are answered.
    pub statuses: Vec<u16>,
    /// The number of requests after which a token expires.
    pub token_lasts: usize,
    /// The statuses with which requests for tokens are answered; 0 breaks the connection.
    pub token_statuses: Vec<u16>,
    /// True if a password is required.
    pub password: bool,
    /// True if addresses of uploads are absolute.
    pub absolute: bool,
    /// True if the bytes of an upload that is cut off are lost.
    pub forgetful: bool,
    /// The number of uploads that succeed without an answer to the client.
    pub lost: usize,
    /// The number of uploads that are lost before their end.
    pub expired: usize,
    /// True if manifests are refused.
    pub refuse: bool,
    /// True if the registry lists what refers to a manifest by itself (distribution-spec 1.1,
    /// "Listing Referrers"), a page for each entry.
    pub referrers: bool,
}

impl Faulty {
    pub fn with(faults: Faults) -> Self {
        let this = Self::default();
        *this.0.faults.lock().unwrap() = faults;
        this
    }

    /// Sends uploads to another host.
    pub fn send_uploads_to(&self, host: String) {
        *self.0.elsewhere.lock().unwrap() = Some(host);
    }

    /// Returns the number of requests.
    pub fn requests(&self) -> usize {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Returns the number of requests with credentials.
    pub fn authorized(&self) -> usize {
        self.0.authorized.load(Ordering::Relaxed)
    }

    /// Starts the registry, and returns its host and port.
    pub fn start(&self) -> (tokio::runtime::Runtime, String) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        self.0.port.store(port.into(), Ordering::Relaxed);
        let router = Router::new().fallback(handle).with_state(self.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        (runtime, format!("127.0.0.1:{port}"))
    }

    pub fn contents(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.0.state.lock().unwrap()
    }

    /// Checks that everything that can be read is right, and that every manifest's blobs are there.
    pub fn check(&self) {
        let contents = self.contents();
        for (digest, bytes) in &contents.blobs {
            assert_eq!(Digest::of(bytes).to_string(), *digest);
        }
        for manifest in contents.manifests.values() {
            let manifest: Value = serde_json::from_slice(manifest).unwrap();
            let layers = manifest["layers"].as_array().unwrap().iter();
            for blob in layers.chain([&manifest["config"]]) {
                assert!(contents.blobs.contains_key(blob["digest"].as_str().unwrap()), "{blob}");
            }
        }
    }
}

/// Returns whether a fault is still to happen, and counts it.
fn happens(times: &mut usize) -> bool {
    let left = *times;
    *times = left.saturating_sub(1);
    left > 0
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

async fn handle(State(registry): State<Faulty>, request: Request) -> Response {
    let number = registry.0.requests.fetch_add(1, Ordering::Relaxed);
    let host = format!("http://127.0.0.1:{}", registry.0.port.load(Ordering::Relaxed));
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key("authorization") {
        registry.0.authorized.fetch_add(1, Ordering::Relaxed);
    }
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    if path == "/token" {
        assert!(query.contains("scope="), "{query}");
        let status = registry.0.faults.lock().unwrap().token_statuses.pop();
        match status {
            None => {}
            Some(0) => return answer(200, &[], broken()),
            Some(status) => return answer(status, &[("retry-after", "0")], ""),
        }
        return answer(200, &[], json!({"token": format!("t{number}")}).to_string());
    }
    let faults = registry.0.faults.lock().unwrap().clone();
    if faults.token_lasts > 0 {
        let token = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
        let born: Option<usize> =
            token.and_then(|token| token.strip_prefix("Bearer t")?.parse().ok());
        if born.is_none_or(|born| number > born + faults.token_lasts) {
            let challenge = format!(
                "Bearer realm=\"{host}/token\",service=\"x\",scope=\"repository:a/b:pull\""
            );
            return answer(401, &[("www-authenticate", &challenge)], "");
        }
    }
    if faults.password && !parts.headers.contains_key("authorization") {
        return answer(401, &[("www-authenticate", "Basic realm=\"x\"")], "");
    }
    let status = registry.0.faults.lock().unwrap().statuses.pop();
    if let Some(status) = status {
        return answer(status, &[("retry-after", "0")], r#"{"errors":[{"message":"not now"}]}"#);
    }
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let location = |id: &str| {
        let other =
            registry.0.elsewhere.lock().unwrap().as_ref().map(|host| format!("http://{host}"));
        let base = if faults.absolute { host.clone() } else { String::new() };
        let base = other.unwrap_or(base);
        format!("{base}/v2/a/b/blobs/uploads/{id}?state=x")
    };
    if path.contains("/manifests/") {
        if parts.method == Method::PUT {
            let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            if faults.refuse {
                return answer(
                    400,
                    &[],
                    r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no such thing"}]}"#,
                );
            }
            let digest = Digest::of(&bytes).to_string();
            registry.contents().manifests.insert(name, bytes.to_vec());
            if faults.referrers {
                registry.contents().manifests.insert(digest.clone(), bytes.to_vec());
                let subject = subject_of(&bytes);
                if !subject.is_empty() {
                    let headers = [("docker-content-digest", &*digest), ("oci-subject", &subject)];
                    return answer(201, &headers, "");
                }
            }
            return answer(201, &[("docker-content-digest", &digest)], "");
        }
        return match registry.contents().manifests.get(&name) {
            Some(bytes) => answer(200, &[], bytes.clone()),
            None => answer(404, &[], ""),
        };
    }
    if faults.referrers && path.contains("/referrers/") {
        return referrers(&registry, &path, &query);
    }
    match (parts.method, path.contains("/blobs/uploads/")) {
        (Method::POST, true) => {
            let parameter = |name: &str| {
                let mut parameters = query.split('&').filter_map(|text| text.split_once('='));
                parameters.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
            };
            if let (Some(digest), Some(from)) = (parameter("mount"), parameter("from")) {
                let mut contents = registry.contents();
                let blob = contents.others.get(&from).and_then(|blobs| blobs.get(&digest));
                if let Some(blob) = blob.cloned() {
                    contents.blobs.insert(digest, blob);
                    return answer(201, &[], "");
                }
            }
            let id = format!("u{number}");
            registry.contents().uploads.insert(id.clone(), Vec::new());
            answer(202, &[("location", &location(&id))], "")
        }
        (Method::GET, false) => match registry.contents().blobs.get(&name) {
            Some(bytes) => answer(200, &[], bytes.clone()),
            None => answer(404, &[], ""),
        },
        (Method::PATCH, true) => match receive(&registry, &name, body).await {
            Ok(()) => answer(202, &[("location", &location(&name))], ""),
            Err(cut) => cut,
        },
        (Method::GET, true) => match registry.contents().uploads.get(&name) {
            Some(bytes) => {
                let range = format!("0-{}", bytes.len().saturating_sub(1));
                answer(204, &[("location", &location(&name)), ("range", &range)], "")
            }
            None => answer(404, &[], ""),
        },
        (Method::PUT, true) => {
            let digest = query.split("digest=").nth(1).unwrap_or_default().to_owned();
            assert!(query.starts_with("state=x&"), "{query}");
            let length = parts.headers.get("content-length").map(|length| length.as_bytes());
            if length.is_some_and(|length| length != b"0")
                && let Err(cut) = receive(&registry, &name, body).await
            {
                return cut;
            }
            let expired = happens(&mut registry.0.faults.lock().unwrap().expired);
            let upload = registry.contents().uploads.remove(&name);
            let Some(bytes) = upload.filter(|_| !expired) else {
                return answer(404, &[], r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#);
            };
            if Digest::of(&bytes).to_string() != digest {
                return answer(400, &[], r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
            }
            let mut contents = registry.contents();
            contents.received.push(digest.clone());
            contents.blobs.insert(digest, bytes);
            let lost = happens(&mut registry.0.faults.lock().unwrap().lost);
            answer(if lost { 504 } else { 201 }, &[], "")
        }
        (Method::DELETE, true) => {
            registry.contents().uploads.remove(&name);
            answer(204, &[], "")
        }
        (_, false) => match registry.contents().blobs.get(&name) {
            Some(bytes) => answer(200, &[("content-length", &bytes.len().to_string())], ""),
            None => answer(404, &[], ""),
        },
        _ => answer(405, &[], ""),
    }
}

/// Returns the digest of the manifest that a manifest refers to, or an empty text.
fn subject_of(manifest: &[u8]) -> String {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    manifest["subject"]["digest"].as_str().unwrap_or_default().to_owned()
}

/// Returns the page of a list that the query names by its number.
fn referrers(registry: &Faulty, path: &str, query: &str) -> Response {
    let subject = path.rsplit('/').next().unwrap_or_default();
    let contents = registry.contents();
    let named = |(name, bytes): &(&String, &Vec<u8>)| {
        name.starts_with("sha256:") && subject_of(bytes) == subject
    };
    let entries: Vec<_> = contents.manifests.iter().filter(named).collect();
    let page: usize = query.strip_prefix("page=").map_or(0, |page| page.parse().unwrap());
    let entry = |(digest, bytes): &(&String, &Vec<u8>)| {
        let manifest: Value = serde_json::from_slice(bytes).unwrap();
        serde_json::json!({
            "mediaType": manifest["mediaType"],
            "artifactType": manifest["artifactType"],
            "digest": digest,
            "size": bytes.len(),
        })
    };
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries.get(page).map(entry).into_iter().collect::<Vec<_>>(),
    });
    let next = format!("<{path}?page={}>; rel=\"next\"", page + 1);
    let link = [("link", &*next)];
    let headers = if page + 1 < entries.len() { &link[..] } else { &[] };
    answer(200, headers, index.to_string())
}

/// Adds a body to an upload; or breaks the connection, as if the line were cut: nothing more is
/// read, and nothing answered.
async fn receive(registry: &Faulty, id: &str, body: Body) -> Result<(), Response> {
    let cut = registry.0.faults.lock().unwrap().cut.pop();
    let mut stream = body.into_data_stream();
    let mut taken = 0;
    while let Some(chunk) = stream.next().await {
        let Ok(chunk): Result<Bytes, _> = chunk else { break };
        let room = cut.map_or(chunk.len(), |cut| cut.saturating_sub(taken).min(chunk.len()));
        if let Some(upload) = registry.contents().uploads.get_mut(id) {
            upload.extend_from_slice(&chunk[..room]);
        }
        taken += room;
        if room < chunk.len() {
            if registry.0.faults.lock().unwrap().forgetful {
                registry.contents().uploads.remove(id);
            }
            return Err(answer(202, &[], broken()));
        }
    }
    Ok(())
}

/// Returns a body that breaks the connection.
fn broken() -> Body {
    Body::from_stream(tokio_stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]))
}
