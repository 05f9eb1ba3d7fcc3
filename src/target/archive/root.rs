//! Writes an image's root file system to a file.
//! Stage: target. Input: an image of any format. Output: a tar.

use std::io::Write;
use std::path::Path;

use super::file::write_archive_file;
use crate::oci::{self, Architecture};
use crate::outgoing::{self, Watch};
use crate::store::Store;
use crate::target::error::ArchiveError;

/// Writes the files that a container of the image sees to a file that does not exist yet, or to a
/// pipe or device.
///
/// # Errors
/// Fails with [`ArchiveError`] if the image can't be read or the file can't be written.
pub fn write_root_archive(
    store: &Store,
    image: &Path,
    architecture: &Architecture,
    path: &Path,
    watch: &dyn Watch,
) -> Result<(), ArchiveError> {
    let layers = oci::image_of(store, image, architecture)?.layers;
    watch.expect(layers.iter().map(|layer| layer.size).sum());
    write_archive_file(path, watch, |out: &mut dyn Write| {
        oci::flatten(store, &layers, out).map_err(|error| match error {
            oci::Error::Layer(crate::layer::Error::Write(error)) => {
                outgoing::Error::Write(error).into()
            }
            other => other.into(),
        })
    })
}
