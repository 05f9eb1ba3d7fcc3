//! Finds the files of a base image, in a directory or an archive, by their names.
//! Stage: oci. Opens files. Input: a path. Output: [`Files`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use super::beneath::{is_beneath, is_relative};
use super::error::Problem;
use crate::image_path::{ImagePath, Last, MOST_LINKS, NodeKind, Tree, resolve};
use crate::oci::compression::Compression;
use crate::oci::stored::BlobPlace;
use crate::oci::unpack::{self, Budget, TarError, TarReader, has_check_sum};
use crate::regular_file;
use crate::store::Store;

/// The size up to which files of a compressed archive are kept in memory, since reading them later
/// would start over.
const SMALL: u64 = 1 << 20;
/// The total size of these files.
const SMALL_TOTAL: u64 = 16 << 20;
const BUFFER: usize = 256 << 10;

/// The files of an image, in a directory or an archive.
pub struct Files<'s> {
    store: &'s Store,
    kind: Kind,
}

enum Kind {
    Directory(PathBuf),
    Archive {
        file: PathBuf,
        compression: Compression,
        members: Members,
        /// The bytes of the small files of a compressed archive.
        small: BTreeMap<ImagePath, Vec<u8>>,
    },
}

/// The members of an archive, without directories.
#[derive(Default)]
struct Members(BTreeMap<ImagePath, Member>);

enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// A link to another member, with its target.
    Link(Vec<u8>),
}

impl<'m> Tree for &'m Members {
    type Node = NodeKind<'m>;
    type Error = Infallible;

    /// Returns what is at a path; directories need no member of their own.
    fn node(&mut self, path: &ImagePath) -> Result<Option<NodeKind<'m>>, Infallible> {
        Ok(Some(match self.0.get(path) {
            Some(Member::Link(target)) => NodeKind::Symlink(target),
            _ => NodeKind::Directory,
        }))
    }

    fn kind<'n>(node: &'n NodeKind<'m>) -> NodeKind<'n> {
        *node
    }
}

impl<'s> Files<'s> {
    /// Lists an archive, or looks at a directory.
    ///
    /// # Errors
    /// Fails with [`Problem::Read`], [`Problem::NotAnImage`], [`Problem::Truncated`] or
    /// [`Problem::Unpack`] if it can't be read or listed.
    pub fn open(store: &'s Store, path: &Path) -> Result<Self, Problem> {
        if is_pipe(&store.locate(path)) {
            let reason =
                "it is a pipe, and an archive is read more than once: write it to a file first";
            return Err(Problem::NotAnImage(reason.to_owned()));
        }
        let path = without_links(store, path)?;
        let physical = store.locate(&path);
        let read_error = |source| Problem::Read { file: path.clone(), source };
        let kind = if physical.is_dir() {
            Kind::Directory(path)
        } else {
            let file = regular_file::open(&physical).map_err(read_error)?;
            let length = file.metadata().map_err(read_error)?.len();
            let mut reader = BufReader::with_capacity(BUFFER, file);
            let start = reader.fill_buf().map_err(read_error)?;
            let compression = Compression::of(start);
            if compression.is_none() {
                check_tar(start)?;
                archive(path, reader, length)?
            } else {
                let reader = compression.reader(reader).map_err(read_error)?;
                compressed_archive(path, compression, reader)?
            }
        };
        Ok(Self { store, kind })
    }

    /// Returns the place of a file, or `None` if there is no such file.
    ///
    /// # Errors
    /// Fails with [`Problem::Read`], and with [`Problem::Outside`] if the name leads out of the
    /// directory.
    pub fn find(&self, name: &str) -> Result<Option<BlobPlace>, Problem> {
        match &self.kind {
            Kind::Directory(directory) => {
                if !is_relative(name) {
                    return Err(Problem::Outside(name.to_owned()));
                }
                let path = directory.join(name);
                if fs::symlink_metadata(self.store.locate(&path)).is_err() {
                    return Ok(None);
                }
                let file = without_links(self.store, &path)?;
                let beneath = is_beneath(&self.store.locate(directory), name);
                // A directory that Nix made may consist of links to other store paths.
                if !self.is_in_store(&file)
                    && !beneath.map_err(|source| Problem::Read { file: path, source })?
                {
                    return Err(Problem::Outside(name.to_owned()));
                }
                let metadata = fs::metadata(self.store.locate(&file))
                    .map_err(|source| Problem::Read { file: file.clone(), source })?;
                let (offset, archive) = (0, Compression::None);
                Ok(metadata.is_file().then_some(BlobPlace {
                    file,
                    offset,
                    size: metadata.len(),
                    archive,
                }))
            }
            Kind::Archive { file, compression, .. } => {
                Ok(self.member(name).map(|(_, offset, size)| BlobPlace {
                    file: file.clone(),
                    offset,
                    size,
                    archive: *compression,
                }))
            }
        }
    }

    /// Returns whether a path is in the store, which everybody may read.
    fn is_in_store(&self, file: &Path) -> bool {
        let climbs = file.components().any(|component| component == Component::ParentDir);
        !climbs && file.starts_with(self.store.dir())
    }

    /// Returns the path, the offset and the size of a member, through links.
    fn member(&self, name: &str) -> Option<(ImagePath, u64, u64)> {
        let Kind::Archive { members, .. } = &self.kind else { return None };
        let name = ImagePath::parse(name.as_bytes()).ok()?;
        let (path, _) = resolve(&mut &*members, name.as_bytes(), Last::Followed).ok()?;
        match members.0.get(&path)? {
            Member::File { offset, size } => Some((path, *offset, *size)),
            Member::Link(_) => None,
        }
    }

    /// Returns the bytes of a document, or `None` if there is no such file.
    ///
    /// # Errors
    /// Fails with [`Problem::Read`], and with [`Problem::Document`] if the file has more than `most`
    /// bytes.
    pub fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Problem> {
        if let (Kind::Archive { small, .. }, Some((member, ..))) = (&self.kind, self.member(name))
            && let Some(bytes) = small.get(&member)
        {
            return Ok(Some(bytes.clone()));
        }
        let Some(place) = self.find(name)? else { return Ok(None) };
        if place.size > most {
            let reason = format!("it has {} bytes, and {most} are the most", place.size);
            return Err(Problem::Document { name: name.to_owned(), what: "document", reason });
        }
        let mut bytes = Vec::new();
        place
            .open(self.store)
            .and_then(|mut reader| reader.read_to_end(&mut bytes))
            .map_err(|source| Problem::Read { file: place.file, source })?;
        Ok(Some(bytes))
    }
}

/// Returns a path whose last component is not a symbolic link, so that a file in the store is named
/// by its own store path. Links into the store stay below the store's root.
pub fn without_links(store: &Store, path: &Path) -> Result<PathBuf, Problem> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let physical = store.locate(&path);
        let read_error = |source| Problem::Read { file: path.clone(), source };
        if !fs::symlink_metadata(&physical).map_err(read_error)?.is_symlink() {
            return Ok(path);
        }
        let target = fs::read_link(&physical).map_err(read_error)?;
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    Err(Problem::Read { source: io::Error::other("too many levels of symbolic links"), file: path })
}

/// Returns whether a path leads to a pipe or FIFO, also `/dev/stdin` and what a shell writes for `<(…)`:
/// the target of these links has no path.
fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Checks that bytes can begin a tar archive, to tell another format from a damaged archive.
fn check_tar(start: &[u8]) -> Result<(), Problem> {
    let other = match start {
        [] => "the file is empty",
        [b'B', b'Z', b'h', ..] => "bzip2 is not supported",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz is not supported",
        [b'#', b'!', ..] => "it is a script; its output may be one",
        _ if start.len() < 512 => "it is no tar archive",
        _ if start.get(257..262) != Some(b"ustar")
            && !start.first_chunk().is_some_and(has_check_sum) =>
        {
            "it is no tar archive"
        }
        _ => return Ok(()),
    };
    Err(Problem::NotAnImage(other.to_owned()))
}

/// Lists an archive without reading the contents of its members.
fn archive(file: PathBuf, reader: BufReader<File>, length: u64) -> Result<Kind, Problem> {
    let mut members = Members::default();
    let mut archive = TarReader::seeking(reader);
    let budget = Budget::default();
    while let Some(entry) = archive.next_member().map_err(tar_error)? {
        if let Some((name, member)) = member(&entry) {
            if let Member::File { offset, size } = member
                && offset.saturating_add(size) > length
            {
                let name = String::from_utf8_lossy(name.as_bytes());
                return Err(Problem::Truncated(format!(
                    "`{name}` ends at byte {}, the file at byte {length}",
                    offset.saturating_add(size)
                )));
            }
            remember(&budget, &name)?;
            members.0.insert(name, member);
        }
    }
    Ok(Kind::Archive { file, compression: Compression::None, members, small: BTreeMap::new() })
}

/// Lists an archive that has to be decompressed for this.
fn compressed_archive(
    file: PathBuf,
    compression: Compression,
    reader: impl Read,
) -> Result<Kind, Problem> {
    let (mut members, mut small) = (Members::default(), BTreeMap::new());
    let mut kept = 0;
    let mut archive = TarReader::new(reader);
    let budget = Budget::default();
    while let Some(mut entry) = archive.next_member().map_err(|error| match error {
        TarError::NoHeader(0) => Problem::NotAnImage("it holds no tar archive".to_owned()),
        error => tar_error(error),
    })? {
        let Some((name, member)) = member(&entry) else { continue };
        remember(&budget, &name)?;
        if let Member::File { size, .. } = member
            && size <= SMALL
            && kept + size <= SMALL_TOTAL
        {
            kept += size;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(unpack_error)?;
            small.insert(name.clone(), bytes);
        }
        members.0.insert(name, member);
    }
    // Read to the end: a compressed stream that was cut after the last entry lacks its checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unpack_error)?;
    Ok(Kind::Archive { file, compression, members, small })
}

/// Takes the memory of a name, which two maps may hold, from a budget.
fn remember(budget: &Budget, name: &ImagePath) -> Result<(), Problem> {
    budget.take(128 + 2 * name.as_bytes().len() as u64).map_err(unpack_error)
}

fn member<R>(entry: &unpack::Member<R>) -> Option<(ImagePath, Member)> {
    let name = ImagePath::normal(entry.path());
    let member = match entry.kind() {
        EntryType::Regular | EntryType::Continuous => {
            Member::File { offset: entry.offset(), size: entry.size() }
        }
        // `docker save` and skopeo write the second copy of a layer as a link.
        EntryType::Symlink => Member::Link(entry.target().to_vec()),
        // The target of a hard link is a name from the root.
        EntryType::Link => Member::Link([b"/", entry.target()].concat()),
        _ => return None,
    };
    Some((name, member))
}

fn unpack_error(source: io::Error) -> Problem {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return Problem::Truncated("the archive has no end".to_owned());
    }
    match TarError::from(source) {
        TarError::Read(source) => Problem::Unpack { what: "tar archive", source },
        error @ TarError::NoHeader(_) => {
            Problem::Unpack { what: "tar archive", source: io::Error::other(error) }
        }
        error => Problem::Archive(error),
    }
}

fn tar_error(error: TarError) -> Problem {
    unpack_error(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_members() {
        let file = |offset| Member::File { offset, size: 1 };
        let link = |target: &str| Member::Link(target.into());
        let members = [
            ("a/b/x", file(7)),
            ("directory", link("a")),
            ("a/up", link("../directory/b")),
            ("hard", link("/a/b/x")),
            ("second", link("./hard")),
            ("out", link("../../a/b/x")),
            ("self", link("self")),
            ("dangling", link("none")),
        ];
        let members = members.map(|(name, member)| (ImagePath::normal(name.as_bytes()), member));
        let store = Store::default();
        let kind = Kind::Archive {
            file: "archive".into(),
            compression: Compression::None,
            members: Members(members.into()),
            small: BTreeMap::new(),
        };
        let files = Files { store: &store, kind };
        for name in ["a/b/x", "directory/b/x", "a/up/x", "hard", "second", "out"] {
            let (path, offset, _) = files.member(name).expect(name);
            assert_eq!((path.to_string(), offset), ("/a/b/x".to_owned(), 7), "{name}");
        }
        for name in ["a", "directory", "self", "dangling", "x", "", "./hard", "/hard", "../hard"] {
            assert!(files.member(name).is_none(), "{name}");
        }
    }
}
