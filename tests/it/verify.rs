use serde_json::Value;

use crate::schema;
use crate::support::{FakeStore, stderr};

fn two_layers() -> FakeStore {
    let mut store = FakeStore::new();
    let library = store.add_file('1', "library", &[], &"library".repeat(100));
    store.add_file('2', "app", &[&library], "app");
    store.build(r#"{"layering": "largest-first"}"#);
    store
}

fn file_of(store: &FakeStore, digit: &str, name: &str) -> std::path::PathBuf {
    store.store().physical_dir().join(format!("{}-{name}/file", digit.repeat(32)))
}

#[test]
fn an_unchanged_image_passes() {
    let store = two_layers();
    let output = store.stowage(&["verify", "image.json"]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("2 layers, ") && text.ends_with(": all as recorded\n"), "{text}");
}

#[test]
fn digest_layer_and_store_path_are_named() {
    let store = two_layers();
    std::fs::write(file_of(&store, "2", "app"), "APP").unwrap();
    let output = store.stowage(&["verify", "image.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "error: 1 of 2 layers differ\n");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("layer 2 of 2: expected sha256:"), "{text}");
    assert!(
        text.contains(&format!("\n  /nix/store/{}-app: NAR hash sha256:", "2".repeat(32))),
        "{text}"
    );
    assert!(!text.contains("-library"), "{text}");
}

#[test]
fn a_missing_store_path_is_named() {
    let store = two_layers();
    std::fs::remove_dir_all(file_of(&store, "1", "library").parent().unwrap()).unwrap();
    let output = store.stowage(&["verify", "image.json", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    schema::check("verify", &report);
    let difference = &report["differences"][0];
    assert_eq!((&difference["layer"], &difference["found"]), (&1.into(), &Value::Null));
    assert!(
        difference["error"].as_str().unwrap().ends_with("-library does not exist"),
        "{difference}"
    );
    assert_eq!(
        difference["storePaths"][0]["path"],
        format!("/nix/store/{}-library", "1".repeat(32))
    );
}

/// Checks a spec whose digests were altered, with an unchanged store.
#[test]
fn an_altered_spec_is_told_from_an_altered_store() {
    let store = two_layers();
    let spec = std::fs::read_to_string(store.root().join("image.json")).unwrap();
    let digest = spec.split("\"sha256:").nth(1).unwrap().split('"').next().unwrap().to_owned();
    store.write("image.json", &spec.replacen(&digest, &"0".repeat(64), 1));
    let output = store.stowage(&["verify", "image.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("each of its store paths is as registered"), "{text}");
}

#[test]
fn a_comparison_with_an_image_spec_is_as_described() {
    let mut store = FakeStore::new();
    store.add_file('1', "one", &[], "one");
    store.build("{}");
    let old = store.stowage(&["copy", "image.json", "oci:layout:v1"]).output().unwrap();
    assert!(old.status.success(), "{}", stderr(&old));
    store.add_file('2', "two", &[], "two");
    store.build(r#"{"layering": "largest-first", "config": {"User": "1"}}"#);
    let arguments = ["verify", "oci:layout:v1", "--against", "image.json", "--json"];
    let compared = store.stowage(&arguments).output().unwrap();
    assert_eq!(compared.status.code(), Some(1), "{}", stderr(&compared));
    let compared = schema::checked("verify-against", str::from_utf8(&compared.stdout).unwrap());
    assert_eq!(compared["config"][0], "config.User");
    assert!(!compared["layers"].as_array().unwrap().is_empty(), "{compared}");
}

/// Checks that each wrong use of the options says what would be right.
#[test]
fn wrong_uses_name_the_right_one() {
    let store = two_layers();
    let key = format!("{}/tests/it/keys/test.pub", env!("CARGO_MANIFEST_DIR"));
    let nothing = "nothing to verify it by\n\nhint: `--key FILE` verifies";
    for (arguments, expected) in [
        (&["docker://reg.example/a:v1"][..], nothing),
        (&["reg.example/a:v1"], nothing),
        (&["oci:layout:v1", "--key", &key], "oci:layout:v1 is not in a registry"),
        (&["docker-daemon:a:v1", "--key", &key], "docker-daemon:a:v1 is not in a registry"),
        (
            &["reg.example/a:v1", "--against", "image.json"],
            "there is no file reg.example/a:v1\n\nhint: an image in a registry is `docker://reg.example/a:v1`",
        ),
        (&["oci:layout", "--against", "image.json"], "error: image oci:layout: cannot read"),
        (&["missing.json"], "error: cannot read missing.json"),
    ] {
        let output = store.stowage(&["verify"]).args(arguments).output().unwrap();
        let said = stderr(&output);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
