use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};
use stowage::store::Store;

use super::lint;
use crate::base_image::{BaseFiles, Item, OCI_LAYER, layer, write_files};
use crate::elf::{AMD64, ARM64, Elf};
use crate::support::FakeStore;

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
