//! Checks the links that are copied to `/`.
//! Stage: report. Input: the files of an image. Output: [`Finding`]s.

use serde_json::Value;

use super::finding::{Check, Finding, Level};
use super::provided::Provided;
use crate::oci::ImageSpec;
use crate::report::image_files::{Absent, FileKind, Found, ImageFiles, Last};

/// The number of links that are named one by one.
const NAMED: usize = 5;

/// Finds a link in the place of `/etc`. Docker makes `/etc/hosts` and other files in a layer of their
/// own, and for this puts a directory in the place of a link.
pub fn lint_directories(files: &ImageFiles) -> Vec<Finding> {
    let Ok(Found::Here(etc, _)) = files.find("/etc", Last::Itself) else { return Vec::new() };
    let FileKind::Symlink(target) = etc.kind else { return Vec::new() };
    let message = format!(
        "is a link to {}: Docker puts a directory with `hosts` and `resolv.conf` alone in its place, so that every other file is gone",
        target.escape_ascii()
    );
    vec![Finding {
        check: Check::LinkedDirectory,
        level: Level::Warning,
        layer: None,
        path: Some(etc.path.to_string()),
        message,
        more: 0,
    }]
}

/// Finds links that lead nowhere.
pub fn lint(files: &ImageFiles, spec: &ImageSpec) -> Vec<Finding> {
    let volumes = spec.config.as_map().get("Volumes").and_then(Value::as_object);
    let provided = Provided::new(volumes.into_iter().flat_map(|it| it.keys()).map(String::as_str));
    let mut findings: Vec<Finding> = Vec::new();
    files.each_copied_link(|path, target| {
        let Found::Nowhere(absent) = provided.find(files, path, Last::Followed) else { return };
        if findings.len() == NAMED {
            if let Some(last) = findings.last_mut() {
                last.more += 1;
            }
            return;
        }
        let leads = match absent {
            Absent::Nothing(place) => format!(", and {} is not in the image", place),
            Absent::NoDirectory(place) => format!(", and {} is no directory", place),
            Absent::Circle => ", which leads in a circle".to_owned(),
        };
        let (path, message) =
            (path.to_string(), format!("is a link to {}{leads}", target.escape_ascii()));
        findings.push(Finding {
            check: Check::DanglingLink,
            level: Level::Warning,
            layer: None,
            path: Some(path),
            message,
            more: 0,
        });
    });
    findings
}
