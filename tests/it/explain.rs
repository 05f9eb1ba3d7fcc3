use serde_json::{Value, json};

use crate::schema;
use crate::support::{FakeStore, stderr};

const LARGE: usize = 100_000;

/// Makes an image in which `app` and `tool` refer to `library`, which refers to `libc`; `root` is
/// copied to `/`.
fn image(app: &str) -> FakeStore {
    let mut store = FakeStore::new();
    let libc = store.add_file('1', "libc-2.40", &[], &"l".repeat(LARGE));
    let library = store.add_file('2', "library-1.0", &[&libc], &"i".repeat(LARGE + 1));
    // Another application has another store path.
    let digit = app.chars().next().unwrap();
    let app = store.add_file(digit, "app-1", &[&library], app);
    store.add_file('4', "tool-1", &[&library, &libc], "tool");
    store.add_file('5', "root", &[&app], "root");
    store.build(&format!(r#"{{"copyToRoot": ["/nix/store/{}-root"]}}"#, "5".repeat(32)));
    store
}

fn stdout(store: &FakeStore, arguments: &[&str]) -> String {
    let output = store.stowage(arguments).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn path(digit: char, name: &str) -> String {
    format!("/nix/store/{}-{name}", digit.to_string().repeat(32))
}

#[test]
fn every_layer_and_path_is_shown() {
    let store = image("3");
    let json: Value =
        schema::checked("explain", &stdout(&store, &["explain", "image.json", "--json"]));
    let layers = json["layers"].as_array().unwrap();
    let of = |name: &str| {
        let holds = |layer: &&Value| layer["names"].as_array().unwrap().contains(&json!(name));
        layers.iter().find(holds).unwrap_or_else(|| panic!("{name} in {layers:?}"))
    };
    // The reasons are: alone; together with its references; copied to the root, with everything
    // below.
    assert_eq!(
        (&of("libc-2.40")["changesWith"], &of("libc-2.40")["why"]),
        (&json!(1), &json!("alone"))
    );
    assert_eq!(
        (&of("library-1.0")["changesWith"], &of("library-1.0")["why"]),
        (&json!(2), &json!("alone"))
    );
    assert_eq!(
        (&of("root")["changesWith"], &of("root")["why"]),
        (&json!(4), &json!("copied to /"))
    );
    let sizes: Vec<_> = json["paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path["size"].as_u64().unwrap())
        .collect();
    assert!(sizes.len() == 5 && sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");

    let table = stdout(&store, &["explain", "image.json"]);
    for words in ["5 store paths", "changes with", "largest store paths", &path('2', "library-1.0")]
    {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[test]
fn why_shows_the_shortest_chain_from_a_path_that_nothing_refers_to() {
    let store = image("3");
    let why = |wanted: &str| stdout(&store, &["explain", "image.json", "--why", wanted]);
    let chain = format!("{}\n└ {}\n", path('4', "tool-1"), path('1', "libc-2.40"));
    assert_eq!(why("libc"), chain);
    assert_eq!(why(&path('1', "libc-2.40")), chain);
    assert_eq!(why("root"), format!("{}\n", path('5', "root")));
    // Two names begin like this.
    assert_eq!(why("lib").matches("\n\n").count(), 1);

    let output = store.stowage(&["explain", "image.json", "--why", "nonesuch"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("error: no store path of this image is called `nonesuch`\n")
    );
}

#[test]
fn the_page_is_complete_and_its_data_cannot_end_it() {
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], "a");
    store.build("{}");
    std::fs::rename(store.root().join("image.json"), store.root().join("<script>.json")).unwrap();
    stdout(&store, &["explain", "<script>.json", "--html", "page.html"]);
    let page = std::fs::read_to_string(store.root().join("page.html")).unwrap();
    assert!(page.contains("<h1>What is in &lt;script>.json</h1>"), "{page}");
    assert_eq!(page.matches("<script").count(), 3);
    // The page has nothing to fetch.
    for words in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(words), "{words}");
    }
}

#[test]
fn a_page_has_the_images_name_and_an_update() {
    let (old, new) = (image("3"), image("6"));
    let old = old.root().join("image.json");
    // Names of places in the page are only text, in a name.
    stdout(&new, &["explain", "image.json", "--html", "page.html", "--name", "team/app:v1"]);
    let page = std::fs::read_to_string(new.root().join("page.html")).unwrap();
    assert!(page.contains("<title>What is in team/app:v1</title>"), "{page}");
    assert!(page.contains("id=\"update-data\">null</script>"), "{page}");
    stdout(&new, &["diff", old.to_str().unwrap(), "image.json", "--html", "update.html"]);
    let page = std::fs::read_to_string(new.root().join("update.html")).unwrap();
    assert!(page.contains("<title>What is in image.json</title>"), "{page}");
    let (_, update) = page.split_once("id=\"update-data\">").unwrap();
    let update = schema::checked("diff", update.split_once("</script>").unwrap().0);
    assert_eq!(update["pathsNew"], json!([path('6', "app-1")]));
    assert!(!page.contains("{{"), "{page}");
    let output = new.stowage(&["diff", "a", "b", "--html", "c", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_diff_is_what_an_update_costs() {
    let (old, new) = (image("3"), image("6"));
    let old = old.root().join("image.json");
    let text = stdout(&new, &["diff", old.to_str().unwrap(), "image.json"]);
    assert!(
        text.starts_with("kept: 3 layers (")
            && text.contains(&format!("  new    {}", path('6', "app-1"))),
        "{text}"
    );
    assert!(
        text.ends_with(&format!("no longer in the image\n  {}\n", path('3', "app-1"))),
        "{text}"
    );

    let arguments = ["diff", old.to_str().unwrap(), "image.json", "--json"];
    let diff = schema::checked("diff", &stdout(&new, &arguments));
    assert_eq!(
        (&diff["pathsNew"], &diff["pathsGone"]),
        (&json!([path('6', "app-1")]), &json!([path('3', "app-1")]))
    );
    assert!(diff["bytesNew"].as_u64().unwrap() < 20_000, "{diff}");
    assert!(
        diff["bytesToDocker"].as_u64().unwrap() >= diff["bytesNew"].as_u64().unwrap(),
        "{diff}"
    );

    let same: Value =
        serde_json::from_str(&stdout(&new, &["diff", "image.json", "image.json", "--json"]))
            .unwrap();
    assert_eq!(
        (&same["layersNew"], &same["bytesNew"], &same["bytesToDocker"]),
        (&json!([]), &json!(0), &json!(0))
    );
}

/// Checks the estimate for an update in which all hashes are others against such an update.
#[test]
fn a_rebuild_costs_what_was_estimated() {
    let mut store = FakeStore::new();
    let build = |store: &mut FakeStore, libc: char, app: char| {
        let random = |place: u64| (place.wrapping_mul(place).wrapping_mul(0x9e37_79b9) >> 23) as u8;
        let mut bytes: Vec<u8> = (0..3_u64 << 20).map(random).collect();
        let libc = store.add(libc, "libc-1", &[], |file| std::fs::write(file, &bytes).unwrap());
        let name = format!("/nix/store/{}", libc.base_path());
        bytes.reverse();
        for place in [1 << 20, 2 << 20] {
            bytes[place..][..name.len()].copy_from_slice(name.as_bytes());
        }
        store.add(app, "app-1", &[&libc], |file| std::fs::write(file, &bytes).unwrap());
        store.build(r#"{"compression": "zstd:chunked"}"#);
    };
    build(&mut store, '3', '4');
    std::fs::rename(store.root().join("image.json"), store.root().join("old.json")).unwrap();
    let explain = ["explain", "old.json", "--pieces"];
    let estimate =
        schema::checked("explain", &stdout(&store, &[&explain[..], &["--json"]].concat()));
    let text = stdout(&store, &explain);
    stdout(&store, &[&explain[..], &["--html", "map.html"]].concat());
    let page = std::fs::read_to_string(store.root().join("map.html")).unwrap();
    // The new paths alone are in the new image.
    store.forget();
    build(&mut store, '5', '6');
    let diff = stdout(&store, &["diff", "old.json", "image.json", "--pieces", "--json"]);
    let found = schema::checked("diff", &diff)["pieces"].clone();
    let estimate = &estimate["rebuild"];
    assert_eq!(estimate["layersWithTable"], found["layersWithTable"]);
    for key in ["bytesByLayers", "bytesByPieces"] {
        let (estimate, found) = (estimate[key].as_u64().unwrap(), found[key].as_u64().unwrap());
        assert!(estimate.abs_diff(found) <= found / 50, "{key}: {estimate}, {found}");
    }
    assert!(
        text.contains(
            "update in which every store path has another hash\n  compressed, by layers: "
        ),
        "{text}"
    );
    assert!(page.contains(r#""rebuild":{"bytesByLayers":"#), "{page}");
}

/// Checks the cost by pieces of a file in which nothing but a store path's hash is different.
#[test]
fn a_diff_says_what_pieces_cost() {
    let mut store = FakeStore::new();
    let add = |store: &mut FakeStore, digit: char| {
        let dependency = path(digit, "libc-1");
        store.add(digit, "tool", &[], |file| {
            let mut bytes: Vec<u8> = (0..3_u64 << 20)
                .map(|place| (place.wrapping_mul(place).wrapping_mul(0x9e37_79b9) >> 23) as u8)
                .collect();
            bytes[1 << 20..][..dependency.len()].copy_from_slice(dependency.as_bytes());
            std::fs::write(file, bytes).unwrap();
        });
        store.build(r#"{"compression": "zstd:chunked"}"#);
    };
    add(&mut store, '3');
    std::fs::rename(store.root().join("image.json"), store.root().join("old.json")).unwrap();
    add(&mut store, '6');
    let diff = |old: &str, new: &str| {
        schema::checked("diff", &stdout(&store, &["diff", old, new, "--pieces", "--json"]))
    };
    let same = json!({"bytesByLayers": 0, "bytesByPieces": 0, "layersWithTable": 0});
    assert_eq!(diff("old.json", "old.json")["pieces"], same);
    let pieces = diff("old.json", "image.json")["pieces"].clone();
    let bytes = |key: &str| pieces[key].as_u64().unwrap();
    assert_eq!(pieces["layersWithTable"], 1);
    assert!(bytes("bytesByLayers") > 100_000, "{pieces}");
    assert!((1..bytes("bytesByLayers") / 20).contains(&bytes("bytesByPieces")), "{pieces}");
    let text = stdout(&store, &["diff", "old.json", "image.json", "--pieces"]);
    assert!(
        text.contains("\ncompressed, by pieces, of 1 layer with a table of contents: "),
        "{text}"
    );
}
