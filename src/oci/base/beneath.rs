//! Checks that a name in a directory does not lead out of that directory.
//! Stage: oci. Opens files. Input: a directory and a name. Output: whether the file is inside.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

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
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH);
    match openat2(File::open(directory)?, name, how) {
        Ok(_) => Ok(true),
        Err(Errno::EXDEV) => Ok(false),
        // Linux before 5.6, and sandboxes that refuse unknown calls, have no openat2.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::EAGAIN) => {
            by_paths(directory, name)
        }
        Err(error) => Err(error.into()),
    }
}

/// Does the work of [`is_beneath`] without openat2.
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
