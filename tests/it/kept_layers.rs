use std::fs;

use serde_json::{Value, json};
use stowage::closure::Closure;
use stowage::oci::{Form, ImageSpec};
use stowage::store::{Store, StorePath};

use crate::base_image::{BaseFiles, write_files};
use crate::support::{FakeStore, stderr};

/// A store with a `buildLayer { reproducible = false; … }` of two paths and one file in `/`.
struct Kept {
    store: FakeStore,
    layers: String,
    paths: [StorePath; 3],
}

impl Kept {
    fn new() -> Self {
        let mut store = FakeStore::new();
        let library = store.add_file('1', "library", &[], "library");
        let program = store.add_file('2', "program", &[&library], "built at noon");
        let root = store.add('3', "root", &[], |path| {
            fs::create_dir_all(path.join("tmp")).unwrap();
            fs::write(path.join("tmp/x"), "x").unwrap();
        });
        let file = store.write("registration", &store.registration());
        let options = json!({
            "copyToRoot": [Store::default().print(&root)],
            "maxLayers": 2,
            "reproducible": false,
        });
        let options = serde_json::from_value(options).unwrap();
        let set = stowage::oci::build_layer_set(
            &store.store(),
            Closure::read(&file).unwrap(),
            options,
            |_| (),
        );
        let name: StorePath = format!("{}-layers", "8".repeat(32)).parse().unwrap();
        let output = store.store().physical(&name);
        fs::create_dir(&output).unwrap();
        let set = set.unwrap().made.keep_in(&store.store(), &output).unwrap();
        fs::write(output.join("layers.json"), set.to_json()).unwrap();
        Self { store, layers: Store::default().print(&name), paths: [library, program, root] }
    }

    fn options(&self, more: Value) -> String {
        let excluded = Store::default().print(&self.paths[2]);
        let mut options = json!({"layers": [self.layers], "exclude": [excluded]});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        options.to_string()
    }

    fn change_program(&self) {
        let file = self.store.store().physical(&self.paths[1]).join("file");
        fs::write(file, "built at midnight").unwrap();
    }

    fn bytes(&self, spec: &ImageSpec) -> Vec<Vec<u8>> {
        let bytes = spec.layers.iter().map(|layer| {
            let mut bytes = Vec::new();
            layer.write_blob(&self.store.store(), Form::AsStored, &mut bytes).unwrap();
            bytes
        });
        bytes.collect()
    }
}

#[test]
fn layers_are_used_as_they_were_built() {
    let kept = Kept::new();
    kept.store.build(&kept.options(json!({})));
    let image = kept.store.root().join("image.json");
    let spec = ImageSpec::read(&image).unwrap();
    let before = kept.bytes(&spec);
    // The image has no other layer: its paths are all in this one.
    assert_eq!(spec.layers.len(), 2);
    assert!(String::from_utf8_lossy(&before[0]).contains("built at noon"));
    assert!(spec.source(&kept.paths[1]).is_some());

    kept.change_program();
    assert_eq!(kept.bytes(&spec), before);
    for command in [&["verify", "image.json"][..], &["stream", "image.json", "-t", "a:b"]] {
        let output = kept.store.stowage(command).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

#[test]
fn a_file_that_changed_is_named() {
    let kept = Kept::new();
    kept.store.build(&kept.options(json!({})));
    let spec = ImageSpec::read(&kept.store.root().join("image.json")).unwrap();
    let file = kept.store.store().locate(&spec.layers[0].stored().unwrap().file);
    let mut bytes = fs::read(&file).unwrap();
    bytes[700] ^= 1;
    fs::write(&file, bytes).unwrap();
    let output = kept.store.stowage(&["stream", "image.json"]).output().unwrap();
    assert!(stderr(&output).contains("is not what it was: expected xxh128:"), "{output:?}");
    let output = kept.store.stowage(&["verify", "image.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("in {}/", kept.layers)), "{text}");
}

#[test]
fn a_checksum_that_was_altered_is_named() {
    let kept = Kept::new();
    let spec = kept.store.build(&kept.options(json!({})));
    let spec = String::from_utf8(spec).unwrap();
    let (before, after) = spec.split_once("\"xxh128:").unwrap();
    kept.store.write("image.json", &format!("{before}\"xxh128:{}{}", "0".repeat(32), &after[32..]));
    let output = kept.store.stowage(&["verify", "image.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("which it is, but its checksum is xxh128:"), "{text}");
}

/// Checks that a kept layer may not hide files of the base.
#[test]
fn a_layer_that_does_not_obey_the_base_is_refused() {
    let kept = Kept::new();
    let base = kept.store.store().physical_dir().join(format!("{}-base", "9".repeat(32)));
    write_files(&base, &BaseFiles::gzipped().directory());
    let base = format!("/nix/store/{}-base", "9".repeat(32));
    let output = kept.store.try_build(&kept.options(json!({"fromImage": base})));
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(error.contains("reproducible = false") && error.contains("\nhint: "), "{error}");
}
