//! Makes files that get their final names when they are complete.
//! Stage: outgoing. Output: files, all or none.
//!
//! Temporary files are made in the directory of the final file: nothing has to be copied, and no
//! other directory has to exist. They are removed if anything ends a copy early ([`Watch::hold`]).

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempPath};

use super::error::{At, Error};
use super::watch::{Watch, Watched};

/// The beginning and the end of the name of an incomplete file.
const PREFIX: &str = ".stowage-";
const SUFFIX: &str = ".part";

/// Makes a file in a directory, with the default mode of new files.
fn temporary_in(directory: &Path) -> io::Result<NamedTempFile> {
    let mode = Permissions::from_mode(0o666); // and the umask
    Builder::new().prefix(PREFIX).suffix(SUFFIX).permissions(mode).tempfile_in(directory)
}

/// Removes the temporary files of a copy that was killed. No other copy may be at work in the
/// directory.
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

/// A file that is complete except for its name.
pub struct NewFile {
    temporary: TempPath,
    path: PathBuf,
}

impl NewFile {
    /// Lets `write` make a file that will be `path`.
    ///
    /// # Errors
    /// Fails with the error of `write`, in which [`Error::Write`] names this file, or if the file
    /// can't be made.
    pub fn write<E: From<Error> + At>(
        path: &Path,
        watch: &dyn Watch,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Self, E> {
        let at = |source| Error::File { path: path.to_owned(), source };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        watch.hold();
        let mut file = temporary_in(parent.unwrap_or(Path::new("."))).map_err(at)?;
        write(&mut Watched { out: file.as_file_mut(), watch }).map_err(|error| error.at(path))?;
        // The name must not survive a power failure without the bytes: the next copy finds by name
        // and size that the file is there.
        file.as_file().sync_data().map_err(at)?;
        // `sync_data` may take longer than the writes. The copy may have been ended meanwhile.
        watch.advance(0).map_err(at)?;
        Ok(Self { temporary: file.into_temp_path(), path: path.to_owned() })
    }

    /// Makes a file with the bytes, to be named `path`.
    pub fn of(path: &Path, bytes: &[u8], watch: &dyn Watch) -> Result<Self, Error> {
        Self::write(path, watch, |out| out.write_all(bytes).map_err(Error::Write))
    }

    /// Gives the file the mode of the file that it replaces.
    pub fn set_permissions(&self, permissions: Permissions) -> Result<(), Error> {
        fs::set_permissions(&self.temporary, permissions)
            .map_err(|source| Error::File { path: self.path.clone(), source })
    }

    /// Gives the file its name, and replaces any other file of that name.
    pub fn persist(self) -> Result<(), Error> {
        let Self { temporary, path } = self;
        temporary.persist(&path).map_err(|error| Error::File { path, source: error.error })
    }
}
