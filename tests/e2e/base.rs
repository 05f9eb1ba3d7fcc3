use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::registry::Registry;
use crate::support::{Docker, Image, build, nix, root_command, run, stderr, stowage};

/// The output of `app` in its container: the base's link and modes, the path of `app` behind the
/// link, both environments, and the base's working directory.
const FOUND: &str = "usr/bin\n1777\n/usr/bin/app\nbase ours\n/usr\n";

fn skopeo(arguments: &[&str]) -> String {
    run(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}

fn inspect(docker: &Docker, reference: &str) -> Value {
    let inspected: Value =
        serde_json::from_str(&docker.run(&["image", "inspect", reference])).unwrap();
    inspected[0].clone()
}

/// Decompresses the archive of images.nix, for skopeo.
fn distribution(directory: &Path) -> PathBuf {
    let file = directory.join("distribution.tar");
    let out = std::fs::File::create(&file).unwrap();
    run(Command::new("gzip").arg("-dc").arg(build("checks.x86_64-linux.distribution")).stdout(out));
    file
}

/// Runs `SCRIPT | docker load`.
fn load(docker: &Docker, script: &mut Command) {
    let mut stream = script.stdout(Stdio::piped()).spawn().unwrap();
    run(docker.command(&["load"]).stdin(stream.stdout.take().unwrap()));
    assert!(stream.wait().unwrap().success());
}

#[test]
fn history_inspection_and_container_agree() {
    let docker = Docker::start();
    let image = Image::named("based");
    docker.load(&image);
    assert_eq!(docker.container("e2e/based:v1", &[]), FOUND);

    let found = inspect(&docker, "e2e/based:v1");
    assert_eq!(found["RootFS"]["Layers"], json!(image.diff_ids()));
    let config = &found["Config"];
    assert_eq!(config["Env"], json!(["PATH=/usr/bin", "BASE=base", "OURS=ours"]));
    assert_eq!(config["Entrypoint"], json!(["/bin/app"]));
    assert_eq!(config["Cmd"], json!(null));
    assert_eq!(config["WorkingDir"], "/usr");

    let history =
        docker.run(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "e2e/based:v1"]);
    let history: Vec<_> = history.lines().collect();
    // The newest entry comes first. One of the base's entries has no layer.
    assert_eq!(history.len(), image.spec.layers.len() + 1);
    assert_eq!(history[history.len() - 2..], ["CMD", "ADD skeleton"]);
    assert!(history[0].starts_with("stowage: "), "{history:?}");
}

/// Checks that the image spec refers to the base, which protects the base from garbage collection.
#[test]
fn the_output_refers_to_the_base() {
    let image = Image::named("based");
    let base = build("checks.x86_64-linux.distribution");
    let arguments = ["--exec", "nix-store", "--query", "--requisites"];
    let closure = run(nix(&arguments).arg(&image.path));
    assert!(closure.lines().any(|path| Path::new(path) == base), "{closure}");
}

/// Checks that a daemon which has the base is sent only the layers on top of it.
#[test]
fn the_base_is_not_sent_to_who_has_it() {
    let docker = Docker::start();
    docker.load(&Image::named("distributionImage"));
    let image = Image::named("based");
    let copied = run(image.copy_to_docker_daemon().arg("--json").env("DOCKER_HOST", docker.host()));
    let copied: Value = serde_json::from_str(&copied).unwrap();
    let base = image.spec.layers.iter().filter(|layer| layer.contents().is_none()).count();
    assert!(base >= 2, "{base}");
    assert_eq!(copied["layersSkipped"], base, "{copied}");
    assert_eq!(docker.container("e2e/based:v1", &[]), FOUND);
}

#[test]
fn podman_and_skopeo_take_it() {
    let directory = tempfile::tempdir().unwrap();
    let image = Image::named("based");
    let archive = directory.path().join("image.tar");
    image.stream_to(&archive);
    for format in ["docker-archive", "oci-archive"] {
        let layout = format!("oci:{}:x", directory.path().join(format).display());
        skopeo(&["copy", "--quiet", &format!("{format}:{}", archive.display()), &layout]);
        let config: Value =
            serde_json::from_str(&skopeo(&["inspect", "--config", &layout])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(image.diff_ids()), "{format}");
    }
    let podman = |arguments: &[&str]| {
        let mut command = root_command("podman");
        command.arg("--root").arg(directory.path().join("root"));
        command.arg("--runroot").arg(directory.path().join("run"));
        run(command.arg("--storage-driver=vfs").args(arguments).stdin(Stdio::null()))
    };
    podman(&["load", "--input", archive.to_str().unwrap()]);
    let inspected: Value =
        serde_json::from_str(&podman(&["image", "inspect", "e2e/based:v1"])).unwrap();
    assert_eq!(inspected[0]["RootFS"]["Layers"], json!(image.diff_ids()));
    let mounted = podman(&["image", "mount", "e2e/based:v1"]);
    let found = run(root_command("chroot")
        .args([mounted.trim(), "/bin/bash", "-c"])
        .arg("cd /usr; PATH=/usr/bin BASE=base OURS=ours exec /bin/app"));
    podman(&["image", "unmount", "e2e/based:v1"]);
    assert_eq!(found, FOUND);
}

/// Checks that an image in each format that skopeo writes, with each compression, works as a base,
/// and that Docker loads the result, even if it does not know the compression.
#[test]
fn every_format_of_skopeo_is_a_base() {
    let docker = Docker::start();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let source = format!("docker-archive:{}", distribution(directory.path()).display());
    let closure = at("registration");
    std::fs::write(&closure, "").unwrap();
    let expected = Image::named("distributionImage").diff_ids();
    let zstd = ["--dest-compress", "--dest-compress-format=zstd"];
    for (name, target, flags) in [
        ("docker.tar", "docker-archive:@", &[][..]),
        ("oci.tar", "oci-archive:@:x", &[]),
        ("layout", "oci:@:x", &[]),
        ("layout-zstd", "oci:@:x", &zstd),
        ("dir", "dir:@", &[]),
        ("dir-gzip", "dir:@", &["--dest-compress"]),
    ] {
        let base = at(name);
        let target = target.replace('@', &base);
        skopeo(&[&["copy", "--quiet", &source, &target], flags].concat());
        let (options, spec) = (at("options.json"), at("image.json"));
        std::fs::write(&options, json!({ "fromImage": base }).to_string()).unwrap();
        let arguments = ["--closure", &closure, "--options", &options, "--output", &spec];
        run(stowage(&["build"]).args(arguments));
        run(&mut stowage(&["verify", &spec]));
        load(&docker, &mut stowage(&["stream", &spec, "--repo-tag", "a:b"]));
        assert_eq!(inspect(&docker, "a:b")["RootFS"]["Layers"], json!(expected), "{name}");
        let found = docker.container("a:b", &["/bin/bash", "-c", "stat -c %a /tmp; echo $BASE"]);
        assert_eq!(found, "1777\nbase\n", "{name}");
        docker.run(&["image", "rm", "a:b"]);
    }
}

/// Returns the derivation of an expression over `pkgs.stowage`, or the error of evaluating it.
pub fn evaluate(expression: &str) -> Result<String, String> {
    let apply = format!("pkgs: with pkgs.stowage; ({expression}).drvPath");
    // Evaluation is impure, since `builtins.toFile` stands for a file beside the Nix code.
    let flake = ".#legacyPackages.x86_64-linux";
    let arguments = ["eval", "--impure", "--raw", flake, "--apply", &apply];
    let output = nix(&arguments).output().unwrap();
    if !output.status.success() {
        return Err(stderr(&output));
    }
    Ok(String::from_utf8(output.stdout).unwrap())
}

pub fn realise(expression: &str) -> String {
    let derivation = evaluate(expression).unwrap();
    run(nix(&["--exec", "nix-store", "--realise"]).arg(derivation)).trim().to_owned()
}

/// Checks both functions that pull a base, in Nix's sandbox, from a registry and with slashes in
/// the name.
#[test]
fn bases_are_pulled_from_a_registry() {
    let docker = Docker::start();
    let registry = Registry::start();
    let directory = tempfile::tempdir().unwrap();
    let address = &registry.host;
    let source = format!("docker-archive:{}", distribution(directory.path()).display());
    let remote = format!("docker://{address}/team/base:v1");
    skopeo(&["copy", "--quiet", "--dest-tls-verify=false", &source, &remote]);

    let check = |base: &str| {
        let image =
            format!(r#"buildImage {{ name = "e2e/pulled"; tag = "v1"; fromImage = {base}; }}"#);
        load(&docker, &mut Command::new(realise(&image)));
        let command = ["/bin/bash", "-c", "stat -c %a /tmp; echo $BASE"];
        assert_eq!(docker.container("e2e/pulled:v1", &command), "1777\nbase\n", "{base}");
        docker.run(&["image", "rm", "e2e/pulled:v1"]);
    };
    let prefetch = ["prefetch", "--quiet", "--tls-verify=false"];
    let arguments = run(stowage(&prefetch).arg(format!("{address}/team/base:v1")));
    check(&format!("pullImage {arguments}"));

    // Use the manifest that the function's own program prints.
    let arguments = format!(
        r#"imageName = "team/base"; imageTag = "v1"; registryUrl = "{address}"; tlsVerify = false;"#
    );
    let program = realise(&format!("(pullImageFromManifest {{ {arguments} }}).getManifest"));
    let manifest = run(&mut Command::new(format!("{program}/bin/get-manifest")));
    // A JSON string is also a Nix string.
    let manifest = serde_json::to_string(&manifest).unwrap();
    check(&format!(
        r#"pullImageFromManifest {{ {arguments} imageManifest = builtins.toFile "m" {manifest}; }}"#
    ));
}

/// Checks that an image that was made by Nix can be pulled, though its configuration names a store path
/// that also is an input of the derivation that pulls it. Nix before 2.14 can't: then the commands of
/// the hint do it.
#[test]
fn an_image_that_names_inputs_is_pulled() {
    let version = run(&mut nix(&["eval", "--raw", "--expr", "builtins.nixVersion"]));
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let refused = (numbers.next(), numbers.next()) < (Some(2), Some(14));
    let pull = |expression: &str| {
        if refused {
            let derivation = evaluate(expression).unwrap();
            // Each blob may be a derivation. Nix has the layer from the second run of this test on.
            let pulled = (0..3).filter(|_| pull_as_the_hint_says(&derivation, &version)).count();
            assert!((1..3).contains(&pulled), "{expression}: {pulled} pulled by hand");
        }
        realise(expression);
    };
    let registry = Registry::start();
    let remote = format!("{}/team/of-nix:v1", registry.host);
    // The hash of what is pulled is another one in each run, so that Nix does not have it yet.
    let spec = realise(&format!(
        r#"(buildImage {{ name = "a"; config.Env = [ "CERTIFICATES=${{pkgs.cacert}}" "RUN={}" ]; }}).spec"#,
        registry.host
    ));
    run(stowage(&["push", "--quiet"]).arg(spec).arg(&remote));

    let prefetch = ["prefetch", "--quiet", "--tls-verify=false"];
    let arguments = run(stowage(&prefetch).arg(&remote));
    pull(&format!("pullImage {arguments}"));
    let arguments = run(stowage(&prefetch).arg("--docker-tools").arg(&remote));
    pull(&format!("dockerTools.pullImage {arguments}"));
    let manifest =
        skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{remote}")]);
    let manifest = serde_json::to_string(&manifest).unwrap();
    let host = &registry.host;
    pull(&format!(
        r#"pullImageFromManifest {{ imageName = "team/of-nix"; imageTag = "v1"; registryUrl = "{host}"; tlsVerify = false; imageManifest = builtins.toFile "m" {manifest}; }}"#
    ));
}

/// Builds a derivation that Nix before 2.14 may refuse, and then runs the commands of its hint.
/// Returns true if Nix refused it.
fn pull_as_the_hint_says(derivation: &str, version: &str) -> bool {
    let output = nix(&["--exec", "nix-store", "--realise", derivation]).output().unwrap();
    if output.status.success() {
        return false;
    }
    let error = stderr(&output);
    let named = format!(
        "which is also an input of the derivation that pulls it: Nix {version} refuses that"
    );
    assert!(error.contains("-cacert-") && error.contains(&named), "{error}");
    let (_, commands) = error.split_once("pull it by hand, after which Nix has it:\n").unwrap();
    let commands: Vec<_> = commands.lines().take(2).collect();
    // The registry of this test has no certificate, and Debian 12 has no policy of signatures.
    let commands = commands.join("\n").replace("skopeo ", "skopeo --insecure-policy ");
    let commands = commands.replace(" copy ", " copy --src-tls-verify=false ");
    let directory = tempfile::tempdir().unwrap();
    let script = format!("set -eu\n{commands}");
    run(nix(&["--exec", "sh", "-c", &script]).current_dir(&directory));
    true
}

#[test]
fn mistakes_are_named() {
    for (expression, message) in [
        (
            r#"pullImage { imageName = "a"; imageDigest = "latest"; sha256 = ""; }"#,
            "`imageDigest` must be `sha256:` and 64 hex digits, not `latest`",
        ),
        (r#"pullImageFromManifest { imageName = "a"; }"#, "`imageManifest` is missing; `nix run`"),
        (
            r#"pullImageFromManifest { imageName = "a"; imageManifest = builtins.toFile "m" "{\"manifests\":[]}"; }"#,
            "`imageManifest` must be the manifest of one image",
        ),
        (r#"pullImage { name = "a"; }"#, "without required argument"),
        (
            r#"buildImage { name = "a"; annotations.b = 1; }"#,
            "`annotations.\"b\"` must be a string, not int",
        ),
        (r#"buildImage { name = "a"; annotations = [ ]; }"#, "must be a set of strings"),
        (r#"dockerTools.buildImage { name = "a"; annotations."" = ""; }"#, "a key of no letters"),
        (r#"pullImageFromManifest { imageName = "a"; tag = "b"; }"#, "unexpected argument 'tag'"),
    ] {
        let error = evaluate(expression).expect_err(expression);
        assert!(error.contains(message), "{expression}: {error}");
    }
}
