use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use stowage::store::Store;

use crate::fake_store::FakeStore;
use crate::support::{Docker, nix, run, stderr};

/// The shell of Debian, which needs one library, and the path of its loader.
const SHELL: &str = "/bin/dash";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBC: &str = "lib/x86_64-linux-gnu/libc.so.6";

/// Changes the root of an image.
type Change = fn(&Path);

fn write(file: &Path, mode: u32, bytes: &[u8]) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

fn nothing(_: &Path) {}

/// Fills a root with a shell, and the loader and library that it needs.
fn fill(root: &Path) {
    for (path, mode) in [(LOADER, 0o555), (LIBC, 0o444)] {
        write(&root.join(path), mode, &fs::read(Path::new("/").join(path)).unwrap());
    }
    write(&root.join("bin/sh"), 0o555, &fs::read(SHELL).unwrap());
    write(&root.join("app"), 0o555, b"#!/bin/sh\necho started\n");
    write(&root.join("etc/passwd"), 0o444, b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n");
    fs::create_dir(root.join("tmp")).unwrap();
}

fn remove(root: &Path, path: &str) {
    fs::remove_file(root.join(path)).unwrap();
}

/// Checks that the lint reports a mistake in exactly those images whose containers Docker can't
/// start, for each reason that a program can't be started.
#[test]
fn the_lint_is_right_about_what_docker_starts() {
    let docker = Docker::start();
    let cases: [(&str, Change, Value); 32] = [
        ("as it is", nothing, json!({})),
        ("interpreter", |root| remove(root, "bin/sh"), json!({})),
        (
            "CR LF",
            |root| write(&root.join("app"), 0o555, b"#!/bin/sh\r\necho started\r\n"),
            json!({}),
        ),
        (
            "CR LF after an argument",
            |root| write(&root.join("app"), 0o555, b"#!/bin/sh -e\r\n"),
            json!({}),
        ),
        (
            "blanks in the first line",
            |root| write(&root.join("app"), 0o555, b"#! \t/bin/sh  -e \necho\n"),
            json!({}),
        ),
        ("no newline", |root| write(&root.join("app"), 0o555, b"#!/bin/sh"), json!({})),
        ("no first line", |root| write(&root.join("app"), 0o555, b"echo started\n"), json!({})),
        ("empty", |root| write(&root.join("app"), 0o555, b""), json!({})),
        (
            "a long first line",
            |root| {
                write(&root.join("app"), 0o555, format!("#!/{}\n", "x/../".repeat(60)).as_bytes())
            },
            json!({}),
        ),
        ("a circle", |root| write(&root.join("app"), 0o555, b"#!/app\n"), json!({})),
        (
            "interpreters of interpreters",
            |root| {
                write(&root.join("one"), 0o555, b"#!/two\n");
                write(&root.join("two"), 0o555, b"#!/three\n");
                write(&root.join("three"), 0o555, b"#!/bin/sh\n");
                write(&root.join("app"), 0o555, b"#!/one\n");
            },
            json!({}),
        ),
        ("env", |root| write(&root.join("app"), 0o555, b"#!/usr/bin/env sh\n"), json!({})),
        ("not executable", |root| write(&root.join("app"), 0o444, b"#!/bin/sh\n"), json!({})),
        (
            "an interpreter that is not executable",
            |root| write(&root.join("bin/sh"), 0o444, &fs::read(SHELL).unwrap()),
            json!({}),
        ),
        ("loader", |root| remove(root, LOADER), json!({})),
        (
            "a loader that is not executable",
            |root| {
                write(&root.join(LOADER), 0o444, &fs::read(Path::new("/").join(LOADER)).unwrap())
            },
            json!({}),
        ),
        ("library", |root| remove(root, LIBC), json!({})),
        (
            "a library elsewhere",
            |root| fs::rename(root.join(LIBC), root.join("libc.so.6")).unwrap(),
            json!({}),
        ),
        (
            "LD_LIBRARY_PATH",
            |root| fs::rename(root.join(LIBC), root.join("libc.so.6")).unwrap(),
            json!({"Env": ["LD_LIBRARY_PATH=/none:/"]}),
        ),
        (
            "another machine",
            |root| {
                let mut bytes = fs::read(SHELL).unwrap();
                bytes[18] = 183;
                write(&root.join("app"), 0o555, &bytes);
            },
            json!({}),
        ),
        ("missing", nothing, json!({"Cmd": ["/none"]})),
        ("by PATH", nothing, json!({"Cmd": ["sh", "-c", "echo started"]})),
        ("not by PATH", nothing, json!({"Cmd": ["sh"], "Env": ["PATH=/sbin:/none"]})),
        ("relative", nothing, json!({"Cmd": ["./sh", "-c", "echo"], "WorkingDir": "/bin"})),
        ("a directory", nothing, json!({"Cmd": ["/bin"]})),
        (
            "a link",
            |root| {
                fs::rename(root.join("app"), root.join("etc/app")).unwrap();
                symlink("../../etc/app", root.join("app")).unwrap();
            },
            json!({}),
        ),
        (
            "a link that leads nowhere",
            |root| {
                remove(root, "app");
                symlink("/none", root.join("app")).unwrap();
            },
            json!({}),
        ),
        ("a user by name", nothing, json!({"User": "app"})),
        ("no such user", nothing, json!({"User": "nobody"})),
        ("no such group", nothing, json!({"User": "app:staff"})),
        ("a working directory that is a file", nothing, json!({"WorkingDir": "/etc/passwd"})),
        ("a working directory to be made", nothing, json!({"WorkingDir": "/srv/data"})),
    ];
    for (name, change, config) in cases {
        let mut store = FakeStore::new();
        let root = store.add('1', "root", &[], |root| {
            fs::create_dir(root).unwrap();
            fill(root);
            change(root);
        });
        let root = Store::default().print(&root);
        let mut whole = json!({"Cmd": ["/app"]});
        whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        store.build(&json!({"copyToRoot": [root], "config": whole}).to_string());
        let lint = store.stowage(&["lint", "image.json", "--allow", "tmp"]).output().unwrap();
        let found = String::from_utf8(lint.stdout).unwrap();

        let stream = ["stream", "image.json", "--repo-tag", "starts:v1"];
        let archive = store.stowage(&stream).output().unwrap();
        assert!(archive.status.success(), "{}", stderr(&archive));
        let mut load = docker
            .command(&["load", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        load.stdin.take().unwrap().write_all(&archive.stdout).unwrap();
        assert!(load.wait().unwrap().success());
        let ran = docker.command(&["run", "--rm", "--network=none", "starts:v1"]).output().unwrap();
        assert_eq!(
            lint.status.success(),
            ran.status.success(),
            "{name}: the lint says {found:?}, and Docker {}",
            stderr(&ran)
        );
        assert_eq!(found.contains("error: "), !ran.status.success(), "{name}: {found}");
    }
}

/// Builds `structureTest` with these arguments.
fn structure_test(arguments: &str) -> Output {
    let apply = format!("pkgs: (pkgs.stowage.structureTest {arguments}).drvPath");
    let evaluate = ["eval", "--raw", ".#legacyPackages.x86_64-linux", "--apply", &apply];
    let derivation = run(&mut nix(&evaluate));
    nix(&["--exec", "nix-store", "--realise", &derivation]).output().unwrap()
}

#[test]
fn structure_tests_are_checks() {
    let image = r#"pkgs.stowage.buildImage { name = "team/tested"; copyToRoot = pkgs.writeTextDir "etc/x" "hello"; config.Env = [ "A=1" ]; }"#;
    let exists = r#"{ fileExistenceTests = [ { name = "x"; path = "/etc/x"; permissions = "-r--r--r--"; } ]; }"#;
    let file = r#"(pkgs.writeText "tests.yaml" "schemaVersion: 2.0.0\nmetadataTest: { envVars: [{ key: A, value: 1 }] }\n")"#;
    let archive = r#"pkgs.stowage.dockerTools.buildImage { name = "old"; copyToRoot = pkgs.writeTextDir "etc/x" "hello"; }"#;
    for arguments in [
        format!("{{ image = {image}; tests = {exists}; }}"),
        format!("{{ image = {image}; tests = [ {exists} [ {file} ] ]; }}"),
        format!("{{ image = {archive}; tests = {exists}; }}"),
    ] {
        let output = structure_test(&arguments);
        assert!(output.status.success(), "{arguments}: {}", stderr(&output));
        let result = String::from_utf8(output.stdout).unwrap();
        let text = fs::read_to_string(result.trim()).unwrap();
        assert!(
            text.contains("PASS File Existence Test: x\n") && text.contains(" passed, 0 failed"),
            "{text}"
        );
    }
    for (tests, message) in [
        (
            r#"{ fileContentTests = [ { name = "x"; path = "/etc/x"; expectedContents = [ "^bye" ]; } ]; }"#,
            "FAIL File Content Test: x: `^bye` is not found in /etc/x",
        ),
        (r#"{ fileExistanceTests = [ ]; }"#, "did you mean `fileExistenceTests`?"),
        (
            r#"{ commandTests = [ { name = "x"; command = "x"; } ]; }"#,
            "nothing of an image is run here",
        ),
    ] {
        let output = structure_test(&format!("{{ image = {image}; tests = {tests}; }}"));
        assert!(
            !output.status.success() && stderr(&output).contains(message),
            "{}",
            stderr(&output)
        );
    }
}
