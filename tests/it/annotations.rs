//! Tests annotations: they are in the manifest of every target that has an OCI manifest, and
//! nowhere else.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::FakeStore;

const ANNOTATIONS: &str =
    r#"{"org.opencontainers.image.source": "https://example.org", "empty": "", "a": "\u00fc"}"#;

/// Makes an image of one file, with further options.
fn store(more: &str) -> FakeStore {
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], "a");
    store.build(&format!(r#"{{"created": "1970-01-01T00:00:01Z"{more}}}"#));
    store
}

fn annotated() -> FakeStore {
    store(&format!(r#", "annotations": {ANNOTATIONS}"#))
}

fn manifest(store: &FakeStore) -> String {
    String::from_utf8(store.stowage(&["manifest", "image.json"]).output().unwrap().stdout).unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Checks that manifests keep their bytes: signatures are made of these, and registries are asked
/// for their digest.
#[test]
fn manifests_are_what_they_were() {
    let golden = |name: &str, store: &FakeStore| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, manifest(store)).unwrap();
        }
        assert_eq!(manifest(store), fs::read_to_string(file).unwrap(), "{name}");
    };
    golden("manifest.json", &store(""));
    golden("manifest-annotated.json", &annotated());
    assert_eq!(manifest(&store(r#", "annotations": {}"#)), manifest(&store("")));
    let text = fs::read_to_string(store("").root().join("image.json")).unwrap();
    assert!(!text.contains("annotations"), "{text}");
}

#[test]
fn every_oci_manifest_has_them_and_the_configuration_has_not() {
    let store = annotated();
    let expected: Value = serde_json::from_str(ANNOTATIONS).unwrap();
    for target in ["oci:layout:v1", "dir:directory", "oci-archive:archive.tar"] {
        let output = store.stowage(&["copy", "--quiet", "image.json", target]).output().unwrap();
        assert!(output.status.success(), "{target}");
    }
    let layout = store.root().join("layout");
    let index = read(&layout.join("index.json"));
    let blob = |digest: &Value| {
        read(&layout.join("blobs/sha256").join(&digest.as_str().unwrap()["sha256:".len()..]))
    };
    let found = blob(&index["manifests"][0]["digest"]);
    assert_eq!(found["annotations"], expected);
    // The annotations are in the manifest. The layout's index only has the image's name.
    assert_eq!(
        index["manifests"][0]["annotations"],
        json!({"org.opencontainers.image.ref.name": "v1"})
    );
    assert_eq!(blob(&found["config"]["digest"])["annotations"], Value::Null);
    assert_eq!(read(&store.root().join("directory/manifest.json"))["annotations"], expected);

    // Docker's format has no annotations, and the layers are the same.
    let docker = ["copy", "--quiet", "--format", "v2s2", "image.json", "dir:docker"];
    assert!(store.stowage(&docker).output().unwrap().status.success());
    let docker = read(&store.root().join("docker/manifest.json"));
    assert_eq!(docker["annotations"], Value::Null);
    assert_eq!(docker["config"]["digest"], found["config"]["digest"]);
}
