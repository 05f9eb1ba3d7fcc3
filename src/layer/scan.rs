//! Reads the store: directories by descriptor, and the bytes of files.
//! Stage: layer. The only module of this stage that opens files.
//!
//! Files are opened relative to their directory's descriptor: the kernel then resolves one
//! component instead of a whole path, which is most of the cost for small files.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::Error;
use super::pieces::Pieces;
use crate::sink::{FileBytes, Sink};
use crate::store::Store;

/// The kinds of files that a layer can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    name: CString,
    /// The length of the name without the suffix that Nix appended.
    length: usize,
    /// The kind of the entry.
    pub kind: Kind,
}

/// The suffix, before a number, that Nix appends to names that differ only in case, on file systems
/// that ignore case (nix, `libutil/archive.cc`).
const CASE_HACK: &[u8] = b"~nix~case~hack~";

impl Child {
    /// Returns the name as bytes.
    pub fn name(&self) -> &[u8] {
        &self.name.as_bytes()[..self.length]
    }
}

/// An open directory.
pub struct Directory {
    dir: Dir,
    /// The path, for messages and for `perms`.
    path: PathBuf,
    case_hack: bool,
}

impl Directory {
    /// Opens the store directory.
    pub fn of_store(store: &Store) -> Result<Self, Error> {
        let directory = Self::open(&store.physical_dir())?;
        Ok(Self { case_hack: store.case_hack(), ..directory })
    }

    /// Opens a directory by its path. Names in it are taken unchanged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let dir = Dir::open(path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let dir = dir.map_err(|errno| read_error(path, errno))?;
        Ok(Self { dir, path: path.to_owned(), case_hack: false })
    }

    /// Returns the directory with names that may have the suffix that Nix appends on macOS.
    pub fn with_case_hack(self, case_hack: bool) -> Self {
        Self { case_hack, ..self }
    }

    /// Opens a subdirectory of this directory.
    pub fn open_directory(&self, child: &Child) -> Result<Self, Error> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let path = self.path_of(child);
        let dir = Dir::openat(&self.dir, child.name.as_c_str(), flags, Mode::empty());
        let dir = dir.map_err(|errno| read_error(&path, errno))?;
        Ok(Self { dir, path, case_hack: self.case_hack })
    }

    /// Returns the entry of a name, of any kind.
    ///
    /// # Errors
    /// Fails with [`Error::Missing`] if there is no such entry.
    pub fn child(&self, name: impl AsRef<OsStr>) -> Result<Child, Error> {
        let path = self.path.join(name.as_ref());
        let name = CString::new(name.as_ref().as_bytes());
        let name = name.map_err(|_| Error::Missing { path: path.clone() })?;
        let stat = fstatat(&self.dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| match errno {
            Errno::ENOENT => Error::Missing { path: path.clone() },
            errno => read_error(&path, errno),
        })?;
        Ok(self.named(name, kind_of(&stat, &path)?))
    }

    fn named(&self, name: CString, kind: Kind) -> Child {
        let bytes = name.as_bytes();
        let suffix = self.case_hack.then(|| last_place(bytes, CASE_HACK)).flatten();
        let length = suffix.unwrap_or(bytes.len());
        Child { name, length, kind }
    }

    /// Returns all entries, sorted by the bytes of their names.
    ///
    /// # Errors
    /// Fails with [`Error::Special`] or [`Error::Whiteout`] for an entry that a layer can't hold,
    /// and with [`Error::SameName`] for one that Nix would not have written.
    pub fn children(&mut self) -> Result<Vec<Child>, Error> {
        let mut children = Vec::new();
        for entry in self.dir.iter() {
            let entry = entry.map_err(|errno| read_error(&self.path, errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            children.push((name.to_owned(), entry.file_type()));
        }
        let children = children.into_iter().map(|(name, kind)| self.checked(name, kind));
        let mut children = children.collect::<Result<Vec<_>, _>>()?;
        children.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        match children.windows(2).find(|pair| pair[0].name() == pair[1].name()) {
            Some(pair) => Err(Error::SameName { path: self.path_of(&pair[1]) }),
            None => Ok(children),
        }
    }

    fn checked(&self, name: CString, kind: Option<Type>) -> Result<Child, Error> {
        let path = || self.path.join(OsStr::from_bytes(name.as_bytes()));
        if name.as_bytes().starts_with(b".wh.") {
            return Err(Error::Whiteout { path: path() });
        }
        let kind = match kind {
            Some(Type::Directory) => Kind::Directory,
            Some(Type::File) => Kind::File,
            Some(Type::Symlink) => Kind::Symlink,
            // Some file systems do not report the type; for unsupported types `kind_of` has the
            // message.
            _ => {
                let stat = fstatat(&self.dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
                kind_of(&stat.map_err(|errno| read_error(&path(), errno))?, &path())?
            }
        };
        Ok(self.named(name, kind))
    }

    /// Opens an entry that is a regular file.
    pub fn open_file(&self, child: &Child) -> Result<OpenFile, Error> {
        self.try_open_file(&child.name).map_err(|errno| read_error(&self.path_of(child), errno))
    }

    fn try_open_file(&self, name: &CStr) -> Result<OpenFile, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::empty())?;
        let stat = fstat(file.as_fd())?;
        Ok(OpenFile {
            file: file.into(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            executable: stat.st_mode & 0o100 != 0,
        })
    }

    /// Returns the target of an entry that is a symbolic link.
    pub fn read_link(&self, child: &Child) -> Result<Vec<u8>, Error> {
        let target = readlinkat(&self.dir, child.name.as_c_str());
        let target = target.map_err(|errno| read_error(&self.path_of(child), errno))?;
        Ok(target.into_vec())
    }

    /// Returns the directory's path on this machine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns an entry's path, for messages.
    pub fn path_of(&self, child: &Child) -> PathBuf {
        self.path.join(OsStr::from_bytes(child.name.as_bytes()))
    }
}

/// Returns the last position of `needle` in `bytes`.
fn last_place(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).rposition(|window| window == needle)
}

fn kind_of(stat: &FileStat, path: &Path) -> Result<Kind, Error> {
    let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => return Ok(Kind::Directory),
        SFlag::S_IFREG => return Ok(Kind::File),
        SFlag::S_IFLNK => return Ok(Kind::Symlink),
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFIFO => "FIFO",
        SFlag::S_IFBLK => "block device",
        SFlag::S_IFCHR => "character device",
        _ => "file of an unknown kind",
    };
    Err(Error::Special { path: path.to_owned(), kind })
}

fn read_error(path: &Path, errno: Errno) -> Error {
    Error::Read { path: path.to_owned(), source: errno.into() }
}

/// An open file, with the values for its header.
pub struct OpenFile {
    file: File,
    /// The number of bytes.
    pub size: u64,
    /// True if the owner may execute the file, which is the only permission that Nix records.
    pub executable: bool,
}

/// The size from which on files are spliced: below it, to splice costs more than to copy.
const SPLICE_FROM: u64 = 64 << 10;
/// The number of bytes that are passed on at a time, so that progress is reported within a large
/// file.
const PASSED: u64 = 8 << 20;

impl OpenFile {
    /// Writes the file's bytes, exactly [`OpenFile::size`] of them.
    ///
    /// The bytes are read and not mapped: page faults, and removing a mapping on all processors,
    /// cost more than the copy, which is hashed while it is in the cache.
    ///
    /// # Errors
    /// Fails with [`Error::Changed`] if the file is shorter or longer, and with [`Error::Write`] if
    /// `out` fails.
    pub fn copy_to(
        mut self,
        out: &mut Pieces<impl Sink>,
        path: impl Fn() -> PathBuf,
    ) -> Result<(), Error> {
        let mut copied = 0;
        if self.size >= SPLICE_FROM && out.passes_files() {
            copied = self.pass(out)?;
            self.file
                .seek(SeekFrom::Start(copied))
                .map_err(|source| Error::Read { path: path(), source })?;
        }
        loop {
            // Ask for one byte more than expected, to notice a file that has grown.
            let wanted = usize::try_from(self.size - copied).unwrap_or(usize::MAX);
            let room = out.room();
            let room_size = room.len().min(wanted.saturating_add(1));
            let read = match self.file.read(&mut room[..room_size]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Read { path: path(), source }),
            };
            copied += read as u64;
            if copied > self.size || (read == 0 && copied < self.size) {
                return Err(Error::Changed { path: path(), expected: self.size, found: copied });
            }
            out.advance(read).map_err(Error::Write)?;
            // A regular file returns all bytes that were asked for, except at its end.
            if copied == self.size && read < room_size {
                return Ok(());
            }
        }
    }

    /// Lets the sink take as much of the file as it can. Returns the number of bytes.
    fn pass(&self, out: &mut Pieces<impl Sink>) -> Result<u64, Error> {
        let mut offset = 0;
        while offset < self.size {
            let length = PASSED.min(self.size - offset);
            let bytes = FileBytes { file: &self.file, offset, length };
            match out.pass_file(bytes).map_err(Error::Write)? {
                0 => break,
                more => offset += more,
            }
        }
        Ok(offset)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::sink::PIECE;

    fn directory(fill: impl FnOnce(&Path)) -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let open = Directory::open(dir.path()).unwrap();
        (dir, open)
    }

    fn read(dir: &Directory, name: &str) -> Result<Vec<u8>, Error> {
        let mut pieces = Pieces::new(Vec::new());
        let file = dir.open_file(&dir.child(name)?)?;
        file.copy_to(&mut pieces, || name.into())?;
        Ok(pieces.finish().unwrap())
    }

    #[test]
    fn children_are_sorted_by_bytes() {
        let (_guard, mut dir) = directory(|path| {
            fs::create_dir(path.join("b")).unwrap();
            fs::write(path.join("B"), "").unwrap();
            fs::write(path.join(OsStr::from_bytes(b"\xff")), "").unwrap();
            symlink("nowhere", path.join("é")).unwrap();
        });
        let children = dir.children().unwrap();
        let names: Vec<_> = children.iter().map(|child| (child.name(), child.kind)).collect();
        let expected: [(&[u8], _); 4] = [
            (b"B", Kind::File),
            (b"b", Kind::Directory),
            ("é".as_bytes(), Kind::Symlink),
            (b"\xff", Kind::File),
        ];
        assert_eq!(names, expected);
        assert_eq!(dir.read_link(&children[2]).unwrap(), b"nowhere");
    }

    /// Checks sizes around that of a piece, and of several pieces.
    #[test]
    fn files_of_every_size_are_read_whole() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - 1, 2 * PIECE, 9 * PIECE + 1] {
            let bytes: Vec<u8> = (0..size).map(|place| (place % 251) as u8).collect();
            let (_guard, dir) = directory(|path| fs::write(path.join("f"), &bytes).unwrap());
            assert!(read(&dir, "f").unwrap() == bytes, "{size} bytes");
        }
    }

    #[test]
    fn a_file_that_changed_is_an_error() {
        for (was, is) in [(3, 2), (3, 4), (0, 1), (PIECE as u64, PIECE as u64 + 1)] {
            let (_guard, dir) =
                directory(|path| fs::write(path.join("f"), vec![0; is as usize]).unwrap());
            let mut file = dir.open_file(&dir.child("f").unwrap()).unwrap();
            file.size = was;
            let error = file.copy_to(&mut Pieces::new(io::sink()), || "f".into()).unwrap_err();
            assert!(matches!(error, Error::Changed { expected, .. } if expected == was), "{error}");
        }
    }

    #[test]
    fn what_a_layer_cannot_hold_is_named() {
        let (_guard, mut dir) = directory(|path| {
            drop(UnixListener::bind(path.join("s")).unwrap());
        });
        assert!(matches!(dir.children().unwrap_err(), Error::Special { kind: "socket", .. }));
        let (_guard, mut dir) = directory(|path| {
            nix::unistd::mkfifo(&path.join("p"), Mode::S_IRUSR).unwrap();
        });
        assert!(matches!(dir.children().unwrap_err(), Error::Special { kind: "FIFO", .. }));
        let (_guard, mut dir) = directory(|path| fs::write(path.join(".wh.x"), "").unwrap());
        assert!(matches!(dir.children().unwrap_err(), Error::Whiteout { .. }));
        let device = Directory::open(Path::new("/dev")).unwrap().child("null").unwrap_err();
        assert!(matches!(device, Error::Special { kind: "character device", .. }));
    }

    #[test]
    fn a_darwin_store_has_names_with_a_suffix() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("nix/store/d");
        fs::create_dir_all(&dir).unwrap();
        for name in ["README", "readme~nix~case~hack~1", "Readme~nix~case~hack~2", "z"] {
            fs::write(dir.join(name), name).unwrap();
        }
        let names = |store: &Store| -> Result<Vec<_>, Error> {
            let store = Directory::of_store(store)?;
            let mut dir = store.open_directory(&store.child("d")?)?;
            let children = dir.children()?;
            Ok(children
                .iter()
                .map(|child| String::from_utf8_lossy(child.name()).into_owned())
                .collect())
        };
        let darwin = Store::below(root.path()).with_case_hack(true);
        assert_eq!(names(&darwin).unwrap(), ["README", "Readme", "readme", "z"]);
        let linux = Store::below(root.path()).with_case_hack(false);
        assert_eq!(names(&linux).unwrap()[3], "z");
        assert!(names(&linux).unwrap()[2].starts_with("readme~nix"));

        fs::write(dir.join("z~nix~case~hack~1"), "").unwrap();
        assert!(matches!(names(&darwin).unwrap_err(), Error::SameName { .. }));
    }

    #[test]
    fn what_is_missing_is_named() {
        let (_guard, dir) = directory(|_| ());
        assert!(matches!(dir.child("f").unwrap_err(), Error::Missing { .. }));
    }
}
