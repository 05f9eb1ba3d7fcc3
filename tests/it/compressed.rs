use std::fs;
use std::io::Read;

use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::oci::{Compression, Form, Image, ImageSpec};

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
    for (name, compression) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
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
    build(&store, "gzip", json!({}));
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
        assert!(written() == expected, "{jobs}");
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
