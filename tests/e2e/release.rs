//! The workflow of a release: its own commands are run, with another registry in place of GitHub's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::registry::Registry;
use crate::support::{REPOSITORY, program_of, run, stowage};

const TAG: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Returns the commands of a step of the workflow.
fn commands(step: &str) -> String {
    let workflow = fs::read_to_string(format!("{REPOSITORY}/.github/workflows/release.yml"));
    let workflow = workflow.unwrap();
    let (_, rest) = workflow.split_once(&format!("- name: {step}\n")).expect(step);
    let this = rest.split("\n      - ").next().unwrap().split("\n\n").next().unwrap();
    let (_, run) = this.split_once("        run: ").expect(step);
    run.strip_prefix("|\n").unwrap_or(run).to_owned()
}

fn write_program(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_commands_of_a_release_work() {
    let registry = Registry::with_user("me", "token");
    let image = format!("{}/owner/stowage", registry.host);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("programs")).unwrap();
    // The flake is that of the repository, with the embedded packages.
    let nix = format!(
        "#!/bin/sh\nfor one; do shift; case $one in .#*) one='{REPOSITORY}'#${{one#.#}} ;; esac\nset -- \"$@\" \"$one\"; done\nexec '{REPOSITORY}/checks/nix' \"$@\"\n"
    );
    write_program(&path("programs/nix-of-release"), &nix);
    // A release can't be made here: what it would be made of is compared.
    write_program(&path("programs/gh"), "#!/bin/sh\nprintf '%s\\n' \"$@\" >gh-arguments\n");
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    let changelog = format!(
        "# Changelog\n\n## Unreleased\n\n{heading} (today)\n\n- New\n\n## 0.0.9\n\n- Old\n"
    );
    fs::write(path("CHANGELOG.md"), changelog).unwrap();
    let key = |name: &str| format!("{REPOSITORY}/tests/it/keys/{name}");

    let step = |name: &str| {
        let script = commands(name)
            .replace("ghcr.io", &registry.host)
            .replace("nix build", "nix-of-release build");
        let programs = format!("{}:{}", path("programs").display(), std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash");
        // The options are GitHub's.
        bash.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script]);
        bash.current_dir(&directory).env("PATH", programs).env("DOCKER_CONFIG", path("docker"));
        bash.env("STOWAGE_PROGRAM", env!("CARGO_BIN_EXE_stowage"));
        bash.env("DOCKER_HOST", "unix:///nonexistent").env("SYSTEM", "x86_64-linux");
        bash.env("GITHUB_REF_NAME", TAG).env("GITHUB_ACTOR", "me").env("TOKEN", "token");
        bash.env("TAG", TAG).env("IMAGE", &image).env("COSIGN_PASSWORD", "secret");
        bash.env("SIGNING_KEY", fs::read_to_string(key("test.cosign.key")).unwrap());
        run(&mut bash)
    };
    step("Build");
    step("Check that it is the tagged version, and needs no library of Nix");
    // The actions between the jobs put all programs into one directory.
    fs::rename(path("out"), path("release")).unwrap();
    step("Write checksums, the list of packages and the notes");
    step("Push the image of the program, and sign it, the list and the checksums");
    step("Make the release");

    run(Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(path("release")));
    let packages: Value =
        serde_json::from_slice(&fs::read(path("release/stowage.spdx.json")).unwrap()).unwrap();
    assert_eq!(packages["spdxVersion"], "SPDX-2.3");
    assert_eq!(fs::read_to_string(path("notes.md")).unwrap().trim(), "- New");
    let gh = fs::read_to_string(path("gh-arguments")).unwrap();
    let files = ["SHA256SUMS", "stowage-x86_64-linux", "stowage.spdx.json"]
        .map(|it| format!("release/{it}"));
    let ends = format!("--notes-file\nnotes.md\n{}\n", files.join("\n"));
    assert!(gh.starts_with(&format!("release\ncreate\n{TAG}\n")) && gh.ends_with(&ends), "{gh}");

    let name = format!("{image}:{TAG}");
    let mut verify = stowage(&["verify", &name, "--key", &key("test.pub")]);
    run(verify.env("DOCKER_CONFIG", path("docker")));
    // The last type as docs/stability.md shows it.
    for kind in ["spdxjson", "https://in-toto.io/attestation/release/v0.1"] {
        let mut cosign = program_of("sid", "cosign");
        cosign.args(["verify-attestation", "--insecure-ignore-tlog", "--allow-insecure-registry"]);
        cosign.args(["--key", &key("test.pub"), "--type", kind, &name]);
        run(cosign.env("DOCKER_CONFIG", path("docker")).env("HOME", directory.path()));
    }
}
