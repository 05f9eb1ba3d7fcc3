//! The spec of an index: the files of its images, and annotations.
//! Stage: oci. Input: JSON. Output: [`IndexSpec`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::annotations::Annotations;
use super::json_file;
use super::platform::Platform;

/// The only version of the index spec. A reader refuses all others.
const VERSION: u32 = 1;
/// The name of the format, for messages.
pub(super) const INDEX_SPEC: &str = "an index spec";

/// An index spec: image specs by their files. Written as `index.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSpec {
    version: u32,
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub(super) annotations: Annotations,
    pub(super) images: Vec<IndexEntry>,
}

/// An entry of an index: one image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// The file with the image spec.
    pub spec: PathBuf,
    /// The annotations of the entry.
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
}

impl IndexSpec {
    /// Builds an index spec of annotations and images.
    pub fn new(annotations: Annotations, images: Vec<IndexEntry>) -> Self {
        Self { version: VERSION, annotations, images }
    }

    /// Reads and checks `index.json`.
    ///
    /// # Errors
    /// Fails with [`Error::Read`], [`Error::Json`] or [`Error::IndexVersion`].
    pub fn read(file: &Path) -> Result<Self, Error> {
        json_file::read::<Self>(file, INDEX_SPEC)?.checked(file)
    }

    /// Checks the version of an index spec that was read from `file`.
    pub(super) fn checked(self, file: &Path) -> Result<Self, Error> {
        if self.version == VERSION {
            return Ok(self);
        }
        Err(Error::IndexVersion { file: file.to_owned(), version: self.version })
    }

    /// Returns the files of the image specs.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.images.iter().map(|image| &*image.spec)
    }

    /// Returns the bytes of the file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("an index spec is JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Checks that there are images, of the given platforms, and no two for the same one.
    pub(super) fn check_platforms(
        &self,
        platforms: impl Iterator<Item = Platform>,
    ) -> Result<(), Error> {
        let mut seen = BTreeMap::new();
        for (platform, file) in platforms.zip(self.files()) {
            let name = platform.to_string();
            if let Some(first) = seen.insert(platform, file) {
                let (first, second) = (first.to_owned(), file.to_owned());
                return Err(Error::SamePlatform { platform: name, first, second });
            }
        }
        if seen.is_empty() { Err(Error::EmptyIndex) } else { Ok(()) }
    }
}
