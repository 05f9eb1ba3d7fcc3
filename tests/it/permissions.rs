use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use stowage::closure::Closure;
use stowage::oci::ImageSpec;
use stowage::store::Store;

use crate::base_image::{BaseFiles, Item, OCI_LAYER, layer, write_files};
use crate::support::{FakeStore, stderr};

/// The part of a tar header that describes a file: mode, numbers and names.
type Header = (u32, u64, u64, String, String);

/// A store with two paths that are copied to `/`, and a program that nothing refers to.
struct Sources {
    store: FakeStore,
    root: String,
    second: String,
    program: String,
}

impl Sources {
    fn new() -> Self {
        let mut store = FakeStore::new();
        let mut tree = |digit, files: &[&str]| {
            let path = store.add(digit, "tree", &[], |path| {
                for name in files {
                    fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
                    fs::write(path.join(name), name).unwrap();
                }
            });
            Store::default().print(&path)
        };
        let root = tree('1', &["tmp/x", "var/tmp/y", "etc/passwd"]);
        let second = tree('2', &["tmp/z", "etc/group", "etc/passwd"]);
        let program = tree('3', &["bin/sudo", "bin/other"]);
        Self { store, root, second, program }
    }

    fn options(&self, rules: Value) -> String {
        json!({"copyToRoot": [self.root], "exclude": [self.second], "perms": rules}).to_string()
    }

    /// Returns the headers of all layers; a later layer's headers replace an earlier layer's.
    fn headers(&self, options: &str) -> BTreeMap<String, Header> {
        self.store.build(options);
        let spec = ImageSpec::read(&self.store.root().join("image.json")).unwrap();
        let mut headers = BTreeMap::new();
        for layer in &spec.layers {
            let mut bytes = Vec::new();
            layer
                .write_blob(&self.store.store(), stowage::oci::Form::AsStored, &mut bytes)
                .unwrap();
            for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
                let entry = entry.unwrap();
                let header = entry.header();
                let name =
                    |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                headers.insert(
                    entry.path().unwrap().display().to_string(),
                    (
                        header.mode().unwrap(),
                        header.uid().unwrap(),
                        header.gid().unwrap(),
                        name(header.username_bytes()),
                        name(header.groupname_bytes()),
                    ),
                );
            }
        }
        headers
    }

    fn said(&self, options: &str) -> String {
        let output = self.store.try_build(options);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    }

    fn error(&self, options: &str) -> String {
        let output = self.store.try_build(options);
        assert_eq!(output.status.code(), Some(1), "{options}");
        stderr(&output)
    }
}

fn root_owned(mode: u32) -> Header {
    (mode, 0, 0, "root".to_owned(), "root".to_owned())
}

/// Checks the rules that Lix's image uses.
#[test]
fn directories_for_everybody() {
    let sources = Sources::new();
    let headers = sources.headers(&sources.options(json!([
        {"path": sources.root, "regex": "(/var)?/tmp$", "mode": "1777"}
    ])));
    assert_eq!(headers["tmp/"], root_owned(0o1777));
    assert_eq!(headers["var/tmp/"], root_owned(0o1777));
    for (name, mode) in [("var/", 0o555), ("tmp/x", 0o444), ("etc/passwd", 0o444)] {
        assert_eq!(headers[name], root_owned(mode), "{name}");
    }
}

#[test]
fn modes_stay_where_only_owners_are_given() {
    let sources = Sources::new();
    let headers = sources.headers(&sources.options(json!([
        {"path": sources.root, "regex": "/etc/passwd", "uid": 1001, "gid": 1002, "uname": "me"},
        {"path": sources.root, "mode": "0700"},
        {"path": sources.root, "regex": "tmp", "mode": "0750", "gid": 5},
    ])));
    let owned = (0o700, 1001, 1002, "me".to_owned(), String::new());
    assert_eq!(headers["etc/passwd"], owned);
    assert_eq!(headers["etc/"], root_owned(0o700));
    assert_eq!(headers["var/tmp/y"], (0o750, 0, 5, "root".to_owned(), String::new()));
}

/// Checks changes as for chmod, and rules for one kind of entries, in `/` and in the store.
#[test]
fn changes_are_made_to_the_usual_modes() {
    let sources = Sources::new();
    let headers = sources.headers(&sources.options(json!([
        {"path": sources.root, "mode": "u+w,g=u"},
        {"path": sources.root, "regex": "var", "type": "directory", "mode": "o-rx", "gid": 7},
        {"path": sources.program, "type": "file", "mode": "a+X,u+w"},
    ])));
    for (name, mode, gid) in
        [("etc/", 0o775, 0), ("etc/passwd", 0o664, 0), ("var/", 0o770, 7), ("var/tmp/y", 0o664, 0)]
    {
        assert_eq!((headers[name].0, headers[name].2), (mode, gid), "{name}");
    }
    let program = sources.program.trim_start_matches('/');
    assert_eq!(headers[&format!("{program}/bin/")].0, 0o555);
    assert_eq!(headers[&format!("{program}/bin/sudo")].0, 0o644);
}

/// Checks rules for store paths, also if a layer below has the path unchanged.
#[test]
fn store_paths_have_permissions() {
    let sources = Sources::new();
    let options = sources.options(json!([
        {"path": sources.program, "regex": "/sudo$", "mode": "4755"}
    ]));
    let headers = sources.headers(&options);
    let file = |name: &str| format!("{}/{name}", &sources.program[1..]);
    assert_eq!(headers[&file("bin/sudo")].0, 0o4755);
    assert_eq!(headers[&file("bin/other")].0, 0o444);
    assert_eq!(headers["nix/store/"].0, 0o755);
}

/// Checks a path that is both copied and in the store: the one in the store stays as Nix has it.
#[test]
fn what_is_copied_has_permissions_where_it_is_copied_to() {
    let mut sources = Sources::new();
    let copied = Store::default().parse(&sources.root).unwrap();
    sources.store.add_file('5', "refers", &[&copied], "");
    let headers =
        sources.headers(&sources.options(json!([{"path": sources.root, "mode": "0700"}])));
    assert_eq!(headers["etc/passwd"].0, 0o700);
    assert_eq!(headers[&format!("{}/etc/passwd", &sources.root[1..])].0, 0o444);
}

/// Checks that a rule for a copied path does not apply to the store if a layer below has already
/// copied the path.
#[test]
fn rules_for_what_another_layer_copied_are_not_for_the_store() {
    let mut sources = Sources::new();
    let alone = sources.store.write("alone", &sources.store.registration());
    let copied = Store::default().parse(&sources.root).unwrap();
    sources.store.add_file('5', "refers", &[&copied], "");
    let needed = sources.store.write("needed", &sources.store.registration());
    let store = sources.store.store();
    let layers = [(6, alone), (7, needed)].map(|(digit, closure)| {
        // The copy is in the same layer as the store paths.
        let options = json!({
            "maxLayers": 1,
            "copyToRoot": [sources.root],
            "perms": [{"path": sources.root, "mode": "4755"}],
        });
        let options = serde_json::from_value(options).unwrap();
        let closure = Closure::read(&closure).unwrap();
        let set = stowage::oci::build_layer_set(&store, closure, options, |_| ()).unwrap().made;
        let output = format!("{}-layers", digit.to_string().repeat(32));
        write_files(&store.physical_dir(), &[(format!("{output}/layers.json"), set.to_json())]);
        format!("/nix/store/{output}")
    });
    for layers in [&layers[..], &layers[1..]] {
        let headers = sources.headers(&json!({"layers": layers}).to_string());
        assert_eq!(headers["etc/passwd"].0, 0o4755);
        assert_eq!(headers[&format!("{}/etc/passwd", &sources.root[1..])].0, 0o444);
    }
}

/// Checks that a directory keeps the mode and the owner that a layer below sets by its rules, in each layer above
/// that has the directory too; and that the image's own rules win.
#[test]
fn rules_of_a_layer_below_hold_in_those_above() {
    let sources = Sources::new();
    let store = sources.store.store();
    let closure = sources.store.write("closure", &sources.store.registration());
    let set = |digit: u8, options: Value| {
        let options = serde_json::from_value(options).unwrap();
        let closure = Closure::read(&closure).unwrap();
        let set = stowage::oci::build_layer_set(&store, closure, options, |_| ()).unwrap().made;
        let output = format!("{}-layers", digit.to_string().repeat(32));
        write_files(&store.physical_dir(), &[(format!("{output}/layers.json"), set.to_json())]);
        format!("/nix/store/{output}")
    };
    let all = [&sources.root, &sources.second, &sources.program];
    let given = json!([{"path": sources.root, "regex": "/tmp$", "mode": "1777", "uid": 3}]);
    let lower = set(6, json!({"copyToRoot": [sources.root], "exclude": all, "perms": given}));
    let upper = set(7, json!({"copyToRoot": [sources.second], "exclude": all}));
    let image = |layers: &[&String], copied: &[&String], rules: Value| {
        let options =
            json!({"layers": layers, "copyToRoot": copied, "exclude": all, "perms": rules});
        let headers = sources.headers(&options.to_string());
        assert!(headers.contains_key("tmp/z"));
        let (mode, uid, ..) = headers["tmp/"];
        (mode, uid)
    };
    assert_eq!(image(&[&lower, &upper], &[], json!([])), (0o1777, 3));
    assert_eq!(image(&[&lower], &[&sources.second], json!([])), (0o1777, 3));
    let own = json!([{"path": sources.second, "regex": "/tmp$", "mode": "0700"}]);
    assert_eq!(image(&[&lower], &[&sources.second], own), (0o700, 3));
    // Without rules, the layer is that of `buildLayer`, byte for byte.
    assert_eq!(image(&[&upper], &[], json!([])), (0o555, 0));
}

#[test]
fn rules_win_over_the_base() {
    let sources = Sources::new();
    let base = sources.store.store().physical_dir().join(format!("{}-base", "9".repeat(32)));
    let tmp = |name| Item::Directory(name, 0o1777);
    let files = BaseFiles::new(&[layer(&[tmp("tmp"), tmp("var")])], |bytes| {
        (OCI_LAYER.to_owned(), bytes.to_vec())
    });
    write_files(&base, &files.layout(&[]));
    let mut options: Value = serde_json::from_str(&sources.options(json!([
        {"path": sources.root, "regex": "/tmp$", "mode": "0700"}
    ])))
    .unwrap();
    options["fromImage"] = json!(format!("/nix/store/{}-base", "9".repeat(32)));
    let headers = sources.headers(&options.to_string());
    assert_eq!((headers["tmp/"].0, headers["var/"].0), (0o700, 0o1777));
}

#[test]
fn a_rule_that_does_nothing_is_named() {
    let sources = Sources::new();
    let said = sources.said(&sources.options(json!([
        {"path": sources.root, "regex": "^/tmp$", "mode": "1777"},
        {"path": sources.root, "regex": "/tmp$", "mode": "1777"},
        {"path": sources.second, "mode": "0755"},
    ])));
    let warnings: Vec<_> = said.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(
        warnings,
        [
            format!(
                "warning: `perms` for {}: neither `copyToRoot` nor the store of these layers has it",
                sources.second
            ),
            format!("warning: `perms` for {}: no file of it matches `^/tmp$`", sources.root),
        ]
    );
}

#[test]
fn two_sources_must_agree() {
    let sources = Sources::new();
    let both = |rules: Value| {
        json!({"copyToRoot": [sources.root, sources.second], "perms": rules}).to_string()
    };
    let one = json!({"path": sources.root, "regex": "/tmp$", "mode": "1777"});
    let same = json!({"path": sources.second, "regex": "/tmp$", "mode": "1777"});
    assert_eq!(sources.headers(&both(json!([one])))["tmp/"].0, 0o1777);
    assert_eq!(sources.headers(&both(json!([same])))["tmp/"].0, 0o1777);
    assert_eq!(sources.headers(&both(json!([one, same])))["tmp/"].0, 0o1777);

    let other = json!({"path": sources.second, "regex": "/tmp$", "mode": "0700"});
    let error = sources.error(&both(json!([one, other])));
    assert!(error.contains("`perms`: /tmp is in two store paths, whose rules"), "{error}");
    assert!(error.contains("-tree/tmp and "), "{error}");

    // Both paths have this file.
    let file = json!({"path": sources.second, "regex": "passwd", "mode": "0600"});
    let error = sources.error(&both(json!([file])));
    assert!(error.contains("`perms`: /etc/passwd is in two store paths"), "{error}");
}

#[test]
fn mistakes_are_errors_that_name_the_rule() {
    let sources = Sources::new();
    for (rule, message) in [
        (
            json!({"path": sources.root, "regex": "/a", "mode": "999"}),
            "`mode` must be octal digits",
        ),
        (json!({"path": sources.root, "regex": "/a("}), "`regex` `/a(`"),
        (json!({"regex": "/a"}), "missing field `path`"),
        (json!({"path": sources.root, "mod": "0755"}), "unknown field `mod`"),
    ] {
        let error = sources.error(&sources.options(json!([rule])));
        assert!(error.contains(message), "{rule}: {error}");
    }
}
