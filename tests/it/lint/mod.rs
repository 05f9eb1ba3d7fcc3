/// The reasons for which a program does not start.
mod start;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};
use stowage::store::Store;

use crate::base_image::{BaseFiles, Item, OCI_LAYER, layer, write_files};
use crate::elf::{AMD64, ARM64, Elf};
use crate::schema;
use crate::support::{FakeStore, stderr};

/// A store with `/bin/app` for each of two machines, and files for a root.
struct Sources {
    store: FakeStore,
    root: String,
    foreign: String,
    /// A store path that is a file, as `writeScript` makes it.
    script: String,
}

impl Sources {
    fn new() -> Self {
        let mut store = FakeStore::new();
        let program = |path: &std::path::Path, machine| {
            fs::create_dir_all(path.join("bin")).unwrap();
            fs::write(path.join("bin/app"), Elf { machine, ..Elf::default() }.bytes()).unwrap();
            fs::set_permissions(path.join("bin/app"), fs::Permissions::from_mode(0o555)).unwrap();
        };
        let native = store.add('1', "native", &[], |path| program(path, AMD64));
        let foreign = store.add('2', "foreign", &[], |path| program(path, ARM64));
        let target = Store::default().print(&native);
        let root = store.add('3', "root", &[&native, &foreign], |path| {
            fs::create_dir_all(path.join("etc")).unwrap();
            fs::create_dir_all(path.join("tmp")).unwrap();
            symlink(format!("{target}/bin"), path.join("bin")).unwrap();
            symlink("/bin/../bin/app", path.join("app")).unwrap();
            symlink("loop", path.join("loop")).unwrap();
            fs::write(path.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nme:x:1:1::/:/bin/sh\n")
                .unwrap();
        });
        let script = store.add('4', "script", &[], |path| {
            fs::write(path, "#!/bin/app\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
        });
        Self {
            store,
            script: Store::default().print(&script),
            root: Store::default().print(&root),
            foreign: Store::default().print(&foreign),
        }
    }

    /// Returns the findings of `stowage lint` for an image with these options.
    fn lint(&self, options: Value) -> Vec<String> {
        let tmp = json!({"path": self.root, "regex": "/tmp$", "mode": "1777"});
        let mut whole =
            json!({"copyToRoot": [self.root], "exclude": [self.foreign], "perms": [tmp]});
        whole.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        self.store.build(&whole.to_string());
        // The root has a link that leads to itself.
        lint(&self.store, &["--allow", "dangling-link"])
    }
}

/// Returns the findings of `stowage lint image.json OPTIONS`, and checks the exit code: 1 if there
/// is an error.
fn lint(store: &FakeStore, options: &[&str]) -> Vec<String> {
    let output = store.stowage(&["lint", "image.json"]).args(options).output().unwrap();
    let found = String::from_utf8(output.stdout.clone()).unwrap();
    let found: Vec<_> = found.lines().map(str::to_owned).collect();
    let fails = found.iter().any(|line| line.starts_with("error: "));
    assert_eq!(output.status.code(), Some(i32::from(fails)), "{found:?} {}", stderr(&output));
    found
}

#[test]
fn what_the_config_lacks_is_named() {
    let sources = Sources::new();
    for (config, expected) in [
        (json!({}), None),
        (json!({"Cmd": ["/bin/app"]}), None),
        (json!({"Cmd": ["/app"], "User": "1"}), None),
        (
            json!({"Cmd": ["/app"], "User": "me"}),
            Some("note: `User` is `me`: Kubernetes' `runAsNonRoot` takes numbers alone, here 1"),
        ),
        (json!({"Cmd": ["app"], "Env": ["PATH=/usr/bin:/bin"]}), None),
        (json!({"Cmd": ["app"]}), None),
        (json!({"Cmd": ["./bin/app"], "WorkingDir": "/"}), None),
        (json!({"Cmd": [sources.script]}), None),
        (
            json!({"Cmd": ["/bin/ap"]}),
            Some("/bin/ap: `Cmd` begins with it, and it is not in the image"),
        ),
        (
            json!({"Entrypoint": ["/loop"], "Cmd": ["/bin/app"]}),
            Some("/loop: `Entrypoint` begins with it"),
        ),
        (json!({"Cmd": ["app"], "Env": ["PATH=/usr/bin"]}), Some("app: `Cmd` begins with it")),
        (json!({"Env": ["SSL_CERT_FILE=/etc/ssl/ca.crt"]}), Some("is `cacert` in the image?")),
        (json!({"Env": ["TMPDIR=/var/tmp"]}), Some("/var/tmp: `TMPDIR` names it")),
        (json!({"Env": ["TMPDIR=/tmp"]}), None),
        (
            json!({"User": "you"}),
            Some("`User` is user `you`, and /etc/passwd of the image has none of that name"),
        ),
        (json!({"User": "1:staff"}), Some("`User` is group `staff`, and /etc/group")),
        (json!({"User": "12345:0"}), None),
        (json!({"User": "70000"}), Some("engines without root have none over 65535")),
        (json!({"User": "007"}), None),
        (json!({"Cmd": [""]}), Some("(an empty word): `Cmd` begins with it, and it has no name")),
        (
            json!({"User": "1:1:x"}),
            Some("`User` is `1:1:x`: Docker ignores what is behind the second colon"),
        ),
        (
            json!({"Cmd": ["app"], "Env": ["PATH=/usr/bin:bin"]}),
            Some("by the entry `bin` of `PATH`, which is relative"),
        ),
        (
            json!({"Cmd": ["app"], "Env": ["PATH=:/bin"], "WorkingDir": "/bin"}),
            Some("by the entry `` of `PATH`, which is relative"),
        ),
        (
            json!({"Cmd": ["app"], "Env": ["PATH="], "WorkingDir": "/bin"}),
            Some("in no directory of `PATH`"),
        ),
        (json!({"Cmd": ["app"], "Env": ["PATH=/bin:bin"]}), None),
        (json!({"Volumes": {"/data": {}, "/etc": {}, "/bin": {}}}), None),
        (
            json!({"Volumes": {"/etc/passwd": {}}}),
            Some("/etc/passwd: `Volumes` has it, and it is no directory"),
        ),
        (json!({"Volumes": {"/etc/passwd/x": {}}}), Some("and /etc/passwd is no directory")),
        (json!({"Volumes": {"/app": {}}}), Some("/bin/app, which is no directory")),
    ] {
        let found = sources.lint(json!({"config": config}));
        match expected {
            None => assert!(found.is_empty(), "{config}: {found:?}"),
            Some(text) => {
                assert!(found.len() == 1 && found[0].contains(text), "{config}: {found:?}")
            }
        }
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let sources = Sources::new();
    let found = sources.lint(json!({
        "exclude": [],
        "perms": [
            {"path": sources.root, "regex": "/passwd$", "mode": "2755"},
            {"path": sources.root, "regex": "/tmp$", "uid": 70000, "mode": "1777"},
        ],
    }));
    let has =
        |text: &str| assert!(found.iter().any(|line| line.contains(text)), "{text}: {found:?}");
    has(&format!(
        "{}/bin/app: is a program for arm64, and the image is for amd64",
        sources.foreign
    ));
    has("/etc/passwd: runs as its owner or group");
    has("/tmp/: has an owner over 65535");
    assert_eq!(found.len(), 3, "{found:?}");

    let strict = sources.store.stowage(&["lint", "--strict", "image.json"]).output().unwrap();
    assert_eq!(strict.status.code(), Some(1));
    assert_eq!(stderr(&strict), "error: 4 warnings\n");
    let allowed = "machine,set-id,owner,dangling-link";
    assert_eq!(lint(&sources.store, &["--strict", "--allow", allowed]), [""; 0]);
    let json = sources.store.stowage(&["lint", "--json", "image.json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    schema::check("lint", &json);
    let checks: Vec<_> = json.as_array().unwrap().iter().map(|finding| &finding["check"]).collect();
    assert!(
        checks.contains(&&json!("machine")) && checks.contains(&&json!("set-id")),
        "{checks:?}"
    );
}

/// Checks files that others put into a layer, and files that can't be checked since they may be in
/// the base.
#[test]
fn a_base_is_looked_at_too() {
    let sources = Sources::new();
    let tar = layer(&[Item::File("a", b"1"), Item::File("a", b"2")]);
    // A base with such a name would be refused, so it is in another layer. The tar crate does not
    // write such a name.
    let mut odd = layer(&[Item::File("xx/b", b"3")]);
    odd[..2].copy_from_slice(b"..");
    let mut header = tar::Header::from_byte_slice(&odd[..512]).clone();
    header.set_cksum();
    odd[..512].copy_from_slice(header.as_bytes());
    let odd_file = sources.store.root().join("odd.tar");
    std::fs::write(&odd_file, odd).unwrap();
    let files = BaseFiles::new(&[tar.clone(), tar], |bytes| {
        (format!("{OCI_LAYER}+gzip"), crate::base_image::gzip(bytes))
    });
    let base = sources.store.store().physical_dir().join(format!("{}-base", "9".repeat(32)));
    write_files(&base, &files.layout(&[]));
    let found = sources.lint(json!({
        "fromImage": format!("/nix/store/{}-base", "9".repeat(32)),
        "tars": [odd_file],
        "config": {"Cmd": ["/usr/bin/its-own"], "User": "its-own"},
    }));
    assert!(
        found.contains(&"warning: layer 1: /a: is in this layer twice".to_owned()),
        "{found:?}"
    );
    assert!(found.iter().any(|line| line.contains("leads out of the image")), "{found:?}");
    assert!(!found.iter().any(|line| line.contains("/usr/bin/its-own")), "{found:?}");
}

/// Checks that a copy warns of what the config lacks, and still succeeds.
#[test]
fn copies_warn() {
    let sources = Sources::new();
    sources.lint(json!({"config": {"Cmd": ["/nothing"]}}));
    let copy = |quiet: &[&str]| {
        let mut arguments = vec!["copy", "image.json", "oci:layout"];
        arguments.extend(quiet);
        let output = sources.store.stowage(&arguments).output().unwrap();
        assert!(output.status.success());
        stderr(&output)
    };
    assert!(copy(&[]).starts_with("warning: /nothing: `Cmd` begins with it"));
    assert!(!copy(&["--quiet"]).contains("warning"));
}

/// Checks that a link in the place of `/etc` is named, which Docker would remove.
#[test]
fn a_link_in_the_place_of_etc_is_named() {
    let mut store = FakeStore::new();
    let settings = store.add('1', "settings", &[], |path| {
        fs::create_dir_all(path.join("etc")).unwrap();
        fs::write(path.join("etc/motd"), "welcome").unwrap();
    });
    let target = Store::default().print(&settings);
    let root = store.add('2', "root", &[&settings], |path| {
        fs::create_dir_all(path).unwrap();
        symlink(format!("{target}/etc"), path.join("etc")).unwrap();
    });
    let root = Store::default().print(&root);
    store.build(&json!({"copyToRoot": [root]}).to_string());
    let found = lint(&store, &["--allow", "tmp"]);
    assert_eq!(found.len(), 1, "{found:?}");
    let expected = format!("warning: /etc: is a link to {target}/etc: Docker puts a directory");
    assert!(found[0].starts_with(&expected), "{found:?}");
    assert_eq!(lint(&store, &["--allow", "tmp,linked-directory"]), [""; 0]);
    let json = store.stowage(&["lint", "--json", "image.json"]).output().unwrap();
    schema::check("lint", &serde_json::from_slice(&json.stdout).unwrap());
}
