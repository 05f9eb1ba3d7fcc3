//! Checks that engines can mount the volumes of an image.
//! Stage: report. Input: `Volumes`. Output: [`Finding`]s.

use super::finding::{Check, Finding, Level};
use super::surroundings::Surroundings;
use crate::image_path::ImagePath;
use crate::report::image_files::{Absent, FileKind, Found};

/// Checks that each volume is at a directory, or at a path that engines can make.
pub fn lint_volumes<'v>(
    surroundings: &Surroundings,
    volumes: impl Iterator<Item = &'v String>,
    findings: &mut Vec<Finding>,
) {
    for volume in volumes {
        // Engines remove `..` before they follow links (Go, `filepath.Clean`).
        let place = ImagePath::normal(volume.as_bytes());
        let problem = match surroundings.look_up(place.as_bytes()) {
            Found::Here(file, _) if file.kind == FileKind::Directory => continue,
            Found::Here(file, _) if file.path == place => "it is no directory".to_owned(),
            Found::Here(file, _) => {
                format!("its links lead to {}, which is no directory", file.path)
            }
            Found::Nowhere(Absent::NoDirectory(place)) => format!("{place} is no directory"),
            Found::Nowhere(Absent::Circle) => "its links lead in a circle".to_owned(),
            Found::Nowhere(Absent::Nothing(_)) | Found::Unknown => continue,
        };
        let message = format!("`Volumes` has it, and {problem}: Docker starts no container");
        findings.push(Finding::of_path(Check::Volume, Level::Error, volume, message));
    }
}
