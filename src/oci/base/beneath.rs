//! Checks that a name in a directory does not lead out of that directory.
//! Stage: oci. Opens files. Input: a directory and a name. Output: whether the file is inside.

use std::fs;
use std::io;
use std::path::{Component, Path};

use crate::system;

/// Returns whether a name is relative and has no `..`. Symbolic links are not followed.
pub fn is_relative(name: &str) -> bool {
    let inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    Path::new(name).components().all(inside)
}

/// Returns whether `name` leads to a file in `directory`, with all symbolic links followed.
///
/// # Errors
/// Fails with the error of the system, such as a missing file.
pub fn is_beneath(directory: &Path, name: &str) -> io::Result<bool> {
    match system::is_beneath(directory, name) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => by_paths(directory, name),
        answer => answer,
    }
}

/// Gives the answer of [`is_beneath`] by comparing paths whose links are resolved.
fn by_paths(directory: &Path, name: &str) -> io::Result<bool> {
    let file = fs::canonicalize(directory.join(name))?;
    Ok(file.starts_with(fs::canonicalize(directory)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_may_lead_where_names_may() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("d");
        fs::create_dir_all(directory.join("sub")).unwrap();
        for file in [parent.path().join("outside"), directory.join("f"), directory.join("sub/g")] {
            fs::write(file, "x").unwrap();
        }
        for (link, target) in [
            ("in", "sub/g"),
            ("sub/up", "../f"),
            ("out", "../outside"),
            ("abs", "/etc"),
            ("dir", ".."),
        ] {
            symlink(target, directory.join(link)).unwrap();
        }
        for (name, beneath) in [
            ("f", true),
            ("./sub/g", true),
            ("in", true),
            ("sub/up", true),
            ("out", false),
            ("abs/passwd", false),
            ("dir/outside", false),
            ("dir/d/f", false),
        ] {
            assert!(is_relative(name));
            assert_eq!(is_beneath(&directory, name).unwrap(), beneath, "{name}");
            // For `by_paths`, a path that leaves the directory and comes back is inside.
            let by_paths = by_paths(&directory, name).unwrap();
            assert_eq!(by_paths, beneath || name == "dir/d/f", "{name}");
        }
        for name in ["../outside", "/etc/passwd", "sub/../f"] {
            assert!(!is_relative(name), "{name}");
        }
        assert!(is_beneath(&directory, "none").is_err());
    }
}
