//! Reads small files that options, variables and settings name: settings, credentials, keys,
//! certificates.
//! Vocabulary: names no stage.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The largest file that is read. A list of the components of a large image has some MiB, and
/// `stowage serve` keeps such documents in memory.
const LARGEST: u64 = 32 << 20;

/// Reads a whole file. A FIFO is refused, since opening it would wait until another program writes
/// to it. A pipe that this program inherited, as a shell passes it for `<(COMMAND)`, is read.
///
/// # Errors
/// Fails if the file can't be read, is a FIFO or a block device, or has more than 32 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let is_inherited = ["/dev/stdin", "/dev/fd", "/proc/self/fd"].map(Path::new);
    let is_inherited = is_inherited.into_iter().any(|place| path.starts_with(place));
    let mut options = File::options();
    options.read(true);
    if !is_inherited {
        options.custom_flags(nix::libc::O_NONBLOCK);
    }
    let mut file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if (kind.is_fifo() && !is_inherited) || kind.is_block_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 32 MiB"));
    }
    Ok(bytes)
}

/// Reads a whole file of text.
///
/// # Errors
/// Fails like [`read`], and if the file is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read(path)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_small_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "12345").unwrap();
        mkfifo(&path("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        std::os::unix::fs::symlink(path("fifo"), path("link")).unwrap();
        assert_eq!(read(&path("file")).unwrap(), b"12345");
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
        for (name, expected) in [
            ("fifo", "it is no regular file"),
            ("link", "it is no regular file"),
            ("/dev/zero", "it is larger than 32 MiB"),
            ("/", "Is a directory"),
            ("none", "No such file"),
        ] {
            let error = read(&path(name)).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
        fs::write(path("file"), b"\xff").unwrap();
        assert_eq!(read_text(&path("file")).unwrap_err().to_string(), "it is no UTF-8 text");
    }
}
