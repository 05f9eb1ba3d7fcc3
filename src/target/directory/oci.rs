//! Adds images to an image layout in a directory.
//! Stage: target. Input: [`Artifact`]. Output: a directory (image-spec, image-layout.md).

use std::path::Path;

use serde_json::Value;

use super::blobs::{Blobs, NewBlobs};
use super::locked::TargetDirectory;
use crate::oci::unpack::parse_json;
use crate::oci::{Artifact, Form, ManifestFormat};
use crate::outgoing::{Copied, NewFile, RefName, Watch};
use crate::proof::{AttachedDocument, Attachment, Subject};
use crate::store::Store;
use crate::target::error::DirectoryError;
use crate::target::image_layout::{BLOBS, INDEX, Index, OCI_LAYOUT, oci_layout};

const FORM: Form = Form::AsStored;

/// Adds an image, or several with their index, to an image layout, with or without a name, and
/// documents that refer to it, each with its media type. Keeps what else the layout has, and does not
/// make blobs again that are there.
///
/// # Errors
/// Fails with [`DirectoryError::NotEmpty`] if the directory holds something else, with
/// [`DirectoryError::Unreadable`] if its layout is of another version or not valid, or if the image
/// can't be written.
pub fn copy_to_oci(
    store: &Store,
    artifact: &Artifact,
    attached: &[AttachedDocument],
    path: &Path,
    ref_name: Option<&RefName>,
    watch: &dyn Watch,
) -> Result<Copied, DirectoryError> {
    let documents = artifact.documents(FORM, ManifestFormat::Oci);
    let mut directory = TargetDirectory::open(path, watch)?;
    let mut index = read_index(&directory, path)?;
    let is_layout = has_layout_file(&directory, path)?;
    let blobs = directory.subdirectory(BLOBS)?;
    let specs: Vec<_> = artifact.images().iter().map(|spec| &**spec).collect();
    let blobs = Blobs { store, specs: &specs, form: FORM, directory: &blobs, watch };
    let subject = Subject::new(documents.descriptor().media_type().as_ref(), documents.top());
    let attach = |document: &AttachedDocument| Attachment::of(subject.clone(), document.clone());
    let attachments: Vec<_> = attached.iter().map(attach).collect();
    let beside = attachments.iter().flat_map(|it| it.blobs.iter().chain([&it.manifest]));
    let new = blobs.write(documents.blobs().chain(beside))?;
    index.add(documents.descriptor(), ref_name);
    // Clients find what refers to an image among the entries of the index.
    attachments.iter().for_each(|attachment| index.add_entry(attachment.entry()));
    let mut files = Vec::new();
    if !is_layout {
        files.push(NewFile::of(&path.join(OCI_LAYOUT), &oci_layout(), watch)?);
    }
    files.push(NewFile::of(&path.join(INDEX), &index.to_json(), watch)?);
    let NewBlobs { files: blobs, tally } = new;
    // The index comes last: all that it names is there by then.
    for file in blobs.into_iter().chain(files) {
        file.persist()?;
    }
    directory.keep();
    Ok(Copied::new(&documents, tally))
}

fn read_index(directory: &TargetDirectory, path: &Path) -> Result<Index, DirectoryError> {
    let Some(bytes) = directory.read(INDEX)? else { return Ok(Index::new(Vec::new())) };
    Index::parse(&bytes).map_err(|reason| DirectoryError::Unreadable {
        path: path.join(INDEX),
        what: "an index of images",
        reason,
    })
}

fn has_layout_file(directory: &TargetDirectory, path: &Path) -> Result<bool, DirectoryError> {
    let Some(bytes) = directory.read(OCI_LAYOUT)? else {
        // An incomplete layout may have some of these entries. Any other entry is not a layout's.
        let known = |name: &String| [INDEX, "blobs"].contains(&&**name);
        if directory.entries()?.iter().all(known) {
            return Ok(false);
        }
        return Err(DirectoryError::NotEmpty {
            path: path.to_owned(),
            expected: "an OCI image layout",
        });
    };
    let unreadable = |reason| DirectoryError::Unreadable {
        path: path.join(OCI_LAYOUT),
        what: "an image layout",
        reason,
    };
    let layout: Value = parse_json(&bytes).map_err(unreadable)?;
    match layout.get("imageLayoutVersion").and_then(Value::as_str) {
        Some("1.0.0") => Ok(true),
        Some(version) => {
            Err(unreadable(format!("version {version}, where this program knows 1.0.0")))
        }
        None => Err(unreadable("it has no `imageLayoutVersion`".to_owned())),
    }
}
