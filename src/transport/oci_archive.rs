//! An image layout in one file, for readers who go by OCI's media types.
//! Stage: transport. Input: [`Artifact`]. Output: a tar.
//!
//! `docker load` has no part in it: there is no `manifest.json`, which could not name what is
//! compressed in ways that it doesn't know, and layers are as they are stored.

use std::io::Write;
use std::path::Path;

use super::Error;
use super::archive_writer::{ArchiveWriter, Layers, Written};
use super::checked_layer::CheckedBy;
use super::copied::Copied;
use super::file::write_archive_file;
use super::image_layout::{INDEX, Index, OCI_LAYOUT, oci_layout};
use super::ref_name::RefName;
use super::target::Target;
use super::watch::Watch;
use crate::oci::{Artifact, Form, ManifestFormat};
use crate::sink::Plain;
use crate::store::Store;

const FORM: Form = Form::AsStored;

/// Streams an image, or several with their index, in one pass, under a name or none.
///
/// # Errors
/// As [`write_archive`](super::write_archive).
pub fn write_oci_archive(
    store: &Store,
    artifact: &Artifact,
    ref_name: Option<&RefName>,
    watch: &dyn Watch,
    out: impl Write,
) -> Result<Written, Error> {
    let documents = artifact.documents(FORM, ManifestFormat::Oci);
    let mut index = Index::new(Vec::new());
    index.add(documents.descriptor(), ref_name);
    let mut tar = ArchiveWriter::new(Plain(out));
    let specs = artifact.images().iter().map(|spec| &**spec);
    let layers = Layers { store, form: FORM, skip: 0, checked_by: CheckedBy::Sender, watch };
    let layers = tar.blobs(specs, &documents, &layers)?;
    // What names the blobs comes last: half of it is no image.
    tar.file(INDEX, &index.to_json())?;
    tar.file(OCI_LAYOUT, &oci_layout())?;
    Ok(Written { layers, bytes: tar.end()? })
}

/// Writes an image to a file that is not there yet, or to whatever else can be written to.
///
/// # Errors
/// As [`write_oci_archive`], and [`Error::Exists`], [`Error::IsDirectory`] or
/// [`Error::Terminal`].
pub fn copy_to_oci_archive(
    store: &Store,
    artifact: &Artifact,
    path: &Path,
    ref_name: Option<&RefName>,
    watch: &dyn Watch,
) -> Result<Copied, Error> {
    let layers = artifact.images().iter().flat_map(|spec| &spec.layers);
    watch.expect(layers.map(|layer| layer.blob(FORM).size).sum());
    let write = |out: &mut dyn Write| write_oci_archive(store, artifact, ref_name, watch, out);
    let written = write_archive_file(path, watch, write)?;
    let target = Target::OciArchive { path: path.to_owned(), ref_name: ref_name.cloned() };
    Ok(written.copied(target.to_string(), &artifact.documents(FORM, ManifestFormat::Oci)))
}
