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

/// A file of a case: its path, its mode and its bytes.
type File<'f> = (&'f str, u32, Vec<u8>);

/// Builds an image of these files and links, copied to `/`, and returns what the lint finds, without
/// notes.
fn findings(files: &[File], links: &[(&str, &str)], config: &Value) -> Vec<String> {
    let mut store = FakeStore::new();
    let mut rules = Vec::new();
    let root = store.add('1', "root", &[], |root| {
        for directory in ["tmp", "bin", "lib"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for (path, mode, bytes) in files {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, bytes).unwrap();
            let executable = fs::Permissions::from_mode(0o444 | (mode & 0o111));
            fs::set_permissions(&file, executable).unwrap();
        }
        for (path, target) in links {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            symlink(target, root.join(path)).unwrap();
        }
    });
    let root = Store::default().print(&root);
    rules.push(json!({"path": root, "regex": "/tmp$", "mode": "1777"}));
    for (path, mode, _) in files {
        rules.push(
            json!({"path": root, "regex": format!("/{path}$"), "mode": format!("{mode:04o}")}),
        );
    }
    store.build(&json!({"copyToRoot": [root], "perms": rules, "config": config}).to_string());
    let found = lint(&store, &[]);
    found.into_iter().filter(|line| !line.starts_with("note: ")).collect()
}

fn script(text: &str) -> Vec<u8> {
    text.into()
}

/// Returns a program without libraries.
fn program() -> Vec<u8> {
    Elf { machine: AMD64, ..Elf::default() }.bytes()
}

/// Checks each reason for which the kernel, the engine or a loader does not start a program.
#[test]
fn what_does_not_start_is_an_error() {
    let long = format!("#!/{}\n", "x".repeat(300));
    let cmd = json!({"Cmd": ["/bin/app"]});
    let dynamic = |interpreter, needed| {
        Elf { machine: AMD64, interpreter: Some(interpreter), needed, ..Elf::default() }.bytes()
    };
    let loader = ("lib/ld-linux-x86-64.so.2", 0o555, program());
    for (app, others, config, expected) in [
        ((0o444, program()), vec![], cmd.clone(), "it is not executable (mode 0444)"),
        (
            (0o555, script("#!/bin/bash\n")),
            vec![],
            cmd.clone(),
            "its interpreter /bin/bash is not in the image",
        ),
        (
            (0o555, script("#!/bin/sh\r\necho\r\n")),
            vec![("bin/sh", 0o555, program())],
            cmd.clone(),
            "its first line ends in CR LF: the kernel reads `/bin/sh\\r`",
        ),
        (
            (0o555, script("#!/bin/sh -e\r\n")),
            vec![("bin/sh", 0o555, program())],
            cmd.clone(),
            "its first line ends in CR LF: the kernel reads `/bin/sh -e\\r`",
        ),
        (
            (0o555, script("#!/bin/sh\n")),
            vec![("bin/sh", 0o444, program())],
            cmd.clone(),
            "its interpreter /bin/sh is not executable (mode 0444)",
        ),
        (
            (0o555, script("#!/bin/app\n")),
            vec![],
            cmd.clone(),
            "one after the other: the kernel takes 5",
        ),
        ((0o555, script(&long)), vec![], cmd.clone(), "an interpreter of more than 253 bytes"),
        ((0o555, script("#!\n")), vec![], cmd.clone(), "`#!` without an interpreter"),
        ((0o555, script("echo hello\n")), vec![], cmd.clone(), "neither a program nor a script"),
        ((0o555, vec![]), vec![], cmd.clone(), "it is empty"),
        (
            (0o555, script("\u{feff}#!/bin/sh\n")),
            vec![],
            cmd.clone(),
            "begins with a byte order mark",
        ),
        (
            (0o555, script("#!/bin/env python3\n")),
            vec![("bin/env", 0o555, program())],
            cmd.clone(),
            "the interpreter that `env` is to start, `python3` is not in the image: it is in no directory of `PATH`",
        ),
        (
            (0o555, script("#!/bin/env sh -e\n")),
            vec![("bin/env", 0o555, program()), ("bin/sh", 0o555, program())],
            cmd.clone(),
            "`env -S` does",
        ),
        (
            (0o555, script("#!/bin/env sh\r\n")),
            vec![("bin/env", 0o555, program()), ("bin/sh", 0o555, program())],
            cmd.clone(),
            "its first line ends in CR LF",
        ),
        (
            (0o555, dynamic("/lib64/ld-linux-x86-64.so.2", &["libc.so.6"])),
            vec![],
            cmd.clone(),
            "it needs the loader /lib64/ld-linux-x86-64.so.2, which is not in the image: it was not built for Nix",
        ),
        (
            (0o555, dynamic("/lib/ld-linux-x86-64.so.2", &["libfoo.so.1"])),
            vec![loader.clone()],
            cmd.clone(),
            "it needs libfoo.so.1, which is in no directory that its loader searches (/lib:",
        ),
        (
            (0o555, dynamic("/lib/ld-linux-x86-64.so.2", &["liba.so"])),
            vec![
                loader.clone(),
                (
                    "lib/liba.so",
                    0o444,
                    Elf { machine: AMD64, needed: &["libb.so"], ..Elf::default() }.bytes(),
                ),
            ],
            cmd.clone(),
            "it needs /lib/liba.so, which needs libb.so, which is in no directory",
        ),
        (
            // A library for another machine is ignored.
            (0o555, dynamic("/lib/ld-linux-x86-64.so.2", &["liba.so"])),
            vec![
                loader.clone(),
                ("lib/liba.so", 0o444, Elf { machine: ARM64, ..Elf::default() }.bytes()),
            ],
            cmd.clone(),
            "it needs liba.so, which is in no directory",
        ),
        (
            (0o555, dynamic("/lib/ld-musl-x86_64.so.1", &["libc.so", "libz.so.1"])),
            vec![("lib/ld-musl-x86_64.so.1", 0o555, program())],
            cmd.clone(),
            "it needs libz.so.1, which is in no directory that its loader searches (/lib:/usr/local/lib:/usr/lib)",
        ),
        (
            (0o555, Elf { machine: ARM64, ..Elf::default() }.bytes()),
            vec![],
            cmd.clone(),
            "it is a program for arm64, and the image is for amd64",
        ),
        (
            (0o544, program()),
            vec![],
            json!({"Cmd": ["/bin/app"], "User": "1000"}),
            "it may not be executed by user 1000 (mode 0544)",
        ),
        (
            (0o511, script("#!/bin/sh\n")),
            vec![("bin/sh", 0o555, program())],
            json!({"Cmd": ["/bin/app"], "User": "1000"}),
            "it is a script that user 1000 may not read (mode 0511)",
        ),
        ((0o555, program()), vec![], json!({"Cmd": ["/bin"]}), "it is a directory"),
        ((0o555, program()), vec![], json!({"Cmd": ["/bin/app/x"]}), "/bin/app is no directory"),
        ((0o555, program()), vec![], json!({"Cmd": [""]}), "it has no name"),
        (
            (0o555, program()),
            vec![],
            json!({"Cmd": ["/bin/app"], "WorkingDir": "/bin/app"}),
            "/bin/app: `WorkingDir` is it, and it is no directory",
        ),
        (
            (0o555, program()),
            vec![],
            json!({"Cmd": ["/bin/app"], "WorkingDir": "/bin/app/data"}),
            "`WorkingDir` is it, and /bin/app is no directory",
        ),
        (
            (0o555, program()),
            vec![],
            json!({"Healthcheck": {"Test": ["CMD", "curl", "-f", "http://localhost"]}}),
            "curl: `Healthcheck` runs it, and it is not in the image",
        ),
        (
            (0o555, program()),
            vec![],
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "exit 0"]}}),
            "/bin/sh: `Healthcheck` runs a command by it, and it is not in the image",
        ),
    ] {
        let (mode, bytes) = app;
        let mut files = vec![("bin/app", mode, bytes)];
        files.extend(others);
        let found = findings(&files, &[], &config);
        let errors: Vec<_> = found.iter().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{expected}: {found:?}");
    }
}

/// Checks that a likely mistake is a warning.
#[test]
fn what_may_fail_is_a_warning() {
    let app = || vec![("bin/app", 0o555, program()), ("bin/sh", 0o555, program())];
    for (links, config, expected) in [
        (
            vec![],
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "curl -f http://localhost || exit 1"]}}),
            "warning: curl: `Healthcheck` begins with it, and it is not in the image",
        ),
        (
            vec![],
            json!({"Shell": ["/bin/bash", "-c"]}),
            "warning: /bin/bash: `Shell` begins with it, and it is not",
        ),
        (
            vec![("etc/app.conf", "../share/app.conf")],
            json!({}),
            "warning: /etc/app.conf: is a link to ../share/app.conf, and /share is not in the image",
        ),
        (
            vec![("bin/loop", "loop")],
            json!({}),
            "warning: /bin/loop: is a link to loop, which leads in a circle",
        ),
    ] {
        let found = findings(&app(), &links, &config);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
    }
    let links = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, "/nowhere"));
    let found = findings(&app(), &links, &json!({}));
    assert!(found.len() == 5 && found[4].ends_with(" (and 2 more)"), "{found:?}");
}

/// Checks that there is no finding about programs that start.
#[test]
fn what_starts_raises_no_alarm() {
    let glibc = ("lib/ld-linux-x86-64.so.2", 0o555, program());
    let loads = |runpath, rpath, needed| {
        let interpreter = Some("/lib/ld-linux-x86-64.so.2");
        Elf { machine: AMD64, interpreter, needed, runpath, rpath, ..Elf::default() }.bytes()
    };
    let library = |soname, needed| Elf { machine: AMD64, soname, needed, ..Elf::default() }.bytes();
    for (files, links, config) in [
        (
            vec![("bin/app", 0o555, program())],
            vec![],
            json!({"Cmd": ["app"], "Env": ["PATH=/sbin:/bin"]}),
        ),
        // A file in `PATH` that can't be executed is ignored.
        (
            vec![("sbin/app", 0o444, program()), ("bin/app", 0o555, program())],
            vec![],
            json!({"Cmd": ["app"], "Env": ["PATH=/sbin:/bin"]}),
        ),
        (
            vec![("srv/app", 0o555, program())],
            vec![],
            json!({"Cmd": ["./app"], "WorkingDir": "/srv"}),
        ),
        // Engines make a working directory that does not exist.
        (
            vec![("bin/app", 0o555, program())],
            vec![],
            json!({"Cmd": ["app"], "WorkingDir": "/data/app"}),
        ),
        (
            vec![("bin/busybox", 0o555, program()), ("etc/run", 0o555, script("#!/bin/sh\n"))],
            vec![("bin/sh", "busybox")],
            json!({"Cmd": ["/etc/run"], "Healthcheck": {"Test": ["CMD-SHELL", "wget -q localhost"]}}),
        ),
        (vec![], vec![], json!({"Cmd": ["/data/app"], "Volumes": {"/data": {}}})),
        (
            vec![],
            vec![("bin/data", "/data/app"), ("etc/mtab", "/proc/mounts")],
            json!({"Volumes": {"/data": {}}}),
        ),
        (
            vec![("bin/app", 0o555, program())],
            vec![],
            json!({"Cmd": ["/bin/app"], "User": "1000:1000"}),
        ),
        (
            vec![("bin/sh", 0o555, program())],
            vec![],
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "test -f /x"]}}),
        ),
        (vec![], vec![], json!({"Healthcheck": {"Test": ["NONE"]}})),
        (
            vec![
                ("bin/env", 0o555, program()),
                ("bin/python3", 0o555, program()),
                ("app", 0o555, script("#!/bin/env -S A=1 python3 -u\n")),
            ],
            vec![],
            json!({"Cmd": ["/app"]}),
        ),
        // Libraries are found beside the program, in `LD_LIBRARY_PATH`, and among those that are
        // already loaded.
        (
            vec![
                glibc.clone(),
                (
                    "app/bin/app",
                    0o555,
                    loads(Some("$ORIGIN/../lib"), None, &["liba.so", "libb.so"]),
                ),
                ("app/lib/liba.so", 0o444, library(Some("liba.so"), &["ld-linux-x86-64.so.2"])),
                ("extra/libb.so", 0o444, library(None, &["liba.so"])),
            ],
            vec![("bin/app", "/app/bin/app")],
            json!({"Cmd": ["/bin/app"], "Env": ["LD_LIBRARY_PATH=/none:/extra"]}),
        ),
        // RPATH also applies to the libraries of libraries, and so does `ld.so.conf`. RUNPATH does
        // not.
        (
            vec![
                glibc.clone(),
                ("bin/app", 0o555, loads(None, Some("/opt"), &["liba.so"])),
                ("opt/liba.so", 0o444, library(None, &["libb.so"])),
                ("opt/libb.so", 0o444, library(None, &["libc.so"])),
                ("etc/ld.so.conf", 0o444, script("include ld.so.conf.d/*.conf\n")),
                ("etc/ld.so.conf.d/x.conf", 0o444, script("# comment\n/special\n")),
                ("special/libc.so", 0o444, library(None, &[])),
            ],
            vec![],
            json!({"Cmd": ["/bin/app"]}),
        ),
        // The cache names a directory that no configuration has; `$ORIGIN` is the program's.
        (
            vec![
                glibc.clone(),
                ("bin/app", 0o555, loads(None, None, &["libc.so", "libo.so"])),
                ("cached/libc.so", 0o444, library(None, &[])),
                ("own/libo.so", 0o444, library(None, &[])),
                (
                    "etc/ld.so.cache",
                    0o444,
                    script("glibc-ld.so.cache1.1\0libc.so\0/cached/libc.so\0/gone/libo.so\0"),
                ),
            ],
            vec![],
            json!({"Cmd": ["/bin/app"], "Env": ["LD_LIBRARY_PATH=$ORIGIN/../own"]}),
        ),
        // Alpine's gcompat stands in for glibc's loader.
        (
            vec![
                glibc.clone(),
                ("lib/ld-musl-x86_64.so.1", 0o555, program()),
                ("bin/app", 0o555, loads(None, None, &["libc.so.6"])),
            ],
            vec![],
            json!({"Cmd": ["/bin/app"]}),
        ),
        // musl's loader contains musl's own libraries. A file has the directories that it searches.
        (
            vec![
                ("lib/ld-musl-x86_64.so.1", 0o555, program()),
                ("etc/ld-musl-x86_64.path", 0o444, script("/own\n")),
                ("own/libz.so", 0o444, library(None, &["libm.so.6"])),
                (
                    "bin/app",
                    0o555,
                    Elf {
                        machine: AMD64,
                        interpreter: Some("/lib/ld-musl-x86_64.so.1"),
                        needed: &["libc.so", "libpthread.so.0", "libz.so"],
                        ..Elf::default()
                    }
                    .bytes(),
                ),
            ],
            vec![],
            json!({"Cmd": ["/bin/app"]}),
        ),
    ] {
        assert_eq!(findings(&files, &links, &config), [""; 0], "{config}");
    }
}

/// Checks that files in a base image are found, and that missing files are reported.
#[test]
fn programs_of_a_base_are_found() {
    let mut store = FakeStore::new();
    let root = store.add('1', "root", &[], |root| {
        fs::create_dir(root).unwrap();
        fs::write(root.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o555)).unwrap();
    });
    let dynamic = Elf {
        machine: AMD64,
        interpreter: Some("/lib64/ld-linux-x86-64.so.2"),
        needed: &["libc.so.6"],
        ..Elf::default()
    };
    let libc = Elf { machine: AMD64, soname: Some("libc.so.6"), ..Elf::default() }.bytes();
    let tar = layer(&[
        Item::Directory("usr/bin/", 0o755),
        Item::File("usr/bin/sh", &dynamic.bytes()),
        Item::Symlink("bin", "usr/bin"),
        Item::Symlink("lib64", "usr/lib64"),
        Item::File("usr/lib64/ld-linux-x86-64.so.2", &program()),
        Item::File("usr/lib/x86_64-linux-gnu/libc.so.6", &libc),
        Item::File("etc/passwd", b"root:x:0:0::/:/bin/sh\nits-own:x:7:7::/:/bin/sh\n"),
        Item::Directory("tmp/", 0o1777),
    ]);
    let files = BaseFiles::new(&[tar], |bytes| {
        (format!("{OCI_LAYER}+gzip"), crate::base_image::gzip(bytes))
    });
    let base = store.store().physical_dir().join(format!("{}-base", "9".repeat(32)));
    write_files(&base, &files.layout(&[]));
    for (config, expected) in [
        (json!({"Cmd": ["/run"]}), None),
        (json!({"Cmd": ["sh"]}), None),
        (json!({"Cmd": ["/bin/sh"], "User": "7"}), None),
        (
            json!({"Cmd": ["bash"]}),
            Some("error: bash: `Cmd` begins with it, and it is not in the image"),
        ),
        (json!({"User": "other"}), Some("error: `User` is user `other`")),
    ] {
        let root = Store::default().print(&root);
        let base = format!("/nix/store/{}-base", "9".repeat(32));
        store
            .build(&json!({"fromImage": base, "copyToRoot": [root], "config": config}).to_string());
        let found = lint(&store, &[]);
        match expected {
            None => assert_eq!(found, [""; 0], "{config}"),
            Some(text) => assert!(found.len() == 1 && found[0].starts_with(text), "{found:?}"),
        }
    }
    // The base itself is checked as an image layout.
    let output = store.stowage(&["lint", "--arch", "amd64"]).arg(&base).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

/// Checks that a loader in the store searches the directories that are in it, and no others.
#[test]
fn loaders_in_the_store_know_their_directories() {
    for (texts, expected) in [
        (&b"\0/nix/store/x-glibc/lib/\0"[..], Some("libz.so.1, which is in no directory")),
        (b"\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0", None),
    ] {
        let mut store = FakeStore::new();
        let glibc = store.add('1', "glibc", &[], |path| {
            fs::create_dir_all(path.join("lib")).unwrap();
            let file = path.join("lib/ld-linux-x86-64.so.2");
            fs::write(&file, [&program(), texts].concat()).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o555)).unwrap();
        });
        let loader = format!("{}/lib/ld-linux-x86-64.so.2", Store::default().print(&glibc));
        let root = store.add('2', "root", &[&glibc], |root| {
            fs::create_dir_all(root.join("usr/lib")).unwrap();
            let library = Elf { machine: AMD64, ..Elf::default() }.bytes();
            fs::write(root.join("usr/lib/libz.so.1"), library).unwrap();
            let (interpreter, needed) = (Some(&*loader), &["libz.so.1"][..]);
            let app = Elf { machine: AMD64, interpreter, needed, ..Elf::default() }.bytes();
            fs::write(root.join("app"), app).unwrap();
            fs::set_permissions(root.join("app"), fs::Permissions::from_mode(0o555)).unwrap();
        });
        let root = Store::default().print(&root);
        store.build(&json!({"copyToRoot": [root], "config": {"Cmd": ["/app"]}}).to_string());
        let found: Vec<_> =
            lint(&store, &[]).into_iter().filter(|line| !line.starts_with("note: ")).collect();
        assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
        assert!(expected.is_none_or(|text| found[0].contains(text)), "{found:?}");
    }
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
