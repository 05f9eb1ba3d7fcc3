use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use stowage::digest::Digest;

use crate::schema;
use crate::support::{FakeStore, stderr};

/// Makes a store with image specs for two platforms, `amd64.json` and `arm64.json`, which share a
/// layer.
fn images() -> FakeStore {
    let mut store = FakeStore::new();
    store.add_file('1', "shared", &[], "for all");
    for (digit, architecture) in [('2', "amd64"), ('3', "arm64")] {
        store.add_file(digit, architecture, &[], architecture);
        let options =
            json!({"architecture": architecture, "maxLayers": 9, "layering": "popularity"});
        store.build(&options.to_string());
        fs::rename(
            store.root().join("image.json"),
            store.root().join(format!("{architecture}.json")),
        )
        .unwrap();
    }
    store
}

fn run(store: &FakeStore, arguments: &[&str]) -> Output {
    store.stowage(arguments).output().unwrap()
}

fn succeed(store: &FakeStore, arguments: &[&str]) -> String {
    let output = run(store, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn index(store: &FakeStore) {
    let images = ["amd64.json,tested=yes", "arm64.json,tested=no,by=me"];
    let mut arguments = vec!["index", "--output", "index.json", "--annotation", "title=both"];
    arguments.extend(images);
    succeed(store, &arguments);
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, digest: &Value) -> Vec<u8> {
    let digest = digest.as_str().unwrap();
    let bytes = fs::read(layout.join("blobs/sha256").join(&digest[7..])).unwrap();
    assert_eq!(Digest::of(&bytes).to_string(), digest);
    bytes
}

/// Checks that all blobs to which an index leads are there, with the right contents.
fn check_layout(layout: &Path) {
    let top = &read(&layout.join("index.json"))["manifests"];
    assert_eq!(top.as_array().unwrap().len(), 1);
    assert_eq!(top[0]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(top[0]["annotations"]["org.opencontainers.image.ref.name"], "v1");
    let index: Value = serde_json::from_slice(&blob(layout, &top[0]["digest"])).unwrap();
    assert_eq!(index["annotations"], json!({"title": "both"}));
    let entries = index["manifests"].as_array().unwrap();
    for (entry, (architecture, annotations)) in entries
        .iter()
        .zip([("amd64", json!({"tested": "yes"})), ("arm64", json!({"tested": "no", "by": "me"}))])
    {
        assert_eq!(entry["platform"], json!({"architecture": architecture, "os": "linux"}));
        assert_eq!(entry["annotations"], annotations);
        let manifest: Value = serde_json::from_slice(&blob(layout, &entry["digest"])).unwrap();
        let config: Value =
            serde_json::from_slice(&blob(layout, &manifest["config"]["digest"])).unwrap();
        assert_eq!(config["architecture"], architecture);
        for layer in manifest["layers"].as_array().unwrap() {
            blob(layout, &layer["digest"]);
        }
    }
    assert_eq!(entries.len(), 2);
}

#[test]
fn an_index_leads_to_every_image() {
    let store = images();
    index(&store);
    let copied = succeed(&store, &["copy", "--json", "index.json", "oci:layout:v1"]);
    let copied = schema::checked("copy", &copied);
    check_layout(&store.root().join("layout"));
    // The layer that both images have is there once.
    assert_eq!(copied["layersSent"], 3);
    let top = read(&store.root().join("layout/index.json"));
    assert_eq!(copied["manifestDigest"], top["manifests"][0]["digest"]);

    let again = succeed(&store, &["copy", "--json", "index.json", "oci:layout:v1"]);
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap()["layersSent"], 0);

    succeed(&store, &["copy", "index.json", "oci-archive:archive.tar:v1"]);
    let unpacked = store.root().join("unpacked");
    tar::Archive::new(fs::File::open(store.root().join("archive.tar")).unwrap())
        .unpack(&unpacked)
        .unwrap();
    check_layout(&unpacked);
}

/// Checks that targets which take one image get the image for this machine.
#[test]
fn one_image_is_chosen_where_there_is_room_for_one() {
    let store = images();
    index(&store);
    succeed(&store, &["copy", "index.json", "dir:chosen"]);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("no test image for {other}"),
    };
    succeed(&store, &["copy", &format!("{architecture}.json"), "dir:one"]);
    let manifest = |name: &str| fs::read(store.root().join(name).join("manifest.json")).unwrap();
    assert_eq!(manifest("chosen"), manifest("one"));

    succeed(&store, &["index", "--output", "other.json", "arm64.json"]);
    if architecture == "amd64" {
        let output = run(&store, &["copy", "other.json", "docker-archive:a.tar"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            stderr(&output),
            "error: there is no image for linux/amd64, only for linux/arm64\n"
        );
    }
}

/// Checks that only the wanted image of an index is read as a whole: the others may be damaged, as
/// long as they have a platform. Two images for one platform are refused.
#[test]
fn only_the_wanted_image_is_read() {
    let store = images();
    index(&store);
    let mut other = read(&store.root().join("arm64.json"));
    let whole = other.to_string();
    other["layers"] = json!("damaged");
    store.write("arm64.json", &other.to_string());
    let flatten = |arch: &str| {
        run(&store, &["flatten", "index.json", "--arch", arch, "--output", "root.tar"])
    };
    let good = flatten("amd64");
    assert!(good.status.success(), "{}", stderr(&good));
    let bad = flatten("arm64");
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        stderr(&bad).contains("arm64.json") && stderr(&bad).contains("damaged"),
        "{}",
        stderr(&bad)
    );
    let none = stderr(&flatten("s390x"));
    assert_eq!(
        none,
        "error: there is no image for linux/s390x, only for linux/amd64, linux/arm64\n"
    );
    store.write("arm64.json", &whole.replace("arm64", "amd64"));
    let twice = stderr(&flatten("amd64"));
    assert!(twice.contains("linux/amd64") && twice.contains("arm64.json"), "{twice}");
}

#[test]
fn several_targets_are_copied_to() {
    let store = images();
    index(&store);
    succeed(
        &store,
        &["copy", "index.json", "oci:layout:v1", "oci:layout:v2", "oci-archive:a.tar:v1"],
    );
    let names = read(&store.root().join("layout/index.json"));
    assert_eq!(names["manifests"].as_array().unwrap().len(), 2);
    assert!(store.root().join("a.tar").exists());
    let output = run(&store, &["copy", "index.json", "oci:a:1", "oci:a:2", "--digestfile", "d"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!store.root().join("a").exists());
}

#[test]
fn mistakes_are_named() {
    let store = images();
    fs::write(store.root().join("newer.json"), r#"{"version": 2, "images": []}"#).unwrap();
    fs::write(store.root().join("empty.json"), r#"{"version": 1, "images": []}"#).unwrap();
    fs::write(store.root().join("odd.json"), r#"{"version": 1, "images": [{"file": "x"}]}"#)
        .unwrap();
    for (arguments, message) in [
        (
            &["index", "-o", "i", "amd64.json", "amd64.json"][..],
            "two images of an index are for linux/amd64: ",
        ),
        (&["index", "-o", "i", "amd64.json,yes"], "`yes` must be an annotation, `KEY=VALUE`"),
        (
            &["index", "-o", "i", "amd64.json", "--annotation", "=x"],
            "the set of annotations has a key of no letters",
        ),
        (&["index", "-o", "i", "amd64.json,a\u{1b}=x"], r#"has the key "a\u{1b}", with a control"#),
        (&["index", "-o", "i", "none.json"], "cannot read "),
        (
            &["copy", "newer.json", "oci:a"],
            "newer.json: the index spec has version 2, and this program reads version 1",
        ),
        (&["copy", "empty.json", "oci:a"], "an index needs one image at least"),
        (&["copy", "odd.json", "oci:a"], "unknown field `file`"),
    ] {
        let output = run(&store, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(message), "{arguments:?}: {}", stderr(&output));
        assert!(!store.root().join("i").exists());
    }
}
