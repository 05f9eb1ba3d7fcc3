//! Writes one image's files side by side into a directory, in the format of skopeo's `dir:`.
//! Stage: target. Input: [`ImageSpec`]. Output: a directory (containers/image, `directory/`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::blobs::{Blobs, NewBlobs};
use super::locked::TargetDirectory;
use crate::oci::dir_format::{MANIFEST, VERSION, VERSION_TEXT};
use crate::oci::{Image, ImageSpec, ManifestFormat};
use crate::outgoing::{self, Copied, NewFile, Watch};
use crate::store::Store;
use crate::target::error::DirectoryError;

/// Writes an image to a directory of its own. Keeps the blobs that the directory has, and removes
/// what it has of an earlier image.
///
/// # Errors
/// Fails with [`DirectoryError::NotEmpty`] if the directory holds something else, or if the image
/// can't be written.
pub fn copy_to_dir(
    store: &Store,
    spec: &ImageSpec,
    path: &Path,
    format: ManifestFormat,
    watch: &dyn Watch,
) -> Result<Copied, DirectoryError> {
    let form = format.form();
    let image = Image::in_form(spec, form, format);
    let mut directory = TargetDirectory::open(path, watch)?;
    if !directory.entries()?.is_empty() && directory.read(VERSION)?.as_deref() != Some(VERSION_TEXT)
    {
        return Err(DirectoryError::NotEmpty {
            path: path.to_owned(),
            expected: "an image of `dir:`",
        });
    }
    let blobs = Blobs { store, specs: &[spec], form, directory: path, watch };
    let new = blobs.write([&image.config])?;
    let version = NewFile::of(&path.join(VERSION), VERSION_TEXT, watch)?;
    let manifest = NewFile::of(&path.join(MANIFEST), &image.manifest.bytes, watch)?;
    let NewBlobs { files, mut tally } = new;
    tally.bytes_sent += image.manifest.bytes.len() as u64;
    // First comes the file that marks the directory's format, so that the next copy accepts the
    // directory if this one is killed. The manifest comes last: all that it names is there by then.
    for file in [version].into_iter().chain(files).chain([manifest]) {
        file.persist()?;
    }
    directory.keep();
    remove_others(&directory, path, spec, &image)?;
    Ok(Copied::new(&image.into(), tally))
}

/// Removes the files of an earlier image, as skopeo does: its signatures would be taken for those
/// of this image.
fn remove_others(
    directory: &TargetDirectory,
    path: &Path,
    spec: &ImageSpec,
    image: &Image,
) -> Result<(), DirectoryError> {
    let layers = spec.layers.iter().map(|layer| layer.blob(image.format.form()).digest);
    let ours: BTreeSet<_> =
        layers.chain([image.config.digest]).map(|digest| digest.digest().hex()).collect();
    for name in directory.entries()? {
        if is_of_an_image(&name) && !ours.contains(&name) {
            let path = path.join(name);
            fs::remove_file(&path).map_err(|source| outgoing::Error::File { path, source })?;
        }
    }
    Ok(())
}

/// Returns whether a file is a blob, a signature, or the manifest of one of several images.
fn is_of_an_image(name: &str) -> bool {
    let is_digest =
        |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    match name.split_once("signature-") {
        Some((before, number)) => {
            is_number(number)
                && (before.is_empty() || before.strip_suffix('-').is_some_and(is_digest))
        }
        None => is_digest(name.strip_suffix(".manifest.json").unwrap_or(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_images_are_known() {
        let digest = "0a".repeat(32);
        for (name, expected) in [
            (digest.clone(), true),
            (format!("{digest}.manifest.json"), true),
            (format!("{digest}-signature-1"), true),
            ("signature-12".to_owned(), true),
            ("signature-".to_owned(), false),
            ("my-signature-1".to_owned(), false),
            ("manifest.json".to_owned(), false),
            ("version".to_owned(), false),
            (digest[1..].to_owned(), false),
            (format!("{digest}.txt"), false),
        ] {
            assert_eq!(is_of_an_image(&name), expected, "{name}");
        }
    }
}
