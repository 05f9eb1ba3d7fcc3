use std::fs;

use serde_json::json;
use stowage::closure::Closure;
use stowage::oci::{ImageSpec, SpecLayer};

use crate::support::{FakeStore, stderr};

/// Makes an image of two layers and one file in `/`; `text` is in the last store path.
fn store(text: &str) -> FakeStore {
    let mut store = FakeStore::new();
    let library = store.add_file('1', "library", &[], &"library ".repeat(100_000));
    store.add_file('2', "program", &[&library], text);
    store
}

fn options(more: &serde_json::Value) -> String {
    let mut options = json!({"layering": "largest-first"});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options.to_string()
}

/// Builds with an earlier image, in a store from which the unchanged path was removed after it was
/// registered, so that reading the path would fail.
fn build_after(previous: &[u8], text: &str, more: &serde_json::Value) -> Result<Vec<u8>, String> {
    let after = store(text);
    let previous = after.write("previous.json", std::str::from_utf8(previous).unwrap());
    let mut more = more.clone();
    more["previousImage"] = json!(previous);
    more["architecture"] = json!("amd64");
    after.write("registration", &after.registration());
    after.write("options.json", &options(&more));
    let library = format!("{}-library", "1".repeat(32));
    fs::remove_dir_all(after.store().physical_dir().join(library)).unwrap();
    let arguments =
        ["build", "--closure", "registration", "--options", "options.json", "-o", "image.json"];
    let output = after.stowage(&arguments).output().unwrap();
    if !output.status.success() {
        return Err(stderr(&output));
    }
    Ok(fs::read(after.root().join("image.json")).unwrap())
}

#[test]
fn layers_of_the_same_are_not_made_again() {
    let nothing = json!({});
    let before = store("1").build(&options(&nothing));
    let after = build_after(&before, "2", &nothing).unwrap();
    // The bytes are the same as without the earlier image.
    assert_eq!(after, store("2").build(&options(&nothing)));
    assert_ne!(after, before);
    let [before, after] =
        [before, after].map(|json| serde_json::from_slice::<ImageSpec>(&json).unwrap().layers);
    assert_eq!((before.len(), after.len()), (2, 2));
    assert_eq!(before.iter().filter(|layer| after.contains(layer)).count(), 1);
}

/// Checks that layers without a checksum are made, and get one: otherwise they would never be sent
/// as fast as others.
#[test]
fn layers_without_a_checksum_are_made() {
    let nothing = json!({});
    let before = store("1").build(&options(&nothing));
    let mut before: serde_json::Value = serde_json::from_slice(&before).unwrap();
    for layer in before["layers"].as_array_mut().unwrap() {
        layer.as_object_mut().unwrap().remove("checksum").unwrap();
    }
    let error = build_after(before.to_string().as_bytes(), "2", &nothing).unwrap_err();
    assert!(error.contains("-library"), "{error}");
}

#[test]
fn layers_of_something_else_are_made() {
    let nothing = json!({});
    let before = store("1").build(&options(&nothing));
    let library = format!("/nix/store/{}-library", "1".repeat(32));
    let text = String::from_utf8(before.clone()).unwrap();
    let hash = text.split("\"narHash\": \"").nth(1).unwrap().split('"').next().unwrap();
    let other_hash = text.replacen(hash, &format!("sha256:{}", "0".repeat(52)), 1);
    for (what, previous, more) in [
        ("another NAR hash", other_hash.clone().into_bytes(), nothing.clone()),
        ("another mode", before.clone(), json!({"perms": [{"path": library, "mode": "0700"}]})),
        ("another owner", before.clone(), json!({"storeAttributes": {"uid": 1}})),
    ] {
        let error = build_after(&previous, "1", &more).unwrap_err();
        assert!(error.contains("does not exist"), "{what}: {error}");
    }
    // The file must be an image spec of this version.
    for (what, previous) in [
        ("no JSON", "nonsense".to_owned()),
        ("a plan", "[]".to_owned()),
        ("another version", text.replacen("\"version\": 1", "\"version\": 2", 1)),
    ] {
        let error = build_after(previous.as_bytes(), "1", &nothing).unwrap_err();
        assert!(error.contains("previous.json"), "{what}: {error}");
    }
}

/// Checks that an image does not read layers that were built on their own: it takes their digests
/// from there.
#[test]
fn layers_of_build_layer_are_not_read_again() {
    let store = store("1");
    let file = store.write("registration", &store.registration());
    let closure = || Closure::read(&file).unwrap();
    let root = store.store();
    let options = serde_json::from_str(&options(&json!({}))).unwrap();
    let set = stowage::oci::build_layer_set(&root, closure(), options, |_| ()).unwrap().made;
    let layers = format!("{}-layers", "8".repeat(32));
    fs::create_dir(root.physical_dir().join(&layers)).unwrap();
    fs::write(root.physical_dir().join(&layers).join("layers.json"), set.to_json()).unwrap();
    for name in [format!("{}-library", "1".repeat(32)), format!("{}-program", "2".repeat(32))] {
        fs::remove_dir_all(root.physical_dir().join(name)).unwrap();
    }
    let options = json!({"layers": [format!("/nix/store/{layers}")]});
    let options = serde_json::from_value(options).unwrap();
    let made = stowage::oci::build_image(&root, closure(), options, |_| ()).unwrap().made;
    let digests = |layers: &[SpecLayer]| layers.iter().map(|it| it.diff_id).collect::<Vec<_>>();
    assert_eq!(digests(&made.layers), digests(&set.layers));
}

#[test]
fn compressed_layers_are_what_they_were() {
    let gzip = json!({"compression": "gzip"});
    let before = store("1").build(&options(&gzip));
    let after = build_after(&before, "2", &gzip).unwrap();
    assert_eq!(after, store("2").build(&options(&gzip)));
    // Layers that are to be compressed in another way are made.
    let error = build_after(&before, "2", &json!({"compression": "zstd"})).unwrap_err();
    assert!(error.contains("does not exist"), "{error}");
    let plain = build_after(&before, "2", &json!({})).unwrap();
    assert_eq!(plain, store("2").build(&options(&json!({}))));
}
