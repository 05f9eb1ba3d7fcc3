use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::registry::Registry;
use crate::support::{Docker, build, nix, run, stderr};

const INDEX: &str = "checks.x86_64-linux.index";

fn skopeo(arguments: &[&str]) -> String {
    run(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}

/// Checks the index at a place, and the configuration that engines on arm64 find there.
fn check(place: &str, flags: &[&str]) {
    let raw = skopeo(&[&["inspect", "--raw"], flags, &[place]].concat());
    let index: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["annotations"], json!({"org.opencontainers.image.title": "both"}));
    assert_eq!(index["manifests"][1]["annotations"], json!({"org.example.tested": "no"}));
    let architectures = index["manifests"].as_array().unwrap().iter();
    let architectures: Vec<_> =
        architectures.map(|entry| &entry["platform"]["architecture"]).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    for architecture in ["amd64", "arm64"] {
        let chosen = ["--override-arch", architecture];
        let inspect = [&chosen[..], &["inspect", "--config"], flags, &[place]].concat();
        let config: Value = serde_json::from_str(&skopeo(&inspect)).unwrap();
        assert_eq!(config["architecture"], architecture);
    }
}

#[test]
fn an_index_arrives_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let copy_to = build(&format!("{INDEX}.copyTo")).join("bin/copy-to");
    let copy =
        |arguments: &[&str]| run(Command::new(&copy_to).args(arguments).stdin(Stdio::null()));
    let layout = format!("oci:{}:v1", directory.path().join("layout").display());
    let digest = |name: &str| directory.path().join(name).display().to_string();
    copy(&[&layout, "--digestfile", &digest("layout-digest")]);
    check(&layout, &[]);

    // The stream is an OCI archive.
    let archive = directory.path().join("archive.tar");
    let out = std::fs::File::create(&archive).unwrap();
    run(Command::new(build(INDEX)).stdout(out));
    check(&format!("oci-archive:{}:e2e/index:v1", archive.display()), &[]);

    // A registry gets it byte for byte, under two tags.
    let registry = Registry::start();
    let reference = |tag: &str| format!("docker://{}/e2e/index:{tag}", registry.host);
    let plain = "--dest-tls-verify=false";
    copy(&[&reference("v1"), plain, "--digestfile", &digest("registry-digest")]);
    copy(&[&reference("v2"), plain]);
    check(&reference("v1"), &["--tls-verify=false"]);
    check(&reference("v2"), &["--tls-verify=false"]);
    let read = |name: &str| std::fs::read_to_string(Path::new(&digest(name))).unwrap();
    assert_eq!(read("layout-digest"), read("registry-digest"));
}

#[test]
fn engines_choose_their_own_image() {
    let docker = Docker::start();
    let copy_to = build(&format!("{INDEX}.copyTo")).join("bin/copy-to");
    run(Command::new(copy_to).arg("docker-daemon:e2e/index:v1").env("DOCKER_HOST", docker.host()));
    assert_eq!(docker.container("e2e/index:v1", &[]), "for amd64\n");
}

#[test]
fn mistakes_in_nix_code_are_named() {
    for (arguments, message) in [
        (r#"{ name = "a"; images = [ ]; }"#, "`images` must be a list of one image at least"),
        (r#"{ name = "a"; images = [ pkgs.bash ]; }"#, "must be an image of `buildImage`"),
        (r#"{ name = "a"; images = [ ]; image = [ ]; }"#, "unexpected argument 'image'"),
        (
            r#"{ name = "a"; images = [ (pkgs.stowage.buildImage { name = "b"; }) ]; annotations.b = 1; }"#,
            "`annotations.\"b\"` must be a string, not int",
        ),
    ] {
        let apply = format!("pkgs: (pkgs.stowage.buildIndex {arguments}).spec.drvPath");
        let flake = ".#legacyPackages.x86_64-linux";
        let output = nix(&["eval", "--raw", flake, "--apply", &apply]).output().unwrap();
        assert!(!output.status.success(), "{arguments}");
        assert!(stderr(&output).contains(message), "{arguments}: {}", stderr(&output));
    }
}
