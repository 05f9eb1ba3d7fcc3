//! `nix run .#IMAGE.copyTo…`, to what only skopeo knows how to reach.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::registry::Registry;
use crate::support::{Image, build, run, stderr};

/// The program behind `nix run .#IMAGE.NAME`.
fn program(image: &Image, attribute: &str, name: &str) -> Command {
    let package = build(&format!("{}.{attribute}", image.attribute));
    Command::new(package.join("bin").join(name))
}

fn copy_to(image: &Image, target: &str, flags: &[&str]) -> Value {
    let mut command = program(image, "copyTo", "copy-to");
    let output = run(command.arg(target).arg("--json").args(flags));
    serde_json::from_str(&output).unwrap()
}

fn field(copied: &Value, name: &str) -> u64 {
    copied[name].as_u64().unwrap_or_else(|| panic!("{name} in {copied}"))
}

fn inspect(target: &str, flags: &[&str]) -> Value {
    let mut command = Command::new("skopeo");
    let output =
        run(command.args(["--insecure-policy", "inspect", "--config"]).args(flags).arg(target));
    serde_json::from_str(&output).unwrap()
}

/// A storage of one's own, in containers-storage's notation.
fn storage(directory: &Path) -> String {
    format!("[vfs@{}+{}]", directory.join("root").display(), directory.join("run").display())
}

#[test]
fn containers_storage_gets_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (Image::named("app1"), Image::named("app2"));
    let target =
        |tag: &str| format!("containers-storage:{}e2e/app:{tag}", storage(directory.path()));
    let first = copy_to(&one, &target("v1"), &[]);
    assert_eq!(field(&first, "layersSkipped"), 0, "{first}");
    assert_eq!(field(&first, "bytesSent"), one.spec.size());
    let second = copy_to(&two, &target("v2"), &[]);
    assert!(field(&second, "bytesSent") * 1000 < two.spec.size(), "{second}");
    assert_eq!(
        field(&second, "layersSent") + field(&second, "layersSkipped"),
        two.spec.layers.len() as u64
    );
    let inspected = inspect(&target("v2"), &[]);
    assert_eq!(inspected["rootfs"]["diff_ids"], serde_json::json!(two.diff_ids()));
}

#[test]
fn a_registry_gets_what_it_lacks() {
    let registry = Registry::start();
    let (one, two) = (Image::named("app1"), Image::named("app2"));
    let directory = tempfile::tempdir().unwrap();
    let digestfile = directory.path().join("digest");
    let target = |tag: &str| format!("docker://{}/e2e/app:{tag}", registry.host);
    let plain = "--dest-tls-verify=false";
    let digest_flag = format!("--digestfile={}", digestfile.display());
    let first = copy_to(&one, &target("v1"), &[plain, &digest_flag, "--retry-times=1"]);
    assert_eq!(field(&first, "layersSkipped"), 0, "{first}");
    let raw =
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &target("v1")]));
    let digest = stowage::digest::Digest::of(raw.as_bytes()).to_string();
    assert_eq!(std::fs::read_to_string(&digestfile).unwrap(), digest);
    assert_eq!(first["manifestDigest"], digest);
    copy_to(&two, &target("v2"), &[plain, "--format", "v2s2"]);
    let inspected = inspect(&target("v2"), &["--tls-verify=false"]);
    assert_eq!(inspected["rootfs"]["diff_ids"], serde_json::json!(two.diff_ids()));
    let manifest =
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &target("v2")]));
    assert!(
        manifest.contains("application/vnd.docker.distribution.manifest.v2+json"),
        "{manifest}"
    );
}

fn assert_fails(output: &Output, message: &str) {
    let error = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("error: ") && error.contains(message), "{error}");
}

#[test]
fn what_skopeo_says_is_passed_on() {
    let image = Image::named("configOnly");
    let nowhere = "docker://127.0.0.1:1/a/b:c";
    let output = program(&image, "copyTo", "copy-to").arg(nowhere).output().unwrap();
    assert_fails(&output, "skopeo cannot copy to docker://127.0.0.1:1/a/b:c: ");
    assert!(stderr(&output).contains("connection refused"), "{}", stderr(&output));

    // The names that the image itself has.
    let output = program(&image, "copyToRegistry", "copy-to-registry").output().unwrap();
    assert_fails(&output, &format!("docker://{}", image.reference()));
    let to_podman = build(&format!("{}.copyToPodman", image.attribute)).join("bin/copy-to-podman");
    let script = std::fs::read_to_string(to_podman).unwrap();
    assert!(
        script.contains(&format!("containers-storage:{} \"$@\"", image.reference())),
        "{script}"
    );
}

#[test]
fn without_skopeo_it_is_said_what_to_do() {
    let image = Image::named("configOnly");
    let output = crate::support::stowage(&["copy"])
        .arg(&image.spec_file)
        .arg("docker://127.0.0.1:1/a/b:c")
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert_fails(&output, "cannot run `skopeo`");
    assert!(stderr(&output).contains("\nhint: for this target it must be on PATH"));
}
