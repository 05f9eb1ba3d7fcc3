//! Pushes to Debian's registry after its garbage collection, and after it lost files.

use std::path::Path;

use crate::registry::Registry;
use crate::support::{Image, run, stowage};

/// Returns whether all parts of the image can be read.
fn is_whole(registry: &Registry, directory: &Path, tag: &str) -> bool {
    let _ = std::fs::remove_dir_all(directory);
    let mut copy = std::process::Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    copy.arg(format!("docker://{}/team/app:{tag}", registry.host));
    copy.arg(format!("dir:{}", directory.display())).output().unwrap().status.success()
}

#[test]
fn what_a_garbage_collection_removed_is_pushed_again() {
    let registry = Registry::start();
    let directory = tempfile::tempdir().unwrap();
    let pulled = directory.path().join("pulled");
    let (one, two) = (Image::named("smallApp1"), Image::named("smallApp2"));
    let push = |image: &Image, tag: &str| {
        let reference = format!("{}/team/app:{tag}", registry.host);
        let push = ["push", "--json", "--quiet"];
        let pushed = run(stowage(&push).arg(&image.spec_file).arg(reference));
        let pushed: serde_json::Value = serde_json::from_str(&pushed).unwrap();
        pushed["layersSent"].as_u64().unwrap()
    };
    push(&one, "v1");
    push(&two, "v2");
    assert_eq!(push(&one, "v1"), 0);

    // Another tag's manifest is deleted: the blobs that only it has are removed, and shared blobs
    // stay.
    registry.delete_manifest("team/app", "v2");
    registry.collect_garbage();
    assert!(is_whole(&registry, &pulled, "v1"));
    assert_eq!(push(&one, "v1"), 0);
    assert!((1..=2).contains(&push(&two, "v2")));
    assert!(is_whole(&registry, &pulled, "v2"));

    // The manifest stays and its blobs are removed, as in a registry that lost files, or that
    // collected garbage while the image was pushed.
    let lost = registry.lose_blobs(&one.spec);
    assert!(!is_whole(&registry, &pulled, "v1"));
    assert_eq!(push(&one, "v1"), lost);
    assert!(is_whole(&registry, &pulled, "v1") && is_whole(&registry, &pulled, "v2"));
}
