//! Makes images in every format that other tools use.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stowage::digest::Digest;

pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// An item of a layer's tar.
pub enum Item<'a> {
    Directory(&'a str, u32),
    Symlink(&'a str, &'a str),
    File(&'a str, &'a [u8]),
    /// A FIFO or a device.
    Special(&'a str, tar::EntryType),
}

use Item::{Directory, File, Special, Symlink};

pub fn layer(items: &[Item]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        match item {
            Directory(name, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                tar.append_data(&mut header, name, &[][..]).unwrap();
            }
            Special(name, kind) => {
                header.set_entry_type(*kind);
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
                tar.append_data(&mut header, name, &[][..]).unwrap();
            }
            Symlink(name, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, name, target).unwrap();
            }
            File(name, bytes) => {
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, name, *bytes).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

/// Makes a small distribution: three layers, of which the second hides a directory of the first.
pub fn distribution() -> Vec<Vec<u8>> {
    vec![
        layer(&[
            Directory("usr/bin/", 0o755),
            File("usr/bin/sh", b"shell"),
            Symlink("bin", "usr/bin"),
            Directory("tmp/", 0o1777),
            Directory("old/", 0o700),
        ]),
        layer(&[File(".wh.old", b""), File("etc/os-release", b"ID=test\n")]),
        layer(&[File("usr/bin/tool", &b"tool".repeat(1000))]),
    ]
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()
}

/// The files of a base image: layers that are compressed or not, and a configuration.
#[derive(Clone)]
pub struct BaseFiles {
    /// The blobs with their media types, from the bottom up.
    pub layers: Vec<(String, Vec<u8>)>,
    pub configuration: Value,
}

impl BaseFiles {
    /// Makes an image of tars, which `blob` compresses or leaves as they are.
    pub fn new(tars: &[Vec<u8>], blob: impl Fn(&[u8]) -> (String, Vec<u8>)) -> Self {
        let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
        let configuration = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/usr/bin", "LANG=C"], "Cmd": ["/bin/sh"], "Labels": {"base": "yes"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [
                {"created_by": "ADD rootfs"},
                {"created_by": "CMD", "empty_layer": true},
                {"created_by": "RUN a"},
                {"created_by": "RUN b"},
            ],
        });
        Self { layers: tars.iter().map(|tar| blob(tar)).collect(), configuration }
    }

    pub fn plain() -> Self {
        Self::new(&distribution(), |tar| (OCI_LAYER.to_owned(), tar.to_vec()))
    }

    pub fn gzipped() -> Self {
        Self::new(&distribution(), |tar| (format!("{OCI_LAYER}+gzip"), gzip(tar)))
    }

    pub fn config_bytes(&self) -> Vec<u8> {
        self.configuration.to_string().into_bytes()
    }

    pub fn manifest(&self) -> Value {
        let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
        let layers = self.layers.iter().map(|(media_type, bytes)| descriptor(media_type, bytes));
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &self.config_bytes()),
            "layers": layers.collect::<Vec<_>>(),
        })
    }

    /// Returns the files of an OCI layout, with an `index.json` for this image and `others`.
    pub fn layout(&self, others: &[&BaseFiles]) -> Vec<(String, Vec<u8>)> {
        let mut files =
            vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let mut manifests = Vec::new();
        for image in std::iter::once(&self).chain(others) {
            let manifest = image.manifest().to_string().into_bytes();
            manifests.push(json!({
                "mediaType": OCI_MANIFEST,
                "digest": Digest::of(&manifest).to_string(),
                "size": manifest.len(),
                "platform": {"os": image.configuration["os"], "architecture": image.configuration["architecture"]},
            }));
            let blobs = image.layers.iter().map(|(_, blob)| blob.clone());
            for bytes in blobs.chain([manifest, image.config_bytes()]) {
                files.push((format!("blobs/sha256/{}", hex(&bytes)), bytes));
            }
        }
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files
    }

    /// Returns the files of a docker-archive, with the names of `docker save` before version 25.
    pub fn docker(&self) -> Vec<(String, Vec<u8>)> {
        let config = format!("{}.json", hex(&self.config_bytes()));
        let name = |number| format!("layer-{number}/layer.tar");
        let names: Vec<_> = (0..self.layers.len()).map(name).collect();
        let manifest = json!([{"Config": config, "RepoTags": ["base:v1"], "Layers": names}]);
        let mut files: Vec<_> =
            names.into_iter().zip(self.layers.iter().map(|(_, blob)| blob.clone())).collect();
        files.push((config, self.config_bytes()));
        files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        files
    }

    /// Returns the files of a directory that `skopeo copy … dir:` writes.
    pub fn directory(&self) -> Vec<(String, Vec<u8>)> {
        let blobs = self.layers.iter().map(|(_, blob)| blob.clone());
        let blobs = blobs.chain([self.config_bytes()]).map(|blob| (hex(&blob), blob));
        let mut files: Vec<_> = blobs.collect();
        files.push(("manifest.json".to_owned(), self.manifest().to_string().into_bytes()));
        files.push(("version".to_owned(), b"Directory Transport Version: 1.1\n".to_vec()));
        files
    }
}

/// Packs files into an archive.
pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<_> = files.iter().map(|(name, bytes)| File(name, bytes)).collect();
    layer(&items)
}

/// Writes files into a directory.
pub fn write_files(directory: &Path, files: &[(String, Vec<u8>)]) -> PathBuf {
    for (name, bytes) in files {
        let file = directory.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
    directory.to_owned()
}
