//! Writes an archive to a file, a pipe or a device.
//! Stage: target. Output: a complete file, or none.

use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::outgoing::{self, At, NewFile, Watch, Watched};
use crate::system;
use crate::target::error::ArchiveError;

/// The paths that name standard output, whatever it is.
const NAMES_OF_STDOUT: [&str; 3] = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// The destination of an archive's bytes.
enum Destination {
    /// A pipe, a device or standard output: bytes are written at once.
    Stream(File),
    /// A file that does not exist yet, or is empty.
    File(PathBuf, Option<Metadata>),
}

/// Lets `write` make the archive at `path`.
///
/// # Errors
/// Fails with the error of `write`, or with [`ArchiveError::Exists`], [`ArchiveError::IsDirectory`]
/// or [`ArchiveError::Terminal`] if the path can't be used.
pub fn write_archive_file<T>(
    path: &Path,
    watch: &dyn Watch,
    write: impl FnOnce(&mut dyn Write) -> Result<T, ArchiveError>,
) -> Result<T, ArchiveError> {
    match destination(path)? {
        Destination::Stream(out) => {
            system::widen_pipe(&out);
            write(&mut Watched { out, watch }).map_err(|error| error.at(path))
        }
        Destination::File(path, replaced) => {
            let mut result = None;
            let file = NewFile::write(&path, watch, |out| {
                result = Some(write(out)?);
                Ok::<_, ArchiveError>(())
            })?;
            if let Some(replaced) = replaced {
                file.set_permissions(replaced.permissions())?;
            }
            file.persist()?;
            Ok(result.expect("it was written"))
        }
    }
}

fn destination(path: &Path) -> Result<Destination, ArchiveError> {
    let at = |source| outgoing::Error::File { path: path.to_owned(), source };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Destination::File(path.to_owned(), None));
        }
        Err(error) => return Err(at(error).into()),
    };
    if metadata.is_dir() {
        return Err(ArchiveError::IsDirectory(path.to_owned()));
    }
    // Check this first: `/dev/stdout` may be a regular file, and no temporary file can be made
    // beside it.
    let out = if let Some(stdout) = stdout_at(&metadata) {
        if NAMES_OF_STDOUT.iter().any(|name| path == Path::new(name)) {
            drop(system::stdout().map_err(at)?);
        }
        stdout
    } else if !metadata.is_file() {
        File::options().write(true).open(path).map_err(at)?
    } else if metadata.len() > 0 {
        return Err(ArchiveError::Exists(path.to_owned()));
    } else {
        // Use the file itself and not a link to it.
        return Ok(Destination::File(fs::canonicalize(path).map_err(at)?, Some(metadata)));
    };
    if out.is_terminal() {
        Err(ArchiveError::Terminal(path.to_owned()))
    } else {
        Ok(Destination::Stream(out))
    }
}

/// Returns whether this path is another name of standard output.
pub fn is_stdout(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| stdout_at(&metadata).is_some())
}

fn stdout_at(metadata: &Metadata) -> Option<File> {
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().ok()?);
    let of_stdout = stdout.metadata().ok()?;
    let same = (metadata.dev(), metadata.ino()) == (of_stdout.dev(), of_stdout.ino());
    same.then_some(stdout)
}
