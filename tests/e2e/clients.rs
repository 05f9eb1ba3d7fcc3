use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::podman::podman_of;
use crate::registry::Registry;
use crate::serve::{Served, until};
use crate::support::{Image, program_of, run, stowage};

/// Copies an image, and returns the digest of its manifest.
fn copy(image: &Image, target: &str) -> String {
    let mut command = stowage(&["copy", "--json"]);
    let copied: Value =
        serde_json::from_str(&run(command.arg(&image.spec_file).arg(target))).unwrap();
    copied["manifestDigest"].as_str().unwrap().to_owned()
}

/// Starts a registry with the image as `app:v1`, and a server of this program with it.
fn sources(image: &Image) -> (Registry, Served) {
    let registry = Registry::start();
    copy(image, &format!("docker://{}/app:v1", registry.host));
    (registry, Served::start(&[("app/v1", image)], &[]))
}

#[test]
fn podman_5_loads_and_pulls() {
    let image = Image::named("oneLayer");
    let directory = tempfile::tempdir().unwrap();
    let podman = |arguments: &[&str]| podman_of("trixie", directory.path(), arguments);
    let layers = |reference: &str| {
        let inspected = run(&mut podman(&["image", "inspect", reference]));
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        inspected[0]["RootFS"]["Layers"].clone()
    };
    let mut stream = Command::new(&image.path).stdout(Stdio::piped()).spawn().unwrap();
    run(podman(&["load"]).stdin(stream.stdout.take().unwrap()));
    assert!(stream.wait().unwrap().success());
    assert_eq!(layers(&format!("docker.io/{}", image.reference())), json!(image.diff_ids()));
    let (registry, served) = sources(&image);
    for reference in [format!("{}/app:v1", registry.host), served.reference("app:v1")] {
        run(&mut podman(&["pull", "--quiet", "--tls-verify=false", &reference]));
        assert_eq!(layers(&reference), json!(image.diff_ids()), "{reference}");
    }
    run(&mut podman(&["image", "rm", "--all", "--force"]));
}

#[test]
fn skopeo_1_18_reads_every_target() {
    let image = Image::named("full");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let skopeo = |arguments: &[&str]| {
        run(program_of("trixie", "skopeo").arg("--insecure-policy").args(arguments))
    };
    let (registry, served) = sources(&image);
    let mut targets = vec![
        format!("docker://{}/app:v1", registry.host),
        format!("docker://{}", served.reference("app:v1")),
    ];
    for target in ["docker-archive:docker.tar", "oci-archive:oci.tar", "oci:layout:app", "dir:dir"]
    {
        let (transport, name) = target.split_once(':').unwrap();
        let target = format!("{transport}:{}", at(name));
        copy(&image, &target);
        targets.push(target);
    }
    let copied = format!("dir:{}", at("copied"));
    for target in &targets {
        // A copy reads all layers and checks their digests.
        skopeo(&["copy", "--quiet", "--src-tls-verify=false", target, &copied]);
        let config = skopeo(&["inspect", "--config", &copied]);
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(image.diff_ids()), "{target}");
    }
}

#[test]
fn oras_copies_from_and_to() {
    let image = Image::named("full");
    let directory = tempfile::tempdir().unwrap();
    let oras = |arguments: &[&str]| {
        run(program_of("sid", "oras").args(arguments).current_dir(directory.path()))
    };
    let digest_in = |layout: &str| {
        let index = std::fs::read(directory.path().join(layout).join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        index["manifests"][0]["digest"].as_str().unwrap().to_owned()
    };
    let layout = directory.path().join("ours");
    let digest = copy(&image, &format!("oci:{}:v1", layout.display()));
    let (registry, served) = sources(&image);
    for (source, layout) in
        [(format!("{}/app:v1", registry.host), "a"), (served.reference("app:v1"), "b")]
    {
        let into = format!("{layout}:v1");
        oras(&["cp", "--from-plain-http", &source, "--to-oci-layout", &into]);
        assert_eq!(digest_in(layout), digest, "{source}");
        run(stowage(&[
            "verify",
            &format!("oci:{}", in_directory(&directory, layout)),
            "--against",
        ])
        .arg(&image.spec_file));
    }
    // After oras has pushed our layout, nothing is left to be sent.
    let name = format!("{}/other:v1", registry.host);
    oras(&["cp", "--from-oci-layout", "ours:v1", "--to-plain-http", &name]);
    let mut command = stowage(&["copy", "--json"]);
    let again = run(command.arg(&image.spec_file).arg(format!("docker://{name}")));
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["layersSent"], 0, "{again}");
    assert_eq!(again["manifestDigest"], digest);
}

fn in_directory(directory: &tempfile::TempDir, name: &str) -> String {
    Path::join(directory.path(), name).display().to_string()
}

/// Checks that oras lists the documents about an image, and copies them with it: by the tag of a
/// registry that has no list of them, and by the list of `stowage serve`.
#[test]
fn oras_finds_what_refers_to_an_image() {
    let image = Image::named("configOnly");
    let directory = tempfile::tempdir().unwrap();
    let document = directory.path().join("notes");
    std::fs::write(&document, "about the image").unwrap();
    let attach = format!("{}:text/x-notes", document.display());
    let (registry, served) = sources(&image);
    let name = format!("{}/app:v1", registry.host);
    run(stowage(&["copy", "--quiet", "--attach", &attach])
        .arg(&image.spec_file)
        .arg(format!("docker://{name}")));
    std::fs::write(served.path("images/app/v1@attach"), &attach).unwrap();

    let oras = |arguments: &[&str]| {
        run(program_of("sid", "oras").args(arguments).current_dir(directory.path()))
    };
    let found = |source: &str| {
        let found = oras(&["discover", "--plain-http", "--format", "json", source]);
        let found: Value = serde_json::from_str(&found).unwrap();
        let found = found["referrers"].as_array().cloned().unwrap_or_default();
        found.iter().map(|found| found["artifactType"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(&name), ["text/x-notes"]);
    let reference = served.reference("app:v1");
    until("the document is served", || (found(&reference) == ["text/x-notes"]).then_some(()));
    for (source, layout) in [(name, "a:v1"), (reference, "b:v1")] {
        let found = oras(&["discover", "--plain-http", "--format", "json", &source]);
        let found: Value = serde_json::from_str(&found).unwrap();
        let manifest = found["referrers"][0]["reference"].as_str().unwrap();
        let pulled = directory.path().join("pulled");
        oras(&["pull", "--plain-http", "--output", "pulled", manifest]);
        assert_eq!(std::fs::read(pulled.join("notes")).unwrap(), b"about the image", "{source}");
        std::fs::remove_dir_all(pulled).unwrap();
        oras(&["cp", "--recursive", "--from-plain-http", &source, "--to-oci-layout", layout]);
        let copied = oras(&["discover", "--oci-layout", "--format", "json", layout]);
        assert!(copied.contains("text/x-notes"), "{source}: {copied}");
    }
}
