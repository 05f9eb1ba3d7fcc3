use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::oci::{Image, ImageSpec};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::{self, Answer};
use crate::support::{FakeStore, odd_tree, stderr};

/// What no machine takes longer for.
const DEADLINE: Duration = Duration::from_secs(60);

/// A store with `one.json`, `two.json` (the same layers, and one more) and a directory.
struct Images {
    store: FakeStore,
    one: ImageSpec,
    two: ImageSpec,
}

impl Images {
    fn new() -> Self {
        let mut store = FakeStore::new();
        store.add('1', "tree", &[], odd_tree);
        // More than the sockets of a connection hold.
        store.add('2', "big", &[], |path| fs::write(path, vec![7; 32 << 20]).unwrap());
        let one = Self::build(&mut store, "one.json");
        store.add_file('3', "more", &[], "more");
        let two = Self::build(&mut store, "two.json");
        fs::create_dir_all(store.root().join("images/a/b")).unwrap();
        let images = Self { store, one, two };
        images.link("one.json", "a/b/v1");
        images.link("two.json", "a/v2");
        images
    }

    fn build(store: &mut FakeStore, name: &str) -> ImageSpec {
        store.build(r#"{"maxLayers": 5}"#);
        let file = store.root().join(name);
        fs::rename(store.root().join("image.json"), &file).unwrap();
        ImageSpec::read(&file).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.root().join(name)
    }

    /// Replaces a link in the directory, as `ln -sfT` and deployments do.
    fn link(&self, to: &str, name: &str) {
        let link = self.path("link");
        symlink(self.path(to), &link).unwrap();
        fs::rename(link, self.path("images").join(name)).unwrap();
    }

    fn serve(&self, arguments: &[&str]) -> Server {
        Server::start(self, arguments)
    }

    /// The path of the biggest layer's blob, and its size.
    fn big(&self, repository: &str) -> (String, u64) {
        let layer = self.one.layers.iter().max_by_key(|layer| layer.size).unwrap();
        (format!("/v2/{repository}/blobs/{}", layer.diff_id), layer.size)
    }
}

/// `stowage serve`, which ends with the test.
struct Server {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
}

impl Server {
    fn start(images: &Images, arguments: &[&str]) -> Self {
        let file = images.path("address");
        let _ = fs::remove_file(&file);
        let mut command = images.store.stowage(&["serve", "--address-file", "address"]);
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        // Not a pipe, which would be full at some time.
        let log = images.path("log");
        let mut child =
            command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let begin = Instant::now();
        // The file is whole once it is there.
        while !file.exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            assert!(begin.elapsed() < DEADLINE, "no address");
            std::thread::sleep(Duration::from_millis(10));
        }
        let address = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        Self { child, log, address }
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        http::ask(self.address, method, path, headers)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} in:\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn wait(&mut self) -> ExitStatus {
        until("it ends", || self.child.try_wait().unwrap())
    }

    /// Ends it, and returns its log.
    fn end(mut self) -> String {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0));
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until there is an answer.
fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(begin.elapsed() < DEADLINE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn manifest_digest(spec: &ImageSpec) -> String {
    Image::new(spec).manifest.digest.to_string()
}

#[test]
fn a_directory_and_files_are_served() {
    let images = Images::new();
    let server = images.serve(&["images", "c/d:v3=one.json", "two.json"]);
    assert_eq!(
        server.get("/v2/_catalog").json(),
        json!({"repositories": ["a", "a/b", "c/d", "two"]})
    );
    for (name, tag, spec) in [
        ("a/b", "v1", &images.one),
        ("a", "v2", &images.two),
        ("c/d", "v3", &images.one),
        ("two", "latest", &images.two),
    ] {
        let answer = server.get(&format!("/v2/{name}/manifests/{tag}"));
        assert_eq!(answer.headers["docker-content-digest"], manifest_digest(spec), "{name}");
        let manifest = answer.json();
        let config = manifest["config"]["digest"].as_str().unwrap();
        let config = server.get(&format!("/v2/{name}/blobs/{config}")).json();
        let diff_ids = manifest["layers"].as_array().unwrap().iter().map(|layer| {
            let digest = layer["digest"].as_str().unwrap();
            let blob = server.get(&format!("/v2/{name}/blobs/{digest}"));
            assert_eq!(blob.body.len() as u64, layer["size"].as_u64().unwrap());
            Digest::of(&blob.body).to_string()
        });
        assert_eq!(config["rootfs"]["diff_ids"], json!(diff_ids.collect::<Vec<_>>()), "{name}");
    }
    let log = server.end();
    assert!(log.contains("method=GET path=\"/v2/a/manifests/v2\" status=200 bytes="), "{log}");
}

#[test]
fn what_changes_in_a_directory_is_served() {
    let images = Images::new();
    let server = images.serve(&["images"]);
    let digest = |reference: &str| {
        let answer = server.ask("HEAD", &format!("/v2/a/b/manifests/{reference}"), "");
        answer.headers.get("docker-content-digest").cloned()
    };
    let (one, two) = (manifest_digest(&images.one), manifest_digest(&images.two));
    assert_eq!(digest("v1").as_ref(), Some(&one));
    images.link("two.json", "a/b/v1");
    until("the link is followed", || digest("v1").filter(|found| *found == two));
    assert_eq!(server.metric("stowage_reloads_total"), 1.0);
    // Who is about to pull what the tag was gets all of it.
    assert_eq!(digest(&one).as_ref(), Some(&one));

    images.store.write("broken.json", "{");
    images.link("broken.json", "a/b/v1");
    images.link("one.json", "a/b/v9");
    until("the new one is there", || digest("v9"));
    assert_eq!(digest("v1").as_ref(), Some(&two));
    fs::remove_file(images.path("images/a/b/v9")).unwrap();
    until("the new one is gone", || digest("v9").is_none().then_some(()));

    let before = server.metric("stowage_reloads_total");
    server.signal(Signal::SIGHUP);
    until("it reloads", || (server.metric("stowage_reloads_total") > before).then_some(()));
    let log = server.end();
    assert!(log.contains("images/a/b/v1: not an image spec"), "{log}");
    assert_eq!(log.matches("a/b:v1 stays as it was").count(), 1, "{log}");
}

/// The distribution-spec's conformance tests for pull and content discovery, as far as they
/// concern a registry that nobody pushes to.
#[test]
fn it_conforms_to_the_distribution_spec() {
    let images = Images::new();
    let server = images.serve(&["images", "a/b:v0=two.json"]);
    let image = Image::new(&images.one);
    let (manifest, config) = (image.manifest.digest.to_string(), image.config.digest.to_string());
    let (layer, size) = images.big("a/b");
    let absent = format!("sha256:{}", "0".repeat(64));
    let path = |kind: &str, reference: &str| format!("/v2/a/b/{kind}/{reference}");
    for (case, method, path, status, code) in [
        ("GET on the base endpoint", "GET", "/v2/".to_owned(), 200, ""),
        ("HEAD to nonexistent blob", "HEAD", path("blobs", &absent), 404, ""),
        ("HEAD to existing blob", "HEAD", layer.clone(), 200, ""),
        ("GET nonexistent blob", "GET", path("blobs", &absent), 404, "BLOB_UNKNOWN"),
        ("GET existing blob", "GET", layer.clone(), 200, ""),
        ("GET existing config", "GET", path("blobs", &config), 200, ""),
        ("HEAD to nonexistent manifest", "HEAD", path("manifests", ".INVALID"), 404, ""),
        ("HEAD to manifest by digest", "HEAD", path("manifests", &manifest), 200, ""),
        ("HEAD to manifest by tag", "HEAD", path("manifests", "v1"), 200, ""),
        ("GET nonexistent manifest", "GET", path("manifests", "none"), 404, "MANIFEST_UNKNOWN"),
        ("GET absent manifest", "GET", path("manifests", &absent), 404, "MANIFEST_UNKNOWN"),
        ("GET manifest by digest", "GET", path("manifests", &manifest), 200, ""),
        ("GET manifest by tag", "GET", path("manifests", "v1"), 200, ""),
        ("GET in no repository", "GET", "/v2/none/manifests/v1".to_owned(), 404, "NAME_UNKNOWN"),
        ("bad digest", "GET", path("blobs", "sha256:totallywrong"), 400, "DIGEST_INVALID"),
        ("GET tags", "GET", "/v2/a/b/tags/list".to_owned(), 200, ""),
        ("tags of no repository", "GET", "/v2/none/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("GET referrers", "GET", path("referrers", &manifest), 200, ""),
        ("GET referrers of nothing", "GET", path("referrers", &absent), 200, ""),
        ("bad referrers", "GET", path("referrers", "sha256:x"), 400, "DIGEST_INVALID"),
        ("push of a blob", "POST", "/v2/a/b/blobs/uploads/".to_owned(), 405, "UNSUPPORTED"),
        ("push of a manifest", "PUT", path("manifests", "v7"), 405, "UNSUPPORTED"),
        ("DELETE of a tag", "DELETE", path("manifests", "v1"), 405, "UNSUPPORTED"),
        ("DELETE of a blob", "DELETE", layer.clone(), 405, "UNSUPPORTED"),
    ] {
        let answer = server.ask(method, &path, "");
        assert_eq!(answer.status, status, "{case}");
        assert_eq!(if method == "HEAD" { String::new() } else { answer.code() }, code, "{case}");
    }
    let head = server.ask("HEAD", &layer, "");
    assert_eq!(head.headers["content-length"], size.to_string());
    // Content discovery: all tags, pages, and what is after a tag.
    for (query, tags, more) in [
        ("", json!(["v0", "v1"]), false),
        ("?n=1", json!(["v0"]), true),
        ("?n=2", json!(["v0", "v1"]), false),
        ("?n=0", json!([]), false),
        ("?n=5&last=v0", json!(["v1"]), false),
        ("?last=v1", json!([]), false),
    ] {
        let answer = server.get(&format!("/v2/a/b/tags/list{query}"));
        assert_eq!(answer.json(), json!({"name": "a/b", "tags": tags}), "{query}");
        assert_eq!(answer.headers.contains_key("link"), more, "{query}");
    }
    let referrers = server.get(&path("referrers", &manifest));
    assert_eq!(referrers.headers["content-type"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(referrers.json()["manifests"], json!([]));
}

#[test]
fn only_users_are_served() {
    let images = Images::new();
    // Not a slow hash: here it is to be tried often.
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    images.store.write("users", &format!("ann:{}\nbob:{}\n", hash("secret"), hash("other")));
    let server = images.serve(&["images", "--htpasswd", "users"]);
    let basic = |text: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(text));
    for (path, credentials, status) in [
        ("/v2/", "", 401),
        ("/v2/a/b/manifests/v1", "", 401),
        ("/v2/none/manifests/v1", "", 401),
        ("/metrics", "", 401),
        ("/healthz", "", 200),
        ("/v2/", &*basic("ann:secret"), 200),
        ("/v2/", &*basic("bob:other"), 200),
        ("/v2/a/b/manifests/v1", &*basic("ann:secret"), 200),
        ("/metrics", &*basic("ann:secret"), 200),
        ("/v2/", &*basic("ann:other"), 401),
        ("/v2/", &*basic("ann:"), 401),
        ("/v2/", &*basic("eve:secret"), 401),
        ("/v2/", "Authorization: Bearer x\r\n", 401),
        ("/v2/", "Authorization: Basic !\r\n", 401),
    ] {
        let answer = server.ask("GET", path, credentials);
        assert_eq!(answer.status, status, "{path} {credentials}");
        if status == 401 {
            assert_eq!(answer.code(), "UNAUTHORIZED");
            let challenge = &answer.headers["www-authenticate"];
            assert!(challenge.starts_with("Basic realm="), "{challenge}");
        }
    }
    let log = server.end();
    assert!(!log.contains("secret") && !log.contains("Authorization"), "{log}");
}

#[test]
fn a_layer_is_made_once_with_a_cache() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--cache", "cache/blobs"]);
    let numbers = |server: &Server| {
        ["layers_made", "cache_misses", "cache_hits"]
            .map(|name| server.metric(&format!("stowage_{name}_total")))
    };
    let first = server.get(&blob);
    assert_eq!((first.status, first.body.len() as u64), (200, size));
    assert_eq!(numbers(&server), [1.0, 1.0, 0.0]);
    assert!(server.get(&blob).body == first.body);
    assert_eq!(numbers(&server), [1.0, 1.0, 1.0]);
    let part = server.ask("GET", &blob, "Range: bytes=5000000-6000000\r\n");
    assert_eq!(part.status, 206);
    assert!(part.body == first.body[5_000_000..=6_000_000]);
    assert_eq!(numbers(&server), [1.0, 1.0, 2.0]);
    assert!(server.metric("stowage_sent_bytes_total") > 2.0 * size as f64);

    // What isn't whole is made again; and what is kept is there for the next one.
    let name = blob.rsplit('/').next().unwrap().replace(':', "-");
    let file = images.path("cache/blobs").join(name);
    assert_eq!(fs::metadata(&file).unwrap().len(), size);
    fs::write(&file, "half of it").unwrap();
    assert!(server.get(&blob).body == first.body);
    assert_eq!(numbers(&server), [2.0, 2.0, 2.0]);
    server.end();
    let server = images.serve(&["images", "--cache", "cache/blobs"]);
    assert!(server.get(&blob).body == first.body);
    assert_eq!(numbers(&server), [0.0, 0.0, 1.0]);
    server.end();
    // In less than it has, there is no place for it.
    let server = images.serve(&["images", "--cache", "cache/blobs", "--cache-size", "1M"]);
    for _ in 0..2 {
        assert!(server.get(&blob).body == first.body);
    }
    assert_eq!(numbers(&server), [2.0, 2.0, 0.0]);
    assert!(!file.exists());
}

/// Whoever of them is the first to ask, and however far that one is when the others do.
#[test]
fn a_layer_is_made_once_for_many_who_ask_at_once() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--cache", "cache"]);
    let file = images.path("cache").join(blob.rsplit('/').next().unwrap().replace(':', "-"));
    for round in 1..=3 {
        std::thread::scope(|scope| {
            for client in 0..12 {
                let (server, blob) = (&server, &blob);
                scope.spawn(move || {
                    if client % 3 == 0 {
                        let range = "Range: bytes=5000000-6000000\r\n";
                        assert_eq!(server.ask("GET", blob, range).body.len(), 1_000_001);
                    } else {
                        let body = server.get(blob).body;
                        assert_eq!(format!("/v2/a/b/blobs/{}", Digest::of(&body)), *blob);
                    }
                });
            }
        });
        assert_eq!(server.metric("stowage_layers_made_total"), f64::from(round));
        assert_eq!(server.metric("stowage_cache_misses_total"), f64::from(round));
        let [joins, hits] =
            ["joins", "hits"].map(|name| server.metric(&format!("stowage_cache_{name}_total")));
        assert_eq!(joins + hits, f64::from(round) * 11.0);
        assert_eq!(fs::metadata(&file).unwrap().len(), size);
        // It is made anew.
        fs::remove_file(&file).unwrap();
    }
    // Those who don't wait for it take nothing from those who do.
    std::thread::scope(|scope| {
        for client in 0..12 {
            let (server, blob) = (&server, &blob);
            scope.spawn(move || {
                if client % 2 == 0 {
                    drop(Slow::ask(server, blob));
                } else {
                    let body = server.get(blob).body;
                    assert_eq!(format!("/v2/a/b/blobs/{}", Digest::of(&body)), *blob);
                }
            });
        }
    });
    assert_eq!(server.metric("stowage_layers_failed_total"), 0.0);
}

/// Nothing is kept of a layer that came out wrong, or that nobody waited for.
#[test]
fn only_checked_layers_are_kept() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--cache", "cache"]);
    let mut client = TcpStream::connect(server.address).unwrap();
    client.write_all(http::request("GET", &blob, "").as_bytes()).unwrap();
    client.read_exact(&mut [0; 4096]).unwrap();
    drop(client);
    let names = || {
        let entries = fs::read_dir(images.path("cache")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    // It was made to its end before, or it is forgotten.
    until("nothing is made", || {
        (server.metric("stowage_requests_in_flight") == 1.0
            && !names().iter().any(|name| name.ends_with(".part")))
        .then_some(())
    });
    for name in names() {
        fs::remove_file(images.path("cache").join(name)).unwrap();
    }
    let source = images.one.layers.iter().max_by_key(|layer| layer.size).unwrap();
    let source = images.store.store().physical(source.sources().next().unwrap());
    let mut bytes = fs::read(&source).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&source, bytes).unwrap();
    assert!((server.get(&blob).body.len() as u64) < size);
    assert_eq!(names(), [""; 0]);
    assert_eq!(server.metric("stowage_layers_failed_total"), 1.0);
    let log = server.end();
    assert!(log.contains("is not what it was") && log.contains("broken off"), "{log}");
}

/// A digest that is wrong in one image is not to spoil the cache for others that have it rightly.
#[test]
fn only_what_has_the_digest_is_kept() {
    let images = Images::new();
    let digest = images.one.layers.iter().max_by_key(|layer| layer.size).unwrap().diff_id;
    let wrong = format!("sha256:{}", "0".repeat(64));
    let spec = fs::read_to_string(images.path("one.json")).unwrap();
    images.store.write("wrong.json", &spec.replace(&digest.to_string(), &wrong));
    images.link("wrong.json", "a/b/v1");
    let blob = format!("/v2/a/b/blobs/{wrong}");
    let size = images.big("a/b").1;
    let server = images.serve(&["images", "--cache", "cache"]);
    assert!((server.get(&blob).body.len() as u64) < size);
    assert_eq!(fs::read_dir(images.path("cache")).unwrap().count(), 0);
    // Who is sent it compares it.
    let server = images.serve(&["images"]);
    assert_eq!(server.get(&blob).body.len() as u64, size);
}

/// A client that doesn't read holds up nothing: the layer is in the cache before it goes on, and
/// comes from there.
#[test]
fn slow_clients_are_sent_what_is_kept() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--cache", "cache", "--jobs", "1"]);
    let slow = Slow::ask(&server, &blob);
    until("it is made", || (server.metric("stowage_requests_in_flight") == 2.0).then_some(()));
    let file = images.path("cache").join(blob.rsplit('/').next().unwrap().replace(':', "-"));
    until("it is kept", || file.exists().then_some(()));
    assert_eq!(server.get(&blob).body.len() as u64, size);
    assert_eq!(server.metric("stowage_cache_hits_total"), 1.0);
    // Also if it is removed in the meantime.
    fs::remove_file(&file).unwrap();
    assert_eq!(format!("/v2/a/b/blobs/{}", Digest::of(&slow.finish().body)), blob);
    let part = Slow::ask_with(&server, &blob, "Range: bytes=100-30000000\r\n");
    until("it is kept", || file.exists().then_some(()));
    assert_eq!(part.finish().body.len(), 30_000_000 - 100 + 1);
}

#[test]
fn compressed_layers_are_kept_compressed() {
    let images = Images::new();
    for compression in ["gzip", "zstd"] {
        images.store.build(&json!({"compression": compression, "maxLayers": 5}).to_string());
        let server = images.serve(&["a:v=image.json", "--cache", "cache"]);
        let manifest = server.get("/v2/a/manifests/v").json();
        let layers = manifest["layers"].as_array().unwrap();
        for times in 0..2 {
            for layer in layers {
                let media_type = layer["mediaType"].as_str().unwrap();
                assert!(media_type.ends_with(&format!("+{compression}")), "{media_type}");
                let digest = layer["digest"].as_str().unwrap();
                let blob = server.get(&format!("/v2/a/blobs/{digest}"));
                assert_eq!(Digest::of(&blob.body).to_string(), digest);
            }
            let hits = server.metric("stowage_cache_hits_total");
            assert_eq!(hits as usize, times * layers.len());
        }
    }
}

/// A client in the middle of a body.
struct Slow {
    stream: TcpStream,
    begin: Vec<u8>,
}

impl Slow {
    fn ask(server: &Server, path: &str) -> Self {
        Self::ask_with(server, path, "")
    }

    fn ask_with(server: &Server, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(http::request("GET", path, headers).as_bytes()).unwrap();
        let mut begin = vec![0; 4096];
        stream.read_exact(&mut begin).unwrap();
        Self { stream, begin }
    }

    fn finish(mut self) -> Answer {
        let _ = self.stream.read_to_end(&mut self.begin);
        Answer::parse(&self.begin)
    }
}

fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[test]
fn what_was_asked_for_is_sent_to_its_end() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let images = Images::new();
        let (blob, size) = images.big("a/b");
        let mut server = images.serve(&["images", "--grace", "60"]);
        let slow = Slow::ask(&server, &blob);
        let mut idle = TcpStream::connect(server.address).unwrap();
        server.signal(signal);
        until("it accepts no more", || refuses(server.address).then_some(()));
        assert!(server.child.try_wait().unwrap().is_none());
        // Who has asked for nothing is not waited for.
        assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0);
        let answer = slow.finish();
        assert_eq!(answer.body.len() as u64, size);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn nobody_is_waited_for_longer_than_was_said() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--grace", "0"]);
    let slow = Slow::ask(&server, &blob);
    let log = server.end();
    assert!(log.contains("broke off what was not sent in time"), "{log}");
    assert!((slow.finish().body.len() as u64) < size);

    let mut server = images.serve(&["images", "--grace", "1000"]);
    let _slow = Slow::ask(&server, &blob);
    server.signal(Signal::SIGTERM);
    until("it accepts no more", || refuses(server.address).then_some(()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(128 + 15));
}

#[test]
fn slow_clients_do_not_keep_others_waiting() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--jobs", "1"]);
    let slow: Vec<_> = (0..20).map(|_| Slow::ask(&server, &blob)).collect();
    assert_eq!(server.metric("stowage_requests_in_flight"), 21.0);
    assert_eq!(server.get(&blob).body.len() as u64, size);
    drop(slow);
    until("they are forgotten", || {
        (server.metric("stowage_requests_in_flight") == 1.0).then_some(())
    });
}

#[test]
fn connections_are_as_many_as_may_be() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--max-connections", "1"]);
    let slow = Slow::ask(&server, &blob);
    let mut next = TcpStream::connect(server.address).unwrap();
    next.write_all(http::request("GET", "/v2/", "").as_bytes()).unwrap();
    next.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(next.read(&mut [0]).is_err());
    assert_eq!(slow.finish().body.len() as u64, size);
    next.set_read_timeout(None).unwrap();
    let mut bytes = Vec::new();
    next.read_to_end(&mut bytes).unwrap();
    assert_eq!(Answer::parse(&bytes).status, 200);
}

#[test]
fn metrics_and_log_say_what_was_done() {
    let images = Images::new();
    let server = images.serve(&["images", "--log-format", "json"]);
    assert_eq!(server.get("/healthz").text(), "ok\n");
    server.get("/v2/a/b/manifests/v1");
    server.get("/v2/a/b/manifests/none");
    server.get("/v2/a/b/manifests/none");
    server.ask("POST", "/v2/a/b/blobs/uploads/", "");
    let text = server.get("/metrics").text();
    for line in [
        "stowage_requests_total{route=\"healthz\",status=\"200\"} 1",
        "stowage_requests_total{route=\"manifest\",status=\"200\"} 1",
        "stowage_requests_total{route=\"manifest\",status=\"404\"} 2",
        "stowage_requests_total{route=\"upload\",status=\"405\"} 1",
        "stowage_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
    }
    let log = server.end();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered = lines.iter().find(|line| line["path"] == "/v2/a/b/manifests/v1").unwrap();
    assert_eq!((&answered["method"], &answered["status"]), (&json!("GET"), &json!(200)));
    let size = Image::new(&images.one).manifest.bytes.len();
    assert_eq!(answered["bytes"], json!(size), "{answered}");
    assert!(answered["ms"].is_u64());

    let server = images.serve(&["images", "--quiet"]);
    server.get("/v2/");
    assert_eq!(server.end(), "");
}

/// A certificate for localhost, and its key.
fn certificate(images: &Images) -> PathBuf {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    images.store.write("key.pem", &made.signing_key.serialize_pem());
    images.store.write("cert.pem", &made.cert.pem())
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn tls(address: SocketAddr, certificate: &Path) -> TlsStream {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(client, TcpStream::connect(address).unwrap())
}

fn get_by_tls(address: SocketAddr, certificate: &Path, path: &str) -> Answer {
    try_by_tls(address, certificate, path, "").unwrap()
}

fn try_by_tls(
    address: SocketAddr,
    certificate: &Path,
    path: &str,
    headers: &str,
) -> io::Result<Answer> {
    let mut stream = tls(address, certificate);
    stream.write_all(http::request("GET", path, headers).as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(Answer::parse(&bytes))
}

#[test]
fn certificates_and_users_are_read_again() {
    let images = Images::new();
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    let basic = |text: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(text));
    let replace = |name: &str, text: &str| {
        images.store.write("new", text);
        fs::rename(images.path("new"), images.path(name)).unwrap();
    };
    images.store.write("users", &format!("ann:{}\n", hash("secret")));
    certificate(&images);
    let trusted = |name: &str| fs::copy(images.path("cert.pem"), images.path(name)).map(drop);
    trusted("first").unwrap();
    let (blob, size) = images.big("a/b");
    let mut arguments = vec!["images", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    arguments.extend(["--htpasswd", "users"]);
    let server = images.serve(&arguments);
    let status = |certificate: &str, user: &str| {
        let certificate = images.path(certificate);
        let answer = try_by_tls(server.address, &certificate, "/v2/", &basic(user));
        answer.ok().map(|answer| answer.status)
    };
    assert_eq!(status("first", "ann:secret"), Some(200));
    let mut old = tls(server.address, &images.path("first"));
    old.write_all(http::request("GET", &blob, &basic("ann:secret")).as_bytes()).unwrap();
    let mut begin = vec![0; 4096];
    old.read_exact(&mut begin).unwrap();

    // One after the other, as they are replaced: in between, they don't belong together.
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    replace("cert.pem", &made.cert.pem());
    trusted("second").unwrap();
    let log = || fs::read_to_string(&server.log).unwrap();
    until("it says so", || log().contains("not the key of that certificate").then_some(()));
    assert_eq!(status("first", "ann:secret"), Some(200));
    replace("key.pem", &made.signing_key.serialize_pem());
    server.signal(Signal::SIGHUP);
    until("it has the other one", || status("second", "ann:secret").filter(|s| *s == 200));
    assert_eq!(status("first", "ann:secret"), None);
    old.read_to_end(&mut begin).unwrap();
    assert_eq!(Answer::parse(&begin).body.len() as u64, size);

    replace("users", &format!("bob:{}\n", hash("other")));
    until("it has the other one", || status("second", "bob:other").filter(|s| *s == 200));
    assert_eq!(status("second", "ann:secret"), Some(401));
    replace("users", "bob:other\n");
    replace("cert.pem", "nonsense");
    server.signal(Signal::SIGHUP);
    let wrong =
        ["users, line 1: the password of `bob` is not hashed", "cert.pem: not a certificate"];
    until("it says so", || wrong.iter().all(|wrong| log().contains(wrong)).then_some(()));
    assert_eq!(status("second", "bob:other"), Some(200));
}

#[test]
fn layers_go_by_tls() {
    let images = Images::new();
    let certificate = certificate(&images);
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    let answer = get_by_tls(server.address, &certificate, &blob);
    assert_eq!((answer.status, answer.body.len() as u64), (200, size));
    assert_eq!(format!("/v2/a/b/blobs/{}", Digest::of(&answer.body)), blob);
    // Without, there is no answer, and others get theirs.
    let plain = http::raw(server.address, &http::request("GET", "/v2/", ""));
    assert!(!plain.starts_with(b"HTTP"));
    assert_eq!(get_by_tls(server.address, &certificate, "/v2/").status, 200);
}

#[test]
fn what_everybody_can_reach_is_warned_of() {
    let images = Images::new();
    certificate(&images);
    let hash = bcrypt::hash("secret", 4).unwrap();
    images.store.write("users", &format!("ann:{hash}\n"));
    let tls = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let users = ["--htpasswd", "users"];
    for (arguments, warnings) in [
        (vec![], ["--htpasswd", "--tls-cert"].as_slice()),
        (tls.to_vec(), &["--htpasswd"]),
        (users.to_vec(), &["--tls-cert"]),
        ([&tls[..], &users].concat(), &[]),
    ] {
        let mut all = vec!["images", "--quiet", "--listen", "0.0.0.0:0"];
        all.extend(&arguments);
        let mut command = images.store.stowage(&["serve"]);
        let mut child =
            command.args(all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It has said what there is to say when it prints its address.
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let scheme = if arguments.contains(&"--tls-cert") { "https" } else { "http" };
        assert!(address.starts_with(&format!("{scheme}://0.0.0.0:")), "{address}");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let log = stderr(&child.wait_with_output().unwrap());
        let found = ["--htpasswd", "--tls-cert"].map(|flag| log.contains(flag));
        let expected = ["--htpasswd", "--tls-cert"].map(|flag| warnings.contains(&flag));
        assert_eq!(found, expected, "{log}");
    }
}

#[test]
fn what_it_cannot_begin_with_is_said() {
    let images = Images::new();
    certificate(&images);
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    images.store.write("other.pem", &other);
    images.store.write("broken.json", "{");
    images.store.write("Upper.json", "{}");
    images.store.write("empty", "\n");
    images.store.write("md5", "ann:$apr1$x$y\n");
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listening.local_addr().unwrap().to_string();
    for (arguments, code, message) in [
        (vec!["none.json"], 1, "error: cannot read none.json: No such file"),
        (vec!["a:v1=none.json"], 1, "error: cannot read none.json: No such file"),
        (vec!["broken.json"], 1, "error: broken.json: not an image spec: "),
        (vec!["Upper.json"], 1, "error: `Upper.json`: `Upper` is no name for a repository"),
        (vec!["A:v1=one.json"], 1, "error: `A:v1=one.json`: `A` is no name for a repository"),
        (vec!["a:.v=one.json"], 1, "error: `a:.v=one.json`: `.v` is no tag"),
        (
            vec!["a:v=one.json", "a:v=two.json"],
            1,
            "error: a:v is two images: one.json and two.json",
        ),
        (vec!["images", "--listen", &taken], 1, "error: cannot listen on 127.0.0.1:"),
        (vec!["images", "--htpasswd", "none"], 1, "error: cannot read none: No such file"),
        (vec!["images", "--htpasswd", "empty"], 1, "error: empty: there is no user in it"),
        (
            vec!["images", "--htpasswd", "md5"],
            1,
            "error: md5, line 1: the password of `ann` is not hashed by bcrypt",
        ),
        (
            vec!["images", "--tls-cert", "none", "--tls-key", "key.pem"],
            1,
            "error: cannot read none: No such file",
        ),
        (
            vec!["images", "--tls-cert", "one.json", "--tls-key", "key.pem"],
            1,
            "error: one.json: not a certificate: there is none in it",
        ),
        (
            vec!["images", "--tls-cert", "cert.pem", "--tls-key", "cert.pem"],
            1,
            "error: cert.pem: not a key: there is none in it",
        ),
        (
            vec!["images", "--tls-cert", "cert.pem", "--tls-key", "other.pem"],
            1,
            "error: other.pem: not the key of that certificate: ",
        ),
        (vec!["images", "--cache", "one.json"], 1, "error: cannot keep blobs in one.json: "),
        (vec!["images", "--address-file", "none/file"], 1, "error: cannot write none/file: "),
        (vec![], 2, "IMAGE|DIR"),
        (vec!["images", "--listen", "nonsense"], 2, "invalid value 'nonsense' for '--listen"),
        (vec!["images", "--tls-cert", "cert.pem"], 2, "--tls-key"),
        (vec!["images", "--cache-size", "1G"], 2, "--cache"),
        (vec!["images", "--cache", "c", "--cache-size", "big"], 2, "not a number of bytes"),
        (vec!["images", "--max-connections", "0"], 2, "--max-connections"),
        (vec!["images", "--log-format", "xml"], 2, "--log-format"),
    ] {
        let mut command = images.store.stowage(&["serve", "--quiet"]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let output = command.args(&arguments).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
        // A sentence of ours is the first thing that is said.
        assert!(code == 2 || said.starts_with("error: "), "{arguments:?}: {said}");
    }
}
