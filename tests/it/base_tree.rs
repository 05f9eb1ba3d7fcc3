use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use stowage::layer::{
    Attributes, BaseEntry, BaseLayerBuilder, BaseTree, Error, LayerContents, met_by, write_layer,
};
use stowage::store::StorePath;

use crate::support::FakeStore;

fn base(entries: &[(&str, BaseEntry)]) -> BaseTree {
    let mut layer = BaseLayerBuilder::default();
    for (name, entry) in entries {
        layer.add(name.as_bytes(), *entry);
    }
    let mut tree = BaseTree::default();
    tree.apply(&layer.finish());
    tree
}

/// Returns the tree of a distribution with a merged `/usr`.
fn distribution() -> BaseTree {
    let directory = |mode, uid, gid| BaseEntry::Directory(Attributes { mode, uid, gid });
    base(&[
        ("usr/bin/", directory(0o755, 0, 0)),
        ("bin", BaseEntry::Symlink(b"usr/bin")),
        ("tmp/", directory(0o1777, 0, 0)),
        ("var/mail/", directory(0o2775, 0, 8)),
        ("home/big/", directory(0o700, 3_000_000, 3_000_001)),
        ("run/", directory(0o755, 0, 0)),
        ("var/run", BaseEntry::Symlink(b"/run")),
        ("loop", BaseEntry::Symlink(b"loop")),
    ])
}

fn made_on(
    store: &FakeStore,
    copy_to_root: &[&StorePath],
    base: &BaseTree,
) -> Result<(LayerContents, Vec<u8>), Error> {
    let mut contents = LayerContents {
        copy_to_root: copy_to_root.iter().map(|path| (*path).clone()).collect(),
        ..LayerContents::default()
    };
    contents.over = met_by(&store.store(), &contents, base, Default::default())?;
    let mut bytes = Vec::new();
    write_layer(&store.store(), &contents, &mut bytes)?;
    Ok((contents, bytes))
}

fn listing(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let (name, header) = (entry.path_bytes().escape_ascii().to_string(), entry.header());
        let mode = header.mode().unwrap();
        format!("{name} {mode:04o} {}:{}", header.uid().unwrap(), header.gid().unwrap())
    });
    entries.collect()
}

fn file(path: &Path, name: &str) {
    fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
    fs::write(path.join(name), "text").unwrap();
}

#[test]
fn directories_keep_their_place_and_attributes() {
    let mut store = FakeStore::new();
    let root = store.add('1', "root", &[], |path| {
        for name in
            ["bin/new", "tmp/x", "var/mail/me", "var/run/new/pid", "home/big/x", "opt/a", "top"]
        {
            file(path, name);
        }
    });
    let (contents, bytes) = made_on(&store, &[&root], &distribution()).unwrap();
    let expected = [
        "home/ 0755 0:0",
        "home/big/ 0700 3000000:3000001",
        "home/big/x 0444 0:0",
        "opt/ 0555 0:0",
        "opt/a 0444 0:0",
        "run/ 0755 0:0",
        "run/new/ 0555 0:0",
        "run/new/pid 0444 0:0",
        "tmp/ 1777 0:0",
        "tmp/x 0444 0:0",
        "top 0444 0:0",
        "usr/ 0755 0:0",
        "usr/bin/ 0755 0:0",
        "usr/bin/new 0444 0:0",
        "var/ 0755 0:0",
        "var/mail/ 2775 0:8",
        "var/mail/me 0444 0:0",
    ];
    assert_eq!(listing(&bytes), expected);

    // The recorded part of the base gives the same bytes without the rest of the base, also after
    // it was written as JSON.
    let json = serde_json::to_value(&contents).unwrap();
    assert_eq!(json["over"]["links"], serde_json::json!({"bin": "/usr/bin", "var/run": "/run"}));
    let read: LayerContents = serde_json::from_value(json).unwrap();
    assert_eq!(read, contents);
}

#[test]
fn a_layer_without_a_base_says_nothing_of_one() {
    let mut store = FakeStore::new();
    let root = store.add('1', "root", &[], |path| file(path, "bin/new"));
    let (contents, bytes) = made_on(&store, &[&root], &BaseTree::default()).unwrap();
    assert_eq!(listing(&bytes), ["bin/ 0555 0:0", "bin/new 0444 0:0"]);
    assert_eq!(serde_json::to_value(contents).unwrap().get("over"), None);
}

/// Checks a store that is behind a link, and has an owner.
#[test]
fn the_store_is_where_the_base_has_it() {
    let mut store = FakeStore::new();
    let a = store.add_file('1', "a", &[], "a");
    let attributes = Attributes { mode: 0o1775, uid: 0, gid: 30000 };
    let base = base(&[
        ("data/nix/store", BaseEntry::Directory(attributes)),
        ("nix", BaseEntry::Symlink(b"data/nix")),
    ]);
    let mut contents = LayerContents { store_paths: [a].into(), ..LayerContents::default() };
    contents.over = met_by(&store.store(), &contents, &base, Default::default()).unwrap();
    let mut bytes = Vec::new();
    write_layer(&store.store(), &contents, &mut bytes).unwrap();
    let path = format!("data/nix/store/{}-a", "1".repeat(32));
    let expected = [
        "data/ 0755 0:0".to_owned(),
        "data/nix/ 0755 0:0".to_owned(),
        "data/nix/store/ 1775 0:30000".to_owned(),
        format!("{path}/ 0555 0:0"),
        format!("{path}/file 0444 0:0"),
    ];
    assert_eq!(listing(&bytes), expected);
}

/// Checks a file that one source has under its own name and the other through a link: both are the
/// same file in the image.
#[test]
fn sources_meet_behind_links() {
    let mut store = FakeStore::new();
    let first = store.add('1', "first", &[], |path| file(path, "usr/bin/tool"));
    let same = store.add('2', "same", &[], |path| file(path, "bin/tool"));
    let (_, bytes) = made_on(&store, &[&first, &same], &distribution()).unwrap();
    assert_eq!(listing(&bytes), ["usr/ 0755 0:0", "usr/bin/ 0755 0:0", "usr/bin/tool 0444 0:0"]);
    let other = store.add('3', "other", &[], |path| {
        fs::create_dir_all(path.join("bin")).unwrap();
        fs::write(path.join("bin/tool"), "another").unwrap();
    });
    let error = made_on(&store, &[&first, &other], &distribution()).unwrap_err().to_string();
    assert!(error.starts_with("`copyToRoot`: /usr/bin/tool is in two store paths"), "{error}");
}

#[test]
fn what_has_no_place_is_named() {
    let mut store = FakeStore::new();
    let looped = store.add('1', "looped", &[], |path| file(path, "loop/x"));
    let error = made_on(&store, &[&looped], &distribution()).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "-looped/loop has no place in the image: in the base image, /loop is a symbolic link \
             that leads to itself"
        ),
        "{error}"
    );
    // One source replaces the link through which another one is written.
    let through = store.add('2', "through", &[], |path| file(path, "bin/tool"));
    let link = store.add('3', "link", &[], |path| {
        fs::create_dir(path).unwrap();
        symlink("elsewhere", path.join("bin")).unwrap();
    });
    for roots in [[&through, &link], [&link, &through]] {
        let error = made_on(&store, &roots, &distribution()).unwrap_err();
        assert!(matches!(&error, Error::Conflict { name, .. } if name == "bin"), "{error}");
    }
}
