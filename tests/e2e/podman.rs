use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Image, program_of, root_command, run};

/// Returns a podman command with a storage of its own.
pub fn podman(directory: &Path, arguments: &[&str]) -> Command {
    with_storage("podman", directory, arguments)
}

/// Returns a command of another Debian release's podman with a storage of its own.
pub fn podman_of(release: &str, directory: &Path, arguments: &[&str]) -> Command {
    let podman = program_of(release, "podman");
    with_storage(podman.get_program().to_str().unwrap(), directory, arguments)
}

fn with_storage(podman: &str, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = root_command(podman);
    command.arg("--root").arg(directory.join("root")).arg("--runroot").arg(directory.join("run"));
    command.args(["--storage-driver=vfs"]).args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn podman_loads_the_stream() {
    let directory = tempfile::tempdir().unwrap();
    let image = Image::named("oneLayer");
    let mut stream = Command::new(&image.path).stdout(Stdio::piped()).spawn().unwrap();
    let loaded = run(podman(directory.path(), &["load"]).stdin(stream.stdout.take().unwrap()));
    assert!(stream.wait().unwrap().success());
    let reference = format!("docker.io/{}", image.reference());
    assert!(loaded.contains(&reference), "{loaded}");
    let inspected: Value = serde_json::from_str(&run(&mut podman(
        directory.path(),
        &["image", "inspect", &reference],
    )))
    .unwrap();
    assert_eq!(inspected[0]["RootFS"]["Layers"], serde_json::json!(image.diff_ids()));
    // Running a container needs privileges that a build machine may not have; reading its files
    // does not.
    let mounted = run(&mut podman(directory.path(), &["image", "mount", &reference]));
    let listed = run(root_command("chroot").args([mounted.trim(), "/bin/ls", "/"]));
    run(&mut podman(directory.path(), &["image", "unmount", &reference]));
    assert!(
        listed.lines().any(|name| name == "bin") && listed.lines().any(|name| name == "nix"),
        "{listed}"
    );
}

/// Checks that skopeo reads both formats of the stream, and computes the recorded digests.
#[test]
fn skopeo_finds_the_same_diff_ids() {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let image = Image::named("full");
    image.stream_to(&archive);
    for (format, source) in [
        ("docker", format!("docker-archive:{}", archive.display())),
        ("oci", format!("oci-archive:{}", archive.display())),
    ] {
        let layout = format!("oci:{}:all", directory.path().join(format).display());
        run(Command::new("skopeo").args([
            "--insecure-policy",
            "copy",
            "--quiet",
            &source,
            &layout,
        ]));
        let config = run(Command::new("skopeo").args(["inspect", "--config", &layout]));
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(image.diff_ids()), "{format}");
        assert_eq!(
            config["history"].as_array().unwrap().len(),
            image.spec.layers.len(),
            "{format}"
        );
    }
}
