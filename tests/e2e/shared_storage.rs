//! Tests `stowage serve --packages --storage`: several independent servers with one bucket.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::on_demand::{Server, header, packages, serve, skopeo};
use crate::s3::{Mode, S3, SECRET_KEY};
use crate::support::{Docker, stderr};

/// A package set for several servers, and their storage.
struct Shared {
    s3: S3,
    directory: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        packages(directory.path());
        Self { s3: S3::start(), directory }
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let source = format!("path!{}/packages", self.directory.path().display());
        let mut command = serve(&source);
        command.args(["--storage", &self.s3.url()]).args(arguments).envs(self.s3.environment());
        command
    }

    fn server(&self) -> Server {
        Server::run(tempfile::tempdir().unwrap(), &mut self.command(&[]))
    }
}

/// Passes connections on to the servers in turn, and only to those that answer.
struct Balancer {
    host: String,
    servers: Arc<Mutex<Vec<Option<Server>>>>,
}

impl Balancer {
    /// Starts the balancer. It kills the first server just before the `kill_at`-th connection.
    fn start(servers: Vec<Server>, kill_at: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let servers = Arc::new(Mutex::new(servers.into_iter().map(Some).collect::<Vec<_>>()));
        let ours = Arc::clone(&servers);
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let mut servers = ours.lock().unwrap();
                if number == kill_at {
                    servers[0].take().unwrap().kill();
                }
                let alive: Vec<_> = servers.iter().flatten().collect();
                let server = TcpStream::connect(&alive[number % alive.len()].host).unwrap();
                drop(servers);
                pass_on(client.unwrap(), server);
            }
        });
        Self { host, servers }
    }

    fn sum(&self, metric: &str) -> u64 {
        let servers = self.servers.lock().unwrap();
        servers.iter().flatten().map(|server| server.metric(metric)).sum()
    }
}

fn pass_on(client: TcpStream, server: TcpStream) {
    for (mut from, mut to) in
        [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
    {
        std::thread::spawn(move || {
            // A server that was killed resets its connections.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

#[test]
fn three_servers_answer_for_each_other() {
    let shared = Shared::new();
    let servers = vec![shared.server(), shared.server(), shared.server()];
    let first = servers[0].manifest("shell/git/curl");
    assert_eq!(first.status, 200, "{}", first.body);
    // The other servers have the image without a build, byte for byte.
    for server in &servers[1..] {
        assert_eq!(server.manifest("shell/git/curl").body, first.body);
        assert_eq!(server.metric("image_builds_total"), 0);
        assert_eq!(server.metric("images_found_total"), 1);
    }

    // The server that has built the image is killed in the middle of a pull through the balancer.
    let balancer = Balancer::start(servers, 2);
    let directory = tempfile::tempdir().unwrap();
    let source = format!("docker://{}/shell/git/curl", balancer.host);
    let target = format!("oci:{}:a", directory.path().display());
    let options = ["copy", "--quiet", "--preserve-digests", "--retry-times=3"];
    skopeo(&[&options[..], &["--src-tls-verify=false", &source, &target]].concat());
    assert!(balancer.servers.lock().unwrap()[0].is_none(), "nobody was killed");
    assert_eq!(balancer.sum("image_builds_total"), 0);
    // The layers come from the storage: the servers have sent less than a thousandth of their
    // bytes.
    let sent = balancer.sum("sent_bytes_total");
    assert!(sent < 1 << 20, "{sent}");

    // Docker follows redirections to the blobs, and a further package takes one further build.
    let docker = Docker::start();
    let reference = format!("{}/shell/git/curl/jq", balancer.host);
    docker.run(&["pull", "--quiet", &reference]);
    assert!(docker.container(&reference, &["jq", "--version"]).starts_with("jq"));
    assert!(docker.container(&reference, &["git", "--version"]).starts_with("git version"));
    assert_eq!(balancer.sum("image_builds_total"), 1);
}

#[test]
fn a_server_that_is_started_again_builds_nothing() {
    let shared = Shared::new();
    let before = shared.server();
    let manifest = before.manifest("hello");
    let digest = header(&manifest, "docker-content-digest");
    let by_digest = format!("/v2/hello/manifests/{digest}");
    let referrers = format!("/v2/hello/referrers/{digest}");
    let referring = before.ask("GET", &referrers).body;
    drop(before);
    let after = shared.server();
    // The list of the image's packages is in the storage, with its manifest and its document.
    assert_eq!(after.ask("GET", &referrers).body, referring);
    assert!(!after.log().contains("listed"), "{}", after.log());
    let list = &serde_json::from_str::<Value>(&referring).unwrap()["manifests"][0]["digest"];
    let list = after.ask("GET", &format!("/v2/hello/manifests/{}", list.as_str().unwrap()));
    let list: Value = serde_json::from_str(&list.body).unwrap();
    let document = list["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(after.ask("GET", &format!("/v2/hello/blobs/{document}")).status, 307);
    // This also holds for a client that has read the tag from the earlier server.
    assert_eq!(after.ask("GET", &by_digest).body, manifest.body);
    assert_eq!(after.manifest("hello").body, manifest.body);
    assert_eq!(after.metric("image_builds_total"), 0);
    for (digest, size) in after.layers("hello") {
        let path = format!("/v2/hello/blobs/{digest}");
        let answer = after.ask("GET", &path);
        assert_eq!(answer.status, 307, "{}", answer.body);
        assert!(answer.head.contains("\r\nlocation: http://127.0.0.1:"), "{}", answer.head);
        let answer = after.ask("HEAD", &path);
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains(&format!("content-length: {size}")), "{}", answer.head);
    }
    let none = format!("/v2/hello/blobs/sha256:{}", "0".repeat(64));
    assert_eq!(after.ask("GET", &none).status, 404);
    assert!(!after.log().contains("X-Amz"), "{}", after.log());
}

#[test]
fn what_is_wrong_with_a_storage_is_said() {
    let shared = Shared::new();
    // At the start, the administrator gets the error.
    let output = shared.command(&[]).env("AWS_SECRET_ACCESS_KEY", "wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("error: s3://images/a/prefix does not let this program"), "{text}");
    assert!(
        text.contains("hint: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are the credentials"),
        "{text}"
    );
    assert!(!text.contains(SECRET_KEY), "{text}");

    // Later, clients get an error without details.
    let server = shared.server();
    shared.s3.set_mode(Mode::Full);
    let answer = server.manifest("hello");
    assert_eq!(answer.status, 507);
    assert!(answer.body.contains("cannot be stored: the storage is full"), "{}", answer.body);
    assert!(!answer.body.contains("s3"), "{}", answer.body);
    assert!(server.log().contains("s3://images/a/prefix has no space left to write"));
    shared.s3.set_mode(Mode::Well);
    assert_eq!(server.manifest("jq").status, 200);
}
