use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};
use stowage::digest::Digest;
use stowage::oci::ImageSpec;
use stowage::outgoing::{CheckedBy, Unwatched};
use stowage::target::{Archive, write_archive};

use crate::support::{FakeStore, stderr};

/// Makes three layers: `big`, `small` which refers to it, and files that are copied to the root.
fn three_layers() -> (FakeStore, ImageSpec) {
    let mut store = FakeStore::new();
    let big = store.add_file('1', "big", &[], &"big".repeat(1000));
    let small = store.add_file('2', "small", &[&big], "small");
    store.add_file('3', "root", &[&small], "root");
    let root = format!("/nix/store/{}-root", "3".repeat(32));
    let options =
        r#"{"config": {"Cmd": ["/file"]}, "layering": "largest-first", "copyToRoot": ["ROOT"]}"#;
    store.build(&options.replace("ROOT", &root));
    let spec = ImageSpec::read(&store.root().join("image.json")).unwrap();
    assert_eq!(spec.layers.len(), 3);
    (store, spec)
}

fn archive(store: &FakeStore, spec: &ImageSpec, tags: &[&str], skip: usize) -> Vec<u8> {
    let references: Vec<_> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    let mut bytes = Vec::new();
    let (store, checked_by, watch) = (&store.store(), CheckedBy::Sender, &Unwatched);
    let form = Archive::FORM;
    let archive = Archive { store, spec, form, references: &references, skip, checked_by, watch };
    let written = write_archive(&archive, &mut bytes).unwrap();
    assert_eq!((written.bytes, written.layers), (bytes.len() as u64, spec.layers.len() - skip));
    bytes
}

/// Returns the names of the members in order, and their bytes.
fn members(bytes: &[u8]) -> (Vec<String>, BTreeMap<String, Vec<u8>>) {
    let mut names = Vec::new();
    let mut bodies = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        names.push(name.clone());
        bodies.insert(name, body);
    }
    (names, bodies)
}

fn json(members: &BTreeMap<String, Vec<u8>>, name: &str) -> Value {
    serde_json::from_slice(&members[name]).unwrap()
}

fn blob(digest: &Value) -> String {
    format!("blobs/sha256/{}", digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
}

#[test]
fn both_formats_name_the_same_blobs() {
    let (store, spec) = three_layers();
    let (_, members) = members(&archive(&store, &spec, &["localhost/a:v1", "b:v2"], 0));
    for (name, body) in &members {
        if let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
            assert_eq!(Digest::of(body).hex(), hex);
        }
    }
    assert_eq!(json(&members, "oci-layout")["imageLayoutVersion"], "1.0.0");
    let docker = &json(&members, "manifest.json")[0];
    let index = json(&members, "index.json");
    assert_eq!(docker["RepoTags"], serde_json::json!(["localhost/a:v1", "b:v2"]));
    assert_eq!(
        index["manifests"][1]["annotations"]["io.containerd.image.name"],
        "docker.io/library/b:v2"
    );
    assert_eq!(index["manifests"][1]["annotations"]["org.opencontainers.image.ref.name"], "v2");

    let manifest = json(&members, &blob(&index["manifests"][0]["digest"]));
    assert_eq!(docker["Config"], blob(&manifest["config"]["digest"]).as_str());
    let config = json(&members, docker["Config"].as_str().unwrap());
    for (place, layer) in spec.layers.iter().enumerate() {
        let digest = &manifest["layers"][place]["digest"];
        assert_eq!(docker["Layers"][place], blob(digest).as_str());
        assert_eq!(config["rootfs"]["diff_ids"][place], layer.diff_id.to_string());
        assert_eq!(digest, &layer.diff_id.to_string());
        assert_eq!(manifest["layers"][place]["size"], layer.size);
        assert_eq!(
            manifest["layers"][place]["mediaType"],
            "application/vnd.oci.image.layer.v1.tar"
        );
        assert!(config["history"][place]["created_by"].as_str().unwrap().starts_with("stowage: "));
    }
    assert_eq!(config["config"], serde_json::json!({"Cmd": ["/file"]}));
    assert_eq!(
        (&config["os"], &config["created"]),
        (&"linux".into(), &"1970-01-01T00:00:01Z".into())
    );
    // The types of the oci-spec crate accept the documents.
    let as_bytes = |name: &str| &members[name][..];
    oci_spec::image::ImageConfiguration::from_reader(as_bytes(docker["Config"].as_str().unwrap()))
        .unwrap();
    oci_spec::image::ImageIndex::from_reader(as_bytes("index.json")).unwrap();
}

/// Checks that the documents which name the layers come after them: no reader takes half of a
/// stream for an image.
#[test]
fn nothing_names_an_image_before_it_is_whole() {
    let (store, spec) = three_layers();
    let (names, _) = members(&archive(&store, &spec, &["a:b"], 0));
    assert_eq!(names[names.len() - 3..], ["index.json", "manifest.json", "oci-layout"]);
}

#[test]
fn an_image_needs_no_name() {
    let (store, spec) = three_layers();
    let (_, members) = members(&archive(&store, &spec, &[], 0));
    assert_eq!(json(&members, "manifest.json")[0]["RepoTags"], serde_json::json!([]));
    assert_eq!(json(&members, "index.json")["manifests"].as_array().unwrap().len(), 1);
}

#[test]
fn layers_left_out_are_named_all_the_same() {
    let (store, spec) = three_layers();
    let (_, whole) = members(&archive(&store, &spec, &["a:b"], 0));
    let (names, delta) = members(&archive(&store, &spec, &["a:b"], 2));
    assert_eq!(whole["manifest.json"], delta["manifest.json"]);
    let left_out: Vec<_> = whole.keys().filter(|name| !names.contains(name)).collect();
    let expected: Vec<_> = spec.layers[..2]
        .iter()
        .map(|layer| format!("blobs/sha256/{}", layer.diff_id.digest().hex()))
        .collect();
    assert_eq!(left_out.len(), 2);
    assert!(expected.iter().all(|name| left_out.contains(&name)));
}

#[test]
fn a_layer_that_is_there_twice_is_sent_once() {
    let (store, mut spec) = three_layers();
    spec.layers.push(spec.layers[0].clone());
    let mut bytes = Vec::new();
    let (store, checked_by, watch) = (&store.store(), CheckedBy::Sender, &Unwatched);
    let form = Archive::FORM;
    let archive = Archive { store, spec: &spec, form, references: &[], skip: 0, checked_by, watch };
    assert_eq!(write_archive(&archive, &mut bytes).unwrap().layers, 3);
    let (names, members) = members(&bytes);
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    assert_eq!(json(&members, "manifest.json")[0]["Layers"].as_array().unwrap().len(), 4);
}

/// Alters the layers of a spec that was written.
fn alter_layers(store: &FakeStore, alter: impl Fn(&mut Map<String, Value>)) {
    let file = store.root().join("image.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let layers = spec["layers"].as_array_mut().unwrap();
    layers.iter_mut().for_each(|layer| alter(layer.as_object_mut().unwrap()));
    std::fs::write(file, spec.to_string()).unwrap();
}

/// Makes the spec that an earlier version wrote.
fn forget_checksums(store: &FakeStore) {
    alter_layers(store, |layer| assert!(layer.remove("checksum").is_some()));
}

/// Changes a store path in each way: the stream must end before it is an image, and the error must
/// name the layer.
#[test]
fn a_store_path_that_changed_is_an_error() {
    let size = three_layers().1.layers[1].size;
    for (how, text, expected, without_checksums) in [
        ("longer", "small".repeat(1000), format!("{size} bytes, found more"), false),
        ("shorter", String::new(), format!("{size} bytes, found {} bytes", size - 512), false),
        ("other", "SMALL".to_owned(), "xxh128:".to_owned(), false),
        ("other, by SHA-256", "SMALL".to_owned(), "sha256:".to_owned(), true),
    ] {
        let (store, _) = three_layers();
        if without_checksums {
            forget_checksums(&store);
        }
        let file = store.store().physical_dir().join(format!("{}-small/file", "2".repeat(32)));
        std::fs::write(file, text).unwrap();
        let output = store.stowage(&["stream", "image.json", "-t", "a:b"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{how}");
        let error = stderr(&output);
        assert!(
            error.starts_with(&format!(
                "error: layer 2 of 3 (small) is not what it was: expected {expected}"
            )),
            "{how}: {error}"
        );
        assert!(
            error.contains("\nhint: a store path changed after the image was built"),
            "{error}"
        );
        let whole = tar::Archive::new(&output.stdout[..]).entries().unwrap().all(|entry| {
            entry.is_ok_and(|entry| entry.path().unwrap().display().to_string() != "manifest.json")
        });
        let manifest = output.stdout.windows(13).any(|window| window == b"manifest.json");
        assert!(!manifest, "{how}: {whole}");
    }
}

/// Checks that the checksum of the bytes is compared with the recorded one, and that `verify` finds
/// an altered one as well.
#[test]
fn a_checksum_that_was_altered_is_an_error() {
    let (store, _) = three_layers();
    let wrong = format!("xxh128:{}", "0".repeat(32));
    alter_layers(&store, |layer| drop(layer.insert("checksum".to_owned(), json!(wrong))));
    let output = store.stowage(&["stream", "image.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    let expected =
        format!("error: layer 1 of 3 (big) is not what it was: expected {wrong}, found xxh128:");
    assert!(error.starts_with(&expected), "{error}");
    let output = store.stowage(&["verify", "image.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("which it is, but its checksum is xxh128:") && text.contains("was altered"),
        "{text}"
    );

    alter_layers(&store, |layer| drop(layer.insert("checksum".to_owned(), json!("xxh128:0"))));
    let output = store.stowage(&["stream", "image.json"]).output().unwrap();
    assert!(stderr(&output).contains("`xxh128:0` is not a checksum"), "{}", stderr(&output));
}

/// Checks layers of all sizes, and files that are read and spliced. `stream` writes to a pipe here.
#[test]
fn a_stream_is_the_same_however_it_is_made() {
    let mut store = FakeStore::new();
    for (name, digit) in ('a'..='z').zip("0123456789abcdfghijklmnpqrsvwxyz".chars()) {
        let kilobytes = match name {
            'b' => 2 << 10,
            'g' => 1 << 10,
            _ => usize::from(name as u8) % 90,
        };
        let text = name.to_string().repeat((kilobytes << 10) + 1);
        store.add_file(digit, &name.to_string(), &[], &text);
    }
    store.build(r#"{"layering": "largest-first"}"#);
    let spec = ImageSpec::read(&store.root().join("image.json")).unwrap();
    assert_eq!(spec.layers.len(), 26);
    let stream = |options: &[&str]| {
        let output = store.stowage(&["stream", "image.json"]).args(options).output().unwrap();
        assert!(output.status.success(), "{options:?}: {}", stderr(&output));
        output.stdout
    };
    let first = stream(&[]);
    for (name, body) in members(&first).1 {
        if let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
            assert_eq!(Digest::of(&body).hex(), hex);
        }
    }
    assert!(stream(&["--unchecked"]) == first);
    let gzip = stream(&["--compress", "gzip"]);
    assert!(stream(&["--compress", "gzip", "--unchecked"]) == gzip);
    forget_checksums(&store);
    assert!(stream(&[]) == first);
}

/// Checks that a wrong size ends the stream before a byte that would be taken for something else.
#[test]
fn sizes_are_checked_where_digests_are_not() {
    for (how, text) in [
        ("longer", "x".repeat(200_000)),
        ("shorter", "x".to_owned()),
        ("as long", "y".repeat(100_000)),
    ] {
        let mut store = FakeStore::new();
        let path = store.add_file('1', "large", &[], &"x".repeat(100_000));
        store.build("{}");
        std::fs::write(store.store().physical(&path).join("file"), &text).unwrap();
        let changed = "error: layer 1 of 1 (large) is not what it was";
        let checked = store.stowage(&["stream", "image.json"]).output().unwrap();
        assert!(stderr(&checked).starts_with(changed), "{how}: {}", stderr(&checked));
        let output = store.stowage(&["stream", "--unchecked", "image.json"]).output().unwrap();
        if how == "as long" {
            assert!(output.status.success(), "{}", stderr(&output));
            continue;
        }
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{how}: {error}");
        assert!(error.starts_with(changed), "{error}");
        assert!(!output.stdout.windows(13).any(|window| window == b"manifest.json"), "{how}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let (store, _) = three_layers();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output =
        store.stowage(&["stream", "image.json"]).stdout(Stdio::from(full)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: cannot write the image: No space left on device (os error 28)\n"
    );
    for arguments in [&["--version"][..], &["--help"], &["copy", "-h"], &["help", "push"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = store.stowage(arguments).stdout(Stdio::from(full)).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let expected = "error: cannot write to standard output: No space left on device";
        assert!(stderr(&output).starts_with(expected), "{arguments:?}: {}", stderr(&output));
    }
}

/// Checks that output to a descriptor that is closed is not lost without an error.
#[test]
fn a_closed_output_is_an_error() {
    let (store, _) = three_layers();
    let lost = "error: cannot write to standard output: it is closed\n";
    let not_made = "error: cannot write /dev/stdout: it is closed\n";
    for (arguments, code, message) in [
        ("stream image.json", 1, lost),
        ("manifest image.json", 1, lost),
        ("sbom image.json", 1, lost),
        ("explain image.json", 1, lost),
        ("--version", 1, lost),
        ("completions bash", 1, lost),
        ("flatten image.json", 1, not_made),
        ("copy --quiet image.json docker-archive:/dev/stdout:a:b", 1, not_made),
        // Nothing is printed here.
        ("flatten image.json -o root.tar", 0, ""),
        ("flatten image.json -o /dev/null", 0, ""),
    ] {
        let words: Vec<_> = arguments.split(' ').collect();
        let command = store.stowage(&words);
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" >&-", "sh"]).arg(command.get_program());
        shell.args(command.get_args()).current_dir(store.root());
        let output = shell.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {}", stderr(&output));
        assert_eq!(stderr(&output), message, "{arguments}");
    }
}

/// Checks that a closed output is a failure, without a message.
#[test]
fn a_broken_pipe_is_a_quiet_failure() {
    let mut store = FakeStore::new();
    // The file is larger than any pipe's buffer: otherwise everything may be written before the
    // reader goes away.
    store.add_file('1', "big", &[], &"big".repeat(1 << 20));
    store.build("{}");
    let mut stream = store.stowage(&["stream", "image.json"]);
    let mut child = stream.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(stderr(&output), "");
}
