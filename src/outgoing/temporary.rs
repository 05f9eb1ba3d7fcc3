//! Files that get their names when they are whole.
//! Stage: outgoing. Output: files, all or none.
//!
//! They are made where they will be: nothing is to be copied, and no other directory has
//! to be there. Whatever ends a copy early, they go with it ([`Watch::hold`]).

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempPath};

use super::error::{At, Error};
use super::watch::{Watch, Watched};

/// How the name of a file that is not whole begins and ends.
const PREFIX: &str = ".stowage-";
const SUFFIX: &str = ".part";

/// Makes a file in a directory, with the mode that new files have.
fn temporary_in(directory: &Path) -> io::Result<NamedTempFile> {
    let mode = Permissions::from_mode(0o666); // and the umask
    Builder::new().prefix(PREFIX).suffix(SUFFIX).permissions(mode).tempfile_in(directory)
}

/// Removes what a copy left that was killed. No other may be at work in the directory.
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

/// A file that is whole, but for its name.
pub struct NewFile {
    temporary: TempPath,
    path: PathBuf,
}

impl NewFile {
    /// Lets `write` make a file that will be `path`.
    ///
    /// # Errors
    /// The error of `write`; [`Error::Write`] then names this file.
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
        // A name must not outlive a power failure that its bytes don't: by name and size the
        // next copy finds that they are there.
        file.as_file().sync_data().map_err(at)?;
        // That may take longer than to write them.
        watch.advance(0).map_err(at)?;
        Ok(Self { temporary: file.into_temp_path(), path: path.to_owned() })
    }

    /// Makes a file of bytes in memory that will be `path`.
    pub fn of(path: &Path, bytes: &[u8], watch: &dyn Watch) -> Result<Self, Error> {
        Self::write(path, watch, |out| out.write_all(bytes).map_err(Error::Write))
    }

    /// Gives it the mode of a file whose place it takes.
    pub fn set_permissions(&self, permissions: Permissions) -> Result<(), Error> {
        fs::set_permissions(&self.temporary, permissions)
            .map_err(|source| Error::File { path: self.path.clone(), source })
    }

    /// Gives it its name, which may be another file's now.
    pub fn persist(self) -> Result<(), Error> {
        let Self { temporary, path } = self;
        temporary.persist(&path).map_err(|error| Error::File { path, source: error.error })
    }
}
