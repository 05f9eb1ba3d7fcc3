//! An image as one stream, for `docker load`, `podman load` and skopeo.
//! Stage: transport. Input: [`ImageSpec`]. Output: a tar.
//!
//! The stream is two formats at once: an OCI image layout (image-layout.md), and a
//! docker-archive whose `manifest.json` names the same blobs, which is what
//! `docker save` itself writes since version 25. Every Docker, old or with the
//! containerd store, podman and skopeo take it.
//!
//! What names the blobs comes last: a stream that broke off on the way is no image
//! to any reader.

use std::io::{self, Write};

use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::Error;
use super::checked_layer::write_checked_layer;
use super::reference::ImageReference;
use crate::digest::BlobDigest;
use crate::oci::{Form, Image, ImageSpec, LayerBlob, ManifestFormat, SpecLayer};
use crate::store::Store;

/// Both formats of the stream name the same blobs, so these are what both take.
const FORM: Form = Form::Loadable;

/// What goes into a stream.
pub struct Archive<'a> {
    /// Where the layers are made of.
    pub store: &'a Store,
    /// The image.
    pub spec: &'a ImageSpec,
    /// The names it is loaded under; none leaves it with its ID alone.
    pub references: &'a [ImageReference],
    /// How many layers, from the bottom up, are left out since the receiver has them.
    /// They are named all the same.
    pub skip: usize,
}

/// What a stream held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Layers in the stream.
    pub layers: usize,
    /// Bytes of the whole stream.
    pub bytes: u64,
}

/// Streams an image in one pass. Every layer is made as it is written, and checked
/// against the spec.
///
/// # Errors
/// [`Error::LayerChanged`] if a layer is not what it was; the stream ends before any
/// reader could take it for an image. [`Error::Write`] if `out` fails.
pub fn write_archive(archive: &Archive, out: impl Write) -> Result<Written, Error> {
    let Archive { store, spec, references, skip } = archive;
    let image = Image::in_form(spec, FORM, ManifestFormat::Oci);
    let mut tar = ArchiveWriter { out, bytes: 0 };
    tar.directory("blobs/")?;
    tar.directory("blobs/sha256/")?;
    tar.file(&blob_path(&image.config.digest), &image.config.bytes)?;
    tar.file(&blob_path(&image.manifest.digest), &image.manifest.bytes)?;
    let mut seen = Vec::new();
    for (index, layer) in spec.layers.iter().enumerate().skip(*skip) {
        let LayerBlob { digest: blob, size, .. } = layer.blob(FORM);
        // An archive holds a path once, though an image may hold a layer twice.
        if seen.contains(&blob) {
            continue;
        }
        seen.push(blob);
        tar.header(&blob_path(&blob), EntryType::Regular, size)?;
        write_checked_layer(store, spec, index, FORM, &mut tar)?;
        tar.pad(size)?;
    }
    tar.json("index.json", &index(&image, references))?;
    tar.json("manifest.json", &docker_manifest(spec, &image, references))?;
    tar.json("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
    tar.end()?;
    Ok(Written { layers: seen.len(), bytes: tar.bytes })
}

fn blob_path(digest: &BlobDigest) -> String {
    format!("blobs/sha256/{}", digest.digest().hex())
}

/// `index.json` (image-spec, image-layout.md), with the annotations by which
/// containerd and skopeo find an image's name.
fn index(image: &Image, references: &[ImageReference]) -> Value {
    let descriptor = serde_json::to_value(image.descriptor()).expect("a descriptor is JSON");
    let named = references.iter().map(|reference| {
        let mut descriptor = descriptor.clone();
        descriptor["annotations"] = json!({
            "io.containerd.image.name": reference.whole(),
            "org.opencontainers.image.ref.name": reference.tag(),
        });
        descriptor
    });
    let mut manifests: Vec<_> = named.collect();
    if manifests.is_empty() {
        manifests.push(descriptor);
    }
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    })
}

/// `manifest.json` (moby, `image/tarexport`, and image/spec/v1.2.md there).
fn docker_manifest(spec: &ImageSpec, image: &Image, references: &[ImageReference]) -> Value {
    let layer = |layer: &SpecLayer| blob_path(&layer.blob(FORM).digest);
    json!([{
        "Config": blob_path(&image.config.digest),
        "RepoTags": references.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "Layers": spec.layers.iter().map(layer).collect::<Vec<_>>(),
    }])
}

/// The outer tar, and a count of its bytes.
struct ArchiveWriter<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for ArchiveWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> ArchiveWriter<W> {
    fn header(&mut self, path: &str, kind: EntryType, size: u64) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        // GNU's form, for layers over 8 GiB: it writes their size in binary.
        header.set_path(path).map_err(Error::Write)?;
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(size);
        header.set_cksum();
        self.write_all(header.as_bytes()).map_err(Error::Write)
    }

    fn directory(&mut self, path: &str) -> Result<(), Error> {
        self.header(path, EntryType::Directory, 0)
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.header(path, EntryType::Regular, bytes.len() as u64)?;
        self.write_all(bytes).map_err(Error::Write)?;
        self.pad(bytes.len() as u64)
    }

    fn json(&mut self, path: &str, value: &Value) -> Result<(), Error> {
        self.file(path, &serde_json::to_vec(value).expect("a value is JSON"))
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let padding = (512 - size % 512) % 512;
        self.write_all(&[0; 512][..padding as usize]).map_err(Error::Write)
    }

    fn end(&mut self) -> Result<(), Error> {
        self.write_all(&[0; 1024]).and_then(|()| self.flush()).map_err(Error::Write)
    }
}
