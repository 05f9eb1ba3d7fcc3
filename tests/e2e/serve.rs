//! Tests `stowage serve` and its clients.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::containerd::Containerd;
use crate::podman::podman;
use crate::support::{Docker, Image, run, stderr, stowage};

/// A directory of images, and the program that serves it until the test ends.
pub struct Served {
    server: Child,
    directory: tempfile::TempDir,
    /// The host and the port.
    host: String,
}

impl Served {
    pub fn start(images: &[(&str, &Image)], arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, image) in images {
            let link = path("images").join(name);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&image.spec_file, link).unwrap();
        }
        let mut command = stowage(&["serve", "--quiet", "--listen=127.0.0.1:0"]);
        command.arg(path("images")).arg("--address-file").arg(path("address")).args(arguments);
        let server = command.stdout(Stdio::null()).spawn().unwrap();
        let mut served = Self { server, directory, host: String::new() };
        let address = served.directory.path().join("address");
        served.host = until("it answers", || std::fs::read_to_string(&address).ok());
        served.host.truncate(served.host.trim_end().len());
        served
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn parsed(output: &str) -> Value {
    serde_json::from_str(output).unwrap()
}

fn skopeo(arguments: &[&str]) -> Command {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").args(arguments).stdin(Stdio::null());
    command
}

/// Checks that a Docker daemon pulls from a loopback port without TLS.
#[test]
fn docker_pulls_and_runs() {
    let images = [Image::named("full"), Image::named("app1"), Image::named("app2")];
    let [full, one, two] = &images;
    let served = Served::start(&[("e2e/full/all", full), ("app/now", one)], &[]);
    let docker = Docker::start();
    let diff_ids = |reference: &str| {
        let inspected = parsed(&docker.run(&["image", "inspect", reference]));
        inspected[0]["RootFS"]["Layers"].clone()
    };
    let reference = served.reference("e2e/full:all");
    docker.run(&["pull", "--quiet", &reference]);
    assert_eq!(diff_ids(&reference), json!(full.diff_ids()));
    assert_eq!(docker.container(&reference, &[]), "welcome\na store path that is a file\n");

    let app = served.reference("app:now");
    docker.run(&["pull", "--quiet", &app]);
    assert_eq!(diff_ids(&app), json!(one.diff_ids()));
    // Another image replaces the first one while it is served; the layers that both have are not
    // pulled again.
    symlink(&two.spec_file, served.path("link")).unwrap();
    std::fs::rename(served.path("link"), served.path("images/app/now")).unwrap();
    let pulled = until("there is another image", || {
        let pulled = docker.run(&["pull", &app]);
        pulled.contains("Downloaded newer image").then_some(pulled)
    });
    assert!(pulled.matches("Already exists").count() + 2 >= two.spec.layers.len(), "{pulled}");
    assert_eq!(diff_ids(&app), json!(two.diff_ids()));
    assert!(docker.container(&app, &[]).starts_with("app v2\n"));
}

#[test]
fn podman_pulls() {
    let image = Image::named("oneLayer");
    let served = Served::start(&[("one/two/three/v1", &image)], &[]);
    let directory = tempfile::tempdir().unwrap();
    let reference = served.reference("one/two/three:v1");
    let pull = ["pull", "--quiet", "--tls-verify=false", &reference];
    run(&mut podman(directory.path(), &pull));
    let inspected = run(&mut podman(directory.path(), &["image", "inspect", &reference]));
    assert_eq!(parsed(&inspected)[0]["RootFS"]["Layers"], json!(image.diff_ids()));
}

#[test]
fn skopeo_reads_and_copies() {
    let image = Image::named("full");
    let cache = tempfile::tempdir().unwrap();
    let arguments = ["--cache", cache.path().to_str().unwrap()];
    let served = Served::start(&[("e2e/full/all", &image)], &arguments);
    let source = format!("docker://{}", served.reference("e2e/full:all"));
    let inspected = run(&mut skopeo(&["inspect", "--tls-verify=false", &source]));
    let inspected = parsed(&inspected);
    assert_eq!(inspected["RepoTags"], json!(["all"]));
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), image.spec.layers.len());
    let tags = run(&mut skopeo(&[
        "list-tags",
        "--tls-verify=false",
        &format!("docker://{}", served.reference("e2e/full")),
    ]));
    assert_eq!(parsed(&tags)["Tags"], json!(["all"]));
    // The first copy has the layers made, the second gets them from the cache.
    for name in ["first", "second"] {
        let target = format!("oci:{}:all", served.path(name).display());
        let copy = ["copy", "--quiet", "--src-tls-verify=false", &source, &target];
        run(&mut skopeo(&copy));
        let config = run(&mut skopeo(&["inspect", "--config", &target]));
        assert_eq!(parsed(&config)["rootfs"]["diff_ids"], json!(image.diff_ids()), "{name}");
    }
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), image.spec.layers.len());
}

#[test]
fn skopeo_is_let_in_by_tls_and_password() {
    let image = Image::named("oneLayer");
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    // The file has the name that it needs in a `--cert-dir`.
    let certificate = file("ca.crt", &made.cert.pem());
    let key = file("server.pem", &made.signing_key.serialize_pem());
    let users = file("users", &format!("ann:{}\n", bcrypt::hash("secret", 10).unwrap()));
    let arguments = ["--tls-cert", &certificate, "--tls-key", &key, "--htpasswd", &users];
    let served = Served::start(&[("image/v1", &image)], &arguments);
    let source = format!("docker://{}", served.reference("image:v1"));
    let target = format!("dir:{}", served.path("copy").display());
    let copy = |certificates: &Path, credentials: &str| {
        let mut command = skopeo(&["copy", "--quiet", "--src-cert-dir"]);
        command.arg(certificates).args(["--src-creds", credentials, &source, &target]);
        command.output().unwrap()
    };
    let copied = copy(directory.path(), "ann:secret");
    assert!(copied.status.success(), "{}", stderr(&copied));
    let config = run(&mut skopeo(&["inspect", "--config", &target]));
    assert_eq!(parsed(&config)["rootfs"]["diff_ids"], json!(image.diff_ids()));

    let refused = stderr(&copy(directory.path(), "ann:wrong"));
    assert!(refused.contains("unauthorized") || refused.contains("authentication"), "{refused}");
    let unknown = stderr(&copy(&served.path("images"), "ann:secret"));
    assert!(unknown.contains("x509: "), "{unknown}");
}

/// Checks containerd alone, as in Kubernetes: it checks the diff IDs when it unpacks.
#[test]
fn containerd_pulls() {
    if Command::new("ctr").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("there is no containerd on this machine");
        return;
    }
    let image = Image::named("full");
    let served = Served::start(&[("e2e/full/all", &image)], &[]);
    let containerd = Containerd::start();
    let reference = served.reference("e2e/full:all");
    let pull = ["images", "pull", "--plain-http", "--snapshotter=native", &reference];
    run(&mut containerd.ctr(&pull));
    let id = stowage::oci::Image::new(&image.spec).id().to_string();
    let config = run(&mut containerd.ctr(&["content", "get", &id]));
    assert_eq!(parsed(&config)["rootfs"]["diff_ids"], json!(image.diff_ids()));
}
