//! The surroundings in which the programs of an image are started.
//! Stage: report. Vocabulary of the lint.

use oci_spec::image::Arch;

use super::identity::Identity;
use super::provided::Provided;
use crate::report::image_files::{FileKind, Found, ImageFile, ImageFiles, Last, Searched};

/// The surroundings in which programs are started.
pub struct Surroundings<'a> {
    /// The files of the image.
    pub files: &'a ImageFiles<'a>,
    /// The paths that may exist although the image does not have them.
    pub provided: &'a Provided,
    /// The architecture of the image.
    pub architecture: Arch,
    /// The user; none if it is not known.
    pub identity: Option<Identity>,
    /// The directories that are searched for programs: `PATH`.
    pub path: String,
    /// The directories that are searched for libraries: `LD_LIBRARY_PATH`.
    pub library_path: String,
    /// The working directory.
    pub directory: String,
}

impl Surroundings<'_> {
    /// Looks a path up, and follows links. The result is [`Found::Unknown`] if the container may have the
    /// path although the image lacks it.
    pub fn look_up(&self, path: impl AsRef<[u8]>) -> Found {
        self.provided.find(self.files, path, Last::Followed)
    }

    /// Returns a path from the root: a relative one begins in the working directory.
    pub fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.directory) }
    }

    /// Describes the first directory on the way that the user may not search.
    pub fn denied(&self, searched: &[Searched]) -> Option<String> {
        let identity = self.identity.as_ref()?;
        let denied =
            searched.iter().find(|directory| !identity.may_search(directory.attributes))?;
        Some(format!(
            "{}, which {identity} may not search (mode {:04o})",
            denied.path, denied.attributes.mode
        ))
    }

    /// Returns whether the user may execute a file.
    pub fn may_execute(&self, file: &ImageFile) -> bool {
        let is_file = matches!(file.kind, FileKind::File(_));
        is_file
            && match &self.identity {
                Some(identity) => identity.may_execute(file.attributes),
                None => file.attributes.mode & 0o111 != 0,
            }
    }
}
