use std::error::Error as _;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;
use stowage::digest::Digest;
use stowage::image_path::ImagePath;
use stowage::oci::Architecture;
use stowage::oci::base::{BaseImage, Error, read_base};
use stowage::store::Store;

use crate::base_image::{
    BaseFiles, DOCKER_LAYER, Item, OCI_LAYER, archive, distribution, gzip, hex, layer, write_files,
    zstd,
};

fn architecture(name: &str) -> Architecture {
    serde_json::from_value(json!(name)).unwrap()
}

fn read(path: &Path) -> Result<BaseImage, Error> {
    read_base(&Store::default(), path, &architecture("amd64"))
}

/// Returns the message on one line, as the program prints it.
fn message(error: &Error, path: &Path) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text.replace(&path.display().to_string(), "FILE")
}

/// Writes an image in one format, and returns its path.
type Write = fn(&Path, &BaseFiles) -> PathBuf;

fn file(directory: &Path, bytes: &[u8]) -> PathBuf {
    let file = directory.join("file");
    fs::write(&file, bytes).unwrap();
    file
}

const FORMATS: [(&str, Write); 12] = [
    ("docker-archive", |at, image| file(at, &archive(&image.docker()))),
    ("docker-archive.gz", |at, image| file(at, &gzip(&archive(&image.docker())))),
    ("docker-archive.zst", |at, image| file(at, &zstd(&archive(&image.docker())))),
    ("docker-archive, unpacked", |at, image| write_files(at, &image.docker())),
    ("oci-archive", |at, image| file(at, &archive(&image.layout(&[])))),
    ("oci-archive.gz", |at, image| file(at, &gzip(&archive(&image.layout(&[]))))),
    ("oci-archive.zst", |at, image| file(at, &zstd(&archive(&image.layout(&[]))))),
    ("OCI layout", |at, image| write_files(at, &image.layout(&[]))),
    ("both in one archive", |at, image| {
        file(at, &archive(&[image.docker(), image.layout(&[])].concat()))
    }),
    ("dir:", |at, image| write_files(at, &image.directory())),
    ("dir: in an archive", |at, image| file(at, &archive(&image.directory()))),
    ("manifest and links to blobs", |at, image| {
        let directory = at.join("links");
        fs::create_dir_all(directory.join("blobs")).unwrap();
        for (name, bytes) in image.directory() {
            if name == "manifest.json" {
                fs::write(directory.join(name), bytes).unwrap();
            } else {
                fs::write(directory.join("blobs").join(&name), bytes).unwrap();
                symlink(format!("blobs/{name}"), directory.join(name)).unwrap();
            }
        }
        directory
    }),
];

fn in_image(path: &str) -> ImagePath {
    ImagePath::parse(path.as_bytes()).unwrap()
}

#[test]
fn every_format_and_compression_is_the_same_image() {
    let tars = distribution();
    type Blob = fn(&[u8]) -> (String, Vec<u8>);
    let compressions: [(&str, Blob); 4] = [
        ("plain", |tar| (OCI_LAYER.to_owned(), tar.to_vec())),
        ("gzip", |tar| (format!("{OCI_LAYER}+gzip"), gzip(tar))),
        ("zstd", |tar| (format!("{OCI_LAYER}+zstd"), zstd(tar))),
        // skopeo gives such names to what it copies from a docker-archive.
        ("misnamed", |tar| (format!("{DOCKER_LAYER}.gzip"), tar.to_vec())),
    ];
    for (format, write) in FORMATS {
        for (compression, blob) in compressions {
            let what = format!("{format}, {compression}");
            let directory = tempfile::tempdir().unwrap();
            let image = BaseFiles::new(&tars, blob);
            let path = write(directory.path(), &image);
            let base =
                read(&path).unwrap_or_else(|error| panic!("{what}: {}", message(&error, &path)));

            assert_eq!(base.configuration, image.configuration, "{what}");
            assert_eq!(
                serde_json::to_value(&base.history).unwrap(),
                image.configuration["history"]
            );
            assert_eq!(base.layers.len(), 3, "{what}");
            for (layer, (tar, (media_type, bytes))) in
                base.layers.iter().zip(tars.iter().zip(&image.layers))
            {
                assert_eq!(layer.diff_id.digest(), &Digest::of(tar), "{what}");
                assert_eq!(layer.size, tar.len() as u64, "{what}");
                assert_eq!(layer.stored().unwrap().digest.digest(), &Digest::of(bytes), "{what}");
                let mut stored = Vec::new();
                layer
                    .stored()
                    .unwrap()
                    .open(&Store::default())
                    .unwrap()
                    .read_to_end(&mut stored)
                    .unwrap();
                assert!(stored == *bytes, "{what}: layers pass through byte for byte");
                let mut plain = Vec::new();
                let mut reader =
                    layer.stored().unwrap().open_uncompressed(&Store::default()).unwrap();
                reader.read_to_end(&mut plain).unwrap();
                assert!(plain == *tar, "{what}");
                let named = layer.stored().unwrap().media_type.to_string();
                match compression {
                    "misnamed" if format.starts_with("docker") => assert_eq!(named, OCI_LAYER),
                    "misnamed" => assert_eq!(named, DOCKER_LAYER),
                    _ => assert_eq!(&named, media_type, "{what}"),
                }
            }
            assert_eq!(base.tree.resolve(&in_image("bin")).unwrap(), in_image("usr/bin"), "{what}");
            assert_eq!(base.tree.attributes(&in_image("tmp")).unwrap().mode, 0o1777, "{what}");
            assert_eq!(base.tree.attributes(&in_image("old")), None, "{what}");
        }
    }
}

/// Checks that a blob's recorded place is the file that a link leads to.
#[test]
fn blobs_are_files_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let image = BaseFiles::gzipped();
    let (_, links) = FORMATS[11];
    let base = read(&links(directory.path(), &image)).unwrap();
    let blob = base.layers[0].stored().unwrap();
    assert_eq!(blob.file, directory.path().join("links/blobs").join(hex(&image.layers[0].1)));
    assert_eq!((blob.offset, blob.size), (0, image.layers[0].1.len() as u64));
}

/// Checks archives of docker and skopeo, in which a layer that an image has twice is a link the
/// second time.
#[test]
fn a_layer_may_be_there_twice() {
    let tar = layer(&[Item::File("a", b"a")]);
    let mut image =
        BaseFiles::new(&[tar.clone(), tar.clone()], |tar| (OCI_LAYER.to_owned(), tar.to_vec()));
    image.configuration["history"] = json!(null);
    let config = image.config_bytes();
    let manifest =
        json!([{"Config": "c.json", "RepoTags": null, "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    let bytes = layer(&[
        Item::File("1/layer.tar", &tar),
        Item::Symlink("2/layer.tar", "../1/layer.tar"),
        Item::File("c.json", &config),
        Item::File("manifest.json", manifest.to_string().as_bytes()),
    ]);
    for bytes in [bytes.clone(), gzip(&bytes)] {
        let directory = tempfile::tempdir().unwrap();
        let base = read(&file(directory.path(), &bytes)).unwrap();
        assert_eq!(base.layers[0], base.layers[1]);
        assert_eq!(base.history.len(), 2);
    }
}

#[test]
fn the_platform_chooses() {
    let amd64 = BaseFiles::gzipped();
    let mut arm64 =
        BaseFiles::new(&distribution()[..1], |tar| (OCI_LAYER.to_owned(), tar.to_vec()));
    arm64.configuration["architecture"] = json!("arm64");
    let directory = tempfile::tempdir().unwrap();
    let path = write_files(directory.path(), &amd64.layout(&[&arm64]));
    let base = |name| {
        read_base(&Store::default(), &path, &architecture(name)).map(|base| base.layers.len())
    };
    assert_eq!(base("amd64").unwrap(), 3);
    assert_eq!(base("arm64").unwrap(), 1);
    let error = base("riscv64").unwrap_err();
    assert_eq!(
        message(&error, &path),
        "base image FILE: is for linux/amd64, linux/arm64, not for linux/riscv64"
    );
    // Write an index within the index, without a platform, as skopeo keeps it.
    let inner = fs::read(path.join("index.json")).unwrap();
    fs::write(path.join("blobs/sha256").join(hex(&inner)), &inner).unwrap();
    let outer = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": Digest::of(&inner).to_string(), "size": inner.len(),
    }]});
    fs::write(path.join("index.json"), outer.to_string()).unwrap();
    assert_eq!(base("arm64").unwrap(), 1);
}

/// Writes a layout whose index has further entries; an entry with bytes has them as a blob.
fn layout_with(at: &Path, others: Vec<(serde_json::Value, Option<Vec<u8>>)>) -> PathBuf {
    let path = write_files(at, &BaseFiles::gzipped().layout(&[]));
    let index = fs::read(path.join("index.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let image = index["manifests"][0].as_object_mut().unwrap();
    // Other tools than BuildKit write the entry in this way.
    image.remove("platform");
    image.insert("annotations".into(), json!({"org.opencontainers.image.ref.name": "v1"}));
    for (mut entry, bytes) in others {
        if let Some(bytes) = bytes {
            entry["digest"] = json!(Digest::of(&bytes).to_string());
            entry["size"] = json!(bytes.len());
            fs::write(path.join("blobs/sha256").join(hex(&bytes)), bytes).unwrap();
        }
        index["manifests"].as_array_mut().unwrap().insert(0, entry);
    }
    fs::write(path.join("index.json"), index.to_string()).unwrap();
    path
}

/// Checks that data about an image beside it, as `oras attach`, `cosign` and BuildKit write it, is
/// not taken for an image.
#[test]
fn what_is_no_image_is_passed_over() {
    let zeros = format!("sha256:{}", "0".repeat(64));
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let empty =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": zeros, "size": 2});
    let config = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": zeros, "size": 2,
    });
    let subject = json!({"mediaType": manifest, "digest": zeros, "size": 2});
    let document = |value: serde_json::Value| Some(value.to_string().into_bytes());
    let packages = json!({
        "schemaVersion": 2, "mediaType": manifest, "artifactType": "application/spdx+json",
        "config": empty, "layers": [empty], "subject": subject,
    });
    let nested = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": manifest, "digest": zeros, "size": 1, "artifactType": "application/spdx+json"},
    ]});
    for (what, entry, bytes) in [
        ("packages", json!({"mediaType": manifest}), document(packages.clone())),
        (
            "packages that are not there",
            json!({
                "mediaType": manifest, "digest": zeros, "size": 1,
                "artifactType": "application/spdx+json",
            }),
            None,
        ),
        (
            "a signature with an image's configuration",
            json!({"mediaType": manifest}),
            document(json!({
                "schemaVersion": 2, "config": config, "layers": [], "subject": subject,
            })),
        ),
        (
            "an attestation",
            json!({
                "mediaType": manifest, "digest": zeros, "size": 1,
                "platform": {"os": "unknown", "architecture": "unknown"},
            }),
            None,
        ),
        (
            "an index of referrers",
            json!({"mediaType": "application/vnd.oci.image.index.v1+json"}),
            document(nested),
        ),
        (
            "another document",
            json!({"mediaType": "application/vnd.example+json", "digest": zeros, "size": 1}),
            None,
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = layout_with(directory.path(), vec![(entry, bytes)]);
        let base = read(&path).unwrap_or_else(|error| panic!("{what}: {}", message(&error, &path)));
        assert_eq!(base.layers.len(), 3, "{what}");
    }
    // If there is no image beside it, the error names it.
    let directory = tempfile::tempdir().unwrap();
    let entry = (json!({"mediaType": manifest}), document(packages));
    let path = layout_with(directory.path(), vec![entry]);
    let index = fs::read(path.join("index.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    index["manifests"].as_array_mut().unwrap().truncate(1);
    fs::write(path.join("index.json"), index.to_string()).unwrap();
    let text = message(&read(&path).unwrap_err(), &path);
    assert!(text.contains("its configuration is of the type `application/vnd.oci.empty"), "{text}");
}

#[test]
fn one_of_several_images_is_chosen_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = BaseFiles::plain();
    other.configuration["author"] = json!("other");
    let named = |path: &Path| {
        let index = fs::read(path.join("index.json")).unwrap();
        let mut index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        for (entry, name) in index["manifests"].as_array_mut().unwrap().iter_mut().zip(["v1", "v2"])
        {
            entry["annotations"] = json!({
                "org.opencontainers.image.ref.name": name,
                "io.containerd.image.name": format!("docker.io/library/base:{name}"),
            });
        }
        fs::write(path.join("index.json"), index.to_string()).unwrap();
    };
    let path = write_files(directory.path(), &BaseFiles::gzipped().layout(&[&other]));
    named(&path);
    let read = |name: String| read(Path::new(&name));
    let at = path.display();
    for (name, author) in [
        (format!("oci:{at}:v2"), Some("other")),
        (format!("oci:{at}:v1"), None),
        (format!("oci:{at}:base:v2"), Some("other")),
        (format!("oci:{at}:docker.io/library/base:v2"), Some("other")),
    ] {
        let base = read(name.clone()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(base.configuration["author"].as_str(), author, "{name}");
    }
    for (name, expected) in [
        (format!("oci:{at}:v3"), "has no image `v3`: it has `docker.io/library/base:v1`, "),
        (format!("oci:{at}"), "holds 2 images for linux/amd64: which one is meant?"),
        (at.to_string(), "holds 2 images for linux/amd64: which one is meant?"),
    ] {
        let text = message(&read(name).unwrap_err(), &path);
        assert!(text.contains(expected), "{text}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("base.tar");
    fs::write(&file, archive(&BaseFiles::plain().docker())).unwrap();
    let at = file.display();
    assert!(read(format!("docker-archive:{at}:base:v1")).is_ok());
    assert!(read(format!("docker-archive:{at}:docker.io/library/base:v1")).is_ok());
    let text = message(&read(format!("docker-archive:{at}:base:v2")).unwrap_err(), &file);
    assert!(text.contains("has no image `base:v2`: it has `base:v1`"), "{text}");
}

/// Checks that a directory can only name its own files and files of the store.
#[test]
fn a_directory_does_not_lead_out() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("base");
    let image = BaseFiles::plain();
    for (name, expected) in [
        (
            "../outside/layer.tar",
            "`../outside/layer.tar` is not in the image's directory, but leads out of it",
        ),
        ("/etc/passwd", "`/etc/passwd` is not in the image's directory, but leads out of it"),
        ("link.tar", "`link.tar` is not in the image's directory, but leads out of it"),
        ("sub/layer.tar", "`sub/layer.tar` is not in the image's directory, but leads out of it"),
    ] {
        let _ = fs::remove_dir_all(&at);
        fs::create_dir_all(&at).unwrap();
        fs::create_dir_all(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/layer.tar"), &image.layers[0].1).unwrap();
        std::os::unix::fs::symlink("../outside/layer.tar", at.join("link.tar")).unwrap();
        std::os::unix::fs::symlink("../outside", at.join("sub")).unwrap();
        let mut configuration = image.configuration.clone();
        configuration["rootfs"]["diff_ids"].as_array_mut().unwrap().truncate(1);
        fs::write(at.join("config.json"), configuration.to_string()).unwrap();
        let manifest = serde_json::json!([{"Config": "config.json", "Layers": [name]}]);
        fs::write(at.join("manifest.json"), manifest.to_string()).unwrap();
        assert!(message(&read(&at).unwrap_err(), &at).contains(expected), "{name}");
    }
    // A directory that Nix made may consist of links to other store paths.
    let store = Store::below(directory.path());
    let [links, blobs] =
        ["links", "blobs"].map(|name| format!("/nix/store/{}-{name}", "1".repeat(32)));
    for path in [&links, &blobs] {
        fs::create_dir_all(store.locate(Path::new(path))).unwrap();
    }
    for (name, bytes) in image.directory() {
        fs::write(store.locate(Path::new(&format!("{blobs}/{name}"))), bytes).unwrap();
        let link = store.locate(Path::new(&format!("{links}/{name}")));
        std::os::unix::fs::symlink(format!("{blobs}/{name}"), link).unwrap();
    }
    let base = read_base(&store, Path::new(&links), &architecture("amd64")).unwrap();
    assert!(base.layers[0].stored().unwrap().file.starts_with(&blobs));
}

/// Checks that errors are on one line, which names the file and the layer.
#[test]
fn damage_is_named() {
    let image = BaseFiles::gzipped;
    let blob = |number: usize| hex(&image().layers[number].1);
    let sha = |number: usize| format!("sha256:{}", blob(number));
    type Case = (&'static str, Box<dyn Fn(&Path) -> PathBuf>, String);
    let with = |change: fn(&mut BaseFiles)| {
        let mut image = BaseFiles::gzipped();
        change(&mut image);
        image
    };
    let layout = |image: BaseFiles| -> Box<dyn Fn(&Path) -> PathBuf> {
        Box::new(move |at| write_files(at, &image.layout(&[])))
    };
    let in_directory = |change: fn(&Path, &str)| -> Box<dyn Fn(&Path) -> PathBuf> {
        Box::new(move |at| {
            let path = write_files(at, &BaseFiles::gzipped().directory());
            change(&path, &hex(&BaseFiles::gzipped().layers[1].1));
            path
        })
    };
    let bytes =
        |bytes: Vec<u8>| -> Box<dyn Fn(&Path) -> PathBuf> { Box::new(move |at| file(at, &bytes)) };
    let docker = archive(&BaseFiles::plain().docker());
    let cases: Vec<Case> = vec![
        (
            "a missing file",
            Box::new(|at| at.join("none")),
            "base image FILE: cannot read FILE: No such file or directory (os error 2)".to_owned(),
        ),
        ("an empty file", bytes(vec![]), "base image FILE: is no image: the file is empty".to_owned()),
        (
            "an empty directory",
            Box::new(Path::to_owned),
            "base image FILE: is no image: there is neither `index.json` nor `manifest.json` in it".to_owned(),
        ),
        ("text", bytes(b"hello".repeat(1000)), "base image FILE: is no image: it is no tar archive".to_owned()),
        ("a script", bytes(b"#!/bin/sh\n".to_vec()), "base image FILE: is no image: it is a script; its output may be one".to_owned()),
        ("xz", bytes(b"\xfd7zXZ\0....".to_vec()), "base image FILE: is no image: xz is not supported".to_owned()),
        ("compressed text", bytes(gzip(&b"hello".repeat(1000))), "base image FILE: is no image: it holds no tar archive".to_owned()),
        (
            "another archive",
            bytes(layer(&[Item::File("a", b"a")])),
            "base image FILE: is no image: there is neither `index.json` nor `manifest.json` in it".to_owned(),
        ),
        (
            "cut in a layer",
            bytes(docker[..2000].to_vec()),
            "base image FILE: is cut short: `layer-0/layer.tar` ends at byte 4608, the file at byte 2000".to_owned(),
        ),
        (
            "cut in a header",
            bytes(docker[..4700].to_vec()),
            "base image FILE: is cut short: the archive has no end".to_owned(),
        ),
        (
            "compressed and cut",
            bytes(gzip(&docker)[..200].to_vec()),
            "base image FILE: is cut short: the archive has no end".to_owned(),
        ),
        (
            "compressed and cut at the very end",
            bytes({
                let mut bytes = gzip(&docker);
                bytes.truncate(bytes.len() - 4);
                bytes
            }),
            "base image FILE: is cut short: the archive has no end".to_owned(),
        ),
        (
            "a missing blob",
            in_directory(|path, blob| fs::remove_file(path.join(blob)).unwrap()),
            format!("base image FILE: layer 2 of 3: `{}` is missing", blob(1)),
        ),
        (
            "a blob cut short",
            in_directory(|path, blob| {
                let file = fs::File::options().write(true).open(path.join(blob)).unwrap();
                file.set_len(100).unwrap();
            }),
            "base image FILE: layer 2 of 3: is cut short: it is not a complete tar archive in a gzip stream".to_owned(),
        ),
        (
            "another blob",
            in_directory(|path, blob| fs::write(path.join(blob), gzip(&layer(&[]))).unwrap()),
            format!(
                "base image FILE: layer 2 of 3: the blob has {} bytes, but the image manifest says {} bytes",
                gzip(&layer(&[])).len(),
                image().layers[1].1.len()
            ),
        ),
        (
            "another blob of the same size",
            in_directory(|path, blob| {
                let mut bytes = fs::read(path.join(blob)).unwrap();
                bytes[9] ^= 1; // which system compressed it
                fs::write(path.join(blob), bytes).unwrap();
            }),
            {
                let mut bytes = image().layers[1].1.clone();
                bytes[9] ^= 1;
                format!(
                    "base image FILE: layer 2 of 3: the blob has sha256:{}, but the image manifest says {}",
                    hex(&bytes),
                    sha(1)
                )
            },
        ),
        (
            "a wrong diff ID",
            layout(with(|image| {
                image.configuration["rootfs"]["diff_ids"][2] = json!(Digest::of(b"").to_string());
            })),
            format!(
                "base image FILE: layer 3 of 3: the uncompressed layer has {}, but the image configuration says {}",
                Digest::of(&distribution()[2]),
                Digest::of(b"")
            ),
        ),
        (
            "a diff ID too few",
            layout(with(|image| drop(image.configuration["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()))),
            "base image FILE: the manifest has 3 layers, but the configuration says 2 diff IDs".to_owned(),
        ),
        (
            "a layer elsewhere",
            layout(with(|image| image.layers[0].0 = format!("{}+gzip", OCI_LAYER.replace("layer", "layer.nondistributable")))),
            "base image FILE: layer 1 of 3: is not distributed with the image (`application/vnd.oci.image.layer.nondistributable.v1.tar+gzip`)".to_owned(),
        ),
        (
            "an encrypted layer",
            layout(with(|image| image.layers[2].0 += "+encrypted")),
            "base image FILE: layer 3 of 3: is encrypted (`application/vnd.oci.image.layer.v1.tar+gzip+encrypted`)".to_owned(),
        ),
        (
            "another kind of layer",
            layout(with(|image| image.layers[1].0 = "application/vnd.erofs".to_owned())),
            "base image FILE: layer 2 of 3: has the unknown media type `application/vnd.erofs`".to_owned(),
        ),
        (
            "a layer that is no tar",
            Box::new(|at| {
                let image = BaseFiles::new(&[vec![b'x'; 2000]], |tar| (format!("{OCI_LAYER}+gzip"), gzip(tar)));
                write_files(at, &image.directory())
            }),
            "base image FILE: layer 1 of 1: is not a complete tar archive in a gzip stream: it has no tar header at byte 0".to_owned(),
        ),
        (
            "another architecture",
            bytes(archive(&with(|image| image.configuration["architecture"] = json!("arm64")).docker())),
            "base image FILE: is for linux/arm64, not for linux/amd64".to_owned(),
        ),
        (
            "another system",
            Box::new(|at| {
                let mut image = BaseFiles::gzipped();
                image.configuration["os"] = json!("windows");
                write_files(at, &image.directory())
            }),
            "base image FILE: is for windows/amd64, not for linux/amd64".to_owned(),
        ),
        (
            "two images in a docker-archive",
            Box::new(|at| {
                let path = write_files(at, &BaseFiles::plain().docker());
                let two = json!([{"Config": "a"}, {"Config": "b"}]);
                fs::write(path.join("manifest.json"), two.to_string()).unwrap();
                path
            }),
            "base image FILE: holds 2 images: which one is meant?".to_owned(),
        ),
        (
            "an altered configuration",
            Box::new(|at| {
                let path = write_files(at, &BaseFiles::gzipped().directory());
                fs::write(path.join(hex(&BaseFiles::gzipped().config_bytes())), "{}").unwrap();
                path
            }),
            format!(
                "base image FILE: `{0}` has {1}, but the image manifest says sha256:{0}",
                hex(&image().config_bytes()),
                Digest::of(b"{}")
            ),
        ),
    ];
    for (name, write, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = write(directory.path());
        let error = read(&path).expect_err(name);
        assert_eq!(message(&error, &path), expected, "{name}");
    }
}
