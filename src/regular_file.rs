//! Opens regular files in places that other programs can write to, and clears such places.
//! Vocabulary: names no stage.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file. Anything else is refused: opening a FIFO would wait until another program
/// writes to it.
///
/// # Errors
/// Fails if the file can't be opened, or is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

/// Removes what has the place of a file in a cache: a file, a link, a FIFO, or an empty directory. A
/// directory with files stays: they belong to somebody else.
///
/// # Errors
/// Fails if something is left at the path.
pub fn clear(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_other_things_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "text").unwrap();
        mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        symlink("fifo", path("link")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        fs::create_dir_all(path("full/empty")).unwrap();
        assert!(open(&path("file")).is_ok());
        for name in ["fifo", "link", "full"] {
            assert_eq!(open(&path(name)).unwrap_err().to_string(), "it is no regular file");
        }
        assert!(clear(&path("full")).is_err());
        for name in ["file", "link", "fifo", "dangling", "full/empty", "full", "nowhere"] {
            clear(&path(name)).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
