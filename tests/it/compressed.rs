use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use stowage::closure::Closure;
use stowage::digest::Digest;
use stowage::oci::{
    BuildOptions, Compression, Form, Image, ImageSpec, ManifestFormat, build_image,
};

use crate::base_image::{BaseFiles, write_files};
use crate::support::{FakeStore, odd_tree, stderr};

/// Makes a store with a tree and a base.
fn store() -> FakeStore {
    let mut store = FakeStore::new();
    store.add('1', "tree", &[], odd_tree);
    let big: Vec<u8> = (0..5_u32 << 20).map(|place| (place >> 5) as u8).collect();
    store.add('2', "big", &[], |path| fs::write(path, big).unwrap());
    let base = store.store().physical_dir().join(format!("{}-base", "9".repeat(32)));
    write_files(&base, &BaseFiles::gzipped().directory());
    store
}

fn build(store: &FakeStore, compression: &str, more: Value) -> ImageSpec {
    let mut options = json!({"compression": compression});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    store.build(&options.to_string());
    ImageSpec::read(&store.root().join("image.json")).unwrap()
}

fn blob(store: &FakeStore, spec: &ImageSpec, index: usize, form: Form) -> Vec<u8> {
    let mut bytes = Vec::new();
    spec.layers[index].write_blob(&store.store(), form, &mut bytes).unwrap();
    bytes
}

#[test]
fn blobs_are_what_was_recorded() {
    let store = store();
    let plain = build(&store, "none", json!({}));
    for (name, compression) in [
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
        ("zstd:chunked", Compression::Zstd),
    ] {
        let spec = build(&store, name, json!({}));
        // The image is the same, in another manifest.
        assert_eq!(Image::new(&spec).id(), Image::new(&plain).id());
        assert_ne!(Image::new(&spec).manifest, Image::new(&plain).manifest);
        for (index, layer) in spec.layers.iter().enumerate() {
            let recorded = layer.blob(Form::AsStored);
            let bytes = blob(&store, &spec, index, Form::AsStored);
            assert_eq!(recorded.media_type.compression, compression);
            assert_eq!(
                (Digest::of(&bytes), bytes.len() as u64),
                (*recorded.digest.digest(), recorded.size)
            );
            let mut tar = Vec::new();
            compression.reader(&bytes[..]).unwrap().read_to_end(&mut tar).unwrap();
            assert_eq!(Digest::of(&tar).to_string(), layer.diff_id.to_string());
            // The Docker daemon gets the layer uncompressed.
            assert!(blob(&store, &spec, index, Form::Loadable) == tar);
        }
        let verified = store.stowage(&["verify", "image.json"]).output().unwrap();
        assert!(verified.status.success(), "{}", stderr(&verified));
    }
}

#[test]
fn threads_change_nothing() {
    let store = store();
    for compression in ["gzip", "zstd:chunked"] {
        build(&store, compression, json!({}));
        let written = || fs::read(store.root().join("image.json")).unwrap();
        let expected = written();
        for jobs in ["1", "2", "7"] {
            let arguments = [
                "build",
                "--jobs",
                jobs,
                "--closure",
                "registration",
                "--options",
                "options.json",
                "-o",
                "image.json",
            ];
            assert!(store.stowage(&arguments).status().unwrap().success());
            assert!(written() == expected, "{compression} {jobs}");
        }
    }
}

/// Checks that a base's layers stay as they are.
#[test]
fn a_base_is_not_compressed_again() {
    let store = store();
    let base = format!("/nix/store/{}-base", "9".repeat(32));
    let spec = build(&store, "zstd", json!({"fromImage": base}));
    let compressions: Vec<_> =
        spec.layers.iter().map(|layer| layer.blob(Form::AsStored).media_type.compression).collect();
    let (gzip, zstd) = (Compression::Gzip, Compression::Zstd);
    assert_eq!(compressions[..3], [gzip, gzip, gzip]);
    assert!(compressions[3..].iter().all(|compression| *compression == zstd));
}

#[test]
fn a_digest_of_another_compressor_is_named() {
    let store = store();
    let spec = build(&store, "gzip", json!({}));
    let digest = spec.layers[0].compressed.unwrap().digest.to_string();
    let image = store.root().join("image.json");
    let text = fs::read_to_string(&image).unwrap();
    fs::write(&image, text.replace(&digest, &format!("sha256:{}", "0".repeat(64)))).unwrap();
    let verified = store.stowage(&["verify", "image.json"]).output().unwrap();
    assert_eq!(verified.status.code(), Some(1));
    let text = String::from_utf8(verified.stdout).unwrap();
    assert!(text.contains("compressed it is sha256:") && text.contains(&digest), "{text}");
}

/// Checks that compressed layers which the build kept are sent as they are and compared, and that
/// they are made again if they are gone.
#[test]
fn compressed_layers_may_be_kept() {
    let store = store();
    let root = store.store();
    let closure = Closure::read(&store.write("registration", &store.registration())).unwrap();
    for (digit, compression) in ["gzip", "zstd", "zstd:chunked"].into_iter().enumerate() {
        let plain = build(&store, compression, json!({}));
        let directory = PathBuf::from(format!("/nix/store/{}-kept", digit.to_string().repeat(32)));
        let options = json!({"compression": compression, "architecture": "amd64"});
        let options = serde_json::from_value(options).unwrap();
        let options = BuildOptions { keep_compressed: Some(directory.clone()), ..options };
        let spec = build_image(&root, closure.clone(), options, |_| ()).unwrap().made;
        assert_eq!(Image::new(&spec).manifest, Image::new(&plain).manifest);
        let expected: BTreeSet<_> = spec
            .layers
            .iter()
            .map(|layer| layer.blob(Form::AsStored).digest.digest().hex())
            .collect();
        let files = || fs::read_dir(root.locate(&directory)).unwrap().map(Result::unwrap);
        let names = files().map(|file| file.file_name().into_string().unwrap());
        assert_eq!(names.collect::<BTreeSet<_>>(), expected, "{compression}");
        for index in 0..spec.layers.len() {
            for form in [Form::AsStored, Form::Loadable] {
                assert!(blob(&store, &spec, index, form) == blob(&store, &plain, index, form));
            }
        }

        fs::write(store.root().join("image.json"), spec.to_json()).unwrap();
        let read = ImageSpec::read(&store.root().join("image.json")).unwrap();
        assert_eq!(read.layers, spec.layers);
        let verify = || store.stowage(&["verify", "image.json"]).output().unwrap();
        let copy = |name: &str| {
            let target = format!("oci:{compression}-{name}").replace(":chunked", "-chunked");
            store.stowage(&["copy", "image.json", &target]).output().unwrap()
        };
        assert!(verify().status.success() && copy("kept").status.success());
        // A file with other bytes is not sent.
        let changed =
            files().map(|file| file.path()).max_by_key(|file| file.metadata().unwrap().len());
        let changed = changed.unwrap();
        let mut bytes = fs::read(&changed).unwrap();
        bytes[100] ^= 1;
        fs::write(&changed, &bytes).unwrap();
        let copied = copy("changed");
        assert_eq!(copied.status.code(), Some(1));
        assert!(stderr(&copied).contains("is not what it was"), "{}", stderr(&copied));
        assert_eq!(verify().status.code(), Some(1), "{compression}");
        // Without the files, the layers are compressed again.
        fs::remove_dir_all(root.locate(&directory)).unwrap();
        let copied = copy("gone");
        assert!(copied.status.success() && verify().status.success(), "{}", stderr(&copied));
    }
}

/// An entry of a table of contents, as readers take it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Row {
    r#type: String,
    name: String,
    size: usize,
    digest: String,
    offset: usize,
    end_offset: usize,
    chunk_size: usize,
    chunk_offset: usize,
    chunk_digest: String,
    chunk_type: String,
}

fn unzstd(bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    Compression::Zstd.reader(bytes).unwrap().read_to_end(&mut unpacked).unwrap();
    unpacked
}

/// Returns the bodies of the files in a blob, read by the table of contents alone.
fn files(blob: &[u8], toc: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut toc: Value = serde_json::from_slice(toc).unwrap();
    assert_eq!(toc["version"], 1);
    let rows: Vec<Row> = serde_json::from_value(toc["entries"].take()).unwrap();
    let mut files = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        if row.r#type != "reg" || row.size == 0 {
            assert!(row.r#type == "chunk" || (row.digest.is_empty() && row.offset == 0));
            continue;
        }
        let chunks = rows[index + 1..].iter().take_while(|row| row.r#type == "chunk").count();
        let pieces = &rows[index..=index + chunks];
        let mut body = Vec::new();
        for (place, piece) in pieces.iter().enumerate() {
            assert_eq!((&piece.name, piece.chunk_offset), (&row.name, body.len()));
            let end = pieces.get(place + 1).map_or(row.end_offset, |next| next.offset);
            let bytes = unzstd(&blob[piece.offset..end]);
            if chunks == 0 {
                assert_eq!((bytes.len(), &*piece.chunk_digest), (row.size, ""));
            } else if piece.chunk_type == "zeros" {
                assert!(bytes == vec![0; piece.chunk_size]);
            } else {
                assert_eq!(Digest::of(&bytes).to_string(), piece.chunk_digest);
                assert_eq!(bytes.len(), piece.chunk_size);
            }
            body.extend_from_slice(&bytes);
        }
        assert_eq!(pieces[chunks].end_offset, row.end_offset, "{}", row.name);
        assert_eq!((Digest::of(&body).to_string(), body.len()), (row.digest.clone(), row.size));
        files.insert(row.name.clone(), body);
    }
    files
}

/// Makes the tar again from the tar-split and the bodies, as podman does to check a layer.
fn joined(tar_split: &[u8], files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut tar = Vec::new();
    for (index, line) in tar_split.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let line: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(line["position"], index);
        if line["type"] == 2 {
            tar.extend(STANDARD.decode(line["payload"].as_str().unwrap()).unwrap());
        } else if line.get("size").is_some() {
            let body = &files[line["name"].as_str().unwrap()];
            assert_eq!(line["size"], body.len());
            tar.extend_from_slice(body);
        }
    }
    tar
}

/// Checks that readers find all files by the annotations in the manifest, and the tar.
#[test]
fn a_chunked_layer_is_read_by_its_table() {
    let mut store = store();
    // Hashes in a file of several pieces, a hole, and names for PAX headers.
    store.add('3', "pieces", &[], |path| {
        fs::create_dir(path).unwrap();
        let mut big: Vec<u8> = (0..2_u64 << 20).map(|place| ((place * place) >> 9) as u8).collect();
        let hash = format!("/nix/store/{}-glibc", "0".repeat(32));
        for place in [50, 200_000, 900_000] {
            big[place..place + hash.len()].copy_from_slice(hash.as_bytes());
        }
        big[1_200_000..1_300_000].fill(0);
        fs::write(path.join("big"), &big).unwrap();
        fs::write(path.join("é".repeat(90)), "PAX").unwrap();
        fs::write(path.join("empty"), "").unwrap();
    });
    let spec = build(&store, "zstd:chunked", json!({}));
    let manifest: Value = serde_json::from_slice(&Image::new(&spec).manifest.bytes).unwrap();
    let mut with_table = 0;
    for (index, layer) in spec.layers.iter().enumerate() {
        let blob = blob(&store, &spec, index, Form::AsStored);
        let tar = unzstd(&blob);
        assert_eq!(Digest::of(&tar).to_string(), layer.diff_id.to_string());
        let annotations = &manifest["layers"][index]["annotations"];
        let prefix = "io.github.containers.zstd-chunked";
        let numbers = |key: &str| -> Vec<usize> {
            let text = annotations[format!("{prefix}.{key}")].as_str().unwrap();
            text.split(':').map(|number| number.parse().unwrap()).collect()
        };
        if annotations.is_null() {
            // `odd_tree` has names that JSON can't hold.
            assert!(layer.names().contains("tree"), "{}", layer.names());
            continue;
        }
        with_table += 1;
        let [offset, size, raw_size, 1] = numbers("manifest-position")[..] else { panic!() };
        let toc = &blob[offset..offset + size];
        let checksum = &annotations[format!("{prefix}.manifest-checksum")];
        assert_eq!(*checksum, Digest::of(toc).to_string());
        let toc = unzstd(toc);
        assert_eq!(toc.len(), raw_size);
        let [offset, size, raw_size] = numbers("tarsplit-position")[..] else { panic!() };
        let tar_split = &blob[offset..offset + size];
        let digest = Digest::of(tar_split).to_string();
        assert_eq!(serde_json::from_slice::<Value>(&toc).unwrap()["tarSplitDigest"], digest);
        let tar_split = unzstd(tar_split);
        assert_eq!(tar_split.len(), raw_size);
        assert!(joined(&tar_split, &files(&blob, &toc)) == tar);
    }
    assert!(with_table >= 2, "{with_table}");
    // Docker's own manifests have neither Zstandard nor annotations.
    let docker = ManifestFormat::DockerV2S2;
    let manifest = Image::in_form(&spec, docker.form(), docker).manifest.bytes;
    assert!(!String::from_utf8(manifest).unwrap().contains("annotations"));
}

/// Checks that layers of a base keep what says where their tables of contents are, and that a base
/// can't name bytes that its layers do not have.
#[test]
fn a_base_keeps_its_tables() {
    let store = store();
    let of_base = build(&store, "zstd:chunked", json!({}));
    let tables = |spec: &ImageSpec| -> Vec<Value> {
        let manifest: Value = serde_json::from_slice(&Image::new(spec).manifest.bytes).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["annotations"].clone()).collect()
    };
    let name = format!("{}-chunked-base", "8".repeat(32));
    let base = store.store().physical_dir().join(&name);
    let layout = format!("oci:{}:latest", base.display());
    let copied = store.stowage(&["copy", "image.json", &layout]).output().unwrap();
    assert!(copied.status.success(), "{}", stderr(&copied));
    let on_base = json!({"fromImage": format!("/nix/store/{name}"), "maxLayers": 30});
    let spec = build(&store, "none", on_base.clone());
    let expected = tables(&of_base);
    assert!(expected.iter().any(Value::is_object));
    assert_eq!(tables(&spec)[..expected.len()], expected);

    // The same manifest with places beyond the layers.
    let digest = Image::new(&of_base).manifest.digest.to_string().replace(':', "/");
    let mut manifest = fs::read_to_string(base.join("blobs").join(&digest)).unwrap();
    let key = "zstd-chunked.manifest-position\":\"";
    for (place, _) in manifest.clone().match_indices(key).collect::<Vec<_>>().into_iter().rev() {
        manifest.insert_str(place + key.len(), "9999999999");
    }
    let index = fs::read_to_string(base.join("index.json")).unwrap();
    let mut index: Value = serde_json::from_str(&index).unwrap();
    let wrong = Digest::of(manifest.as_bytes()).to_string();
    index["manifests"][0]["digest"] = json!(wrong);
    index["manifests"][0]["size"] = json!(manifest.len());
    fs::write(base.join("blobs").join(wrong.replace(':', "/")), &manifest).unwrap();
    fs::write(base.join("index.json"), index.to_string()).unwrap();
    let spec = build(&store, "none", on_base);
    assert!(tables(&spec)[..expected.len()].iter().all(Value::is_null));
}
