//! Tests `stowage merge` with archives of this program and with old ones of `docker save`.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::base_image::{archive, gzip};
use crate::support::{FakeStore, members, stderr};

fn merge(store: &FakeStore, arguments: &[&str]) -> Output {
    store.stowage(&[&["merge"], arguments].concat()).output().unwrap()
}

/// Makes two archives that share a layer: `one.tar` and, compressed, `two.tar.gz`.
fn archives() -> FakeStore {
    let mut store = FakeStore::new();
    let below = store.add_file('1', "below", &[], "below");
    store.build(r#"{"layering": "largest-first"}"#);
    let stream = |store: &FakeStore, arguments: &[&str]| {
        let output =
            store.stowage(&[&["stream", "image.json"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    fs::write(store.root().join("one.tar"), stream(&store, &["-t", "one:v1", "-t", "both:v1"]))
        .unwrap();
    store.add_file('2', "above", &[&below], "above");
    store.build(r#"{"layering": "largest-first"}"#);
    let two = stream(&store, &["-t", "two:v1", "-t", "both:v1"]);
    fs::write(store.root().join("two.tar.gz"), gzip(&two)).unwrap();
    store
}

#[test]
fn images_are_together_with_their_names() {
    let store = archives();
    let output = merge(&store, &["one.tar", "two.tar.gz"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let members = members(&output.stdout);
    let manifest: Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    let tags: Vec<_> =
        manifest.as_array().unwrap().iter().map(|image| &image["RepoTags"]).collect();
    assert_eq!(tags, [&json!(["one:v1"]), &json!(["two:v1", "both:v1"])]);
    for image in manifest.as_array().unwrap() {
        for blob in image["Layers"].as_array().unwrap().iter().chain([&image["Config"]]) {
            assert!(members.contains_key(blob.as_str().unwrap()), "{blob}");
        }
    }
    let index: Value = serde_json::from_slice(&members["index.json"]).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
    assert!(members.contains_key("oci-layout"));
    // The shared layer is there once: two layers, two configurations, two manifests.
    assert_eq!(members.keys().filter(|name| name.len() > 64).count(), 6);
    // The same image twice gives one image.
    let same = merge(&store, &["one.tar", "one.tar", "-o", "same.tar"]);
    assert!(same.status.success(), "{}", stderr(&same));
    let again = merge(&store, &["same.tar"]);
    assert!(again.stdout == fs::read(store.root().join("same.tar")).unwrap());
}

/// Checks archives in the format of nixpkgs and of `docker save` before version 25.
#[test]
fn old_archives_are_taken_too() {
    let store = archives();
    let old = |id: &str, tag: &str| {
        let layer = format!("{id}/layer.tar");
        vec![
            (format!("{id}.json"), b"{}".to_vec()),
            (layer.clone(), id.as_bytes().to_vec()),
            ("manifest.json".to_owned(), json!([{"Config": format!("{id}.json"), "RepoTags": [format!("old:{tag}")], "Layers": [layer]}]).to_string().into_bytes()),
            ("repositories".to_owned(), json!({"old": {tag: id}}).to_string().into_bytes()),
        ]
    };
    fs::write(store.root().join("a.tar"), archive(&old("a", "v1"))).unwrap();
    fs::write(store.root().join("b.tar"), archive(&old("b", "v2"))).unwrap();
    let output = merge(&store, &["a.tar", "b.tar", "one.tar"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let members = members(&output.stdout);
    let repositories: Value = serde_json::from_slice(&members["repositories"]).unwrap();
    assert_eq!(repositories, json!({"old": {"v1": "a", "v2": "b"}}));
    assert_eq!(members["b/layer.tar"], b"b");
    // With an index, containerd would not see the old images.
    assert!(!members.contains_key("index.json") && !members.contains_key("oci-layout"));
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_left() {
    let store = archives();
    fs::write(store.root().join("text"), "no archive at all").unwrap();
    let truncated = fs::read(store.root().join("one.tar")).unwrap();
    fs::write(store.root().join("truncated.tar"), &truncated[..truncated.len() / 2]).unwrap();
    let files = |bytes: &str| {
        vec![("layer.tar".to_owned(), bytes.into()), ("manifest.json".to_owned(), b"[]".to_vec())]
    };
    fs::write(store.root().join("a.tar"), archive(&files("a"))).unwrap();
    fs::write(store.root().join("b.tar"), archive(&files("b"))).unwrap();
    let named = |name: &str, document: &str| (name.to_owned(), document.as_bytes().to_vec());
    let none = named("manifest.json", "[]");
    for (file, documents) in [
        ("json.tar", vec![named("manifest.json", "[")]),
        ("numbers.tar", vec![named("manifest.json", "[1, 2]")]),
        ("list.tar", vec![none.clone(), named("index.json", "[]")]),
        ("odd.tar", vec![none, named("repositories", r#"{"a": 1}"#)]),
    ] {
        fs::write(store.root().join(file), archive(&documents)).unwrap();
    }
    for (arguments, expected) in [
        (&["nowhere.tar"][..], "cannot read nowhere.tar"),
        (&["text"], "text"),
        (&["truncated.tar"], "truncated.tar"),
        (
            &["a.tar", "b.tar"],
            "b.tar: not an archive of images: layer.tar is another file in another of the archives",
        ),
        (&["json.tar"], "json.tar: not an archive of images: manifest.json: "),
        (&["numbers.tar"], "numbers.tar: not an archive of images: manifest.json: invalid type"),
        (&["list.tar"], "list.tar: not an archive of images: index.json: "),
        (&["odd.tar"], "odd.tar: not an archive of images: repositories: invalid type"),
    ] {
        let output = merge(&store, &[arguments, &["-o", "merged.tar"]].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert!(!store.root().join("merged.tar").exists());
    }
}
