use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Docker, Image, run, stderr};

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
    assert_eq!(image.spec.layers.len(), 5);
    let history =
        docker.run(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "e2e/full:all"]);
    assert_eq!(history.lines().count(), 5);
    assert!(history.lines().all(|line| line.starts_with("stowage: ")), "{history}");
}

/// An image without a file is one too, for this Docker at least without a container.
#[test]
fn an_image_may_be_empty() {
    let docker = Docker::start();
    let image = Image::named("empty");
    assert!(image.spec.layers.is_empty());
    copy(&image, &docker);
    assert_eq!(inspect(&docker, &image.reference())["Size"], 0);
}

/// A leaf that changed costs its own bytes, which are shown; what is there is skipped.
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

#[test]
fn sends_everything_again_to_a_daemon_that_forgot() {
    let docker = Docker::start();
    let image = Image::named("app1");
    copy(&image, &docker);
    docker.run(&["rmi", "e2e/app:v1"]);
    let again = copy(&image, &docker);
    assert_eq!(field(&again, "layersSkipped"), 0);
    assert!(docker.container("e2e/app:v1", &[]).starts_with("app v1\n"));
}

/// The daemon forgets between the question and the answer: its refusal is met with the
/// whole image.
#[test]
fn falls_back_to_the_whole_image() {
    let docker = Docker::start();
    let image = Image::named("app1");
    copy(&image, &docker);

    let directory = tempfile::tempdir().unwrap();
    let client = directory.path().join("docker");
    let real = run(std::process::Command::new("sh").args(["-c", "command -v docker"]));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != load ] || {0} rmi e2e/app:v1 > /dev/null 2>&1\nexec {0} \"$@\"\n",
        real.trim()
    );
    std::fs::write(&client, script).unwrap();
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());

    let output = run(image
        .copy_to_docker_daemon()
        .arg("--json")
        .env("DOCKER_HOST", docker.host())
        .env("PATH", path));
    let copied: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&copied["fellBack"], field(&copied, "layersSkipped")), (&true.into(), 0));
    assert!(docker.container("e2e/app:v1", &[]).starts_with("app v1\n"));
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
    let no_client = image.copy_to_docker_daemon().env("PATH", "/nonexistent").output().unwrap();
    assert_fails(&no_client, "cannot run `docker`");
}

/// How many blobs an image has in the daemon: what `docker push` would send of it.
fn blobs(docker: &Docker, reference: &str) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    docker.run(&["save", "--output", archive.to_str().unwrap(), reference]);
    let listed = run(Command::new("tar").arg("--list").arg("--file").arg(&archive));
    listed.lines().filter(|name| name.starts_with("blobs/sha256/") && !name.ends_with('/')).count()
}

/// containerd's store keeps blobs as they came, and a layer's diff ID says nothing of them: the
/// daemon asks for what it lacks, and has all of the image afterwards, whatever it had before.
#[test]
fn containerds_store_has_all_of_an_image() {
    let docker = Docker::with_containerd_store("trixie");
    let (one, two) = (Image::named("app1"), Image::named("app2"));
    let layers = two.spec.layers.len() as u64;
    // With the configuration and the manifest.
    let whole = two.spec.layers.len() + 2;

    assert_eq!(field(&copy(&one, &docker), "layersSent"), layers);
    let changed = copy(&two, &docker);
    assert!(field(&changed, "layersSent") < layers, "{changed}");
    assert!(blobs(&docker, &two.reference()) >= whole);
    assert_eq!(field(&copy(&two, &docker), "layersSent"), 0);

    // No trace is left of the address that it was pulled from.
    let names = docker.run(&["image", "ls", "--format", "{{.Repository}}"]);
    assert!(!names.contains("127.0.0.1"), "{names}");

    // What was removed is sent again.
    docker.run(&["image", "rm", "--force", &one.reference(), &two.reference()]);
    assert_eq!(field(&copy(&two, &docker), "layersSent"), layers);
    assert!(blobs(&docker, &two.reference()) >= whole);
}

/// The same layers, which the daemon pulled compressed from another registry.
#[test]
fn layers_that_were_pulled_compressed_are_no_evidence() {
    let docker = Docker::with_containerd_store("trixie");
    let two = Image::named("app2");
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("archive.tar");
    // `docker load` of a compressed copy stands for the pull: the blobs have other digests.
    two.stream_to(&layout);
    let compressed = directory.path().join("compressed.tar");
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy"])
        .arg(format!("docker-archive:{}", layout.display()))
        .arg(format!("oci-archive:{}:other:v1", compressed.display())));
    docker.run(&["load", "--input", compressed.to_str().unwrap()]);
    copy(&two, &docker);
    assert!(blobs(&docker, &two.reference()) >= two.spec.layers.len() + 2);
}
