//! Tests images on base images that this program made: by the image spec, by an index spec, and by
//! the script that streams one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use stowage::closure::Closure;
use stowage::layer::{DATABASE, nix_database};
use stowage::oci::{BuildOptions, ImageSpec, SpecLayer, nix_state};
use stowage::store::StorePath;

use crate::base_image::{BaseFiles, Item, layer, write_files};
use crate::support::{FakeStore, members, stderr};

/// A store with `base.json`, which is an image of `libc` and `tool` with `/bin -> usr/bin`, and
/// with an application that needs both and is in no image yet.
struct OnOwn {
    store: FakeStore,
    base: ImageSpec,
    app: StorePath,
}

impl OnOwn {
    fn new() -> Self {
        let mut store = FakeStore::new();
        let libc = store.add_file('1', "libc", &[], "libc");
        let tool = store.add_file('2', "tool", &[&libc], "tool");
        let root = store.add('3', "root", &[], |path| {
            fs::create_dir_all(path.join("usr/bin")).unwrap();
            fs::write(path.join("usr/bin/sh"), "shell").unwrap();
            symlink("usr/bin", path.join("bin")).unwrap();
        });
        let root = store.store().print(&root);
        let options = json!({
            "copyToRoot": [root],
            "config": {"Env": ["BASE=1"]},
            "perms": [{"path": root, "regex": "usr/bin$", "mode": "0711"}],
        });
        store.build(&options.to_string());
        let (image, base) = (store.root().join("image.json"), store.root().join("base.json"));
        fs::rename(image, &base).unwrap();
        let base = ImageSpec::read(&base).unwrap();
        let app = store.add('4', "app", &[&tool], |path| {
            fs::create_dir_all(path.join("bin")).unwrap();
            fs::write(path.join("bin/app"), "app").unwrap();
        });
        Self { store, base, app }
    }

    fn build(&self, base: &str) -> ImageSpec {
        let root = self.base.sources.iter().find(|source| source.path.name() == "root");
        let options = json!({
            "fromImage": base,
            // The closure of the test's store has this store path, which the application does not
            // need.
            "exclude": [self.store.store().print(&root.unwrap().path)],
            "copyToRoot": [self.store.store().print(&self.app)],
            "config": {"Env": ["OURS=1"]},
        });
        self.store.build(&options.to_string());
        ImageSpec::read(&self.store.root().join("image.json")).unwrap()
    }

    fn script(&self, name: &str, command: &str) {
        let spec = self.store.root().join("base.json");
        let text = format!("#!/bin/sh\n# spec: {}\nexec stowage {command}\n", spec.display());
        self.store.write(name, &text);
    }
}

fn names(layers: &[SpecLayer]) -> Vec<String> {
    layers.iter().map(SpecLayer::names).collect()
}

#[test]
fn layers_of_ours_are_known_and_not_made_again() {
    let image = OnOwn::new();
    let index = json!({"version": 1, "images": [{"spec": image.store.root().join("base.json")}]});
    image.store.write("index.json", &index.to_string());
    image.script("script", "stream /spec --default-repo-tag base:v1");
    let spec = image.build("base.json");
    let count = image.base.layers.len();
    assert_eq!(spec.layers[..count], image.base.layers[..]);
    assert_eq!(spec.history[..count], image.base.history[..]);
    // The new layers have no store path of the base.
    assert_eq!(names(&spec.layers[count..]), ["app"]);
    let sources: Vec<_> =
        spec.sources.iter().map(|source| source.path.name().to_string()).collect();
    assert_eq!(sources, ["libc", "tool", "root", "app"]);
    assert_eq!(spec.config.as_map()["Env"], json!(["BASE=1", "OURS=1"]));
    // The application's file goes through the base's link to a directory with the base's mode.
    let over = serde_json::to_value(&spec.layers[count].contents().unwrap().over).unwrap();
    assert_eq!(
        over,
        json!({"directories": {"usr": {"mode": "0555", "uid": 0, "gid": 0}, "usr/bin": {"mode": "0711", "uid": 0, "gid": 0}}, "links": {"bin": "/usr/bin"}})
    );
    for other in ["index.json", "script"] {
        assert_eq!(image.build(other).to_json(), spec.to_json(), "{other}");
    }
    let archive = image.store.stowage(&["stream", "base.json"]).output().unwrap().stdout;
    fs::write(image.store.root().join("base.tar"), archive).unwrap();
    let on_archive = image.build("base.tar");
    let made: Vec<_> = on_archive.layers[..count].iter().map(|layer| layer.diff_id).collect();
    let known: Vec<_> = image.base.layers.iter().map(|layer| layer.diff_id).collect();
    assert_eq!(made, known);
    let mut contents = on_archive.layers[count..].iter().filter_map(|layer| layer.contents());
    let copied = contents.find(|contents| !contents.copy_to_root.is_empty()).unwrap();
    assert_eq!(copied.over, spec.layers[count].contents().unwrap().over);
}

#[test]
fn what_is_no_image_of_ours_is_said() {
    let image = OnOwn::new();
    let refused = |base: &str| {
        let output = image.store.try_build(&json!({"fromImage": base}).to_string());
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    image.store.write("arm.json", &{
        let text = fs::read_to_string(image.store.root().join("base.json")).unwrap();
        text.replace("amd64", "arm64")
    });
    assert!(refused("arm.json").contains("is for linux/arm64, not for linux/amd64"));
    fs::create_dir(image.store.root().join("layers")).unwrap();
    image.store.write("layers/layers.json", "{}");
    let message = refused("layers");
    assert!(message.contains("it is what `buildLayer` made"), "{message}");
    image.store.write("other", &format!("#!/bin/sh\n{}\n", "true; ".repeat(100)));
    assert!(refused("other").contains("it is a script"));
}

/// Checks that every command that takes an image spec also takes the script, and names other files
/// that it was given.
#[test]
fn commands_take_the_script() {
    let image = OnOwn::new();
    image.script("result", "stream /spec --default-repo-tag base:v1 \"$@\"");
    for command in [&["explain"][..], &["verify"], &["manifest"], &["stream"], &["lint"]] {
        let run = |file: &str| {
            let output = image.store.stowage(&[command, &[file]].concat()).output().unwrap();
            assert!(output.status.success(), "{command:?}: {}", stderr(&output));
            output.stdout
        };
        assert!(run("result") == run("base.json"), "{command:?}");
    }
    let archive = image.store.stowage(&["stream", "base.json"]).output().unwrap().stdout;
    fs::write(image.store.root().join("archive.tar"), archive).unwrap();
    let output = image.store.stowage(&["explain", "archive.tar"]).output().unwrap();
    let message = stderr(&output);
    assert!(message.contains("archive.tar is an archive, not an image spec"), "{message}");
    assert!(message.contains("nix build .#NAME.spec"), "{message}");
}

#[test]
fn scripts_are_merged() {
    let image = OnOwn::new();
    image.script("one", "stream /spec --default-repo-tag one:v1 \"$@\"");
    image.script("two", "stream /spec --default-repo-tag team/two:v2 \"$@\"");
    let archive = image.store.stowage(&["stream", "base.json", "-t", "three:v3"]).output().unwrap();
    fs::write(image.store.root().join("three.tar"), archive.stdout).unwrap();
    let merge =
        |files: &[&str]| image.store.stowage(&[&["merge"], files].concat()).output().unwrap();
    let output = merge(&["one", "two", "three.tar"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let members = members(&output.stdout);
    let manifest: serde_json::Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    assert_eq!(manifest.as_array().unwrap().len(), 1);
    assert_eq!(manifest[0]["RepoTags"], json!(["one:v1", "team/two:v2", "three:v3"]));
    // The message names the changed store path, and not the pipe.
    let tool = image.base.sources.iter().find(|source| source.path.name() == "tool");
    let file = image.store.store().physical(&tool.unwrap().path).join("file");
    fs::write(file, "other").unwrap();
    let message = stderr(&merge(&["one"]));
    assert!(message.contains("tool"), "{message}");
}

fn options(value: serde_json::Value) -> BuildOptions {
    serde_json::from_value(value).unwrap()
}

/// Returns the closure of everything in a store, and a database of it.
fn database(store: &FakeStore) -> (Closure, Vec<u8>) {
    let closure = Closure::parse(store.registration().as_bytes()).unwrap();
    let database = nix_database(&closure).unwrap();
    (closure, database)
}

/// Returns the names of the paths in a database.
fn registered(bytes: &[u8]) -> BTreeSet<String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(DATABASE), bytes).unwrap();
    let paths = stowage::layer::valid_paths(directory.path()).unwrap();
    paths.iter().map(|path| path.name().to_string()).collect()
}

#[test]
fn a_database_has_what_the_base_has() {
    let mut store = FakeStore::new();
    store.add_file('1', "theirs", &[], "theirs");
    store.add_file('4', "text", &[], "text");
    let (_, theirs) = database(&store);
    let mut store = FakeStore::new();
    let lib = store.add_file('2', "lib", &[], "lib");
    store.add_file('3', "app", &[&lib], "app");
    let (closure, _) = database(&store);
    let base = store.root().join("base");
    let write = |schema: &[u8], database: &[u8]| {
        let _ = fs::remove_dir_all(&base);
        let directory = format!("nix/store/{}-theirs/", "1".repeat(32));
        let text = format!("nix/store/{}-text", "4".repeat(32));
        let tar = layer(&[
            Item::Directory(&directory, 0o755),
            Item::File(&text, b"text"),
            Item::Symlink("nix/var", "../data"),
            Item::File("data/nix/db/db.sqlite", database),
            Item::File("data/nix/db/schema", schema),
            Item::File("data/nix/db/db.sqlite-journal", b""),
        ]);
        let files =
            BaseFiles::new(&[tar], |tar| (crate::base_image::OCI_LAYER.to_owned(), tar.to_vec()));
        write_files(&base, &files.directory());
    };
    let build = || {
        let options = options(json!({"fromImage": base, "exclude": [], "architecture": "amd64"}));
        nix_state(&store.store(), closure.clone(), &options)
    };
    write(b"10", &theirs);
    let built = build().unwrap();
    assert_eq!(
        registered(&built.made.database),
        ["app", "lib", "text", "theirs"].map(str::to_owned).into()
    );
    assert!(built.warnings.is_empty(), "{:?}", built.warnings);
    assert_eq!(built.made.emptied, ["db.sqlite-journal"]);
    let roots: Vec<_> = built.made.roots.iter().map(|path| path.name().to_string()).collect();
    assert_eq!(roots, ["app"]);
    assert!(build().unwrap().made.database == built.made.database, "the same bytes");
    // The database lacks the base's own store path, whose references are therefore unknown.
    let (_, empty) = database(&FakeStore::new());
    write(b"10", &empty);
    let warnings = build().unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    for lost in ["-theirs", "-text"] {
        assert!(warnings[0].to_string().contains(lost), "{}", warnings[0]);
    }
    for (schema, database, message) in [
        (&b"9"[..], &theirs[..], "its schema has version 9"),
        (b"10", b"no database", "file is not a database"),
    ] {
        write(schema, database);
        let error = build().unwrap_err();
        let chain =
            std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let text: Vec<_> = chain.map(ToString::to_string).collect();
        assert!(text.iter().any(|text| text.contains(message)), "{text:?}");
    }
    // An image without a database can be built on a base whose database can't be read: nothing is known to be lost.
    let output = store.try_build(&json!({"fromImage": base}).to_string());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("nix-store --gc"), "{}", stderr(&output));
    // A database behind a link to a file, or to a directory of another name, can't be read either.
    for links in [
        &[
            Item::Symlink("nix/var/nix/db/db.sqlite", "/data/real"),
            Item::File("data/real", &theirs),
        ][..],
        &[Item::Symlink("nix/var/nix/db", "/data/nix"), Item::File("data/nix/db.sqlite", &theirs)],
    ] {
        let _ = fs::remove_dir_all(&base);
        let files = BaseFiles::new(&[layer(links)], |tar| {
            (crate::base_image::OCI_LAYER.to_owned(), tar.to_vec())
        });
        write_files(&base, &files.directory());
        let error = build().unwrap_err();
        let chain =
            std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let text: Vec<_> = chain.map(ToString::to_string).collect();
        let said = text.iter().filter(|text| text.contains("is no regular file"));
        assert_eq!(said.count(), 1, "{text:?}");
    }
    // The image has no database of its own, so the base's Nix does not know the image's store
    // paths.
    write(b"10", &theirs);
    let output = store.try_build(&json!({"fromImage": base}).to_string());
    assert!(output.status.success(), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(
        message.contains("warning") && message.contains("2 of the image's store paths"),
        "{message}"
    );
    assert!(
        message.contains("-app") && !message.contains("-te") && !message.contains("-theirs"),
        "{message}"
    );
}

/// Checks a base image of this program that has no database: its store paths are known
/// nevertheless, from its image spec.
#[test]
fn a_database_has_what_a_base_of_ours_is_made_of() {
    let image = OnOwn::new();
    let closure = Closure::parse(image.store.registration().as_bytes()).unwrap();
    let app = BTreeSet::from([image.app.clone()]);
    let others: BTreeSet<_> = closure.infos().iter().map(|info| info.path.clone()).collect();
    let only_app = closure.without(&others.difference(&app).cloned().collect());
    let options = options(json!({
        "fromImage": image.store.root().join("base.json"),
        "architecture": "amd64",
    }));
    let state = nix_state(&image.store.store(), only_app, &options).unwrap();
    assert!(state.warnings.is_empty(), "{:?}", state.warnings);
    assert_eq!(registered(&state.made.database), ["app", "libc", "tool"].map(str::to_owned).into());
}
