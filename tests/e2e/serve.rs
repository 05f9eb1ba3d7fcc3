//! Tests `stowage serve` and its clients.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::{check_contrast, check_width_on_a_phone};
use crate::containerd::Containerd;
use crate::podman::podman;
use crate::support::{Docker, Image, root_command, run, stderr, stowage};

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
        std::fs::create_dir(path("images")).unwrap();
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

/// A mounted file system that does not answer, until it is dropped.
struct Hanging {
    process: Child,
    directory: PathBuf,
}

impl Hanging {
    /// Mounts the file system at a directory. Returns nothing where there is no FUSE.
    fn mount(directory: &Path) -> Option<Self> {
        std::fs::create_dir_all(directory).unwrap();
        if !Path::new("/dev/fuse").exists() {
            eprintln!("no /dev/fuse: no file system that hangs is tested");
            return None;
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/hanging.py");
        let mut command = root_command("python3");
        command.arg(program).arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        Some(Self { process, directory: directory.to_owned() })
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // Without its process, the file system answers that the connection is broken.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        let _ = root_command("umount").arg("--lazy").arg(&self.directory).status();
    }
}

/// Checks that a file system that hangs delays neither the start, nor news of other directories, nor
/// the end, and that its own images come back with it.
#[test]
fn a_file_system_that_hangs_stops_nothing() {
    let image = Image::named("app1");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mount = path("mount");
    let Some(hanging) = Hanging::mount(&mount) else { return };
    let link = |name: &str, to: &Path| {
        std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        symlink(to, path(name)).unwrap();
    };
    link("images/a/v1", &image.spec_file);
    link("images/b", &mount);
    link("images/c/v1", &mount.join("image.json"));
    link("images/z/v1", &image.spec_file);
    let mut command = stowage(&["serve", "--listen=127.0.0.1:0", "--grace=1"]);
    command.arg(path("images")).arg(&mount).arg("--address-file").arg(path("address"));
    let log = std::fs::File::create(path("log")).unwrap();
    let begin = Instant::now();
    let mut server = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let host = until("it starts", || std::fs::read_to_string(path("address")).ok());
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    let is_there = |name: &str| {
        let address = format!("http://{}/v2/{name}", host.trim_end());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--max-time", "5", "--output", "/dev/null", &address]);
        curl.status().unwrap().success().then_some(())
    };
    until("images beside it are there", || is_there("z/manifests/v1"));
    assert_eq!(is_there("a/manifests/v1"), Some(()));
    link("images/a/v2", &image.spec_file);
    until("news are there", || is_there("a/manifests/v2"));
    let said = |name: &str| {
        let log = std::fs::read_to_string(path("log")).unwrap();
        log.matches(&format!("{name} does not answer")).count()
    };
    let places = ["images/b", "images/c/v1", "/mount"];
    assert_eq!(places.map(said), [1, 1, 1]);
    // Both the file and the directory are looked at again when they answer.
    drop(hanging);
    std::fs::copy(&image.spec_file, mount.join("image.json")).unwrap();
    until("a file comes back", || is_there("c/manifests/v1"));
    std::fs::create_dir_all(mount.join("d")).unwrap();
    link("mount/d/v1", &image.spec_file);
    until("a directory comes back", || is_there("d/manifests/v1"));
    until("a directory comes back through a link", || is_there("b/d/manifests/v1"));

    let hanging = Hanging::mount(&mount).unwrap();
    until("it has noticed", || (places.map(said) == [2, 2, 2]).then_some(()));
    for name in ["c/manifests/v1", "d/manifests/v1", "b/d/manifests/v1"] {
        assert_eq!(is_there(name), Some(()), "{name} stays");
    }
    signal(&server, "-HUP");
    link("images/a/v3", &image.spec_file);
    until("news are there", || is_there("a/manifests/v3"));
    assert_eq!(is_there("d/manifests/v1"), Some(()));
    signal(&server, "-TERM");
    assert!(until("it ends", || server.try_wait().unwrap()).success());
    drop(hanging);
}

fn signal(server: &Child, name: &str) {
    run(Command::new("kill").args([name, &server.id().to_string()]));
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
    let images = [Image::named("full"), Image::named("smallApp1"), Image::named("smallApp2")];
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

/// Fetches a server's start page and checks it in a browser. `says` is a text of the page.
pub fn check_start_page(host: &str, says: &str) {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("start.html");
    run(Command::new("curl").args(["-sSf", &format!("http://{host}/"), "--output"]).arg(&page));
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains(says), "{text}");
    check_width_on_a_phone(&page);
    check_contrast(&page);
}

#[test]
fn the_start_page_fits_phones_and_dark_rooms() {
    check_start_page(&Served::start(&[], &[]).host, "no images yet");
    let image = Image::named("smallApp1");
    let long =
        format!("{}/{}/app:{}", "team".repeat(12), "project".repeat(10), "v1.2.3-rc".repeat(9));
    let (path, tag) = long.split_once(':').unwrap();
    let served = Served::start(&[("app/v1", &image), (&format!("{path}/{tag}"), &image)], &[]);
    check_start_page(&served.host, &long);
}
