use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::unistd::mkfifo;
use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::oci::{Image, ImageSpec};

use crate::base_image::{BaseFiles, OCI_LAYER, write_files, zstd};
use crate::schema;
use crate::support::{FakeStore, stderr};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Makes three layers, in `image.json`; in `other.json` an image that shares two of them.
pub fn images() -> (FakeStore, ImageSpec) {
    let mut store = FakeStore::new();
    let big = store.add_file('1', "big", &[], &"big".repeat(1000));
    let small = store.add_file('2', "small", &[&big], "small");
    store.add_file('3', "tiny", &[&small], "tiny");
    fs::write(store.root().join("other.json"), store.build(r#"{"layering": "largest-first"}"#))
        .unwrap();
    let mut other = read(&store.root().join("other.json"));
    for list in ["layers", "history"] {
        other[list].as_array_mut().unwrap().pop();
    }
    store.write("other.json", &other.to_string());
    let spec = ImageSpec::read(&store.root().join("image.json")).unwrap();
    assert_eq!(spec.layers.len(), 3);
    (store, spec)
}

/// Copies an image, and returns the result as JSON.
fn copy(store: &FakeStore, image: &str, target: &str) -> Value {
    let output = try_copy(store, image, target, &["--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    schema::checked("copy", str::from_utf8(&output.stdout).unwrap())
}

fn try_copy(store: &FakeStore, image: &str, target: &str, options: &[&str]) -> Output {
    store.stowage(&[&["copy", image, target], options].concat()).output().unwrap()
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn hex(digest: &Value) -> &str {
    digest.as_str().unwrap().strip_prefix("sha256:").unwrap()
}

/// Returns every file below a directory with its bytes; none if the directory does not exist.
pub fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            let below = files(&entry.path()).into_iter();
            found.extend(below.map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

fn members(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let name = entry.path().unwrap().display().to_string();
            entry.read_to_end(found.entry(name).or_insert(Vec::new())).unwrap();
        }
    }
    found
}

/// Checks that the files of an image layout are those of the spec's image, each under its digest,
/// and no others.
fn assert_layout(files: &BTreeMap<String, Vec<u8>>, spec: &ImageSpec) -> Value {
    for (name, bytes) in files {
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            assert_eq!(Digest::of(bytes).hex(), hex);
        }
    }
    let image = Image::new(spec);
    let layers = spec.layers.iter().map(|layer| layer.diff_id.to_string());
    let blobs = layers.chain([&image.config, &image.manifest].map(|blob| blob.digest.to_string()));
    for blob in blobs {
        assert!(files.contains_key(&blob.replace("sha256:", "blobs/sha256/")), "{blob}");
    }
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    oci_spec::image::ImageIndex::from_reader(&files["index.json"][..]).unwrap();
    index["manifests"].clone()
}

#[test]
fn a_layout_holds_the_image() {
    let (store, spec) = images();
    let copied = copy(&store, "image.json", "oci:a/new/layout:v1");
    let found = files(&store.root().join("a/new/layout"));
    let manifests = assert_layout(&found, &spec);
    assert_eq!(found.len(), 3 + 2 + 2);
    let image = Image::new(&spec);
    let blobs: u64 = spec.layers.iter().map(|layer| layer.size).sum();
    let documents = image.config.bytes.len() + image.manifest.bytes.len();
    assert_eq!(
        copied,
        json!({
            "reference": "oci:a/new/layout:v1",
            "manifestDigest": image.manifest.digest,
            "imageId": image.id().to_string(),
            "layersSent": 3, "layersSkipped": 0, "layersMounted": 0,
            "bytesSent": blobs + documents as u64, "bytesSkipped": 0,
            "fellBack": false,
        })
    );
    assert_eq!(
        manifests,
        json!([{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.manifest.digest,
            "size": image.manifest.bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": "v1"},
        }])
    );
}

#[test]
fn a_layout_is_added_to() {
    let (store, spec) = images();
    let layout = store.root().join("layout");
    copy(&store, "other.json", "oci:layout:old");
    let added = copy(&store, "image.json", "oci:layout:new");
    assert_eq!((&added["layersSent"], &added["layersSkipped"]), (&json!(1), &json!(2)));
    let before = files(&layout);
    let again = copy(&store, "image.json", "oci:layout:new");
    assert_eq!((&again["layersSent"], &again["layersSkipped"]), (&json!(0), &json!(3)));
    assert_eq!(again["bytesSent"], 0);
    assert_eq!(files(&layout), before);
    let names = |manifests: Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let manifests = manifests.as_array().unwrap().iter();
        let name = |entry: &Value| text(&entry["annotations"]["org.opencontainers.image.ref.name"]);
        manifests.map(|entry| (name(entry), text(&entry["digest"]))).collect()
    };
    let manifests = names(assert_layout(&before, &spec));
    assert_eq!([&*manifests[0].0, &*manifests[1].0], ["old", "new"]);
    assert_ne!(manifests[0].1, manifests[1].1);

    // The tag now stands for the other image.
    copy(&store, "image.json", "oci:layout:old");
    let moved = names(assert_layout(&files(&layout), &spec));
    assert_eq!(moved, [("old".to_owned(), manifests[1].1.clone()), manifests[1].clone()]);
}

/// Attaches a document to an image in a layout, where clients find it among the entries of the index,
/// as `oras attach --oci-layout` leaves it.
#[test]
fn a_layout_has_what_is_attached() {
    let (store, spec) = images();
    store.write("sbom.json", "{}");
    let layout = store.root().join("layout");
    copy(&store, "other.json", "oci:layout:old");
    let attach = ["--attach", "sbom.json:application/spdx+json"];
    for _ in 0..2 {
        let output = try_copy(&store, "image.json", "oci:layout:new", &attach);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let found = files(&layout);
    let manifests = assert_layout(&found, &spec);
    let entries = manifests.as_array().unwrap();
    assert_eq!(entries.len(), 3);
    let (image, entry) = (&entries[1], &entries[2]);
    assert_eq!(entry["artifactType"], "application/spdx+json");
    assert!(entry.get("annotations").is_none(), "{entry}");
    let blob = |digest: &Value| {
        let digest = digest.as_str().unwrap();
        let bytes = &found[&digest.replace("sha256:", "blobs/sha256/")];
        assert_eq!(Digest::of(bytes).to_string(), digest);
        bytes.clone()
    };
    let manifest: Value = serde_json::from_slice(&blob(&entry["digest"])).unwrap();
    for key in ["mediaType", "digest", "size"] {
        assert_eq!(manifest["subject"][key], image[key], "{key}");
    }
    assert_eq!(blob(&manifest["layers"][0]["digest"]), b"{}");
    assert_eq!(blob(&manifest["config"]["digest"]), b"{}");
    // Nothing is written again, nor without the document taken away.
    let again = copy(&store, "image.json", "oci:layout:new");
    assert_eq!(again["bytesSent"], 0);
    assert_eq!(files(&layout), found);
    let refused = try_copy(&store, "image.json", "dir:other", &attach);
    let message =
        "`--attach` is for targets in registries and layouts, and dir:other is not in one";
    assert!(stderr(&refused).contains(message), "{}", stderr(&refused));
}

/// Alters blobs that a copy has written, by `alter` with the files of a layer and of the
/// configuration, and copies again: one layer of the three is made again, and all files are as
/// before.
fn is_mended(alter: impl Fn(&Path, &Path)) {
    let (store, spec) = images();
    for target in ["oci:target:v1", "dir:target"] {
        let target_directory = store.root().join("target");
        copy(&store, "image.json", target);
        let before = files(&target_directory);
        let blobs = if target.starts_with("oci") { "blobs/sha256" } else { "." };
        let blobs = target_directory.join(blobs);
        let layer = blobs.join(spec.layers[1].diff_id.digest().hex());
        alter(&layer, &blobs.join(Image::new(&spec).id().digest().hex()));
        for (sent, skipped) in [(1, 2), (0, 3)] {
            let copied = copy(&store, "image.json", target);
            let counts = (&copied["layersSent"], &copied["layersSkipped"]);
            assert_eq!(counts, (&json!(sent), &json!(skipped)));
            assert_eq!(files(&target_directory), before);
        }
        fs::remove_dir_all(target_directory).unwrap();
    }
}

#[test]
fn a_blob_of_the_wrong_size_is_replaced() {
    is_mended(|layer, config| {
        File::options().write(true).open(layer).unwrap().set_len(100).unwrap();
        fs::write(config, "no JSON").unwrap();
    });
}

/// Checks a blob of which four bytes were changed: its size is right.
#[test]
fn a_blob_with_other_bytes_is_replaced() {
    is_mended(|layer, _| {
        let mut bytes = fs::read(layer).unwrap();
        bytes[600..604].iter_mut().for_each(|byte| *byte ^= 0xff);
        fs::write(layer, bytes).unwrap();
    });
}

/// Checks that a blob is not kept under a digest that it does not have: other images would take it
/// for theirs.
#[test]
fn a_blob_without_its_digest_is_not_kept() {
    let (store, spec) = images();
    let wrong = "0".repeat(64);
    let text = fs::read_to_string(store.root().join("image.json")).unwrap();
    let text = text.replace(&spec.layers[0].diff_id.digest().hex(), &wrong);
    store.write("wrong.json", &text);
    copy(&store, "other.json", "oci:layout:v1");
    let output = try_copy(&store, "wrong.json", "oci:layout:v2", &[]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("is not what it was"), "{}", stderr(&output));
    assert!(!store.root().join("layout/blobs/sha256").join(wrong).exists());
}

/// Checks that two copies at once wait for each other: no tag is lost, and no blob made twice.
#[test]
fn copies_to_one_layout_take_turns() {
    let (store, spec) = images();
    let copies: Vec<_> = (0..8)
        .map(|number| {
            let target = format!("oci:layout:v{number}");
            let arguments = ["copy", "image.json", &target, "--json"];
            let mut command = store.stowage(&arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut sent = 0;
    for copy in copies {
        let output = copy.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let copied: Value = serde_json::from_slice(&output.stdout).unwrap();
        sent += copied["layersSent"].as_u64().unwrap();
    }
    assert_eq!(sent, 3);
    let manifests = assert_layout(&files(&store.root().join("layout")), &spec);
    assert_eq!(manifests.as_array().unwrap().len(), 8);
}

#[test]
fn a_dir_is_as_skopeo_has_it() {
    let (store, spec) = images();
    let directory = store.root().join("with:colon");
    for (format, config, layer) in [
        ("oci", CONFIG, "application/vnd.oci.image.layer.v1.tar"),
        (
            "v2s2",
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar",
        ),
    ] {
        let options = ["--format", format, "--json", "--digestfile", "digest"];
        let output = try_copy(&store, "image.json", "dir:with:colon", &options);
        assert!(output.status.success(), "{}", stderr(&output));
        let copied: Value = serde_json::from_slice(&output.stdout).unwrap();
        let files = files(&directory);
        assert_eq!(files["version"], b"Directory Transport Version: 1.1\n");
        let digest = Digest::of(&files["manifest.json"]).to_string();
        assert_eq!(copied["manifestDigest"], digest);
        assert_eq!(fs::read_to_string(store.root().join("digest")).unwrap(), digest);
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest["config"]["mediaType"], config);
        let layers = manifest["layers"].as_array().unwrap();
        for (entry, spec) in layers.iter().zip(&spec.layers) {
            assert_eq!((&entry["mediaType"], &entry["size"]), (&json!(layer), &json!(spec.size)));
        }
        for entry in layers.iter().chain([&manifest["config"]]) {
            assert_eq!(Digest::of(&files[hex(&entry["digest"])]).hex(), hex(&entry["digest"]));
        }
        assert_eq!(files.len(), 3 + 1 + 2);
    }
    // The directory holds one image at a time; other files in it stay.
    fs::write(directory.join("signature-1"), "").unwrap();
    fs::write(directory.join("notes"), "").unwrap();
    let copied = copy(&store, "other.json", "dir:with:colon");
    assert_eq!((&copied["layersSent"], &copied["layersSkipped"]), (&json!(0), &json!(2)));
    let files = files(&directory);
    assert!(!files.contains_key("signature-1") && files.contains_key("notes"));
    assert_eq!(files.len(), 2 + 1 + 2 + 1);
}

#[test]
fn archives_are_made_for_their_readers() {
    let (store, spec) = images();
    let docker = copy(&store, "image.json", "docker-archive:docker.tar:hello:v1");
    copy(&store, "image.json", "docker-archive:unnamed.tar");
    let oci = copy(&store, "image.json", "oci-archive:oci.tar:hello:v1");
    for (name, copied) in [("docker.tar", docker), ("oci.tar", oci)] {
        let bytes = fs::read(store.root().join(name)).unwrap();
        assert_eq!(copied["bytesSent"], bytes.len());
        assert_eq!(copied["manifestDigest"], Image::new(&spec).manifest.digest.to_string());
        let members = members(&bytes);
        let names = assert_layout(&members, &spec);
        let name = &names[0]["annotations"]["org.opencontainers.image.ref.name"];
        match copied["reference"].as_str().unwrap() {
            "docker-archive:docker.tar:hello:v1" => {
                let manifest: Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
                assert_eq!((&manifest[0]["RepoTags"], name), (&json!(["hello:v1"]), &json!("v1")));
            }
            "oci-archive:oci.tar:hello:v1" => {
                assert!(!members.contains_key("manifest.json"));
                assert_eq!(name, "hello:v1");
            }
            other => panic!("{other}"),
        }
    }
    let unnamed = members(&fs::read(store.root().join("unnamed.tar")).unwrap());
    let manifest: Value = serde_json::from_slice(&unnamed["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!([]));
    // The umask decides who may read the file, as for any other file.
    let mode = |file: &str| fs::metadata(store.root().join(file)).unwrap().permissions().mode();
    assert_eq!(mode("oci.tar"), mode("image.json") & mode("oci.tar"));
    assert_eq!(mode("oci.tar") & 0o600, 0o600);
}

/// Checks that an archive may go to standard output, of any kind, and that the result is then
/// printed elsewhere.
#[test]
fn an_archive_can_go_to_a_stream() {
    let (store, spec) = images();
    let output = try_copy(&store, "image.json", "oci-archive:/dev/stdout:v1", &[]);
    assert!(output.status.success());
    assert_layout(&members(&output.stdout), &spec);
    assert!(stderr(&output).ends_with("\noci-archive:/dev/stdout:v1\n"), "{}", stderr(&output));

    let file = store.root().join("redirected.tar");
    let mut command = store.stowage(&["copy", "image.json", "docker-archive:/dev/stdout", "-q"]);
    assert!(command.stdout(File::create(&file).unwrap()).status().unwrap().success());
    assert_layout(&members(&fs::read(&file).unwrap()), &spec);

    let pipe = store.root().join("pipe");
    mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
    copy(&store, "image.json", "docker-archive:pipe:a:b");
    assert_layout(&members(&reader.join().unwrap()), &spec);

    copy(&store, "image.json", "docker-archive:/dev/null");
    let output = try_copy(&store, "image.json", "docker-archive:/dev/full", &[]);
    assert_eq!(
        stderr(&output),
        "error: cannot write /dev/full: No space left on device (os error 28)\n"
    );
}

/// Checks a limit of a file's size, at which the system sends a signal.
#[test]
fn a_file_beyond_the_limit_of_its_size_is_named() {
    let mut store = FakeStore::new();
    store.add('1', "big", &[], |path| fs::write(path, vec![7; 3 << 20]).unwrap());
    store.build("{}");
    for target in ["oci-archive:new.tar", "oci:layout", "docker-archive:new.tar:a:b"] {
        let copy = store.stowage(&["copy", "image.json", target]);
        let output = Command::new("bash")
            .args(["-c", "ulimit -f 1024; exec \"$@\"", "bash"])
            .arg(copy.get_program())
            .args(copy.get_args())
            .current_dir(store.root())
            .output()
            .unwrap();
        let error = stderr(&output);
        assert!(error.contains("File too large"), "{target}: {:?}: {error}", output.status);
        assert!(!store.root().join("new.tar").exists());
    }
}

/// Checks that the digest may be written to a stream.
#[test]
fn a_digest_can_go_to_a_stream() {
    let (store, spec) = images();
    let digest = Image::new(&spec).manifest.digest.to_string();
    let options = ["--quiet", "--digestfile", "/dev/stdout"];
    let output = try_copy(&store, "image.json", "oci:layout", &options);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{digest}oci:layout\n"));
    let output = try_copy(&store, "image.json", "oci:layout", &["--digestfile", "none/digest"]);
    let expected = "error: cannot write none/digest: No such file or directory";
    assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
}

/// Checks that an empty file, such as `mktemp` makes, keeps its mode and its links.
#[test]
fn an_empty_file_is_filled() {
    let (store, spec) = images();
    let file = store.write("empty.tar", "");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("empty.tar", store.root().join("link.tar")).unwrap();
    copy(&store, "image.json", "oci-archive:link.tar");
    assert_layout(&members(&fs::read(&file).unwrap()), &spec);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn what_is_in_the_way_is_named() {
    let (store, _) = images();
    store.write("file", "full");
    for (directory, file, text) in [
        ("other", "file", ""),
        ("index", "index.json", "{}"),
        ("version", "oci-layout", r#"{"imageLayoutVersion": "2.0.0"}"#),
        ("skopeo", "version", "Directory Transport Version: 1.0\n"),
    ] {
        fs::create_dir(store.root().join(directory)).unwrap();
        fs::write(store.root().join(directory).join(file), text).unwrap();
    }
    let before = files(store.root());
    for (target, error) in [
        ("docker-archive:file", "file exists, and images are not added to an archive\n\nhint: "),
        ("oci-archive:file:v1", "file exists, and images are not added to an archive\n\nhint: "),
        ("docker-archive:other", "other is a directory, and an archive is a file\n\nhint: "),
        ("oci-archive:none/a.tar", "cannot write none/a.tar: No such file or directory"),
        ("oci:file", "file is not a directory\n\nhint: "),
        ("oci:file/below", "cannot write file/below: Not a directory (os error 20)"),
        ("dir:file", "file is not a directory\n\nhint: "),
        ("oci:other", "other is neither empty nor an OCI image layout\n\nhint: "),
        ("oci:index", "index/index.json: not an index of images: missing field `manifests`"),
        ("oci:version", "version/oci-layout: not an image layout: version 2.0.0, where"),
        ("dir:other", "other is neither empty nor an image of `dir:`\n\nhint: "),
        ("dir:skopeo", "skopeo is neither empty nor an image of `dir:`\n\nhint: "),
    ] {
        let output = try_copy(&store, "image.json", target, &[]);
        assert_eq!(output.status.code(), Some(1), "{target}");
        let text = stderr(&output);
        assert!(text.starts_with(&format!("error: {error}")), "{target}: {text}");
        assert_eq!(files(store.root()), before, "{target}");
    }
    for target in ["oci:new:v1", "oci-archive:new:v1"] {
        let output = try_copy(&store, "image.json", target, &["--format", "v2s2"]);
        let expected = format!("error: an image layout holds only OCI manifests: {target} can't");
        assert!(stderr(&output).starts_with(&expected), "{}", stderr(&output));
    }
    assert_eq!(files(store.root()), before);
}

/// Checks what has the place of a file in a directory: a copy must neither wait for a FIFO's other end,
/// nor make layers before it says so.
#[test]
fn what_has_the_place_of_a_file_is_named() {
    let (store, spec) = images();
    let layer = spec.layers[1].diff_id.digest().hex();
    let config = Image::new(&spec).id().digest().hex();
    for (target, files) in [
        (
            "oci:target:v1",
            [
                &format!("blobs/sha256/{layer}"),
                &format!("blobs/sha256/{config}"),
                "index.json",
                "oci-layout",
            ],
        ),
        ("dir:target", [&layer, &config, "manifest.json", "version"]),
    ] {
        for file in files {
            for kind in ["directory", "FIFO"] {
                copy(&store, "image.json", target);
                let place = store.root().join("target").join(file);
                fs::remove_file(&place).unwrap();
                match kind {
                    "FIFO" => mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                    _ => fs::create_dir(&place).unwrap(),
                }
                let output = try_copy(&store, "image.json", target, &[]);
                assert_eq!(output.status.code(), Some(1), "{file}: {kind}");
                let expected = format!(
                    "error: target/{file} is a {kind}, where the image has a file\n\nhint: "
                );
                assert!(stderr(&output).starts_with(&expected), "{}", stderr(&output));
                fs::remove_dir_all(store.root().join("target")).unwrap();
            }
        }
    }
}

/// Checks that nothing is left: neither the file, nor a part of it, nor a directory for it.
#[test]
fn a_failing_copy_leaves_nothing() {
    for target in ["docker-archive:new", "oci-archive:new", "oci:new/layout:v1", "dir:new/dir"] {
        let (store, _) = images();
        let file = store.store().physical_dir().join(format!("{}-small/file", "2".repeat(32)));
        fs::write(file, "SMALL").unwrap();
        let before = files(store.root());
        let output = try_copy(&store, "image.json", target, &["--digestfile", "digest"]);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.starts_with("error: layer 2 of 3 (small) is not what it was"), "{text}");
        assert_eq!(files(store.root()), before, "{target}");
        assert!(!store.root().join("new").exists(), "{target}");
    }
    // A layout that existed before is unchanged.
    let (store, _) = images();
    copy(&store, "other.json", "oci:layout:v1");
    let file = store.store().physical_dir().join(format!("{}-tiny/file", "3".repeat(32)));
    fs::write(file, "TINY").unwrap();
    let before = files(store.root());
    assert!(!try_copy(&store, "image.json", "oci:layout:v1", &[]).status.success());
    assert_eq!(files(store.root()), before);
}

/// Checks that the leftovers of a copy that was killed at the worst time do not hinder the next
/// one.
#[test]
fn a_directory_that_is_not_whole_is_completed() {
    let (store, _) = images();
    copy(&store, "image.json", "dir:dir");
    let whole = files(&store.root().join("dir"));
    fs::remove_file(store.root().join("dir/manifest.json")).unwrap();
    let blob = whole.keys().find(|name| name.len() > 60).expect("there are blobs");
    fs::remove_file(store.root().join("dir").join(blob)).unwrap();
    copy(&store, "image.json", "dir:dir");
    assert_eq!(files(&store.root().join("dir")), whole);
}

/// Checks that a base's layers stay compressed for readers that know the format, and only for
/// these.
#[test]
fn zstandard_goes_to_readers_of_oci() {
    let tars = crate::base_image::distribution();
    let layer = format!("{OCI_LAYER}+zstd");
    let base = BaseFiles::new(&tars, |tar| (layer.clone(), zstd(tar)));
    let mut store = FakeStore::new();
    let path = store.store().physical_dir().join(format!("{}-base", "9".repeat(32)));
    write_files(&path, &base.directory());
    store.add_file('1', "a", &[], "a");
    store.build(&json!({"fromImage": format!("/nix/store/{}-base", "9".repeat(32))}).to_string());
    let layers = |found: &BTreeMap<String, Vec<u8>>, manifest: &str| {
        let manifest: Value = serde_json::from_slice(&found[manifest]).unwrap();
        manifest["layers"].as_array().unwrap()[..tars.len()].to_vec()
    };
    let archive = |target: &str| {
        let copied = copy(&store, "image.json", target);
        let manifest = format!("blobs/sha256/{}", hex(&copied["manifestDigest"]));
        layers(&members(&fs::read(store.root().join("a.tar")).unwrap()), &manifest)
    };
    let in_archive = archive("oci-archive:a.tar");
    fs::remove_file(store.root().join("a.tar")).unwrap();
    let in_docker_archive = archive("docker-archive:a.tar");
    copy(&store, "image.json", "dir:dir");
    let in_dir = layers(&files(&store.root().join("dir")), "manifest.json");
    assert!(try_copy(&store, "image.json", "dir:docker", &["--format", "v2s2"]).status.success());
    let in_docker_dir = layers(&files(&store.root().join("docker")), "manifest.json");
    for (place, tar) in tars.iter().enumerate() {
        for (layers, media_type, bytes) in [
            (&in_archive, &*layer, &zstd(tar)),
            (&in_docker_archive, OCI_LAYER, tar),
            (&in_dir, &*layer, &zstd(tar)),
            (&in_docker_dir, "application/vnd.docker.image.rootfs.diff.tar", tar),
        ] {
            assert_eq!(layers[place]["mediaType"], media_type);
            assert_eq!(layers[place]["digest"], Digest::of(bytes).to_string());
        }
    }
}

/// Checks that the leftovers of a killed copy do not hinder the next one, which removes them.
#[test]
fn what_a_killed_copy_left_is_removed() {
    let (store, spec) = images();
    for directory in ["layout/blobs/sha256", "dir"] {
        fs::create_dir_all(store.root().join(directory)).unwrap();
        let mut file =
            File::create(store.root().join(directory).join(".stowage-abc.part")).unwrap();
        file.write_all(b"half").unwrap();
    }
    copy(&store, "image.json", "oci:layout");
    copy(&store, "image.json", "dir:dir");
    let layout = files(&store.root().join("layout"));
    assert_layout(&layout, &spec);
    assert!(layout.keys().all(|name| !name.contains(".stowage-")));
    assert!(!store.root().join("dir/.stowage-abc.part").exists());
}

/// Checks that no other directory is written to: a container may have none.
#[test]
fn no_temporary_directory_is_needed() {
    let (store, _) = images();
    for target in ["docker-archive:a.tar", "oci-archive:b.tar", "oci:layout", "dir:dir"] {
        let mut command = store.stowage(&["copy", "image.json", target]);
        let output = command.env("TMPDIR", "/nonexistent").output().unwrap();
        assert!(output.status.success(), "{target}: {}", stderr(&output));
    }
}
