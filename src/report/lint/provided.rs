//! Collects the paths that exist in a container, but not in its image: volumes, and mounts by
//! engines.
//! Stage: report. Input: `Volumes`. Output: whether a path may be there all the same.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::report::image_files::{Absent, Found, ImageFiles, Last};

/// The paths that engines mount into every container (runtime-spec, config-linux.md, "Default
/// Filesystems"; Docker mounts the files in `/etc`), and the usual paths of secrets, drivers and
/// the like.
const MOUNTED: [&str; 9] = [
    "dev",
    "proc",
    "sys",
    "run",
    "var/run",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/mtab",
];

/// The paths that may exist in a container although the image does not have them.
#[derive(Clone, Debug)]
pub struct Provided {
    places: Vec<PathBuf>,
}

impl Provided {
    /// Collects the places for an image's volumes.
    pub fn new<'v>(volumes: impl Iterator<Item = &'v str>) -> Self {
        let volumes = volumes.map(|volume| volume.trim_matches('/')).filter(|it| !it.is_empty());
        Self { places: MOUNTED.into_iter().chain(volumes).map(PathBuf::from).collect() }
    }

    /// Returns whether a path, without the leading slash, may be in a container.
    pub fn may_have(&self, path: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.places.iter().any(|place| path.starts_with(place))
    }

    /// Looks a path up. The result is [`Found::Unknown`] if the image lacks the path but a
    /// container may have it, and if a file can't be read.
    pub fn find(&self, files: &ImageFiles, path: impl AsRef<[u8]>, last: Last) -> Found {
        match files.find(path, last) {
            Ok(Found::Nowhere(Absent::Nothing(place) | Absent::NoDirectory(place)))
                if self.may_have(place.as_bytes()) =>
            {
                Found::Unknown
            }
            Ok(found) => found,
            Err(_) => Found::Unknown,
        }
    }
}
