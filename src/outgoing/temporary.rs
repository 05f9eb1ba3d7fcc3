//! Makes files that get their final names when they are complete.
//! Stage: outgoing. Output: files, all or none.
//!
//! Files are made in the directory of the final file: nothing has to be copied, and no other
//! directory has to exist. The files vanish if anything ends a copy early ([`UnnamedFile`],
//! [`Watch::hold`]).

use std::fs::{self, FileType, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::error::{At, Error};
use super::unnamed::{MODE, PREFIX, SUFFIX, UnnamedFile};
use super::watch::{Watch, Watched};

/// Removes the temporary files that a killed copy left behind. No other copy may use the
/// directory now.
pub fn remove_stale(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Checks that there is a regular file at a path, or nothing. Anything else would be an error only
/// after all work is done, or would make this program wait, as a FIFO does.
///
/// # Errors
/// Fails with [`Error::Occupied`].
pub fn check_place(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(Error::Occupied { path: path.to_owned(), kind: kind(metadata.file_type()) })
        }
        _ => Ok(()),
    }
}

/// Describes what is no regular file.
fn kind(kind: FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

/// A file that is complete except for its name.
pub struct NewFile {
    file: UnnamedFile,
    path: PathBuf,
}

impl NewFile {
    /// Lets `write` make a file that will be `path`.
    ///
    /// # Errors
    /// Fails with the error of `write`, in which [`Error::Write`] names this file, with
    /// [`Error::Occupied`], or if the file can't be made.
    pub fn write<E: From<Error> + At>(
        path: &Path,
        watch: &dyn Watch,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Self, E> {
        let at = |source| Error::File { path: path.to_owned(), source };
        watch.hold();
        check_place(path)?;
        let file = UnnamedFile::beside(path, MODE).map_err(at)?;
        write(&mut Watched { out: &mut file.as_file(), watch }).map_err(|error| error.at(path))?;
        // After a power failure there must be no file that has its final name but lacks bytes: other
        // programs trust a blob's name.
        file.as_file().sync_data().map_err(at)?;
        // Syncing may take longer than writing: look for signals again.
        watch.advance(0).map_err(at)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Makes a file with the bytes, to be named `path`.
    pub fn of(path: &Path, bytes: &[u8], watch: &dyn Watch) -> Result<Self, Error> {
        Self::write(path, watch, |out| out.write_all(bytes).map_err(Error::Write))
    }

    /// Gives the file the mode of the file that it replaces.
    pub fn set_permissions(&self, permissions: Permissions) -> Result<(), Error> {
        self.file
            .set_permissions(permissions)
            .map_err(|source| Error::File { path: self.path.clone(), source })
    }

    /// Gives the file its name, and replaces any other file of that name.
    pub fn persist(self) -> Result<(), Error> {
        let Self { file, path } = self;
        file.persist(&path).map_err(|source| Error::File { path, source })
    }
}
