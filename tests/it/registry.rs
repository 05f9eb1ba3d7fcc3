use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use stowage::digest::Digest;
use stowage::oci::{Artifact, Form, Image, ImageSpec};
use stowage::outgoing::TaggedName;
use stowage::registry::catalog::Catalog;
use stowage::registry::server::{Limits, Registry, ServerOptions};

use crate::http::{self, Answer};
use crate::support::{FakeStore, odd_tree};

/// A registry with one image under two tags and in two repositories.
struct Served {
    store: FakeStore,
    spec: Arc<ImageSpec>,
    registry: Registry,
}

impl Served {
    fn new() -> Self {
        Self::with(ServerOptions::default())
    }

    fn with(options: ServerOptions) -> Self {
        let mut store = FakeStore::new();
        store.add('1', "tree", &[], odd_tree);
        store.add('2', "big", &[], |path| fs::write(path, vec![7; 5 << 20]).unwrap());
        store.build("{}");
        let artifact = Artifact::read(&store.store(), &store.root().join("image.json")).unwrap();
        let spec = Arc::clone(&artifact.images()[0]);
        let mut catalog = Catalog::default();
        for (name, tag) in [("a/image", "v1"), ("a/image", "v2"), ("b", "v1")] {
            let name = TaggedName::parse(name, tag).unwrap();
            catalog.add(&name, &artifact, Form::AsStored);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let registry = Registry::start(catalog, store.store(), address, options).unwrap();
        Self { store, spec, registry }
    }

    fn big(&self) -> (usize, String, u64) {
        let layers = self.spec.layers.iter().enumerate();
        let (index, layer) = layers.max_by_key(|(_, layer)| layer.size).unwrap();
        (index, format!("/v2/b/blobs/{}", layer.diff_id), layer.size)
    }

    fn raw(&self, request: &str) -> Vec<u8> {
        http::raw(self.registry.address(), request)
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        http::ask(self.registry.address(), method, path, headers)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }
}

#[test]
fn an_image_is_pulled_piece_by_piece() {
    let served = Served::new();
    assert_eq!(served.get("/v2/").json(), json!({}));
    let image = Image::new(&served.spec);
    let by_tag = served.get("/v2/a/image/manifests/v1");
    assert_eq!(by_tag.body, image.manifest.bytes);
    let digest = image.manifest.digest.to_string();
    assert_eq!(by_tag.headers["docker-content-digest"], digest);
    assert_eq!(by_tag.headers["content-type"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(served.get(&format!("/v2/b/manifests/{digest}")).body, image.manifest.bytes);
    let encoded = digest.replace(':', "%3A");
    assert_eq!(served.get(&format!("/v2/b/manifests/{encoded}")).body, image.manifest.bytes);
    assert_eq!(served.get(&format!("/v2/b/blobs/{encoded}")).body, image.manifest.bytes);
    let config = served.get(&format!("/v2/b/blobs/{}", image.config.digest));
    assert_eq!(config.body, image.config.bytes);
    for layer in &served.spec.layers {
        let answer = served.get(&format!("/v2/a/image/blobs/{}", layer.diff_id));
        assert_eq!(Digest::of(&answer.body).to_string(), layer.diff_id.to_string());
        assert_eq!(answer.headers["content-length"], layer.size.to_string());
    }
    let sent = served.registry.served().layers;
    assert_eq!(sent.len(), served.spec.layers.len());
    assert_eq!(sent.values().sum::<u64>(), served.spec.size());
}

#[test]
fn head_says_what_get_would_and_makes_nothing() {
    let served = Served::new();
    let (_, blob, size) = served.big();
    for path in ["/v2/", "/v2/b/manifests/v1", "/v2/_catalog", &blob, "/v2/b/manifests/none"] {
        let (head, get) =
            (served.ask("HEAD", path, ""), served.ask("GET", path, "Range: bytes=x\r\n"));
        // These headers differ between requests.
        let of_any_request = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            headers.remove("date");
            headers.remove("x-request-id");
            (answer.status, headers)
        };
        assert_eq!(of_any_request(&head), of_any_request(&get), "{path}");
        assert!(head.body.is_empty(), "{path}");
    }
    assert_eq!(served.registry.served().layers.values().sum::<u64>(), size);
}

#[test]
fn parts_of_blobs_are_those_parts() {
    let served = Served::new();
    let (index, path, size) = served.big();
    let mut whole = Vec::new();
    served.spec.layers[index]
        .write_blob(&served.store.store(), Form::AsStored, &mut whole)
        .unwrap();
    for (range, start, end) in [
        ("0-99", 0, 100),
        ("1000-", 1000, size),
        ("-512", size - 512, size),
        ("300000-4000000", 300_000, 4_000_001),
    ] {
        let answer = served.ask("GET", &path, &format!("Range: bytes={range}\r\n"));
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.headers["content-range"], format!("bytes {start}-{}/{size}", end - 1));
        assert!(answer.body == whole[start as usize..end as usize], "{range}");
    }
    let answer = served.ask("GET", &path, "Range: bytes=99999999-\r\n");
    assert_eq!(
        (answer.status, &*answer.headers["content-range"]),
        (416, &*format!("bytes */{size}"))
    );
}

#[test]
fn what_a_client_has_is_not_sent() {
    let served = Served::new();
    let (_, blob, _) = served.big();
    for path in [&*blob, "/v2/b/manifests/v1"] {
        let tag = served.ask("HEAD", path, "").headers["etag"].clone();
        let again = served.ask("GET", path, &format!("If-None-Match: \"x\", {tag}\r\n"));
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(served.ask("HEAD", path, "If-None-Match: \"x\"\r\n").status, 200, "{path}");
    }
}

#[test]
fn lists_come_in_pages() {
    let served = Served::new();
    assert_eq!(served.get("/v2/_catalog").json(), json!({"repositories": ["a/image", "b"]}));
    let page = served.get("/v2/a/image/tags/list?n=1");
    assert_eq!(page.json(), json!({"name": "a/image", "tags": ["v1"]}));
    assert_eq!(page.headers["link"], "</v2/a/image/tags/list?n=1&last=v1>; rel=\"next\"");
    let page = served.get("/v2/a/image/tags/list?n=1&last=v1");
    assert_eq!(page.json()["tags"], json!(["v2"]));
    assert!(!page.headers.contains_key("link"));
    // Names have slashes, which clients encode.
    let page = served.get("/v2/_catalog?n=1");
    assert_eq!(page.json(), json!({"repositories": ["a/image"]}));
    assert_eq!(page.headers["link"], "</v2/_catalog?n=1&last=a%2Fimage>; rel=\"next\"");
    let page = served.get("/v2/_catalog?n=1&last=a%2Fimage");
    assert_eq!(page.json(), json!({"repositories": ["b"]}));
    assert!(!page.headers.contains_key("link"));
    let none = served.get("/v2/a/image/tags/list?n=0");
    assert_eq!(none.json()["tags"], json!([]));
    let digest = Image::new(&served.spec).manifest.digest;
    let referrers = served.get(&format!("/v2/b/referrers/{digest}"));
    assert_eq!(referrers.json()["manifests"], json!([]));
}

#[test]
fn errors_are_those_of_the_specification() {
    let served = Served::new();
    let zeros = format!("sha256:{}", "0".repeat(64));
    for (method, path, status, code) in [
        ("GET", "/v2/none/manifests/v1", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/none/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/b/manifests/v9", 404, "MANIFEST_UNKNOWN"),
        ("GET", &format!("/v2/b/manifests/{zeros}"), 404, "MANIFEST_UNKNOWN"),
        ("GET", &format!("/v2/b/blobs/{zeros}"), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/b/blobs/sha256:0", 400, "DIGEST_INVALID"),
        ("GET", "/v2/B/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/a/../b/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/%2e%2e/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/..%2fb/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/b%00/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/b\\..\\b/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/b/manifests/..", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/b/manifests/%2e%2e%2fv1", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/b/blobs/../../../etc/passwd", 404, "UNSUPPORTED"),
        ("GET", "/v2/b/blobs/sha256:..%2f..%2fetc%2fpasswd", 400, "DIGEST_INVALID"),
        ("GET", "/v2/b/blobs/sha256-e3b0c442", 400, "DIGEST_INVALID"),
        ("GET", &format!("/v2/b/blobs/{}", zeros.replace(':', "%3A")), 404, "BLOB_UNKNOWN"),
        ("GET", &format!("/v2/b/manifests/{}", zeros.replace(':', "%3a")), 404, "MANIFEST_UNKNOWN"),
        ("GET", &format!("/v2/b/blobs/{}", zeros.replace(':', "%253A")), 400, "DIGEST_INVALID"),
        ("GET", "/v2/b/manifests/v%259", 404, "MANIFEST_UNKNOWN"),
        ("GET", "http://other.example/etc/passwd", 404, "UNSUPPORTED"),
        ("GET", "//v2/b/manifests/v1", 404, "UNSUPPORTED"),
        ("GET", "/etc/passwd", 404, "UNSUPPORTED"),
        ("POST", "/v2/b/blobs/uploads/", 405, "UNSUPPORTED"),
        ("PUT", "/v2/b/manifests/v1", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/b/manifests/v1", 405, "UNSUPPORTED"),
    ] {
        let answer = served.ask(method, path, "");
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {path}");
    }
}

#[test]
fn who_asks_too_much_is_refused() {
    let served = Served::new();
    let long = "a".repeat(1 << 20);
    for request in [
        format!("GET /v2/{long}/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        // Many short headers, and one without an end.
        format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(1000)),
        format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{long}"),
        "nonsense\r\n\r\n".to_owned(),
    ] {
        let answer = served.raw(&request);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", &answer[..20]);
    }
    assert_eq!(served.get("/v2/").status, 200);
}

/// Checks that a client never gets as many bytes as were promised.
#[test]
fn a_layer_that_changed_is_broken_off() {
    let served = Served::new();
    let (index, path, size) = served.big();
    let source = served.spec.layers[index].sources().next().unwrap();
    let file = served.store.store().physical(source);
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let answer = served.get(&path);
    assert_eq!(answer.headers["content-length"], size.to_string());
    assert!((answer.body.len() as u64) < size);
    let error = served.registry.take_error().unwrap();
    assert!(error.to_string().contains("is not what it was"), "{error}");
    assert!(served.registry.take_error().is_none());
    assert_eq!(served.get("/v2/").status, 200);
}

#[test]
fn many_are_served_at_once_and_who_goes_away_is_forgotten() {
    let served = Served::new();
    let (index, path, _) = served.big();
    let expected = served.spec.layers[index].diff_id.to_string();
    std::thread::scope(|scope| {
        // These clients ask, and never read.
        let idle: Vec<_> = (0..8)
            .map(|_| {
                let mut stream = TcpStream::connect(served.registry.address()).unwrap();
                write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                stream
            })
            .collect();
        for number in 0..40 {
            let (served, path, expected) = (&served, &path, &expected);
            scope.spawn(move || {
                if number % 4 == 0 {
                    // This client reads a little and goes away.
                    let mut stream = TcpStream::connect(served.registry.address()).unwrap();
                    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                    stream.read_exact(&mut [0; 4096]).unwrap();
                } else {
                    assert_eq!(Digest::of(&served.get(path).body).to_string(), *expected);
                }
            });
        }
        drop(idle);
    });
    assert!(served.registry.take_error().is_none());
}

#[test]
fn who_takes_too_long_to_ask_is_not_waited_for() {
    let limits = Limits { headers: Duration::from_millis(200), ..Limits::default() };
    let served = Served::with(ServerOptions { limits, ..ServerOptions::default() });
    for begin in ["", "GET /v2/ HTTP/1.1\r\nHost: x\r\n", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\nGET"]
    {
        let mut stream = TcpStream::connect(served.registry.address()).unwrap();
        stream.write_all(begin.as_bytes()).unwrap();
        // Reading a byte now and then must not keep the connection open.
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < Duration::from_secs(60), "{begin}");
            match stream.read(&mut [0; 4096]) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                _ if begin.is_empty() => {}
                _ => drop(stream.write_all(b"X")),
            }
        }
    }
    assert_eq!(served.get("/v2/").status, 200);
}

#[test]
fn who_takes_too_long_to_read_is_not_waited_for() {
    let limits =
        Limits { connections: 1, patience: Some(Duration::from_millis(200)), ..Limits::default() };
    let served = Served::with(ServerOptions { limits, ..ServerOptions::default() });
    let (_, path, size) = served.big();
    let mut slow = TcpStream::connect(served.registry.address()).unwrap();
    // Ask for more bytes than the sockets hold: the server sends one answer after the other.
    for _ in 0..10 {
        write!(slow, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    }
    // The server has a single place, and the slow client must give it back.
    assert_eq!(served.get("/v2/").status, 200);
    // The server has closed the connection, so that a write fails sooner or later.
    let start = Instant::now();
    while slow.write_all(b"X").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(60), "the connection stays");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut bytes = Vec::new();
    let _ = slow.read_to_end(&mut bytes);
    assert!((bytes.len() as u64) < 10 * size);
    assert!(served.registry.take_error().is_none());
}

/// Checks that a request that began with one catalog goes on with it.
#[test]
fn a_request_goes_on_when_the_catalog_is_replaced() {
    let served = Served::new();
    let (index, path, _) = served.big();
    let mut slow = TcpStream::connect(served.registry.address()).unwrap();
    slow.write_all(http::request("GET", &path, "").as_bytes()).unwrap();
    let mut bytes = vec![0; 4096];
    slow.read_exact(&mut bytes).unwrap();
    served.registry.replace(Catalog::default());
    assert_eq!(served.get(&path).status, 404);
    slow.read_to_end(&mut bytes).unwrap();
    let diff_id = served.spec.layers[index].diff_id.to_string();
    assert_eq!(Digest::of(&Answer::parse(&bytes).body).to_string(), diff_id);
}
