//! Makes files that have no name until they are complete: a killed program leaves none behind.
//! Stage: outgoing. Output: files.
//!
//! Most of Linux's file systems have such files (`O_TMPFILE`, open(2)). In other file systems, a file
//! has a temporary name, and a killed program leaves the file behind.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::{Builder, TempPath};

use crate::system;

/// The beginning of the name of an incomplete file.
pub const PREFIX: &str = ".stowage-";
/// The end of the name of an incomplete file.
pub const SUFFIX: &str = ".part";

/// The mode of new files that all users may read, before the umask.
pub const MODE: u32 = 0o666;

/// A new file that has no final name yet.
pub struct UnnamedFile {
    file: File,
    /// The temporary name, if the file system needs one.
    temporary: Option<TempPath>,
}

impl UnnamedFile {
    /// Makes a file that can become `path`, in the same directory. The system removes the bits of
    /// the umask from the mode.
    ///
    /// # Errors
    /// Fails with the error of the system.
    pub fn beside(path: &Path, mode: u32) -> io::Result<Self> {
        Self::without_name(path, mode).or_else(|_| Self::with_name(path, mode))
    }

    fn without_name(path: &Path, mode: u32) -> io::Result<Self> {
        Ok(Self { file: system::open_unnamed(directory_of(path), mode)?, temporary: None })
    }

    /// Makes a file with a temporary name, as [`Self::beside`] does in file systems that have no files
    /// without names.
    ///
    /// # Errors
    /// Fails with the error of the system.
    pub fn with_name(path: &Path, mode: u32) -> io::Result<Self> {
        let named = temporary(Permissions::from_mode(mode)).tempfile_in(directory_of(path))?;
        let (file, temporary) = named.into_parts();
        Ok(Self { file, temporary: Some(temporary) })
    }

    /// Returns the temporary name, if the file has one.
    pub fn temporary_path(&self) -> Option<&Path> {
        self.temporary.as_deref()
    }

    /// Returns the open file.
    pub fn as_file(&self) -> &File {
        &self.file
    }

    /// Sets the mode, whatever the umask.
    ///
    /// # Errors
    /// Fails with the error of the system.
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.file.set_permissions(permissions)
    }

    /// Gives the file its name, and atomically replaces another file of that name.
    ///
    /// # Errors
    /// Fails with the error of the system.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        let Self { file, temporary } = self;
        if let Some(temporary) = temporary {
            return temporary.persist(path).map_err(|error| error.error);
        }
        let link = |path: &Path| system::name_file(&file, path);
        match link(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => return linked,
        }
        // linkat(2) can't replace a file. rename(2) can, but needs a name: a temporary one.
        let linked =
            Builder::new().prefix(PREFIX).suffix(SUFFIX).make_in(directory_of(path), link)?;
        linked.into_temp_path().persist(path).map_err(|error| error.error)
    }
}

fn temporary(mode: Permissions) -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX).permissions(mode);
    builder
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        fs::read_dir(directory).unwrap().map(|entry| name(entry).unwrap()).collect()
    }

    #[test]
    fn a_file_has_a_name_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for (text, make) in [
            ("first", UnnamedFile::without_name as fn(&Path, u32) -> io::Result<UnnamedFile>),
            ("second", UnnamedFile::without_name),
            ("third", UnnamedFile::with_name),
        ] {
            let before = names(directory.path());
            let file = make(&path, MODE).unwrap();
            file.as_file().write_all(text.as_bytes()).unwrap();
            assert_eq!(names(directory.path()) == before, file.temporary_path().is_none());
            file.set_permissions(Permissions::from_mode(0o640)).unwrap();
            file.persist(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
            assert_eq!(names(directory.path()), ["f"]);
        }
        drop(UnnamedFile::beside(&path, MODE).unwrap());
        assert_eq!(names(directory.path()), ["f"]);
        assert!(UnnamedFile::beside(&directory.path().join("no/f"), MODE).is_err());
    }
}
