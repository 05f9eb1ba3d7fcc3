use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Output;

use serde_json::{Value, json};
use stowage::store::Store;

use crate::base_image::{BaseFiles, Item, OCI_LAYER, layer, write_files};
use crate::schema;
use crate::support::{FakeStore, stderr};

/// Makes an image that has something for every kind of test.
fn image() -> FakeStore {
    let mut store = FakeStore::new();
    let tool = store.add('1', "tool", &[], |path| {
        fs::create_dir_all(path.join("bin")).unwrap();
        fs::write(path.join("bin/tool"), "#!/bin/sh\necho {\"a\": 1}\n").unwrap();
        fs::set_permissions(path.join("bin/tool"), fs::Permissions::from_mode(0o555)).unwrap();
        fs::write(path.join("bin/data"), "data").unwrap();
        symlink("tool", path.join("bin/alias")).unwrap();
    });
    let target = Store::default().print(&tool);
    let root = store.add('2', "root", &[&tool], |path| {
        for directory in ["etc", "tmp", "usr/share/doc/good", "usr/share/doc/bad"] {
            fs::create_dir_all(path.join(directory)).unwrap();
        }
        symlink(format!("{target}/bin"), path.join("bin")).unwrap();
        symlink("/nowhere", path.join("dangling")).unwrap();
        fs::write(path.join("etc/app.conf"), "listen = 8080\nname = app\n").unwrap();
        fs::write(path.join("etc/latin1"), b"caf\xe9\n").unwrap();
        fs::write(path.join("usr/share/doc/good/copyright"), "MIT").unwrap();
        fs::write(path.join("usr/share/doc/bad/copyright"), "the agpl").unwrap();
    });
    let root = Store::default().print(&root);
    store.build(
        &json!({
            "copyToRoot": [root],
            "perms": [
                {"path": root, "regex": "/tmp$", "mode": "1777"},
                {"path": root, "regex": "/app.conf$", "mode": "0640", "uid": 1000, "gid": 100},
            ],
            "config": {
                "Cmd": ["/bin/tool", "--serve"],
                "Env": ["PATH=/bin", "CONF=/etc/app.conf", "EMPTY="],
                "ExposedPorts": {"8080/tcp": {}},
                "Volumes": {"/data": {}},
                "WorkingDir": "/etc",
                "User": "1000",
                "Labels": {"version": "1.2.3"},
            },
        })
        .to_string(),
    );
    store
}

fn test(store: &FakeStore, document: &str, options: &[&str]) -> Output {
    store.write("tests.yaml", document);
    store.stowage(&["test", "image.json", "tests.yaml"]).args(options).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const PASSING: &str = r#"
schemaVersion: '2.0.0'
globalEnvVars:
- { key: DIRECTORY, value: "${PATH}" }
fileExistenceTests:
- { name: root, path: /, permissions: drwxr-xr-x, uid: 0, gid: 0 }
- { name: through a link, path: /bin/tool, shouldExist: true, permissions: '-r-xr-xr-x', isExecutableBy: other }
- { name: alias, path: /bin/alias, permissions: Lrwxrwxrwx, isExecutableBy: any }
- { name: link, path: /bin, permissions: lrwxrwxrwx }
- { name: dangling, path: /dangling }
- { name: nothing, path: /nothing, shouldExist: false }
- { name: below a file, path: /etc/app.conf/x, shouldExist: no }
- { name: variable, path: $CONF, permissions: "-rw-r-----", uid: 1000, gid: 100, isExecutableBy: "" }
- { name: variable of the document, path: "$DIRECTORY/tool" }
- { name: tmp as Go has it, path: /tmp/, permissions: dtrwxrwxrwx }
- { name: tmp as ls has it, path: /tmp, permissions: drwxrwxrwt }
fileContentTests:
- name: conf
  path: /etc/app.conf
  expectedContents: ['listen = \d+', '(?m)^name = \Qapp\E$']
  excludedContents: ['secret']
- { name: braces, path: /bin/alias, expectedContents: ['{"a": 1}'] }
- { name: not UTF-8, path: /etc/latin1, expectedContents: ['^caf.\n$'] }
metadataTest:
  envVars:
  - { key: CONF, value: /etc/app.conf }
  - { key: EMPTY, value: '' }
  - { key: PATH, value: '^/b.n$', isRegex: true }
  unboundEnvVars: [{ key: HOME }]
  labels: [{ key: version, value: '^1\.', isRegex: true }]
  exposedPorts: ['8080']
  unexposedPorts: ['80']
  volumes: [/data]
  unmountedVolumes: [/root]
  entrypoint: []
  cmd: [/bin/tool, --serve]
  workdir: /etc
  user: 1000
licenseTests:
- { debian: false, files: [/usr/share/doc/good/copyright] }
"#;

#[test]
fn what_is_as_expected_passes() {
    let store = image();
    let output = test(&store, PASSING, &[]);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let lines = stdout(&output);
    assert!(
        lines.starts_with("PASS File Content Test: conf\n")
            && lines.ends_with("PASS License Test\nPASS Metadata Test\n16 passed, 0 failed\n"),
        "{lines}"
    );
}

#[test]
fn what_is_not_fails_with_the_reason() {
    let store = image();
    let document = r#"
schemaVersion: "2.0.0"
fileContentTests:
- { name: text, path: /etc/app.conf, expectedContents: ["listen", "^name"], excludedContents: ["80+"] }
- { name: directory, path: /bin, expectedContents: [] }
- { name: nothing, path: /etc/x/y }
fileExistenceTests:
- { name: nothing, path: /bin/x }
- { name: there, path: /bin/tool, shouldExist: false }
- { name: mode, path: /etc/app.conf, permissions: -rwxr-xr-x, uid: 0, gid: 0, isExecutableBy: any }
- { name: link, path: /bin/alias, permissions: -r-xr-xr-x }
- { name: data, path: /bin/data, isExecutableBy: owner }
- { name: leads nowhere, path: /dangling, isExecutableBy: owner }
licenseTests:
- debian: true
metadataTest:
  envVars: [{ key: CONF, value: x }, { key: NONE, value: x }, { key: PATH, value: '^x', isRegex: true }]
  unboundEnvVars: [{ key: PATH }]
  labels: [{ key: none, value: x }]
  exposedPorts: ['80']
  unexposedPorts: [8080]
  volumes: [/x]
  unmountedVolumes: [/data]
  entrypoint: [/x]
  cmd: [/bin/tool]
  workdir: /
  user: app
"#;
    let output = test(&store, document, &["--junit", "junit.xml"]);
    let tool = format!("/nix/store/{}-tool", "1".repeat(32));
    let expected = format!(
        "\
FAIL File Content Test: text: `^name` is not found in /etc/app.conf; `80+` is found in /etc/app.conf
FAIL File Content Test: directory: /bin is a directory, and no file
FAIL File Content Test: nothing: /etc/x/y is not in the image: /etc/x is not there
FAIL File Existence Test: nothing: /bin/x is not in the image: {tool}/bin/x is not there
FAIL File Existence Test: there: /bin/tool is in the image: a file
FAIL File Existence Test: mode: /etc/app.conf has -rw-r-----, not -rwxr-xr-x; the owner of /etc/app.conf is 1000, not 0; the group of /etc/app.conf is 100, not 0; /etc/app.conf is not executable by any: it has -rw-r-----
FAIL File Existence Test: link: /bin/alias has Lrwxrwxrwx, not -r-xr-xr-x, as a link; it leads to {tool}/bin/tool, with -r-xr-xr-x
FAIL File Existence Test: data: /bin/data is not executable by owner: it has -r--r--r--
FAIL File Existence Test: leads nowhere: /dangling is a link that leads nowhere
FAIL License Test: /usr/share/doc/bad/copyright has AGPL
FAIL Metadata Test: the variable CONF is `/etc/app.conf`, not `x`; the variable NONE is not set; the variable PATH is `/bin`, in which `^x` is not found; the variable PATH is set: `/bin`; the label none is not set; `Entrypoint` is [], not [\"/x\"]; `Cmd` is [\"/bin/tool\", \"--serve\"], not [\"/bin/tool\"]; `WorkingDir` is `/etc`, not `/`; `User` is `1000`, not `app`; 80 is no exposed port; 8080 is an exposed port; /x is no volume; /data is a volume
0 passed, 11 failed
"
    );
    assert_eq!(stdout(&output), expected);
    assert_eq!(stderr(&output), "error: 11 of 11 tests failed\n");
    assert_eq!(output.status.code(), Some(1));
    let junit = fs::read_to_string(store.root().join("junit.xml")).unwrap();
    assert!(
        junit.contains("<testsuites tests=\"11\" failures=\"11\" skipped=\"0\">")
            && junit.contains("not [&quot;/x&quot;]"),
        "{junit}"
    );
}

#[test]
fn programs_are_not_run() {
    let store = image();
    let document = r#"{
        "schemaVersion": "2.0.0",
        "commandTests": [{"name": "runs", "command": "sh", "args": ["-c", "exit 0"], "exitCode": 0}],
        "fileExistenceTests": [{"name": "there", "path": "/etc"}]
    }"#;
    let refused = test(&store, document, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        stderr(&refused),
        "error: tests.yaml: 1 of `commandTests` run programs of the image, and nothing of an image is run here\n\n\
         hint: `--skip-commands` decides all other tests; container-structure-test runs these\n"
    );
    let output = test(&store, document, &["--skip-commands"]);
    assert!(output.status.success());
    assert_eq!(
        stdout(&output),
        "SKIP Command Test: runs: it runs a program of the image\nPASS File Existence Test: there\n\
         1 passed, 0 failed, 1 skipped\n"
    );
    let output = test(&store, document, &["--skip-commands", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    schema::check("test", &json);
    let command = json!({"kind": "commandTests", "name": "runs", "result": "skip", "reasons": ["it runs a program of the image"]});
    let there = json!({"kind": "fileExistenceTests", "name": "there", "result": "pass"});
    assert_eq!(
        json,
        json!({"passed": 1, "failed": 0, "skipped": 1, "files": [{"file": "tests.yaml", "tests": [command, there]}]})
    );
    // A document without tests does not pass.
    let nothing = test(&store, "schemaVersion: 2.0.0\n", &[]);
    assert_eq!(
        (nothing.status.code(), stderr(&nothing)),
        (Some(1), "error: no test was decided\n".to_owned())
    );
}

/// Checks that unknown fields and values are refused, with their place in the document.
#[test]
fn mistakes_in_documents_are_named() {
    let store = image();
    for (document, expected) in [
        ("fileExistenceTests: []", "`schemaVersion: \"2.0.0\"` is missing"),
        (
            "schemaVersion: '1.0.0'",
            "line 1, column 16: schemaVersion: version 1.0.0 is not known: `2.0.0` is",
        ),
        (
            "schemaVersion: '2.0.0'\nfileExistanceTests: []",
            "line 2, column 21: there is no kind of test `fileExistanceTests`; did you mean `fileExistenceTests`?",
        ),
        (
            "schemaVersion: '2.0.0'\nimageTests: []",
            "there is no kind of test `imageTests`; there are schemaVersion, ",
        ),
        (
            "schemaVersion: '2.0.0'\nfileExistenceTests:\n- name: a\n  path: /\n  permission: drwx",
            "line 5, column 15: fileExistenceTests[0]: there is no key `permission`; did you mean `permissions`?",
        ),
        (
            "schemaVersion: '2.0.0'\nfileExistenceTests:\n- path: /",
            "line 3, column 3: fileExistenceTests[0]: `name` is missing",
        ),
        (
            "schemaVersion: '2.0.0'\nfileExistenceTests: [{name: a, path: /, permissions: '0755'}]",
            "fileExistenceTests[0].permissions: must be a type and permissions, such as `-rwxr-xr-x`",
        ),
        (
            "schemaVersion: '2.0.0'\nfileExistenceTests: [{name: a, path: /, uid: root}]",
            "fileExistenceTests[0].uid: must be a number, not `root`",
        ),
        (
            "schemaVersion: '2.0.0'\nfileExistenceTests: [{name: a, path: /, uid: !!str 5}]",
            "fileExistenceTests[0].uid: must be a number, not text in quotes",
        ),
        (
            "schemaVersion: '2.0.0'\nfileExistenceTests: [{name: a, path: /, shouldExist: 'true'}]",
            "shouldExist: must be true or false, not text in quotes",
        ),
        (
            "schemaVersion: '2.0.0'\nfileExistenceTests: [{name: a, path: /, isExecutableBy: all}]",
            "must be `owner`, `group`, `other` or `any`, not `all`",
        ),
        (
            "schemaVersion: '2.0.0'\nfileContentTests: [{name: a, path: /, expectedContents: ['(']}]",
            "fileContentTests[0].expectedContents: `(` is no regular expression: unclosed group",
        ),
        ("schemaVersion: '2.0.0'\nmetadataTest: [a]", "metadataTest: must be a map, not a list"),
        (
            "schemaVersion: '2.0.0'\nschemaVersion: '2.0.0'",
            "the key `schemaVersion` is there twice",
        ),
        ("schemaVersion: '2.0.0'\n---\nschemaVersion: '2.0.0'", "it has more than one document"),
        ("schemaVersion: '2.0.0\n", "line "),
        ("{\"schemaVersion\": \"2.0.0\", \"metadataTests\": {}}", "did you mean `metadataTest`?"),
        ("{\"schemaVersion\": \"2.0.0\", \"a\": 1, \"a\": 2}", "the key `a` is there twice"),
        ("{\"schemaVersion\": \"2.0.0\",,}", "line 1, column 27: "),
        ("", "must be a map, not null"),
        ("a: &a [*a]", "the alias stands for what it is in"),
    ] {
        let output = test(&store, document, &[]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{document}");
        assert!(
            error.starts_with("error: tests.yaml: ") && error.contains(expected),
            "{document}: {error}"
        );
        assert!(output.stdout.is_empty());
    }
    // A few aliases of aliases stand for very many nodes, and reading stops at the limit.
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for level in 1..40 {
        bomb += &format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1);
    }
    let text = "x".repeat(100_000);
    let of_text = format!("a: &a {text}\nb:\n{}", "- *a\n".repeat(20_000));
    let nested = (0..60)
        .fold(format!("&z {}", text.repeat(30)), |inner, level| format!("&n{level} [{inner}]"));
    let nested = format!("a: {nested}");
    let wide = format!("{{\"a\": [{}0]}}", "0,".repeat(200_000));
    let wide_key = format!("[[{}", "0,".repeat(200_000));
    for document in [bomb, of_text, nested, wide, wide_key] {
        assert!(stderr(&test(&store, &document, &[])).contains("it is too large"));
    }
    // A message quotes what is wrong, and is short all the same.
    let long = format!("schemaVersion: {text}");
    assert!(stderr(&test(&store, &long, &[])).len() < 20_000);
}

/// Checks that tests find the files of a base image's layers, and those of any archive.
#[test]
fn a_base_is_tested_too() {
    let mut store = FakeStore::new();
    let root = store.add('1', "root", &[], |root| {
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/app"), "app").unwrap();
    });
    let tar = layer(&[
        Item::Directory("usr/bin/", 0o755),
        Item::File("usr/bin/sh", b"shell"),
        Item::Symlink("bin", "usr/bin"),
        Item::File("etc/gone", b"1"),
        Item::File("etc/os-release", b"ID=test\n"),
        Item::Directory("tmp/", 0o1777),
        Item::Special("run/fifo", tar::EntryType::Fifo),
        Item::Special("run/tty", tar::EntryType::Char),
        Item::Special("run/disk", tar::EntryType::Block),
    ]);
    let upper = layer(&[Item::File("etc/.wh.gone", b""), Item::File("etc/.wh..wh.x", b"")]);
    let files = BaseFiles::new(&[tar, upper], |bytes| {
        (format!("{OCI_LAYER}+gzip"), crate::base_image::gzip(bytes))
    });
    let base = format!("{}-base", "9".repeat(32));
    write_files(&store.store().physical_dir().join(&base), &files.layout(&[]));
    let root = Store::default().print(&root);
    store.build(
        &json!({"fromImage": format!("/nix/store/{base}"), "copyToRoot": [root]}).to_string(),
    );
    let document = r#"
schemaVersion: 2.0.0
fileContentTests:
- { name: shell, path: /bin/sh, expectedContents: [shell] }
- { name: release, path: /etc/os-release, expectedContents: ['ID=(test|debian)'] }
fileExistenceTests:
- { name: gone, path: /etc/gone, shouldExist: false }
- { name: tmp, path: /tmp, permissions: dtrwxrwxrwx }
- { name: shell, path: /usr/bin/sh, permissions: -rwxr-xr-x, isExecutableBy: owner }
- { name: implied, path: /etc, permissions: drwxr-xr-x }
- { name: FIFO, path: /run/fifo, permissions: prwxr-xr-x }
- { name: terminal as Go has it, path: /run/tty, permissions: Dcrwxr-xr-x }
- { name: terminal as ls has it, path: /run/tty, permissions: crwxr-xr-x }
- { name: disk as Go has it, path: /run/disk, permissions: Drwxr-xr-x }
- { name: disk as ls has it, path: /run/disk, permissions: brwxr-xr-x, uid: !!int 0x0, gid: 0b_0, shouldExist: !!bool true }
"#;
    let ours = "- { name: ours, path: /usr/bin/app, shouldExist: true }\n";
    let output = test(&store, &(document.to_owned() + ours), &[]);
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    // The base image, tested by itself.
    let location = store.store().physical_dir().join(&base);
    let arguments = ["test", location.to_str().unwrap(), "tests.yaml", "--arch", "amd64"];
    store.write("tests.yaml", document);
    let output = store.stowage(&arguments).output().unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
}
