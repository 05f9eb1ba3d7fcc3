use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;

use crate::schema;
use crate::support::{FakeStore, stderr};

fn one_path() -> FakeStore {
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], "a");
    store
}

/// Checks that errors do not repeat what is typed before a host, which may be a password.
#[test]
fn passwords_in_names_are_not_repeated() {
    let store = one_path();
    store.build("{}");
    let name = "user:HUNTER2@reg.example/a:v1";
    for arguments in [
        vec!["push", "image.json", name],
        vec!["push", "image.json", "u%3aHUNTER2@reg.example/a:v1"],
        vec!["push", "image.json", "u%3AHUNTER2@localhost/a"],
        vec!["copy", "image.json", &format!("docker://{name}")],
        vec!["copy", "image.json", &format!("docker-daemon:{name}")],
        vec!["stream", "image.json", "--repo-tag", name],
        vec!["prefetch", name],
        vec!["prefetch", "https://user:HUNTER2@reg.example/a:v1"],
    ] {
        let output = store.stowage(&arguments).output().unwrap();
        let error = stderr(&output);
        assert!(!output.status.success() && !error.contains("HUNTER2"), "{arguments:?}: {error}");
        assert!(error.contains("is not an image name"), "{arguments:?}: {error}");
    }
}

/// Checks that every failure is reported on one line with its cause and place, exits with 1, and
/// leaves no output.
#[test]
fn bad_input_is_named() {
    struct Case {
        name: &'static str,
        /// Damages the registration, the options or the store.
        spoil: fn(&FakeStore),
        error: &'static str,
    }
    let path = format!("/nix/store/{}-a", "1".repeat(32));
    let cases = [
        Case {
            name: "truncated registration",
            spoil: |store| {
                let whole = store.registration();
                store.write("registration", &whole[..whole.len() - 3]);
            },
            error: "error: registration: line 4: expected a deriver's store path or an empty line, found the end of the file",
        },
        Case {
            name: "no registration",
            spoil: |store| fs::remove_file(store.root().join("registration")).unwrap(),
            error: "error: cannot read registration: No such file or directory (os error 2)",
        },
        Case {
            name: "a reference outside the closure",
            spoil: |store| {
                let reference = format!("1\n/nix/store/{}-gone\n", "2".repeat(32));
                store.write(
                    "registration",
                    &store.registration().replace("\n\n0\n", &format!("\n\n{reference}")),
                );
            },
            error: "error: registration: the closure is incomplete: PATH refers to /nix/store/22222222222222222222222222222222-gone",
        },
        Case {
            name: "missing store path",
            spoil: |store| {
                fs::remove_dir_all(
                    store.store().physical_dir().join(format!("{}-a", "1".repeat(32))),
                )
                .unwrap()
            },
            error: "error: store path ROOTPATH does not exist",
        },
        Case {
            name: "a socket",
            spoil: |store| {
                drop(
                    UnixListener::bind(
                        store.store().physical_dir().join(format!("{}-a/s", "1".repeat(32))),
                    )
                    .unwrap(),
                )
            },
            error: "error: ROOTPATH/s is a socket: a layer may hold files, directories and symbolic links only",
        },
        Case {
            name: "bad JSON",
            spoil: |store| drop(store.write("options.json", "{")),
            error: "error: options.json: not build options: EOF while parsing an object at line 1 column 1",
        },
        Case {
            name: "no layers",
            spoil: |store| drop(store.write("options.json", r#"{"maxLayers": 0}"#)),
            error: "error: options.json: not build options: an image may have 1 to 127 layers, not 0 at line 1 column 16",
        },
        Case {
            name: "copyToRoot outside the closure",
            spoil: |store| {
                drop(store.write(
                    "options.json",
                    &format!(r#"{{"copyToRoot": ["/nix/store/{}-b"]}}"#, "2".repeat(32)),
                ))
            },
            error: "error: `copyToRoot`: /nix/store/22222222222222222222222222222222-b is not in the closure",
        },
    ];
    for case in cases {
        let store = one_path();
        store.write("registration", &store.registration());
        store.write("options.json", "{}");
        (case.spoil)(&store);
        let arguments =
            ["build", "--closure", "registration", "--options", "options.json", "-o", "image.json"];
        let output = store.stowage(&arguments).output().unwrap();
        let physical = store.root().join(&path[1..]).display().to_string();
        let expected = case.error.replace("ROOTPATH", &physical).replace("PATH", &path);
        let error = stderr(&output);
        assert_eq!(error.lines().next(), Some(&expected[..]), "{}", case.name);
        assert_eq!(output.status.code(), Some(1), "{}", case.name);
        assert!(!store.root().join("image.json").exists(), "{}", case.name);
        let left: Vec<_> = fs::read_dir(store.root())
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".tmp")
            })
            .collect();
        assert!(left.is_empty(), "{}", case.name);
    }
}

/// Checks a file that can't be read. Root reads every file, so this test needs another user.
#[test]
fn an_unreadable_file_is_named() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let store = one_path();
    store.build("{}");
    let file = store.store().physical_dir().join(format!("{}-a/file", "1".repeat(32)));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(store.root(), fs::Permissions::from_mode(0o755)).unwrap();
    // Other users may not be able to enter the program's own directory.
    let program = store.root().join("stowage");
    // Another process copies the program. A process that another test forks meanwhile would keep a
    // copy made here open for writing, and a file that is open for writing can't be run.
    let copied =
        std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_stowage")).arg(&program).status();
    assert!(copied.unwrap().success());
    let mut command = std::process::Command::new(program);
    command
        .arg("--root")
        .arg(store.root())
        .args(["stream", "image.json"])
        .current_dir(store.root());
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let expected = format!(
        "error: layer 1 of 1: cannot read {}: Permission denied (os error 13)",
        file.display()
    );
    assert_eq!(stderr(&output).lines().next(), Some(&expected[..]));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let store = one_path();
    for arguments in [
        &["stream"][..],
        &["copy", "image.json", "hello"],
        &["plan", "r", "--max-layers", "0"],
        &["plan", "r", "--layering", "fastest"],
        &["stream", "i", "-t", "Hello:v1"],
    ] {
        let output = store.stowage(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn an_existing_file_is_replaced_whole() {
    let store = one_path();
    store.write("image.json", "old");
    assert!(store.build("{}").starts_with(b"{"));
}

#[test]
fn plan_prints_store_paths_by_layer() {
    let mut store = FakeStore::new();
    let big = store.add_file('1', "big", &[], &"big".repeat(100));
    store.add_file('2', "small", &[&big], "small");
    store.add_file('3', "tiny", &[&big], "tiny");
    store.write("registration", &store.registration());
    let path = |digit: &str, name: &str| format!("/nix/store/{}-{name}", digit.repeat(32));
    let [big, small, tiny] = [path("1", "big"), path("2", "small"), path("3", "tiny")];
    store.write("hints.json", r#"{"last": ["tiny"]}"#);
    for (layering, expected) in [
        (&["--layering", "largest-first"][..], vec![vec![&big], vec![&small, &tiny]]),
        (&["--hints", "hints.json"], vec![vec![&big, &small], vec![&tiny]]),
        // To keep a few bytes in a layer of their own saves nothing.
        (&[], vec![vec![&big, &small, &tiny]]),
    ] {
        let arguments = [&["plan", "registration", "--max-layers", "2"], layering].concat();
        let output = store.stowage(&arguments).output().unwrap();
        let plan = schema::checked("plan", str::from_utf8(&output.stdout).unwrap());
        let plan: Vec<Vec<String>> = serde_json::from_value(plan).unwrap();
        assert_eq!(plan.iter().map(Vec::from_iter).collect::<Vec<_>>(), expected);
    }
    store.write("hints.json", r#"{"first": ["tiny"]}"#);
    let output =
        store.stowage(&["plan", "registration", "--hints", "hints.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: hints.json: not layering hints: unknown field"));
}

#[test]
fn a_plan_is_kept() {
    let mut store = FakeStore::new();
    store.add_file('1', "one-2.0", &[], "one");
    store.add_file('2', "two", &[], "two");
    store.add_file('3', "three", &[], "three");
    store.write("registration", &store.registration());
    let plan = |layering: &str, previous: &[&str]| -> Vec<Vec<String>> {
        let arguments = [&["plan", "registration", "--layering", layering], previous].concat();
        let output = store.stowage(&arguments).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(plan("runs", &[]).len(), 1);
    store.write("plan.json", r#"[["one-1.0"], ["two", "three"]]"#);
    let kept = plan("runs", &["--previous", "plan.json"]);
    assert_eq!(kept.iter().map(Vec::len).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));

    let output =
        store.stowage(&["plan", "registration", "--previous", "registration"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.starts_with("error: registration: not a layer plan: "), "{text}");
}

#[test]
fn a_pipeline_decides_layers_and_what_is_in_none() {
    let mut store = FakeStore::new();
    let library = store.add_file('1', "library", &[], "library");
    let app = store.add_file('2', "app", &[&library], "app");
    let gone = store.add_file('3', "gone", &[], "gone");
    let [app, gone] = [app, gone].map(|path| store.store().print(&path));
    let pipeline =
        serde_json::json!([["remove_paths", gone], ["subcomponent_in", [app]], ["flatten"]]);
    let options = serde_json::json!({"layering": pipeline, "maxLayers": 2}).to_string();
    store.build(&options);
    let spec = stowage::oci::ImageSpec::read(&store.root().join("image.json")).unwrap();
    let names: Vec<_> = spec.layers.iter().map(|layer| layer.names()).collect();
    assert_eq!(names, ["app", "library"]);

    let output = store.try_build(&options.replace("\"maxLayers\":2", "\"maxLayers\":1"));
    let text = stderr(&output);
    let expected =
        "error: `layering`: the pipeline makes 2 layers, and 1 are left for it\n\nhint: ";
    assert!(text.starts_with(expected), "{text}");
}

/// Checks that the manifest has digests and sizes, and that the program can write the bytes of each
/// blob.
#[test]
fn manifest_names_what_there_is() {
    let mut store = FakeStore::new();
    store.add_file('1', "one", &[], "one");
    store.add_file('2', "two", &[], "two");
    store.build(r#"{"layering": "largest-first", "compression": "gzip"}"#);
    let manifest_with = |arguments: &[&str]| {
        let arguments = [&["manifest", "image.json"], arguments].concat();
        let output = store.stowage(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    let bytes = manifest_with(&[]);
    let spec = stowage::oci::ImageSpec::read(&store.root().join("image.json")).unwrap();
    assert_eq!(bytes, stowage::oci::Image::new(&spec).manifest.bytes);

    let found: serde_json::Value =
        serde_json::from_slice(&manifest_with(&["--locations"])).unwrap();
    schema::check("manifest-locations", &found);
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(found["manifest"], manifest);
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    assert_eq!(found["layerLocations"].as_object().unwrap().len(), 3);
    for (index, blob) in layers.iter().chain([&manifest["config"]]).enumerate() {
        let digest = blob["digest"].as_str().unwrap();
        let bytes = manifest_with(&["--blob", digest]);
        assert_eq!(stowage::digest::Digest::of(&bytes).to_string(), digest);
        assert_eq!(bytes.len() as u64, blob["size"]);
        let expected = match index {
            2 => serde_json::json!({"content": String::from_utf8(bytes).unwrap()}),
            layer => serde_json::json!({"spec": "image.json", "layer": layer}),
        };
        assert_eq!(found["layerLocations"][digest], expected);
    }

    let other = stowage::digest::Digest::of(b"").to_string();
    let output = store.stowage(&["manifest", "image.json", "--blob", &other]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let expected = format!("error: image.json: no blob of this image has the digest {other}\n");
    assert!(text.starts_with(&expected), "{text}");
}

/// Checks the builder as a derivation of `nix/lib.nix` runs it.
#[test]
fn builder_reads_structured_attributes() {
    let mut store = FakeStore::new();
    let library = store.add_file('1', "library", &[], "library");
    let app = store.add_file('2', "app", &[&library], "app");
    let config = store.add_file('3', "config.json", &[&app], "config");
    let hash = |path| stowage::layer::nar_hash(&store.store(), path).unwrap().to_string();
    let print = |path| store.store().print(path);
    let record = |path, references: Vec<String>| serde_json::json!({"path": print(path), "narHash": hash(path), "narSize": 1, "references": references, "closureSize": 1});
    let attributes = serde_json::json!({
        "name": "image.json",
        "closure": [record(&library, vec![]), record(&app, vec![print(&library)]), record(&config, vec![print(&app)])],
        "image": {"exclude": [print(&config)], "config": {"Cmd": [format!("{}/file", print(&app))]}},
        "outputs": {"out": store.root().join("out")},
    });
    store.write(".attrs.json", &attributes.to_string());
    // Nix 2.8 names a file that only exists outside of the sandbox.
    let output = store
        .stowage(&["builder"])
        .env("NIX_ATTRS_JSON_FILE", "/nonexistent/.attrs.json")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let spec = stowage::oci::ImageSpec::read(&store.root().join("out")).unwrap();
    let paths: Vec<_> = spec.sources.iter().map(|source| &source.path).collect();
    assert_eq!(paths, [&library, &app]);
}

#[test]
fn builder_says_where_it_belongs() {
    let store = one_path();
    let output = store.stowage(&["builder"]).env_remove("NIX_ATTRS_JSON_FILE").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("hint: `stowage builder` is what a derivation"),
        "{}",
        stderr(&output)
    );
}
