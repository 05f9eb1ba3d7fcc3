//! Tests `nix run .#IMAGE.copyTo…`: registries, and targets that only skopeo can reach.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::registry::Registry;
use crate::support::{Docker, Image, REPOSITORY, build, evaluate, root_command, run, stderr};

/// Returns the program that `nix run .#IMAGE.NAME` runs.
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

/// A containers-storage for one test.
struct Storage(tempfile::TempDir);

impl Storage {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Returns a name in containers-storage's notation.
    fn target(&self, name: &str) -> String {
        let path = |name| self.0.path().join(name).display().to_string();
        format!("containers-storage:[overlay@{}+{}]{name}", path("root"), path("run"))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // The storage driver leaves a mount behind.
        let mount = self.0.path().join("root/overlay");
        let _ = root_command("umount").arg(mount).stderr(Stdio::null()).status();
    }
}

#[test]
fn containers_storage_gets_what_it_lacks() {
    let storage = Storage::new();
    let (one, two) = (Image::named("smallApp1"), Image::named("smallApp2"));
    let target = |tag: &str| storage.target(&format!("e2e/app:{tag}"));
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
    let (one, two) = (Image::named("smallApp1"), Image::named("smallApp2"));
    let directory = tempfile::tempdir().unwrap();
    let digestfile = directory.path().join("digest");
    let target = |tag: &str| format!("docker://{}/e2e/app:{tag}", registry.host);
    let digest_flag = format!("--digestfile={}", digestfile.display());
    let first = copy_to(&one, &target("v1"), &["--dest-tls-verify=false", &digest_flag]);
    assert_eq!(field(&first, "layersSkipped"), 0, "{first}");
    assert_eq!(field(&first, "bytesSent"), one.spec.size());
    let raw = |tag: &str| {
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &target(tag)]))
    };
    let digest = stowage::digest::Digest::of(raw("v1").as_bytes()).to_string();
    assert_eq!(std::fs::read_to_string(&digestfile).unwrap(), digest);
    assert_eq!(first["manifestDigest"], digest);

    // Only the changed leaf is sent, then nothing at all. For a registry on this machine no flag is
    // needed.
    let second = copy_to(&two, &target("v2"), &[]);
    assert!(field(&second, "layersSent") <= 2, "{second}");
    assert!(field(&second, "bytesSent") * 1000 < two.spec.size(), "{second}");
    let again = copy_to(&two, &target("v2"), &[]);
    assert_eq!((field(&again, "layersSent"), field(&again, "bytesSent")), (0, 0));
    let inspected = inspect(&target("v2"), &["--tls-verify=false"]);
    assert_eq!(inspected["rootfs"]["diff_ids"], serde_json::json!(two.diff_ids()));

    // A copy to another repository sends nothing.
    let elsewhere = format!("docker://{}/other/app:v2", registry.host);
    let mounted = copy_to(&two, &elsewhere, &["--mount-from", "e2e/app"]);
    assert_eq!(field(&mounted, "layersSent"), 0, "{mounted}");
    assert_eq!(field(&mounted, "layersMounted"), two.spec.layers.len() as u64);

    copy_to(&two, &target("v3"), &["--format", "v2s2"]);
    let manifest = raw("v3");
    assert!(
        manifest.contains("application/vnd.docker.distribution.manifest.v2+json"),
        "{manifest}"
    );
    let docker = Docker::start();
    let name = target("v3").replace("docker://", "");
    docker.run(&["pull", "--quiet", &name]);
    assert!(docker.container(&name, &[]).starts_with("app v2\n"));
}

/// Checks that layers which `docker push` has compressed are not sent again.
#[test]
fn layers_that_docker_pushed_are_used() {
    let (registry, docker, image) = (Registry::start(), Docker::start(), Image::named("smallApp1"));
    let name = format!("{}/e2e/app:v1", registry.host);
    let loaded = docker.load(&image);
    let loaded = loaded.trim().rsplit("image: ").next().unwrap();
    docker.run(&["tag", loaded, &name]);
    docker.run(&["push", "--quiet", &name]);
    docker.run(&["image", "rm", loaded, &name]);

    let copied = copy_to(&image, &format!("docker://{name}"), &["--reuse-compressed"]);
    assert_eq!(field(&copied, "layersSent"), 0, "{copied}");
    docker.run(&["pull", "--quiet", &name]);
    assert!(docker.container(&name, &[]).starts_with("app v1\n"));
}

/// Checks that compressed layers are kept if that is wanted: in an output to which the image spec
/// refers. The image is the same as without them.
#[test]
fn compressed_layers_are_kept_in_an_output() {
    let registry = Registry::start();
    let [plain, kept] = ["compressed", "compressedKept"].map(Image::named);
    let references = |image: &Image| {
        let mut query = Command::new(Path::new(REPOSITORY).join("checks/nix"));
        query.args(["--exec", "nix-store", "--query", "--references"]);
        run(query.arg(&image.spec_file))
    };
    let output = evaluate(&format!("{}.spec.layers", kept.attribute));
    assert!(references(&kept).lines().any(|path| path == output), "{output}");
    assert!(!references(&plain).contains("-image.json-layers"));
    for layer in &kept.spec.layers {
        let file = layer.compressed_file.as_ref().unwrap();
        assert!(file.starts_with(&output) && file.metadata().unwrap().is_file());
    }
    let digests = [&plain, &kept].map(|image| {
        let copied =
            copy_to(image, &format!("docker://{}/{}", registry.host, image.reference()), &[]);
        copied["manifestDigest"].clone()
    });
    assert!(digests[0].is_string());
    assert_eq!(digests[0], digests[1]);
}

/// Checks that nothing is sent over an untrusted connection, unless the user allows it.
#[test]
fn a_registry_has_to_be_trusted() {
    let trusted = tempfile::tempdir().unwrap();
    let registry = Registry::with_tls(trusted.path());
    let image = Image::named("configOnly");
    let target = format!("docker://{}/e2e/tls:v1", registry.host);
    let copy = |flags: &[&str], ca_file: &Path| {
        let mut command = program(&image, "copyTo", "copy-to");
        command.arg(&target).args(flags).env("SSL_CERT_FILE", ca_file).output().unwrap()
    };
    let nobody = Path::new("/nonexistent");
    let directory = trusted.path().to_str().unwrap();
    let refused = copy(&["--dest-tls-verify=true"], nobody);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("\nhint: `--dest-cert-dir DIR` has"), "{}", stderr(&refused));
    for (flags, ca_file) in [
        (&["--dest-tls-verify=true", "--dest-cert-dir", directory][..], nobody),
        (&["--dest-tls-verify=true"], &trusted.path().join("ca.crt")),
        (&["--dest-tls-verify=false"], nobody),
    ] {
        let output = copy(flags, ca_file);
        assert!(output.status.success(), "{flags:?}: {}", stderr(&output));
    }
}

/// Checks that credentials come from Docker's file, podman's, or the command line.
#[test]
fn a_registry_wants_to_know_who_pushes() {
    let registry = Registry::with_user("me", "secret");
    let image = Image::named("configOnly");
    let target = format!("docker://{}/e2e/auth:v1", registry.host);
    let directory = tempfile::tempdir().unwrap();
    let copy = |flags: &[&str], home: &Path| {
        let mut command = program(&image, "copyTo", "copy-to");
        command.arg(&target).args(flags).env("HOME", home).env_remove("XDG_RUNTIME_DIR");
        command.env_remove("XDG_CONFIG_HOME").env_remove("DOCKER_CONFIG").output().unwrap()
    };
    let nobody = directory.path().join("nobody");
    let refused = copy(&[], &nobody);
    assert_fails(&refused, "401");
    assert!(stderr(&refused).contains("\nhint: `docker login`"), "{}", stderr(&refused));
    assert_fails(&copy(&["--dest-creds", "me:wrong"], &nobody), "401");
    assert!(copy(&["--dest-creds", "me:secret"], &nobody).status.success());

    let login =
        serde_json::json!({"auths": {&registry.host: {"auth": "bWU6c2VjcmV0"}}}).to_string();
    let docker = directory.path().join("docker");
    std::fs::create_dir_all(docker.join(".docker")).unwrap();
    std::fs::write(docker.join(".docker/config.json"), &login).unwrap();
    assert!(copy(&[], &docker).status.success());
    let podman = directory.path().join("podman.json");
    std::fs::write(&podman, &login).unwrap();
    assert!(copy(&["--authfile", podman.to_str().unwrap()], &nobody).status.success());
    assert_fails(&copy(&["--authfile", "/nonexistent"], &nobody), "/nonexistent does not exist");
}

fn assert_fails(output: &Output, message: &str) {
    let error = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("error: ") && error.contains(message), "{error}");
}

#[test]
fn nobody_there_is_said() {
    let image = Image::named("configOnly");
    let output =
        program(&image, "copyTo", "copy-to").arg("docker://127.0.0.1:1/a/b:c").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("; trying again in "), "{said}");
    assert!(said.contains("\nerror: http://127.0.0.1:1/v2/a/b/manifests/c: "), "{said}");

    // The scripts have the image's own names.
    let script = |attribute: &str, name: &str| {
        let package = build(&format!("{}.{attribute}", image.attribute));
        std::fs::read_to_string(package.join("bin").join(name)).unwrap()
    };
    let podman = format!("containers-storage:{} \"$@\"", image.reference());
    assert!(script("copyToPodman", "copy-to-podman").contains(&podman));
    let registry = format!("docker://{} \"$@\"", image.reference());
    assert!(script("copyToRegistry", "copy-to-registry").contains(&registry));
}

#[test]
fn what_skopeo_says_is_passed_on() {
    let image = Image::named("configOnly");
    let output =
        program(&image, "copyTo", "copy-to").arg("containers-storage:A/B:c").output().unwrap();
    assert_fails(&output, "skopeo cannot copy to containers-storage:A/B:c: ");
}

#[test]
fn without_skopeo_it_is_said_what_to_do() {
    let image = Image::named("configOnly");
    let output = crate::support::stowage(&["copy"])
        .arg(&image.spec_file)
        .arg("containers-storage:a/b:c")
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert_fails(&output, "cannot run `skopeo`");
    assert!(stderr(&output).contains("\nhint: for this target it must be on PATH"));
}
