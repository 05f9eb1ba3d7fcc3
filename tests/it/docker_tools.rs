//! Tests what the functions of dockerTools need and `buildImage` has no argument for.

use std::fs;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use stowage::oci::{Form, ImageSpec};

use crate::support::{FakeStore, stderr};

/// Returns name, owner, names of owner and group, and modification time of each entry of a layer.
fn entries(store: &FakeStore, spec: &ImageSpec, layer: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    spec.layers[layer].write_blob(&store.store(), Form::AsStored, &mut bytes).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        let path = entry.path().unwrap().display().to_string();
        let name = path.split_once('-').map_or(path.clone(), |(_, name)| name.to_owned());
        format!(
            "{name} {}:{} {}:{} {}",
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.username().unwrap().unwrap_or_default(),
            header.groupname().unwrap().unwrap_or_default(),
            header.mtime().unwrap(),
        )
    });
    entries.collect()
}

fn spec(store: &FakeStore) -> ImageSpec {
    ImageSpec::read(&store.root().join("image.json")).unwrap()
}

fn tar_file(store: &FakeStore, name: &str, member: &str) -> String {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o1777);
    header.set_size(0);
    tar.append_data(&mut header, member, &[][..]).unwrap();
    let file = store.root().join(name);
    fs::write(&file, tar.into_inner().unwrap()).unwrap();
    file.display().to_string()
}

#[test]
fn the_store_has_its_own_owner_and_time() {
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], "a");
    let root = store.add('2', "root", &[], |path| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), "").unwrap();
    });
    let options = format!(
        r#"{{"copyToRoot": ["{}"], "storeAttributes":
            {{"uid": 1000, "gid": 100, "uname": "me", "gname": "us", "mtime": "1970-01-02T00:00:00Z"}}}}"#,
        store.store().print(&root)
    );
    store.build(&options);
    let spec = spec(&store);
    assert_eq!(
        entries(&store, &spec, 0),
        ["nix/", "nix/store/", "a/", "a/file"].map(|name| format!("{name} 1000:100 me:us 86400"))
    );
    // A file that is copied to `/` is not in the store.
    assert_eq!(entries(&store, &spec, 1), ["file 0:0 root:root 1"]);
}

#[test]
fn tars_go_on_top_as_they_are() {
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], "a");
    let (one, two) = (tar_file(&store, "one.tar", "tmp"), tar_file(&store, "two.tar", "var"));
    // One path is relative to the options' directory; the spec may be read in any directory.
    store.build(&format!(r#"{{"tars": ["one.tar", "{two}"]}}"#));
    let spec = spec(&store);
    assert_eq!(spec.layers.len(), 3);
    assert_eq!(spec.history.len(), 3);
    for (layer, file) in [(1, &one), (2, &two)] {
        let mut bytes = Vec::new();
        spec.layers[layer].write_blob(&store.store(), Form::AsStored, &mut bytes).unwrap();
        assert_eq!(bytes, fs::read(file).unwrap());
    }
    let explained = store.stowage(&["explain", "image.json", "--json"]).output().unwrap();
    let explained: serde_json::Value = serde_json::from_slice(&explained.stdout).unwrap();
    let why = [0, 1, 2].map(|layer| explained["layers"][layer]["why"].as_str().unwrap());
    assert_eq!(why, ["alone", "made by commands", "made by commands"]);
    fs::write(&one, "other bytes").unwrap();
    let output = store.stowage(&["stream", "image.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("one.tar"), "{}", stderr(&output));
}

#[test]
fn a_missing_tar_is_named() {
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], "a");
    let output = store.try_build(r#"{"tars": ["/nowhere/layer.tar"]}"#);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere/layer.tar"), "{}", stderr(&output));
}

#[test]
fn the_total_of_layers_counts_them_all() {
    let mut store = FakeStore::new();
    let mut last = store.add_file('1', "a", &[], "a");
    for hash in ['2', '3', '4', '5'] {
        last = store.add_file(hash, "b", &[&last], "b");
    }
    let tar = tar_file(&store, "top.tar", "tmp");
    let build = |max_layers: u8| {
        store.try_build(&format!(
            r#"{{"tars": ["{tar}"], "maxLayers": {max_layers}, "maxLayersIsTotal": true, "layering": "largest-first"}}"#
        ))
    };
    assert!(build(3).status.success());
    assert_eq!(spec(&store).layers.len(), 3);
    let output = build(1);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(
        error.contains("`maxLayers` is 1, of which the base image has 0 and others are 1"),
        "{error}"
    );
}

#[test]
fn a_stream_can_be_compressed() {
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], &"a".repeat(3 << 20));
    store.build("{}");
    let stream = |arguments: &[&str]| {
        let output = store.stowage(&[&["stream", "image.json"], arguments].concat()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    let plain = stream(&[]);
    let mut unpacked = Vec::new();
    let gzip = stream(&["--compress", "gz"]);
    assert_eq!(gzip, stream(&["--compress", "gzip", "--jobs", "1"]));
    MultiGzDecoder::new(&gzip[..]).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == plain);
    let zstd = stream(&["--compress", "zstd"]);
    assert!(zstd::decode_all(&zstd[..]).unwrap() == plain);
    let manifest: Value = {
        let mut archive = tar::Archive::new(&unpacked[..]);
        let is_manifest =
            |entry: &tar::Entry<_>| entry.path().is_ok_and(|path| path.ends_with("manifest.json"));
        let entry = archive.entries().unwrap().map(Result::unwrap).find(is_manifest).unwrap();
        serde_json::from_reader(entry).unwrap()
    };
    assert_eq!(manifest[0]["Layers"].as_array().unwrap().len(), 1);
}
