use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::registry::Registry;
use crate::support::{Docker, Image, build_together, root_command, run, stderr, stowage};

fn copy(image: &Image, docker: &Docker) -> Value {
    let output = run(image.copy_to_docker_daemon().arg("--json").env("DOCKER_HOST", docker.host()));
    serde_json::from_str(&output).unwrap()
}

fn field(copied: &Value, name: &str) -> u64 {
    copied[name].as_u64().unwrap_or_else(|| panic!("{name} in {copied}"))
}

fn inspect(docker: &Docker, reference: &str) -> Value {
    let inspected: Value =
        serde_json::from_str(&docker.run(&["image", "inspect", reference])).unwrap();
    inspected[0].clone()
}

#[test]
fn loads_and_runs() {
    let docker = Docker::start();
    for (name, prints) in [
        ("configOnly", "said by coreutils\n"),
        ("full", "welcome\na store path that is a file\n"),
        ("oneLayer", "bin\ndev\netc\nnix\nproc\nsys\n"),
        ("copiedAndMentioned", "tool\n"),
        ("layered", "lowerupper"),
    ] {
        let image = Image::named(name);
        let reference = image.reference();
        assert_eq!(docker.load(&image), format!("Loaded image: {reference}\n"));
        assert_eq!(docker.container(&reference, &[]), prints, "{name}");
        let layers = &inspect(&docker, &reference)["RootFS"]["Layers"];
        assert_eq!(layers, &serde_json::json!(image.diff_ids()), "{name}");
    }
}

#[test]
fn the_daemon_shows_what_was_asked_for() {
    let docker = Docker::start();
    let image = Image::named("full");
    copy(&image, &docker);
    let found = inspect(&docker, "e2e/full:all");
    assert_eq!(found["Created"], "2024-05-13T09:31:10Z");
    assert_eq!((&found["Architecture"], &found["Os"]), (&"amd64".into(), &"linux".into()));
    let config = &found["Config"];
    assert_eq!(config["WorkingDir"], "/etc");
    assert_eq!(config["Labels"], serde_json::json!({"odd": "ü \"quoted\" $dollar"}));
    assert_eq!(config["ExposedPorts"], serde_json::json!({"80/tcp": {}}));
    assert_eq!(config["Env"][0], "PATH=/bin");
    // Docker has durations in nanoseconds.
    assert_eq!(
        config["Healthcheck"],
        serde_json::json!({
            "Test": ["CMD", "/bin/true"],
            "Interval": 5_000_000_000_u64,
            "Timeout": 90_000_000_000_u64,
            "StartPeriod": 500_000_000,
            "Retries": 3,
        })
    );
    assert_eq!(image.spec.layers.len(), 5);
    let history =
        docker.run(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "e2e/full:all"]);
    assert_eq!(history.lines().count(), 5);
    assert!(history.lines().all(|line| line.starts_with("stowage: ")), "{history}");
}

/// Checks an image without files. This version of Docker can't run it.
#[test]
fn an_image_may_be_empty() {
    let docker = Docker::start();
    let image = Image::named("empty");
    assert!(image.spec.layers.is_empty());
    copy(&image, &docker);
    assert_eq!(inspect(&docker, &image.reference())["Size"], 0);
}

/// Checks that after a change of a leaf only its layer is sent, and that the output shows how many
/// bytes were sent and skipped.
#[test]
fn sends_only_the_layers_that_the_daemon_lacks() {
    let docker = Docker::start();
    let (one, two) = (Image::named("app1"), Image::named("app2"));

    let first = copy(&one, &docker);
    assert_eq!(field(&first, "layersSkipped"), 0);
    assert!(field(&first, "bytesSent") > one.spec.size());
    assert!(one.spec.size() > 300_000_000, "{} bytes", one.spec.size());

    let changed = copy(&two, &docker);
    assert!(field(&changed, "layersSent") <= 2, "{changed}");
    assert!(field(&changed, "bytesSent") * 1000 < two.spec.size(), "{changed}");
    assert_eq!(changed["fellBack"], false);
    assert!(docker.container("e2e/app:v2", &[]).starts_with("app v2\ngit version "));
    assert!(docker.container("e2e/app:v1", &[]).starts_with("app v1\ngit version "));

    let again = copy(&two, &docker);
    assert_eq!(field(&again, "layersSent"), 0, "{again}");

    let output = two.copy_to_docker_daemon().env("DOCKER_HOST", docker.host()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "e2e/app:v2\n");
    let said = stderr(&output);
    assert!(said.starts_with("sent 0 layers (") && said.contains("that the daemon has"), "{said}");
}

/// Images of which a line changes: the two versions, and the most bytes that the second one sends.
const CHANGED: [(&str, &str, u64); 9] = [
    ("toolsApp1", "toolsApp2", 150_000),
    ("linkedApp1", "linkedApp2", 280_000),
    ("accountsApp1", "accountsApp2", 520_000),
    // In nixpkgs' order of layers, large ones may be above the application.
    ("layeredApp1", "layeredApp2", 1_600_000),
    ("lixApp1", "lixApp2", 260_000),
    ("example-web-whole", "example-web-changed", 40_000),
    ("example-python-whole", "example-python-changed", 30_000),
    ("example-postgresql-whole", "example-postgresql-changed", 200_000),
    ("example-front", "example-front-changed", 30_000),
];

/// Checks that a changed application of 115 kB, or a changed line of an example, sends this
/// application, and where there are links to it or a Nix database these: to Docker, and to a
/// registry. Prints the table of docs/layering.md (`-- --nocapture`).
#[test]
fn sends_only_what_changed_where_files_are_copied_to_the_root() {
    build_together(&CHANGED.map(|(one, two, _)| [one, two]).concat());
    let (docker, registry) = (Docker::start(), Registry::start());
    for (one, two, most) in CHANGED {
        let images = [one, two].map(Image::named);
        let [to_docker, to_registry] = [&docker as &dyn Receiver, &registry].map(|receiver| {
            images.each_ref().map(|image| field(&receiver.receive(image), "bytesSent"))[1]
        });
        let size: u64 = images[1].spec.layers.iter().map(|layer| layer.size).sum();
        println!("{two}: {size} bytes, {to_docker} to Docker, {to_registry} to a registry");
        assert!(to_docker < most && to_registry < most, "{two}: {to_docker}, {to_registry}");
        if two.ends_with("App2") {
            assert_eq!(docker.container(&images[1].reference(), &[]), "version 2\n", "{two}");
        }
    }
}

/// A place to which images are copied.
trait Receiver {
    fn receive(&self, image: &Image) -> Value;
}

impl Receiver for Docker {
    fn receive(&self, image: &Image) -> Value {
        copy(image, self)
    }
}

impl Receiver for Registry {
    fn receive(&self, image: &Image) -> Value {
        let name = format!("{}/{}", self.host, image.evaluate("imageName"));
        let mut push = stowage(&["push", "--json", "--dest-tls-verify=false"]);
        serde_json::from_str(&run(push.arg(&image.spec_file).arg(format!("{name}:v1")))).unwrap()
    }
}

/// Checks that links that are copied to `/` lead to files in the container.
#[test]
fn links_in_the_root_lead_somewhere() {
    let docker = Docker::start();
    let image = Image::named("links");
    docker.load(&image);
    let printed = docker.container(&image.reference(), &[]);
    assert!(printed.starts_with("program ran\ngrep (GNU grep)"), "{printed}");
}

#[test]
fn sends_everything_again_to_a_daemon_that_forgot() {
    let docker = Docker::start();
    let image = Image::named("smallApp1");
    copy(&image, &docker);
    docker.run(&["rmi", &image.reference()]);
    let again = copy(&image, &docker);
    assert_eq!(field(&again, "layersSkipped"), 0);
    assert!(docker.container(&image.reference(), &[]).starts_with("app v1\n"));
}

/// Writes a client that runs a line of shell and then the real client, which is `DOCKER` in that
/// line. Returns a search path that finds it first.
fn with_client(directory: &Path, line: &str) -> String {
    let client = directory.join("docker");
    let real = run(Command::new("sh").args(["-c", "command -v docker"]));
    let line = line.replace("DOCKER", real.trim());
    std::fs::write(&client, format!("#!/bin/sh\n{line}\nexec {} \"$@\"\n", real.trim())).unwrap();
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", directory.display(), std::env::var("PATH").unwrap())
}

/// Checks that nothing is loaded if the daemon has the image, under this name or another one, and
/// counts the client's calls.
#[test]
fn an_image_that_is_there_is_only_named() {
    let docker = Docker::start();
    let image = Image::named("configOnly");
    let reference = image.reference();
    copy(&image, &docker);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let path = with_client(directory.path(), &format!("echo \"$1 $2\" >> {}", log.display()));
    let copy = || -> (Value, Vec<String>) {
        std::fs::write(&log, "").unwrap();
        let mut command = image.copy_to_docker_daemon();
        let output =
            run(command.arg("--json").env("DOCKER_HOST", docker.host()).env("PATH", &path));
        let calls = std::fs::read_to_string(&log).unwrap();
        (serde_json::from_str(&output).unwrap(), calls.lines().map(str::to_owned).collect())
    };
    let expected = ["info --format", "image ls", "image inspect", "image tag"];
    let skipped = image.spec.layers.len() as u64;
    let is_named = || inspect(&docker, &reference)["RepoTags"] == serde_json::json!([reference]);
    let (copied, calls) = copy();
    assert_eq!(
        (calls, field(&copied, "layersSkipped")),
        (expected.map(str::to_owned).into(), skipped)
    );
    assert_eq!((field(&copied, "layersSent"), field(&copied, "bytesSent")), (0, 0));
    assert!(is_named());

    // Another name, and a name that stands for another image.
    docker.run(&["image", "tag", &reference, "e2e/other:x"]);
    docker.run(&["image", "rm", &reference]);
    assert_eq!(copy().1, expected);
    docker.run(&["image", "rm", "e2e/other:x"]);
    assert!(is_named());
    let other = Image::named("full");
    self::copy(&other, &docker);
    docker.run(&["image", "tag", &other.reference(), &reference]);
    assert_eq!(copy().1, expected);
    assert_eq!(
        inspect(&docker, &reference)["RootFS"]["Layers"],
        serde_json::json!(image.diff_ids())
    );

    // Without the image, its layers are loaded and checked.
    docker.run(&["image", "rm", "--force", &reference]);
    let calls = copy().1;
    assert!(calls.contains(&"load --quiet".to_owned()), "{calls:?}");
    assert!(is_named());
}

/// Checks that the whole image is sent if the daemon loses layers after it was asked for them.
#[test]
fn falls_back_to_the_whole_image() {
    let docker = Docker::start();
    let (one, two) = (Image::named("smallApp1"), Image::named("smallApp2"));
    copy(&one, &docker);

    let directory = tempfile::tempdir().unwrap();
    let forgets = format!("[ \"$1\" != load ] || DOCKER rmi {} > /dev/null 2>&1", one.reference());
    let path = with_client(directory.path(), &forgets);

    let output = run(two
        .copy_to_docker_daemon()
        .arg("--json")
        .env("DOCKER_HOST", docker.host())
        .env("PATH", path));
    let copied: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&copied["fellBack"], field(&copied, "layersSkipped")), (&true.into(), 0));
    assert!(docker.container(&two.reference(), &[]).starts_with("app v2\n"));
}

fn assert_fails(output: &Output, message: &str) {
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(output);
    assert!(
        error.starts_with("error: ") && error.contains(message) && error.contains("\nhint: "),
        "{error}"
    );
}

#[test]
fn no_daemon_and_no_client_are_told_apart() {
    let image = Image::named("configOnly");
    let nowhere = image
        .copy_to_docker_daemon()
        .env("DOCKER_HOST", "unix:///nonexistent/docker")
        .output()
        .unwrap();
    assert_fails(&nowhere, "Cannot connect to the Docker daemon");
    assert!(stderr(&nowhere).contains("is the daemon running?"), "{}", stderr(&nowhere));
    let no_client = image.copy_to_docker_daemon().env("PATH", "/nonexistent").output().unwrap();
    assert_fails(&no_client, "cannot run `docker`");
}

/// Returns the number of an image's blobs in the daemon, which `docker push` would send.
fn blobs(docker: &Docker, reference: &str) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    docker.run(&["save", "--output", archive.to_str().unwrap(), reference]);
    let listed = run(Command::new("tar").arg("--list").arg("--file").arg(&archive));
    listed.lines().filter(|name| name.starts_with("blobs/sha256/") && !name.ends_with('/')).count()
}

/// Returns the digest of the manifest that a registry has.
fn pushed_digest(reference: &str) -> String {
    run(Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
        .arg(format!("docker://{reference}")))
}

/// The releases with Docker 26.1 and 28.5.
const RELEASES: [&str; 2] = ["trixie", "sid"];

/// Checks that a daemon with containerd's store asks for the blobs that it lacks, and has the whole
/// image afterwards. The store keeps blobs as they came, and a layer's diff ID does not tell which
/// blob that was.
#[test]
fn containerds_store_has_all_of_an_image() {
    let (one, two) = (Image::named("configOnly"), Image::named("full"));
    let layers = two.spec.layers.len() as u64;
    // Count the configuration and the manifest too.
    let whole = two.spec.layers.len() + 2;
    for release in RELEASES {
        let docker = Docker::with_containerd_store(release);
        let first = copy(&one, &docker);
        assert_eq!(field(&first, "layersSkipped"), 0, "{release}: {first}");
        let changed = copy(&two, &docker);
        assert!(field(&changed, "layersSent") < layers, "{release}: {changed}");
        assert!(blobs(&docker, &two.reference()) >= whole, "{release}");
        assert_eq!(field(&copy(&two, &docker), "layersSent"), 0, "{release}");

        // The address that the image was pulled from is not among its names.
        let names = docker.run(&["image", "ls", "--format", "{{.Repository}}"]);
        assert!(!names.contains("127.0.0.1"), "{release}: {names}");

        // Layers that were removed are sent again.
        docker.run(&["image", "rm", "--force", &one.reference(), &two.reference()]);
        assert_eq!(field(&copy(&two, &docker), "layersSent"), layers, "{release}");
        assert!(blobs(&docker, &two.reference()) >= whole, "{release}");
    }
}

/// Checks the classic store of newer versions of Docker like that of 20.10.
#[test]
fn newer_classic_stores_are_sent_what_they_lack() {
    let (one, two) = (Image::named("smallApp1"), Image::named("smallApp2"));
    for release in RELEASES {
        let docker = Docker::of_release(release);
        assert_eq!(field(&copy(&one, &docker), "layersSkipped"), 0, "{release}");
        let changed = copy(&two, &docker);
        assert!(field(&changed, "layersSent") <= 2, "{release}: {changed}");
        assert_eq!(changed["fellBack"], false, "{release}");
        docker.run(&["rmi", &one.reference(), &two.reference()]);
        assert_eq!(field(&copy(&two, &docker), "layersSkipped"), 0, "{release}");
        assert!(docker.container(&two.reference(), &[]).starts_with("app v2\n"), "{release}");
    }
}

/// Checks that the image can be saved and pushed if the daemon has the same layers in other blobs:
/// pulled compressed from another registry, or loaded compressed.
#[test]
fn layers_that_were_compressed_elsewhere_are_no_evidence() {
    let image = Image::named("full");
    let registry = Registry::start();
    let directory = tempfile::tempdir().unwrap();
    let (archive, compressed) =
        (directory.path().join("archive.tar"), directory.path().join("compressed.tar"));
    image.stream_to(&archive);
    let other = format!("{}/other:v1", registry.host);
    // skopeo compresses the layers that it pushes or writes to an OCI archive.
    for (option, target) in [
        ("--dest-tls-verify=false", format!("docker://{other}")),
        ("--dest-compress", format!("oci-archive:{}:other:v1", compressed.display())),
    ] {
        run(Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", option])
            .args([format!("docker-archive:{}", archive.display()), target]));
    }
    let whole = image.spec.layers.len() + 2;
    let mine = format!("{}/mine:v1", registry.host);
    for release in RELEASES {
        for before in [
            ["pull", "--quiet", &other].as_slice(),
            &["load", "--input", compressed.to_str().unwrap()],
        ] {
            let docker = Docker::with_containerd_store(release);
            docker.run(before);
            for _ in 0..2 {
                copy(&image, &docker);
                assert!(blobs(&docker, &image.reference()) >= whole, "{release}: {before:?}");
            }
            docker.run(&["tag", &image.reference(), &mine]);
            docker.run(&["push", "--quiet", &mine]);
            assert_eq!(docker.container(&mine, &[]), "welcome\na store path that is a file\n");
        }
    }
}

/// Checks that compressed layers arrive compressed, so that `docker push` makes the manifest that a
/// copy to the registry makes: in an empty store, and in a store that has the same layers
/// uncompressed.
#[test]
fn containerds_store_pushes_what_a_copy_to_a_registry_pushes() {
    let registry = Registry::start();
    for (release, name, loaded_before) in [
        ("trixie", "compressed", false),
        ("trixie", "compressedByZstd", true),
        ("sid", "compressed", true),
        ("sid", "compressedByZstd", false),
    ] {
        let image = Image::named(name);
        let (copied, pushed) =
            (format!("{}/copied:v1", registry.host), format!("{}/pushed:v1", registry.host));
        run(stowage(&["copy", "--dest-tls-verify=false"])
            .arg(&image.spec_file)
            .arg(format!("docker://{copied}")));
        let docker = Docker::with_containerd_store(release);
        if loaded_before {
            docker.load(&image);
        }
        copy(&image, &docker);
        docker.run(&["tag", &image.reference(), &pushed]);
        docker.run(&["push", "--quiet", &pushed]);
        assert_eq!(pushed_digest(&pushed), pushed_digest(&copied), "{release}, {name}");
        assert_eq!(docker.container(&pushed, &[]), "compressed\n", "{release}, {name}");
    }
}

/// Checks podman in place of the `docker` program: it does not report a storage driver, and loads
/// whole archives.
#[test]
fn podman_may_stand_in_for_docker() {
    let image = Image::named("oneLayer");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let client = path.join("docker");
    let script = format!(
        "#!/bin/sh\nexec {} podman --root {1}/root --runroot {1}/run --storage-driver=vfs \"$@\"\n",
        root_command("podman").get_program().display(),
        path.display()
    );
    std::fs::write(&client, script).unwrap();
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).unwrap();
    let search = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
    for _ in 0..2 {
        let mut command = image.copy_to_docker_daemon();
        let output = run(command.arg("--json").env("PATH", &search));
        let copied: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(field(&copied, "layersSkipped"), 0);
    }
    run(root_command("rm").arg("-rf").arg(path.join("root")).arg(path.join("run")));
}
