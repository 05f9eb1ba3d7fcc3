//! Tests `stowage serve --packages`: images that Nix builds when a client pulls them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::podman::podman;
use crate::serve::check_start_page;
use crate::support::{Docker, build, nix, run};

/// Returns the directory of the embedded packages.
fn embedded() -> &'static str {
    static SET: OnceLock<String> = OnceLock::new();
    SET.get_or_init(|| {
        let attribute = ".#legacyPackages.x86_64-linux";
        run(&mut nix(&["eval", "--raw", attribute, "--apply", "pkgs: toString pkgs.path"]))
    })
}

/// Makes a package set with packages that fail, beside the embedded packages.
pub fn packages(directory: &Path) -> PathBuf {
    let set = embedded();
    let code = format!(
        r#"{{ system }}: import {set} {{
  inherit system;
  overlays = [ (final: previous: {{
    broken = throw "it is broken, in ${{toString ./.}}";
    unbuildable = final.runCommand "unbuildable" {{ }} "echo no; exit 1";
    slow = final.runCommand "slow" {{ }} "sleep 1000";
    own = final.writeShellScriptBin "own" "echo own";
    unlisted = final.writeShellScriptBin "unlisted" "" // {{ meta.license = abort "in ${{toString ./.}}"; }};
  }}) ];
}}
"#
    );
    let packages = directory.join("packages");
    fs::create_dir_all(&packages).unwrap();
    fs::write(packages.join("default.nix"), code).unwrap();
    packages
}

/// Returns the program with everything that it needs to serve packages, which may be made from the
/// embedded ones.
pub fn serve(source: &str) -> Command {
    let program = build("packages.x86_64-linux.serve").join("bin/stowage-serve");
    let mut command = nix(&["--exec"]);
    command.arg(program).args(["--packages", source, "--listen=127.0.0.1:0"]);
    command.args(["--include", embedded()]);
    command
}

pub struct Server {
    process: Child,
    pub directory: tempfile::TempDir,
    /// The host and the port.
    pub host: String,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = format!("path!{}", packages(directory.path()).display());
        Self::start_with(directory, &source, arguments)
    }

    fn start_with(directory: tempfile::TempDir, source: &str, arguments: &[&str]) -> Self {
        Self::run(directory, serve(source).args(arguments))
    }

    /// Starts a server with a command that lacks only the address file.
    pub fn run(directory: tempfile::TempDir, command: &mut Command) -> Self {
        let path = |name: &str| directory.path().join(name);
        command.arg("--address-file").arg(path("address"));
        command.stderr(fs::File::create(path("log")).unwrap()).stdout(Stdio::null());
        let mut process = command.spawn().unwrap();
        let begin = Instant::now();
        let host = loop {
            match fs::read_to_string(path("address")) {
                Ok(address) if address.ends_with('\n') => break address.trim_end().to_owned(),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(path("log")).unwrap());
            assert!(begin.elapsed() < Duration::from_secs(60), "it does not answer");
        };
        Self { process, directory, host }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub fn ask(&self, method: &str, path: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let host = &self.host;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn manifest(&self, name: &str) -> Answer {
        self.ask("GET", &format!("/v2/{name}/manifests/latest"))
    }

    pub fn layers(&self, name: &str) -> BTreeMap<String, u64> {
        let manifest: Value = serde_json::from_str(&self.manifest(name).body).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| {
                (layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap())
            })
            .collect()
    }

    pub fn metric(&self, name: &str) -> u64 {
        let metrics = self.ask("GET", "/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("stowage_{name} ")));
        line.unwrap_or_else(|| panic!("{name} in {metrics}")).parse().unwrap()
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

/// Runs `skopeo ARGUMENTS`.
pub fn skopeo(arguments: &[&str]) -> String {
    let mut command = Command::new("skopeo");
    run(command.arg("--insecure-policy").args(arguments).stdin(Stdio::null()))
}

#[test]
fn docker_pulls_and_runs_what_it_names() {
    let server = Server::start(&[]);
    let docker = Docker::start();
    let reference = format!("{}/shell/git/curl", server.host);
    docker.run(&["pull", "--quiet", &reference]);
    assert!(docker.container(&reference, &["git", "--version"]).starts_with("git version"));
    assert!(docker.container(&reference, &["curl", "--version"]).starts_with("curl "));
    assert!(docker.container(&reference, &["bash", "-c", "echo $BASH_VERSION"]).starts_with("5."));
    assert_eq!(server.metric("image_builds_total"), 1);
}

/// Checks that a further package transfers only its own layers.
#[test]
fn layers_that_are_there_are_not_pulled_again() {
    let server = Server::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}", directory.path().display());
    let pull = |name: &str| {
        let source = format!("docker://{}/{name}", server.host);
        let before = server.metric("sent_bytes_total");
        let options = ["copy", "--quiet", "--preserve-digests", "--src-tls-verify=false"];
        skopeo(&[&options[..], &[&source, &format!("{layout}:a")]].concat());
        server.metric("sent_bytes_total") - before
    };
    pull("shell/git/curl");
    let sent = pull("shell/git/curl/jq");
    let (old, new) = (server.layers("shell/git/curl"), server.layers("shell/git/curl/jq"));
    let new_bytes = |layers: &BTreeMap<String, u64>| {
        let new = layers.iter().filter(|(digest, _)| !old.contains_key(*digest));
        new.map(|(_, size)| size).sum::<u64>()
    };
    let (moved, all) = (new_bytes(&new), new.values().sum::<u64>());
    println!(
        "of {all} bytes, {moved} are in new layers; {sent} were sent, with manifest and config"
    );
    assert!(sent >= moved && sent < moved + (50 << 10), "{sent} for {moved}");
    assert!(moved < all / 20, "{moved} of {all}");
}

/// Checks that Docker transfers little more than what is new. Docker reuses a layer only if all
/// layers below it are equal; with popularity data the new layers are on top.
#[test]
fn docker_moves_little_more_than_what_is_new() {
    let directory = tempfile::tempdir().unwrap();
    let popularity = directory.path().join("popularity.json");
    fs::copy(build("checks.x86_64-linux.names-popularity"), &popularity).unwrap();
    let server = Server::start(&["--popularity", popularity.to_str().unwrap()]);
    let docker = Docker::start();
    let pull = |name: &str| {
        let before = server.metric("sent_bytes_total");
        docker.run(&["pull", "--quiet", &format!("{}/{name}", server.host)]);
        server.metric("sent_bytes_total") - before
    };
    let first = pull("shell/git/curl");
    let second = pull("shell/git/curl/jq");
    println!("{first} bytes for the first image, {second} for one more package");
    assert!(second < first / 5, "{second} after {first}");
}

#[test]
fn podman_and_skopeo_pull() {
    let server = Server::start(&["--max-layers=20"]);
    let directory = tempfile::tempdir().unwrap();
    let reference = format!("{}/shell/jq", server.host);
    run(&mut podman(directory.path(), &["pull", "--quiet", "--tls-verify=false", &reference]));
    let source = format!("docker://{reference}");
    let inspected = skopeo(&["inspect", "--tls-verify=false", &source]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["RepoTags"], serde_json::json!(["latest"]));
    assert!(inspected["Layers"].as_array().unwrap().len() <= 20);
    assert_eq!(server.metric("image_builds_total"), 1);
}

#[test]
fn what_cannot_be_built_is_said_and_nothing_of_this_machine() {
    let server = Server::start(&["--max-packages=3", "--max-image-size=40M"]);
    // A server of its own for the timeout, so that no other build is cut short.
    let impatient = Server::start(&["--build-timeout=3"]);
    for (name, status, code, message) in [
        ("hello/nonsense/odd", 404, "MANIFEST_UNKNOWN", "names `nonsense`, `odd`"),
        ("a/b/c/d", 400, "NAME_INVALID", "an image may have 3 packages, not 4"),
        ("broken", 404, "MANIFEST_UNKNOWN", "there is no such package: it is broken"),
        ("unbuildable", 500, "UNKNOWN", "unbuildable"),
        ("slow", 504, "UNKNOWN", "the image was not built within 3 s"),
        ("git", 403, "DENIED", "bytes, and at most 41943040 are allowed"),
    ] {
        let asked = if name == "slow" { &impatient } else { &server };
        let answer = asked.manifest(name);
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["errors"][0]["code"], code);
        let found = body["errors"][0]["message"].as_str().unwrap();
        assert!(found.contains(message), "{name}: {found}");
        assert!(!found.contains("/nix") && !found.contains("/tmp"), "{found}");
        if name.ends_with("odd") {
            assert_eq!(body["errors"][0]["detail"]["packages"][1], "odd");
        }
    }
    assert_eq!(server.metric("image_builds_total"), 4);
    // The server remembers the failure for a while, and the log has the details.
    for _ in 0..3 {
        assert_eq!(server.manifest("broken").status, 404);
    }
    assert!(server.metric("image_builds_total") <= 5);
    let directory = server.directory.path().display().to_string();
    assert!(server.log().contains(&format!("in {directory}/packages")));
    // The build that was ended is no longer running.
    let builds = run(Command::new("ps").args(["-eo", "args"]));
    let directory = impatient.directory.path().display().to_string();
    let left = |line: &&str| line.contains("nix-") && line.contains(&directory);
    assert_eq!(builds.lines().find(left), None);
}

/// Checks names that no package can have: each is refused as early as it should be.
#[test]
fn odd_names_are_refused_without_nix() {
    let server = Server::start(&[]);
    let long = "a".repeat(300);
    for (path, status) in [
        ("/v2/../hello/manifests/latest", 400),
        ("/v2/%2e%2e/manifests/latest", 400),
        ("/v2/hello;id/manifests/latest", 400),
        ("/v2/$(id)/manifests/latest", 400),
        ("/v2/`id`/manifests/latest", 400),
        ("/v2/\"hello\"/manifests/latest", 400),
        ("/v2/'hello'/manifests/latest", 400),
        ("/v2/${builtins.readFile}/manifests/latest", 400),
        ("/v2/h%C3%A9llo/manifests/latest", 400),
        ("/v2/Hello/manifests/latest", 400),
        ("/v2/-hello/manifests/latest", 400),
        ("/v2/hello..x/manifests/latest", 400),
        ("/v2/hello//x/manifests/latest", 400),
        (&*format!("/v2/{long}/manifests/latest"), 400),
        ("/v2/hello/manifests/--option", 404),
        ("/v2/hello/manifests/v1", 404),
        ("/v2/hello/manifests/sha256:0", 400),
        ("/v2/hello/tags/list", 404),
    ] {
        let answer = server.ask("GET", path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    assert_eq!(server.metric("image_builds_total"), 0);
    let page = server.ask("GET", "/");
    assert_eq!(page.status, 200);
    assert!(page.body.contains(&format!("docker run -it --rm {}/shell/git", server.host)));
    assert!(server.ask("HEAD", "/v2/hello/manifests/latest").head.contains("content-length: "));
    assert_eq!(server.ask("GET", "/v2/_catalog").body, r#"{"repositories":[]}"#);
    assert_eq!(server.metric("image_builds_total"), 1);
}

#[test]
fn a_hundred_at_once() {
    let server = Server::start(&["--max-builds=2", "--max-queue=8"]);
    let ask = |name: &(dyn Fn(usize) -> String + Sync)| {
        let (server, mut statuses) = (&server, BTreeMap::new());
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..100)
                .map(|number| scope.spawn(move || server.manifest(&name(number)).status))
                .collect();
            for thread in threads {
                *statuses.entry(thread.join().unwrap()).or_insert(0) += 1;
            }
        });
        statuses
    };
    assert_eq!(ask(&|_| "hello/jq".to_owned()), BTreeMap::from([(200, 100)]));
    assert_eq!(server.metric("image_builds_total"), 1);

    // Builds wait up to the limit, and further clients are told to try again later.
    let statuses = ask(&|number| format!("hello/none{number}"));
    let (found, refused) = (statuses.get(&404), statuses.get(&429));
    assert_eq!(found.unwrap_or(&0) + refused.unwrap_or(&0), 100, "{statuses:?}");
    // This client has one place for builds; the other place is kept for other clients.
    assert!(*found.unwrap() >= 9, "{statuses:?}");
    assert_eq!(server.metric("image_builds_total"), 1 + *found.unwrap() as u64);
    assert_eq!(server.metric("image_builds_refused_total"), refused.copied().unwrap_or(0) as u64);
    let memory = server.peak_memory();
    assert!(memory < 64 << 20, "{memory} bytes");
}

/// Checks that the list of an image's packages is made when a client asks what refers to the image, and not before.
#[test]
fn packages_are_listed_for_clients_that_ask() {
    let server = Server::start(&["--max-builds=2"]);
    let manifest = server.manifest("hello/jq");
    let image: Value = serde_json::from_str(&manifest.body).unwrap();
    let digest = header(&manifest, "docker-content-digest");
    let referrers = |name: &str, query: &str| {
        let answer = server.ask("GET", &format!("/v2/{name}/referrers/{digest}{query}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut index: Value = serde_json::from_str(&answer.body).unwrap();
        index["manifests"].take()
    };
    let none = serde_json::json!([]);
    // A client that looks for signatures does not wait for the list.
    assert_eq!(referrers("hello/jq", "?artifactType=application/vnd.dev.cosign"), none);
    assert!(!server.log().contains("listed"));
    let found = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..8).map(|_| scope.spawn(|| referrers("hello/jq", ""))).collect();
        let mut found: Vec<_> = askers.into_iter().map(|it| it.join().unwrap()).collect();
        found.dedup();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    });
    assert_eq!(server.log().matches("listed the packages").count(), 1, "{}", server.log());
    assert_eq!(referrers("hello/jq", "?artifactType=application%2Fspdx%2Bjson"), found);
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found[0]["artifactType"], "application/spdx+json");
    let get = |kind: &str, digest: &Value| -> Value {
        let path = format!("/v2/hello/jq/{kind}/{}", digest.as_str().unwrap());
        serde_json::from_str(&server.ask("GET", &path).body).unwrap()
    };
    let document = get("manifests", &found[0]["digest"]);
    assert_eq!(document["subject"]["digest"], digest);
    let layer = &document["layers"][0];
    assert_eq!(layer["annotations"]["org.opencontainers.image.title"], "jq.spdx.json");
    let list = get("blobs", &layer["digest"]);
    let names = list["packages"].as_array().unwrap().iter().map(|package| &package["name"]);
    let names: Vec<_> = names.filter_map(Value::as_str).collect();
    assert!(names.contains(&"hello") && names.contains(&"jq"), "{names:?}");
    // The list says what evaluation knows: the licence of a package.
    assert!(list.to_string().contains("licenseDeclared"), "{list}");
    // The image itself has stayed the same.
    assert_eq!(serde_json::from_str::<Value>(&server.manifest("hello/jq").body).unwrap(), image);
    // An error that evaluation can't catch does not keep the image from being served, and is no empty list.
    let digest = header(&server.manifest("unlisted"), "docker-content-digest");
    let answer = server.ask("GET", &format!("/v2/unlisted/referrers/{digest}"));
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(!answer.body.contains('/') && answer.body.contains("in …"), "{}", answer.body);
    // An image that was not asked for is not built.
    let digest = format!("sha256:{}", "0".repeat(64));
    assert_eq!(server.ask("GET", &format!("/v2/git/referrers/{digest}")).status, 404);
    let path = format!("/v2/hello/jq/referrers/{digest}");
    assert!(server.ask("GET", &path).body.contains("\"manifests\":[]"));
    assert_eq!(server.metric("image_builds_total"), 2);
}

/// Returns the value of a header of an answer.
pub fn header(answer: &Answer, name: &str) -> String {
    let start = format!("{name}: ");
    let found = answer.head.lines().find_map(|line| line.strip_prefix(&start));
    found.unwrap_or_else(|| panic!("{name} in {}", answer.head)).to_owned()
}

/// Runs git in a repository, and returns its output.
fn git_in(repository: &Path, arguments: &[&str]) -> String {
    let user = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
    let mut command = Command::new("git");
    run(command.arg("-C").arg(repository).args(user).args(arguments)).trim().to_owned()
}

/// Makes a repository of a directory, with all files in the first commit of `main`.
fn commit_first(directory: &Path) {
    git_in(directory, &["init", "--quiet", "--initial-branch=main"]);
    git_in(directory, &["add", "."]);
    git_in(directory, &["commit", "--quiet", "--message=one"]);
}

/// Checks that a tag is a branch, and that a branch is remembered for a limited time.
#[test]
fn packages_come_from_git() {
    let directory = tempfile::tempdir().unwrap();
    let packages = packages(directory.path());
    let git = |arguments: &[&str]| git_in(&packages, arguments);
    commit_first(&packages);
    let first = git(&["rev-parse", "HEAD"]);
    git(&["checkout", "--quiet", "-b", "next"]);
    let file = packages.join("default.nix");
    let code = fs::read_to_string(&file).unwrap().replace("echo own", "echo next");
    fs::write(&file, code).unwrap();
    git(&["commit", "--quiet", "--all", "--message=two"]);

    let source = format!("git!file://{}!main", packages.display());
    let server = Server::start_with(directory, &source, &["--remember=0", "--tags=commits"]);
    let docker = Docker::start();
    let own = |tag: &str| {
        let reference = format!("{}/own:{tag}", server.host);
        docker.run(&["pull", "--quiet", &reference]);
        docker.container(&reference, &["own"])
    };
    for (tag, printed, builds) in [
        ("latest", "own\n", 1),
        ("next", "next\n", 2),
        (&*first, "own\n", 3),
        // Packages of a commit never change.
        (&*first, "own\n", 3),
        ("latest", "own\n", 4),
    ] {
        assert_eq!(own(tag), printed, "{tag}");
        assert_eq!(server.metric("image_builds_total"), builds, "{tag}");
    }
    let answer = server.ask("GET", "/v2/own/manifests/nowhere");
    assert_eq!(answer.status, 404, "{}", answer.body);
    assert!(!answer.body.contains("/tmp"), "{}", answer.body);
}

/// Checks that a commit of a pull request is not built: it is untrusted code, under a ref that is
/// not a branch. Also checks that the code of a branch reads only itself.
#[test]
fn strangers_commits_are_not_evaluated_and_others_read_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let packages = packages(directory.path());
    let git = |arguments: &[&str]| git_in(&packages, arguments);
    commit_first(&packages);
    let own = git(&["rev-parse", "HEAD"]);
    let code = fs::read_to_string(packages.join("default.nix")).unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "0600-TEXT").unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/exfil", listener.local_addr().unwrap());
    let branch = |name: &str, body: &str| {
        git(&["checkout", "--quiet", "-B", name, &own]);
        let evil = code.replace("\"echo own\"", body);
        assert_ne!(evil, code);
        fs::write(packages.join("default.nix"), evil).unwrap();
        git(&["commit", "--quiet", "--all", "--message", name]);
        git(&["rev-parse", "HEAD"])
    };
    let strangers = branch("stranger", "\"echo stranger\"");
    git(&["update-ref", "refs/pull/1/head", &strangers]);
    branch("file", &format!("(builtins.readFile {})", secret.display()));
    std::os::unix::fs::symlink(&secret, packages.join("link")).unwrap();
    branch("link", "(builtins.readFile ./link)");
    git(&["add", "link"]);
    git(&["commit", "--quiet", "--amend", "--no-edit"]);
    branch("url", &format!("(builtins.readFile (builtins.fetchurl \"{url}\"))"));
    branch("tarball", &format!("(toString (fetchTarball \"{url}\"))"));
    branch("git", &format!("(toString (fetchGit \"{}\"))", packages.display()));
    branch(
        "path",
        "(builtins.readFile \"${builtins.path { path = /etc; name = \"x\"; }}/hostname\")",
    );
    branch("search", "(builtins.readFile <secret/secret>)");
    let printed = "(\"echo env ${builtins.getEnv \"AWS_SECRET_ACCESS_KEY\"}${builtins.getEnv \"HOME\"} end\")";
    branch("environment", printed);
    git(&["checkout", "--quiet", "main"]);
    git(&["branch", "--quiet", "-D", "stranger"]);

    // Serve the repository over a network protocol: of a local path, Nix reads all objects that git
    // has.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = packages.parent().unwrap();
    let mut daemon = Command::new("git")
        .args(["daemon", "--listen=127.0.0.1", "--export-all"])
        .args([format!("--port={port}"), format!("--base-path={}", base.display())])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(60), "git daemon does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    let name = packages.file_name().unwrap().to_string_lossy().into_owned();
    let source = format!("git!git://127.0.0.1:{port}/{name}!main");
    let searched = format!("secret={}", directory.path().display());
    let mut command = serve(&source);
    command.env("AWS_SECRET_ACCESS_KEY", "FAKE-KEY").env("NIX_PATH", searched);
    let server = Server::run(directory, command.arg("--tags=commits"));
    let answer = |tag: &str| server.ask("GET", &format!("/v2/own/manifests/{tag}"));
    let (ours, theirs) = (answer(&own), answer(&strangers));
    let evil = ["file", "link", "url", "tarball", "git", "path", "search"];
    let evil = evil.map(|tag| (tag, answer(tag)));
    let environment = answer("environment");
    let digest = |answer: &Answer| {
        let manifest: Value = serde_json::from_str(&answer.body).unwrap();
        manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["digest"].clone())
            .collect::<Vec<_>>()
    };
    // A child process of the daemon has the connections.
    let _ = Command::new("kill").arg(daemon.id().to_string()).status();
    let _ = daemon.wait();
    assert_eq!(ours.status, 200, "{}", ours.body);
    assert_eq!(theirs.status, 404, "{}", theirs.body);
    for (tag, answer) in evil {
        // An error that Nix can catch counts as a missing package of the set.
        assert!([404, 500].contains(&answer.status), "{tag}: {}", answer.body);
    }
    let log = server.log();
    assert!(log.contains("restricted mode") && !log.contains("0600-TEXT"), "{log}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "something was fetched");
    // The image has nothing of the server's environment.
    assert_eq!(environment.status, 200, "{}", environment.body);
    let layers = digest(&environment);
    let texts = layers
        .iter()
        .map(|layer| server.ask("GET", &format!("/v2/own/blobs/{}", layer.as_str().unwrap())).body);
    let text = texts.collect::<String>();
    assert!(text.contains("echo env  end") && !text.contains("FAKE-KEY"));
}

/// Checks that a server that ends during a build ends the build as well, and leaves no link.
#[test]
fn its_end_is_the_end_of_its_builds() {
    let mut server = Server::start(&["--grace=0"]);
    let mut stream = TcpStream::connect(&server.host).unwrap();
    write!(stream, "GET /v2/slow/manifests/latest HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let directory = server.directory.path().display().to_string();
    let builds = || {
        let processes = run(Command::new("ps").args(["-eo", "pid,args"]));
        let ours = |line: &&str| line.contains("nix-") && line.contains(&directory);
        processes.lines().find(ours).map(str::to_owned)
    };
    let begin = Instant::now();
    while builds().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(server.process.id() as i32), Signal::SIGTERM).unwrap();
    assert!(server.process.wait().unwrap().success(), "{}", server.log());
    let begin = Instant::now();
    while let Some(build) = builds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "still there: {build}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes a key, and returns its file and the public key.
fn signing_key(directory: &Path, name: &str) -> (PathBuf, String) {
    let secret = run(&mut nix(&["--exec", "nix", "key", "generate-secret", "--key-name", name]));
    let file = directory.join(name);
    fs::write(&file, &secret).unwrap();
    let mut public = nix(&["--exec", "nix", "key", "convert-secret-to-public"]);
    let public = run(public.stdin(fs::File::open(&file).unwrap()));
    (file, public.trim().to_owned())
}

/// Checks that an image is only served if a trusted key signed each of its store paths, and that
/// packages are not built then.
#[test]
fn signatures_are_required() {
    let keys = tempfile::tempdir().unwrap();
    let (key, public) = signing_key(keys.path(), "test-1");
    let (other_key, other_public) = signing_key(keys.path(), "other-1");
    // The images are in the store before anything is signed.
    let open = Server::start(&[]);
    assert_eq!(open.manifest("hello/own").status, 200);
    let directory = open.directory.path().join("packages");
    let path_of = |name: &str| {
        let file = directory.display();
        let expression = format!("(import {file} {{ system = \"x86_64-linux\"; }}).{name}");
        let drv = run(&mut nix(&["--exec", "nix-instantiate", "--expr", &expression]));
        run(&mut nix(&["--exec", "nix-store", "--realise", drv.trim()])).trim().to_owned()
    };
    let paths: Vec<_> =
        ["hello", "cacert", "iana-etc", "coreutils"].into_iter().map(path_of).collect();
    let sign = |key: &Path| {
        let file = key.to_str().unwrap();
        let arguments = ["--exec", "nix", "store", "sign", "--recursive", "--key-file", file];
        run(nix(&arguments).args(&paths));
    };
    let asked = |arguments: &[&str], name: &str| {
        let server = Server::start(&[&["--require-sigs"], arguments].concat());
        let answer = server.manifest(name);
        (answer.status, answer.body)
    };
    let (ours, others) =
        (["--trusted-public-key", &public], ["--trusted-public-key", &other_public]);
    let is_served = |(status, body): (u16, String)| assert_eq!(status, 200, "{body}");
    let is_refused = |(status, body): (u16, String), message: &str| {
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("DENIED") && body.contains(message), "{body}");
        assert!(!body.contains("/nix/store"), "{body}");
    };
    is_refused(asked(&ours, "hello"), "no trusted key signed `");
    sign(&other_key);
    is_refused(asked(&ours, "hello"), "no trusted key signed `");
    sign(&key);
    is_served(asked(&ours, "hello"));
    is_served(asked(&[&ours[..], &others].concat(), "hello"));
    // Nix's own setting does not have the key.
    is_refused(asked(&[], "hello"), "no trusted key signed `");
    // One path of the image is not signed; this machine has built it.
    let refused = asked(&ours, "hello/own");
    assert!(refused.1.contains("`own`") && !refused.1.contains("`hello-"), "{}", refused.1);
    is_refused(refused, "no trusted key signed `");
    is_served(asked(&[&ours[..], &["--allow-local-builds"]].concat(), "hello/own"));
    // A package that is not there would have to be built.
    is_refused(asked(&ours, "hello/unbuildable"), "`unbuildable` would have to be built");
    let (status, body) = asked(&[&ours[..], &["--allow-local-builds"]].concat(), "unbuildable");
    assert_eq!(status, 500, "{body}");
    assert_eq!(asked(&ours, "nonsense").0, 404);
}

#[test]
fn the_start_page_fits_phones_and_dark_rooms() {
    let server = Server::start(&[]);
    check_start_page(&server.host, "Images by the names of packages");
}
