//! Streams an image for `docker load`, `podman load` and skopeo.
//! Stage: target. Input: [`ImageSpec`]. Output: a tar.
//!
//! The stream has two formats at once: an OCI image layout (image-layout.md), and a docker-archive
//! whose `manifest.json` names the same blobs. `docker save` itself writes such a stream since
//! version 25. All versions of Docker, with the classic store or containerd's, podman and skopeo
//! read it.
//!
//! The files that name the blobs come last: no reader takes an incomplete stream for an image.

use std::path::Path;

use serde_json::json;

use super::file::write_archive_file;
use super::writer::{ArchiveWriter, Layers, Written};
use crate::oci::{Documents, Form, Image, ImageSpec, ManifestFormat, SpecLayer};
use crate::outgoing::{self, CheckedBy, Copied, ImageReference, RefName, Watch};
use crate::sink::{Plain, Sink};
use crate::store::Store;
use crate::target::error::ArchiveError;
use crate::target::image_layout::{INDEX, Index, OCI_LAYOUT, blob_path, descriptor, oci_layout};

/// An image and the way it is streamed.
pub struct Archive<'a> {
    /// The store that layers are made from.
    pub store: &'a Store,
    /// The image.
    pub spec: &'a ImageSpec,
    /// The form of the layers: [`Archive::FORM`], unless the reader is known to take others.
    pub form: Form,
    /// The names under which the image is loaded; with none, it only has its ID.
    pub references: &'a [ImageReference],
    /// The number of layers, from the bottom up, that are left out since the receiver has them.
    /// The manifest names them nevertheless.
    pub skip: usize,
    /// The side that checks the layers.
    pub checked_by: CheckedBy,
    /// The watcher of the copy.
    pub watch: &'a dyn Watch,
}

impl Archive<'_> {
    /// The form of layers that every reader of the stream takes. Both of the stream's formats name
    /// the same blobs.
    pub const FORM: Form = Form::Loadable;
}

/// Streams an image in one pass. Makes every layer for the stream, and checks it against the spec.
///
/// # Errors
/// Fails with [`LayerChanged`](outgoing::Error::LayerChanged) if a layer differs from what was
/// built, and with [`Write`](outgoing::Error::Write) if `out` fails. The stream then ends before
/// any reader could take it for an image.
pub fn write_archive(archive: &Archive, out: impl Sink) -> Result<Written, outgoing::Error> {
    let Archive { store, spec, form, references, skip, checked_by, watch } = *archive;
    watch.expect(spec.layers[skip..].iter().map(|layer| layer.blob(form).size).sum());
    let image = Image::in_form(spec, form, ManifestFormat::Oci);
    let documents = Documents::from(image.clone());
    let mut tar = ArchiveWriter::new(out);
    let layers = Layers { store, form, skip, checked_by, watch };
    let layers = tar.blobs([spec], &documents, &layers)?;
    tar.file(INDEX, &index(&image, references).to_json())?;
    tar.file("manifest.json", &docker_manifest(archive, &image))?;
    tar.file(OCI_LAYOUT, &oci_layout())?;
    Ok(Written { layers, bytes: tar.end()? })
}

/// Builds `index.json`, with the annotations by which containerd and skopeo find an image's name.
fn index(image: &Image, references: &[ImageReference]) -> Index {
    let named = references.iter().map(|reference| {
        let annotations = [
            ("io.containerd.image.name", &*reference.whole()),
            (RefName::ANNOTATION, reference.tag()),
        ];
        descriptor(image.descriptor(), &annotations)
    });
    let mut manifests: Vec<_> = named.collect();
    if manifests.is_empty() {
        manifests.push(descriptor(image.descriptor(), &[]));
    }
    Index::new(manifests)
}

/// Builds `manifest.json` (moby, `image/tarexport`, and image/spec/v1.2.md there).
fn docker_manifest(archive: &Archive, image: &Image) -> Vec<u8> {
    let Archive { spec, form, references, .. } = *archive;
    let layer = |layer: &SpecLayer| blob_path(&layer.blob(form).digest);
    let manifest = json!([{
        "Config": blob_path(&image.config.digest),
        "RepoTags": references.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "Layers": spec.layers.iter().map(layer).collect::<Vec<_>>(),
    }]);
    serde_json::to_vec(&manifest).expect("a value is JSON")
}

/// Writes an image to a file that does not exist yet, or to a pipe or device.
///
/// # Errors
/// Fails with [`ArchiveError`] if a layer can't be made or the file can't be written.
pub fn copy_to_docker_archive(
    store: &Store,
    spec: &ImageSpec,
    path: &Path,
    reference: Option<&ImageReference>,
    watch: &dyn Watch,
) -> Result<Copied, ArchiveError> {
    let references = reference.map_or(&[][..], std::slice::from_ref);
    let archive = Archive {
        store,
        spec,
        form: Archive::FORM,
        references,
        skip: 0,
        checked_by: CheckedBy::Sender,
        watch,
    };
    let written = write_archive_file(path, watch, |out| Ok(write_archive(&archive, Plain(out))?))?;
    let image = Image::in_form(spec, Archive::FORM, ManifestFormat::Oci);
    Ok(written.copied(&image.into()))
}
