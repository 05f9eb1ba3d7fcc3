use serde_json::{Value, json};

use crate::schema;
use crate::support::{FakeStore, stderr};

/// Makes two closures of a set: those of `app` and of `tool`, which both need `lib`, which needs
/// `libc`.
fn package_set() -> FakeStore {
    let mut store = FakeStore::new();
    let libc = store.add_file('1', "libc-2.40", &[], &"c".repeat(300_000));
    let lib = store.add_file('2', "lib-1.3-out", &[&libc], &"l".repeat(200_000));
    store.add_file('3', "app-2.0", &[&lib], &"a".repeat(900_000));
    store.write("app", &store.registration());
    store.add_file('4', "tool", &[&lib], "tool");
    store.write("both", &store.registration());
    store
}

fn printed(store: &FakeStore, arguments: &[&str]) -> Vec<u8> {
    let output = store.stowage(arguments).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output.stdout
}

#[test]
fn popularity_is_counted_over_all_closures() {
    let store = package_set();
    let expected = json!({"app": 0, "lib-out": 2, "libc": "lib-out", "tool": 0});
    let text = printed(&store, &["popularity", "app", "both"]);
    assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
    // The result is sorted, regardless of the order of the files and of repeated paths.
    for files in [&["both", "app"][..], &["both"], &["app", "app", "both"]] {
        assert_eq!(printed(&store, &[&["popularity"], files].concat()), text);
    }
    schema::checked("popularity", str::from_utf8(&text).unwrap());
    let alone = printed(&store, &["popularity", "app"]);
    let expected = json!({"app": 0, "lib-out": "app", "libc": "app"});
    assert_eq!(serde_json::from_slice::<Value>(&alone).unwrap(), expected);
}

#[test]
fn bad_closures_are_named() {
    let store = package_set();
    let other = store.registration().replacen("\n3", "\n4", 1);
    store.write("other", &other);
    store.write("empty", "");
    store.write("list", "[1]");
    assert_eq!(printed(&store, &["popularity", "empty"]), b"{}\n");
    for (arguments, code, message) in [
        (&["popularity"][..], 2, "required arguments"),
        (&["popularity", "gone"], 1, "error: cannot read gone: No such file"),
        (&["popularity", "app", "list"], 1, "error: list: not a references graph"),
        (&["popularity", "app", "other"], 1, "is registered twice, with different contents"),
        (&["plan", "app", "--popularity", "app"], 1, "error: app: not popularity data: "),
        (&["plan", "app", "--popularity", "gone"], 1, "error: cannot read gone: "),
    ] {
        let output = store.stowage(arguments).output().unwrap();
        let text = stderr(&output);
        assert!(text.contains(message), "{arguments:?}: {text}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}

/// Checks that with a small budget a popular package gets the layer, and not the application's
/// larger path.
#[test]
fn plans_and_images_go_by_popularity() {
    let mut store = package_set();
    store.add_file('5', "own", &[], &"o".repeat(2_000_000));
    store.write("registration", &store.registration());
    let text = printed(&store, &["popularity", "both"]);
    store.write("popularity.json", std::str::from_utf8(&text).unwrap());

    let libraries = ["1", "2"].map(|digit| digit.repeat(32));
    let is_shared = |layer: &Vec<String>| {
        layer.iter().all(|path| libraries.iter().any(|hash| path.contains(&hash[..])))
    };
    let plan = |arguments: &[&str]| -> Vec<Vec<String>> {
        let plan = ["plan", "registration", "--max-layers", "2"];
        serde_json::from_slice(&printed(&store, &[&plan, arguments].concat())).unwrap()
    };
    assert!(!plan(&[]).iter().any(is_shared));
    let mut expected = plan(&["--popularity", "popularity.json"]);
    assert!(expected.iter().any(is_shared), "{expected:?}");
    // A plan is sorted by name, an image spec by store path.
    expected.iter_mut().for_each(|layer| layer.sort());

    let file = store.root().join("popularity.json").display().to_string();
    let options = json!({"maxLayers": 2, "popularity": file});
    let spec: Value = serde_json::from_slice(&store.build(&options.to_string())).unwrap();
    let layers = spec["layers"].as_array().unwrap().iter();
    let built: Vec<_> = layers.map(|layer| layer["contents"]["storePaths"].clone()).collect();
    assert_eq!(json!(built), json!(expected));
}
