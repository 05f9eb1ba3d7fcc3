//! Tests files that are copied to `/`: the targets of their links, and their layers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use stowage::oci::{ImageSpec, SpecLayer};
use stowage::store::StorePath;

use crate::base_image::{BaseFiles, Item, OCI_LAYER, layer, write_files};
use crate::support::{FakeStore, stderr};

/// Returns the files that a container of the image sees: links with their targets, `d` for
/// directories and `f` for all others.
fn root(store: &FakeStore) -> BTreeMap<String, String> {
    let output = store.stowage(&["flatten", "image.json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(&output.stdout[..]).entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let what = match entry.link_name().unwrap() {
            Some(target) => target.display().to_string(),
            None if entry.header().entry_type().is_dir() => "d".to_owned(),
            None => "f".to_owned(),
        };
        found.insert(name.trim_end_matches('/').to_owned(), what);
    }
    found
}

/// Builds an image, and returns the warnings.
fn build(store: &FakeStore, options: &Value) -> String {
    let output = store.try_build(&options.to_string());
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn add(
    store: &mut FakeStore,
    digit: char,
    name: &str,
    references: &[&StorePath],
    files: &[(&str, &str)],
) -> StorePath {
    store.add(digit, name, references, |path| {
        fs::create_dir(path).unwrap();
        for (file, what) in files {
            let file = path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            match what.strip_prefix("-> ") {
                Some(target) => symlink(target, file).unwrap(),
                None => fs::write(file, what).unwrap(),
            }
        }
    })
}

fn print(path: &StorePath) -> String {
    stowage::store::Store::default().print(path)
}

#[test]
fn links_that_leave_their_package_lead_into_the_store() {
    let mut store = FakeStore::new();
    let lib = add(&mut store, '1', "lib", &[], &[("dist/cli.sh", "run")]);
    let relative = format!("-> ../../{}/dist/cli.sh", lib.base_path());
    let program = add(
        &mut store,
        '2',
        "program",
        &[&lib],
        &[
            ("bin/prog", &relative),
            ("bin/other", "-> prog"),
            ("bin/up", "-> ../share/x"),
            ("share/x", "x"),
        ],
    );
    let said = build(&store, &json!({"copyToRoot": [print(&program)]}));
    assert!(!said.contains("warning"), "{said}");
    let root = root(&store);
    assert_eq!(root["bin/prog"], format!("{}/dist/cli.sh", print(&lib)));
    assert_eq!((&*root["bin/other"], &*root["bin/up"]), ("prog", "../share/x"));
    // Image specs that were written before this field existed still give the same bytes.
    let text = fs::read_to_string(store.root().join("image.json")).unwrap();
    assert!(text.contains("\"linksIntoStore\": true"));
    let plain = add(&mut store, '3', "plain", &[], &[("bin/x", "x"), ("bin/y", "-> x")]);
    build(&store, &json!({"copyToRoot": [print(&plain)]}));
    let text = fs::read_to_string(store.root().join("image.json")).unwrap();
    assert!(!text.contains("linksIntoStore"), "{text}");
}

#[test]
fn links_to_what_the_image_lacks_are_named() {
    let mut store = FakeStore::new();
    let absent = format!("/nix/store/{}-absent", "9".repeat(32));
    let files = add(
        &mut store,
        '1',
        "files",
        &[],
        &[("etc/x", &format!("-> {absent}/x")), ("etc/y", "-> /run/y")],
    );
    let said = build(&store, &json!({"copyToRoot": [print(&files)]}));
    assert!(said.contains(&format!("not in the image: /etc/x -> {absent}\n")), "{said}");
}

#[test]
fn a_link_to_a_directory_is_that_directory() {
    let mut store = FakeStore::new();
    let real = add(&mut store, '1', "real", &[], &[("bin/x", "x")]);
    let link = store.add('2', "link", &[&real], |path| symlink(print(&real), path).unwrap());
    build(&store, &json!({"copyToRoot": [print(&link)]}));
    assert_eq!(root(&store)["bin/x"], "f");
    let file = store.add('3', "file", &[], |path| fs::write(path, "x").unwrap());
    let to_file = store.add('4', "to-file", &[&file], |path| symlink(print(&file), path).unwrap());
    let output = store.try_build(&json!({"copyToRoot": [print(&to_file)]}).to_string());
    assert!(stderr(&output).contains("-to-file is not a directory"), "{}", stderr(&output));
}

/// Checks `bin -> /nix/store/…-tools/bin` on bases whose `/bin` is a directory, or a link to one.
#[test]
fn a_link_over_a_directory_of_the_base_is_merged_with_it() {
    let mut store = FakeStore::new();
    let tools = add(&mut store, '1', "tools", &[], &[("bin/tool", "tool"), ("bin/deep/x", "x")]);
    let bin = format!("-> {}/bin", print(&tools));
    let root_path = add(
        &mut store,
        '2',
        "root",
        &[&tools],
        &[("bin", &bin), ("lib", "-> usr/lib"), ("srv", "-> /var/srv")],
    );
    let base = store.root().join("base");
    for (what, items, place) in [
        (
            "a directory",
            &[Item::Directory("bin/deep/", 0o711), Item::File("bin/sh", b"sh")][..],
            "bin",
        ),
        (
            "a link",
            &[
                Item::Directory("usr/bin/deep/", 0o711),
                Item::File("usr/bin/sh", b"sh"),
                Item::Symlink("bin", "usr/bin"),
            ],
            "usr/bin",
        ),
    ] {
        let mut all = vec![
            Item::Directory("usr/lib/", 0o755),
            Item::Symlink("lib", "/usr/lib"),
            Item::Directory("srv/old/", 0o755),
        ];
        all.extend(items.iter().map(|item| match item {
            Item::Directory(name, mode) => Item::Directory(name, *mode),
            Item::Symlink(name, target) => Item::Symlink(name, target),
            Item::File(name, bytes) => Item::File(name, bytes),
            Item::Special(name, kind) => Item::Special(name, *kind),
        }));
        let _ = fs::remove_dir_all(&base);
        let files = BaseFiles::new(&[layer(&all)], |tar| (OCI_LAYER.to_owned(), tar.to_vec()));
        write_files(&base, &files.directory());
        let options = |policy: &str| json!({"fromImage": base, "copyToRoot": [print(&root_path)], "directoryLinks": policy});
        let said = build(&store, &options("merge"));
        // The files in this directory of the base image are not known.
        assert!(
            said.contains("directories of the base image, with all that is in these: /srv\n"),
            "{said}"
        );
        let root = root(&store);
        assert_eq!(root[&format!("{place}/sh")], "f", "{what}");
        assert_eq!(root[&format!("{place}/tool")], format!("{}/bin/tool", print(&tools)), "{what}");
        assert_eq!(
            root[&format!("{place}/deep/x")],
            format!("{}/bin/deep/x", print(&tools)),
            "{what}"
        );
        assert_eq!(root["lib"], "usr/lib", "{what}");
        let spec = ImageSpec::read(&store.root().join("image.json")).unwrap();
        let verified = store.stowage(&["verify", "image.json"]).output().unwrap();
        assert!(verified.status.success() && spec.layers.len() > 1, "{}", stderr(&verified));
        let said = build(&store, &options("replace"));
        assert!(said.contains("in these: /bin, /srv\n"), "{said}");
        assert_eq!(self::root(&store)["bin"], format!("{}/bin", print(&tools)), "{what}");
        let refused = store.try_build(&options("refuse").to_string());
        assert!(stderr(&refused).contains("`copyToRoot`: /bin is a link"), "{}", stderr(&refused));
    }
}

/// Checks links to directories of the same package, such as `sbin -> bin`, on a base that has directories there.
#[test]
fn a_link_within_a_package_over_a_directory_of_the_base_is_merged_with_it() {
    let mut store = FakeStore::new();
    let package = add(
        &mut store,
        '1',
        "package",
        &[],
        &[
            ("bin/tool", "tool"),
            ("bin/deep/x", "x"),
            ("sbin", "-> bin"),
            ("usr/lib/x", "x"),
            ("usr/lib64", "-> ../usr/./lib"),
        ],
    );
    let base = store.root().join("base");
    let items = [
        Item::Directory("sbin/deep/", 0o711),
        Item::File("sbin/apk", b"apk"),
        Item::Directory("usr/lib64/old/", 0o755),
    ];
    let files = BaseFiles::new(&[layer(&items)], |tar| (OCI_LAYER.to_owned(), tar.to_vec()));
    write_files(&base, &files.directory());
    let options = |policy: &str| json!({"fromImage": base, "copyToRoot": [print(&package)], "directoryLinks": policy});
    let said = build(&store, &options("merge"));
    assert!(!said.contains("directories of the base image"), "{said}");
    let root = root(&store);
    for (name, expected) in [
        ("sbin/apk", "f"),
        ("sbin/tool", "/bin/tool"),
        ("sbin/deep/x", "/bin/deep/x"),
        ("usr/lib64/x", "/usr/lib/x"),
    ] {
        assert_eq!(root[name], expected, "{name}");
    }
    let said = build(&store, &options("replace"));
    assert!(said.contains("in these: /sbin, /usr/lib64\n"), "{said}");
    assert_eq!(self::root(&store)["sbin"], "bin");
}

/// Returns the names of the store paths in each layer, with a slash if they are copied to `/`.
fn layers(store: &FakeStore) -> Vec<String> {
    let spec = ImageSpec::read(&store.root().join("image.json")).unwrap();
    let names = |layer: &SpecLayer| {
        let contents = layer.contents().unwrap();
        let copied = contents.copy_to_root.iter().map(|path| format!("/{}", path.name()));
        let stored = contents.store_paths.iter().map(|path| path.name().to_string());
        stored.chain(copied).collect::<Vec<_>>().join(" ")
    };
    spec.layers.iter().map(names).collect()
}

#[test]
fn what_is_copied_is_planned_like_the_rest() {
    const KIB: usize = 1 << 10;
    let mut store = FakeStore::new();
    let bytes = |kib: usize| "x".repeat(kib * KIB);
    let libc = add(&mut store, '1', "libc", &[], &[("lib/libc", &bytes(3000))]);
    let tools: Vec<_> = [('2', "bash", 1500), ('3', "coreutils", 1000), ('4', "curl", 500)]
        .map(|(digit, name, kib)| {
            add(&mut store, digit, name, &[&libc], &[(&format!("bin/{name}"), &bytes(kib))])
        })
        .into();
    let app = add(&mut store, '5', "app", &[&libc], &[("bin/app", &bytes(86))]);
    let etc = add(&mut store, '6', "etc", &[&app], &[("etc/app.conf", "1"), ("tmp/x", "")]);
    let database = add(
        &mut store,
        '7',
        "database",
        &[&libc, &app],
        &[("nix/var/nix/db/db.sqlite", "not read"), ("nix/store/.keep", "")],
    );
    let roots = tools.iter().chain([&etc, &database]).map(print).collect::<Vec<_>>();
    let plan = |more: Value| {
        let mut options = json!({"copyToRoot": roots});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build(&store, &options);
        layers(&store)
    };
    let planned = plan(json!({}));
    let place = |planned: &[String], name: &str| {
        planned.iter().position(|layer| layer.split(' ').any(|it| it == name)).unwrap()
    };
    let app_at = place(&planned, "app");
    for tool in ["/bash", "/coreutils", "/curl"] {
        assert!(place(&planned, tool) < app_at, "{tool}: {planned:?}");
    }
    assert_eq!(planned.last().unwrap(), "/database", "{planned:?}");
    assert!(place(&planned, "/etc") < planned.len() - 1);
    // Hints also apply to files that are copied to `/`.
    let hinted = plan(
        json!({"layeringHints": {"last": ["curl", "app"], "together": [["bash", "coreutils"]]}}),
    );
    assert!(hinted.contains(&"/bash /coreutils".to_owned()), "{hinted:?}");
    let [.., last, top] = &hinted[..] else { panic!("{hinted:?}") };
    assert_eq!((&**last, &**top), ("app /curl", "/database"));
    // Files that share a directory with a mode of its own are in one layer: otherwise an upper
    // layer would reset the mode.
    let tmp = add(&mut store, '8', "tmp", &[], &[("tmp/y", &bytes(100))]);
    let options = json!({
        "copyToRoot": [print(&etc), print(&tmp)],
        "perms": [{"path": print(&tmp), "regex": "/tmp$", "mode": "1777"}],
    });
    build(&store, &options);
    assert!(layers(&store).contains(&"/etc /tmp".to_owned()), "{:?}", layers(&store));
    // With few layers, everything that is copied is on top.
    for budget in 1..=3 {
        build(&store, &json!({"copyToRoot": roots, "maxLayers": budget}));
        let found = layers(&store);
        assert!(
            found.len() <= budget && found.last().unwrap().contains("/bash /coreutils"),
            "{found:?}"
        );
    }
}

/// Checks that a file that differs between two layers of copied files is an error.
#[test]
fn roots_in_different_layers_must_agree() {
    let mut store = FakeStore::new();
    let large = "x".repeat(100 << 10);
    let one = add(&mut store, '1', "one", &[], &[("etc/a", "1"), ("large", &large)]);
    let two = add(&mut store, '2', "two", &[], &[("etc/a", "2")]);
    let output = store.try_build(&json!({"copyToRoot": [print(&one), print(&two)]}).to_string());
    assert!(
        stderr(&output).contains("/etc/a is in two store paths and differs"),
        "{}",
        stderr(&output)
    );
}

/// Checks that GNU tar can read from a named pipe, for which it needs whole blocks.
#[test]
fn a_named_pipe_gets_whole_blocks() {
    let mut store = FakeStore::new();
    let odd = "x".repeat(300_001);
    for digit in '1'..='5' {
        add(&mut store, digit, "odd", &[], &[("a", &odd), ("b", "1"), ("c", &odd[..70_003])]);
    }
    build(&store, &json!({"maxLayers": 3}));
    let fifo = store.root().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for arguments in [&["stream", "image.json"][..], &["stream", "image.json", "--unchecked"]] {
        let mut reader = std::process::Command::new("tar");
        let reader = reader.arg("--list").arg("--file").arg(&fifo);
        let reader =
            reader.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let reader = reader.spawn().unwrap();
        let out = fs::File::options().write(true).open(&fifo).unwrap();
        let streamed = store.stowage(arguments).stdout(out).output().unwrap();
        let read = reader.wait_with_output().unwrap();
        assert!(read.status.success(), "{}", stderr(&read));
        assert!(streamed.status.success(), "{}", stderr(&streamed));
    }
}

/// Checks that the user who owns the base's database of Nix also owns the database that replaces it.
#[test]
fn a_new_database_has_the_owner_of_the_old_one() {
    let mut store = FakeStore::new();
    let file = "nix/var/nix/db/db.sqlite";
    let below = add(&mut store, '1', "below", &[], &[(file, "old"), ("srv/db/other", "old")]);
    let above = add(&mut store, '2', "above", &[], &[(file, "new"), ("srv/db/new", "new")]);
    let (below, above) = (print(&below), print(&above));
    let owner = json!([{"path": below, "mode": "u+w", "uid": 1000, "gid": 100}]);
    let exclude = json!([below, above]);
    build(&store, &json!({"copyToRoot": [below], "perms": owner, "exclude": exclude}));
    fs::rename(store.root().join("image.json"), store.root().join("base.json")).unwrap();
    let on_base = |perms: Value| {
        let options = json!({"fromImage": "base.json", "copyToRoot": [above], "perms": perms, "exclude": exclude});
        build(&store, &options);
        let output = store.stowage(&["flatten", "image.json"]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let mut owners = BTreeMap::new();
        for entry in tar::Archive::new(&output.stdout[..]).entries().unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let name = name.trim_end_matches('/').to_owned();
            let header = entry.header();
            let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
            owners.insert(name, format!("{uid}:{gid} {:o}", header.mode().unwrap()));
        }
        let of = |name: &str| owners[name].clone();
        [file, "nix/var/nix/db", "srv/db/new", "srv/db"].map(of)
    };
    // A file of another directory belongs to root, as always.
    assert_eq!(
        on_base(json!([{"path": above, "mode": "u+w"}])),
        ["1000:100 644", "1000:100 755", "0:0 644", "1000:100 755"]
    );
    let other = json!([{"path": above, "mode": "u+w", "uid": 7, "gid": 7}]);
    assert_eq!(on_base(other)[..2], ["7:7 644", "7:7 755"]);
}

/// Checks that a file does not hide a directory of the base in silence.
#[test]
fn a_file_over_a_directory_of_the_base_is_said() {
    let mut store = FakeStore::new();
    let files = [("etc/ssl", "file"), ("lib", "file"), ("etc/motd", "file")];
    let root_path = add(&mut store, '1', "root", &[], &files);
    let base = store.root().join("base");
    let items = [
        Item::Directory("etc/ssl/certs/", 0o755),
        Item::File("etc/motd", b"old"),
        Item::Directory("usr/lib/", 0o755),
        Item::Symlink("lib", "usr/lib"),
    ];
    let files = BaseFiles::new(&[layer(&items)], |tar| (OCI_LAYER.to_owned(), tar.to_vec()));
    write_files(&base, &files.directory());
    let options = |policy: &str| json!({"fromImage": base, "copyToRoot": [print(&root_path)], "directoryLinks": policy});
    for policy in ["merge", "replace"] {
        let said = build(&store, &options(policy));
        assert!(said.contains("with all that is in these: /etc/ssl, /lib\n"), "{said}");
    }
    let verified = store.stowage(&["verify", "image.json"]).output().unwrap();
    assert!(verified.status.success(), "{}", stderr(&verified));
    let refused = store.try_build(&options("refuse").to_string());
    assert!(
        stderr(&refused).contains("`copyToRoot`: /etc/ssl is a file, but"),
        "{}",
        stderr(&refused)
    );
}
