use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use stowage::digest::Digest;
use stowage::layer::{Error, LayerContents, write_layer};
use stowage::store::StorePath;
use tar::{Archive, EntryType};

use crate::support::{FakeStore, odd_tree};

fn contents(store_paths: &[&StorePath], copy_to_root: &[&StorePath]) -> LayerContents {
    LayerContents {
        store_paths: store_paths.iter().map(|path| (*path).clone()).collect(),
        copy_to_root: copy_to_root.iter().map(|path| (*path).clone()).collect(),
        ..LayerContents::default()
    }
}

fn bytes(store: &FakeStore, contents: &LayerContents) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    write_layer(&store.store(), contents, &mut bytes).map(|()| bytes)
}

/// Returns a line for each entry, read by the tar crate, whose code is independent of this
/// program's.
fn listing(bytes: &[u8]) -> String {
    let mut text = String::new();
    for entry in Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path_bytes().escape_ascii().to_string();
        let target = entry.link_name_bytes().map(|target| format!(" -> {}", target.escape_ascii()));
        let header = entry.header().clone();
        let owner = |name: Result<Option<&str>, _>| name.unwrap().unwrap().to_owned();
        let size = entry.size();
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut body).unwrap();
        let body = if header.entry_type() == EntryType::Regular {
            format!(" {}", &Digest::of(&body).hex()[..12])
        } else {
            String::new()
        };
        text += &format!(
            "{:?} {:04o} {}/{} {}/{} mtime={} size={size} {name}{}{body}\n",
            header.entry_type(),
            header.mode().unwrap(),
            owner(header.username()),
            owner(header.groupname()),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap(),
            target.unwrap_or_default(),
        );
    }
    text
}

fn names(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut archive = Archive::new(bytes);
    archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned()).collect()
}

fn odd_layer() -> Vec<u8> {
    let mut store = FakeStore::new();
    let tree = store.add('1', "tree", &[], odd_tree);
    let file = store
        .add('2', "file", &[], |path| fs::write(path, "a store path that is a file\n").unwrap());
    let link = store.add('3', "link", &[], |path| symlink("/nix/store/elsewhere", path).unwrap());
    let root = store.add('4', "root", &[], |path| {
        fs::create_dir_all(path.join("bin")).unwrap();
        symlink("/nix/store/x/bin/app", path.join("bin/app")).unwrap();
        fs::create_dir_all(path.join("nix-support")).unwrap();
        fs::write(path.join("nix-support/setup-hook"), "").unwrap();
        fs::create_dir_all(path.join("usr")).unwrap();
    });
    bytes(&store, &contents(&[&tree, &file, &link], &[&root])).unwrap()
}

/// Checks a layer's entries against the documentation in a readable form.
#[test]
fn entries_are_as_documented() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/layer.txt");
    let listing = listing(&odd_layer());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &listing).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    assert!(
        listing == expected,
        "UPDATE_GOLDEN=1 writes {}; this changes every diff ID:\n{listing}",
        golden.display()
    );
}

/// Checks the bytes themselves. A new digest here means that every image changes, and that all
/// users send every layer once more: say so in the changelog.
#[test]
fn bytes_never_change() {
    let digest = Digest::of(&odd_layer()).to_string();
    assert_eq!(digest, "sha256:66d901240ecc89f124e8d70bfa9e3487b5cb8f7f14e68ce0bc900f7f83640590");
}

#[test]
fn names_are_relative_sorted_and_unique_with_parents_first() {
    let names = names(&odd_layer());
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(names, sorted);
    let mut seen = BTreeSet::new();
    for name in &names {
        assert!(!name.starts_with(b"/") && !name.starts_with(b"./"), "{}", name.escape_ascii());
        let inner = name.strip_suffix(b"/").unwrap_or(name);
        if let Some(parent) = inner.iter().rposition(|byte| *byte == b'/') {
            assert!(seen.contains(&name[..=parent]), "{} before its parent", name.escape_ascii());
        }
        seen.insert(&name[..]);
    }
}

#[test]
fn the_store_is_named_once_and_only_if_it_holds_something() {
    let mut store = FakeStore::new();
    let path = store.add_file('1', "a", &[], "a");
    let with = names(&bytes(&store, &contents(&[&path], &[])).unwrap());
    assert_eq!(&with[..2], [b"nix/".to_vec(), b"nix/store/".to_vec()]);
    let without = names(&bytes(&store, &contents(&[], &[&path])).unwrap());
    assert_eq!(without, [b"file".to_vec()]);
}

/// Checks that `nix/` has the same mode in every layer: in a layer of its own, it would replace the
/// mode that it has in the layers below.
#[test]
fn the_store_has_one_mode_whoever_brings_it() {
    let mut store = FakeStore::new();
    let root = store.add('1', "root", &[], |path| {
        fs::create_dir_all(path.join("nix/store")).unwrap();
        fs::create_dir_all(path.join("nix/var/nix")).unwrap();
        fs::create_dir_all(path.join("nixos")).unwrap();
    });
    let listing = listing(&bytes(&store, &contents(&[], &[&root])).unwrap());
    let modes: Vec<_> =
        listing.lines().map(|line| (&line[10..14], line.rsplit(' ').next().unwrap())).collect();
    let expected = [
        ("0755", "nix/"),
        ("0755", "nix/store/"),
        ("0555", "nix/var/"),
        ("0555", "nix/var/nix/"),
        ("0555", "nixos/"),
    ];
    assert_eq!(modes, expected);
}

/// Checks the layer with GNU tar, which is stricter about numbers than the tar crate.
#[test]
fn gnu_tar_reads_it() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut tar = Command::new("tar")
        .args(["--list", "--verbose", "--file=-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let layer = odd_layer();
    let mut stdin = tar.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&layer));
    let output = tar.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listing = String::from_utf8_lossy(&output.stdout);
    assert!(
        listing.contains("drwxr-xr-x root/root         0 1970-01-01 00:00 nix/store/"),
        "{listing}"
    );
}

#[test]
fn equal_files_from_two_store_paths_are_there_once() {
    let mut store = FakeStore::new();
    let fill = |own: &'static str| {
        move |path: &Path| {
            fs::create_dir_all(path.join("etc")).unwrap();
            fs::write(path.join("etc/same"), "same").unwrap();
            fs::write(path.join("etc").join(own), own).unwrap();
            symlink("same", path.join("etc/link")).unwrap();
        }
    };
    let a = store.add('1', "a", &[], fill("a"));
    let b = store.add('2', "b", &[], fill("b"));
    let names = names(&bytes(&store, &contents(&[], &[&a, &b])).unwrap());
    let expected: [&[u8]; 5] = [b"etc/", b"etc/a", b"etc/b", b"etc/link", b"etc/same"];
    assert_eq!(names, expected);
}

#[test]
fn different_files_of_one_name_are_an_error_that_names_both() {
    type Fill = fn(&Path);
    let file: Fill = |path| fs::write(path, "one").unwrap();
    let others: [(&str, Fill); 5] = [
        ("other bytes", |path| fs::write(path, "two").unwrap()),
        ("other length", |path| fs::write(path, "longer").unwrap()),
        ("other mode", |path| {
            use std::os::unix::fs::PermissionsExt;
            fs::write(path, "one").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("a link", |path| symlink("one", path).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
    ];
    for (why, other) in others {
        let mut store = FakeStore::new();
        let mut add = |digit, fill: Fill| {
            store.add(digit, "root", &[], |path| {
                fs::create_dir_all(path.join("etc")).unwrap();
                fill(&path.join("etc/conf"));
            })
        };
        let (a, b) = (add('1', file), add('2', other));
        for pair in [[&a, &b], [&b, &a]] {
            let error = bytes(&store, &contents(&[], &pair)).unwrap_err();
            let Error::Conflict { name, first, second } = &error else { panic!("{why}: {error}") };
            assert_eq!(name, "etc/conf", "{why}");
            assert!(first.starts_with(store.store().physical(pair[0])), "{why}: {error}");
            assert!(second.starts_with(store.store().physical(pair[1])), "{why}: {error}");
        }
    }
}

#[test]
fn what_has_no_files_cannot_be_copied_to_the_root() {
    let mut store = FakeStore::new();
    let file = store.add('1', "file", &[], |path| fs::write(path, "").unwrap());
    let error = bytes(&store, &contents(&[], &[&file])).unwrap_err();
    assert!(matches!(error, Error::NotADirectory { .. }), "{error}");
}

#[test]
fn a_missing_store_path_is_named() {
    let store = FakeStore::new();
    let path: StorePath = "11111111111111111111111111111111-gone".parse().unwrap();
    let error = bytes(&store, &contents(&[&path], &[])).unwrap_err();
    assert!(error.to_string().ends_with("-gone does not exist"), "{error}");
}
