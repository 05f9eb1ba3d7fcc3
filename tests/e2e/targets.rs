use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stowage::digest::Digest;

use crate::support::{Image, run, stowage};

fn skopeo(arguments: &[&str]) -> String {
    run(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}

fn copy(image: &Image, target: &str, options: &[&str]) -> Value {
    let mut command = stowage(&["copy"]);
    let json = run(command.arg(&image.spec_file).arg(target).args(options).arg("--json"));
    serde_json::from_str(&json).unwrap()
}

/// Returns the diff IDs that skopeo finds.
fn diff_ids(source: &str) -> Value {
    let config: Value = serde_json::from_str(&skopeo(&["inspect", "--config", source])).unwrap();
    config["rootfs"]["diff_ids"].clone()
}

/// Checks every target with skopeo, and every byte of it: a copy reads all layers and checks their
/// digests.
#[test]
fn skopeo_reads_every_target() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    // An image of store paths, another on a base with compressed layers, and another without
    // layers.
    for name in ["full", "based", "empty"] {
        let image = Image::named(name);
        for (target, options, digest_is_kept) in [
            (
                format!("docker-archive:{}:e2e/{name}:v1", at(&format!("{name}.docker"))),
                &[][..],
                false,
            ),
            (format!("docker-archive:{}", at(&format!("{name}.unnamed"))), &[], false),
            (format!("oci-archive:{}:{name}", at(&format!("{name}.oci"))), &[], true),
            (format!("oci-archive:{}", at(&format!("{name}.oci-unnamed"))), &[], true),
            // All images go into one layout.
            (format!("oci:{}:{name}", at("layout")), &[], true),
            (format!("dir:{}", at("dir")), &[], true),
            (format!("dir:{}", at("dir")), &["--format", "v2s2"], true),
        ] {
            let copied = copy(&image, &target, options);
            assert_eq!(copied["reference"], target);
            assert_eq!(diff_ids(&target), serde_json::json!(image.diff_ids()), "{target}");
            if digest_is_kept {
                let raw = skopeo(&["inspect", "--raw", &target]);
                let digest = Digest::of(raw.as_bytes()).to_string();
                assert_eq!(copied["manifestDigest"], digest, "{target}");
                let inspected: Value =
                    serde_json::from_str(&skopeo(&["inspect", &target])).unwrap();
                assert_eq!(inspected["Digest"], digest, "{target}");
            }
            let again = format!("dir:{}", at("again"));
            skopeo(&["copy", "--quiet", &target, &again]);
            assert_eq!(diff_ids(&again), serde_json::json!(image.diff_ids()), "{target}");
        }
    }
}

/// Checks that skopeo and this program add images to each other's layouts.
#[test]
fn a_layout_is_shared_with_skopeo() {
    let directory = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}", directory.path().join("layout").display());
    let [first, second] = ["full", "oneLayer"].map(Image::named);
    let archive = directory.path().join("first.tar");
    first.stream_to(&archive);
    let source = format!("oci-archive:{}", archive.display());
    // Keep the layers unchanged: skopeo would otherwise compress them.
    let kept = [
        "copy",
        "--quiet",
        "--dest-oci-accept-uncompressed-layers",
        &source,
        &format!("{layout}:skopeo"),
    ];
    skopeo(&kept);
    let copied = copy(&first, &format!("{layout}:ours"), &[]);
    assert_eq!(copied["layersSkipped"], first.spec.layers.len());
    assert_eq!(copied["layersSent"], 0);
    copy(&second, &format!("{layout}:second"), &[]);
    for (name, image) in [("skopeo", &first), ("ours", &first), ("second", &second)] {
        let source = format!("{layout}:{name}");
        assert_eq!(diff_ids(&source), serde_json::json!(image.diff_ids()), "{name}");
    }
    skopeo(&kept);
    assert_eq!(diff_ids(&format!("{layout}:second")), serde_json::json!(second.diff_ids()));
}

/// Checks `copy … docker-archive:/dev/stdout | docker load`, also without a writable file system.
#[test]
fn an_archive_is_piped() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    let image = Image::named("full");
    let mut command = stowage(&["copy"]);
    command.arg(&image.spec_file).args(["docker-archive:/dev/stdout:a:b", "--digestfile"]);
    command.arg(directory.path().join("digest")).stdout(std::fs::File::create(&file).unwrap());
    run(&mut command);
    assert_eq!(
        diff_ids(&format!("docker-archive:{}:a:b", file.display())),
        serde_json::json!(image.diff_ids())
    );
    assert_eq!(digest_of(&file), std::fs::read_to_string(directory.path().join("digest")).unwrap());
}

/// Returns the digest of the one manifest in an archive that is also an image layout.
fn digest_of(file: &Path) -> String {
    let source = format!("oci-archive:{}", file.display());
    Digest::of(skopeo(&["inspect", "--raw", &source]).as_bytes()).to_string()
}
