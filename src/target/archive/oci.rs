//! Writes an image layout as one file, for readers that know OCI's media types.
//! Stage: target. Input: [`Artifact`]. Output: a tar.
//!
//! `docker load` is not supported: there is no `manifest.json`, since `docker load` does not know
//! every compression, and layers are sent as they are stored.

use std::io::Write;
use std::path::Path;

use super::file::write_archive_file;
use super::writer::{ArchiveWriter, Layers, Written};
use crate::oci::{Artifact, Form, ManifestFormat};
use crate::outgoing::{self, CheckedBy, Copied, RefName, Watch};
use crate::sink::Plain;
use crate::store::Store;
use crate::target::error::ArchiveError;
use crate::target::image_layout::{INDEX, Index, OCI_LAYOUT, oci_layout};

const FORM: Form = Form::AsStored;

/// Streams an image, or several with their index, in one pass, with or without a name.
///
/// # Errors
/// Returns the errors of [`write_archive`](super::write_archive).
fn write_oci_archive(
    store: &Store,
    artifact: &Artifact,
    ref_name: Option<&RefName>,
    watch: &dyn Watch,
    out: impl Write,
) -> Result<Written, outgoing::Error> {
    let documents = artifact.documents(FORM, ManifestFormat::Oci);
    let mut index = Index::new(Vec::new());
    index.add(documents.descriptor(), ref_name);
    let mut tar = ArchiveWriter::new(Plain(out));
    let specs = artifact.images().iter().map(|spec| &**spec);
    let layers = Layers { store, form: FORM, skip: 0, checked_by: CheckedBy::Sender, watch };
    let layers = tar.blobs(specs, &documents, &layers)?;
    // The file that names the blobs comes last: no reader takes an incomplete stream for an image.
    tar.file(INDEX, &index.to_json())?;
    tar.file(OCI_LAYOUT, &oci_layout())?;
    Ok(Written { layers, bytes: tar.end()? })
}

/// Writes an image to a file that does not exist yet, or to a pipe or device.
///
/// # Errors
/// Fails with [`ArchiveError`] if the file can't be written or a layer can't be made.
pub fn copy_to_oci_archive(
    store: &Store,
    artifact: &Artifact,
    path: &Path,
    ref_name: Option<&RefName>,
    watch: &dyn Watch,
) -> Result<Copied, ArchiveError> {
    let layers = artifact.images().iter().flat_map(|spec| &spec.layers);
    watch.expect(layers.map(|layer| layer.blob(FORM).size).sum());
    let write = |out: &mut dyn Write| Ok(write_oci_archive(store, artifact, ref_name, watch, out)?);
    let written = write_archive_file(path, watch, write)?;
    Ok(written.copied(&artifact.documents(FORM, ManifestFormat::Oci)))
}
