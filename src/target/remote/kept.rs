//! Keeps layers that were received, so that the next image finds their pieces.
//! Stage: target. Input and output: files in a directory of bounded size.
//!
//! A layer is a file with its blob, named by the blob's digest, and beside it a list of the blob's
//! pieces. Neither file is believed: every byte that is taken from them is hashed again.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::cut::{MOST_PART, MOST_PIECES};
use super::wire::PieceId;
use crate::digest::{BlobDigest, Digest, DigestReader};
use crate::outgoing::{Error, UnnamedFile, remove_stale};
use crate::regular_file;

/// The mode of new files: images may hold what other users must not read.
const PRIVATE: u32 = 0o600;
/// The end of the name of a blob's file.
const BLOB: &str = "blob";
/// The end of the name of a file with a list of pieces.
const PIECES: &str = "pieces";
/// The number of bytes of a piece in such a list: offset, length and digest.
const ENTRY: usize = 8 + 4 + 32;

/// The layers that a receiver keeps. Dropping the value removes the oldest ones until the rest is
/// within the limit.
pub struct KeptLayers {
    directory: PathBuf,
    most: u64,
    /// The directory, locked as long as files in it are in use; not locked if its file system has no
    /// locks.
    lock: File,
    files: Vec<Arc<File>>,
    pieces: HashMap<Digest, Place>,
}

/// The place of a piece.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    offset: u64,
    length: u32,
}

impl KeptLayers {
    /// Opens a directory, makes it if it is missing, and reads the lists of pieces. Keeps `most` bytes
    /// of layers.
    ///
    /// # Errors
    /// Fails with [`Error::File`] or [`Error::Read`] if the directory can't be made or read.
    pub fn open(directory: &Path, most: u64) -> Result<Self, Error> {
        let write = |source| Error::File { path: directory.to_owned(), source };
        let read = |source| Error::Read { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(write)?;
        let directory = fs::canonicalize(directory).map_err(read)?;
        let lock = File::open(&directory).map_err(read)?;
        // Without this lock, another receiver could remove what this one uses. If the file system has
        // none, such a receiver makes this one fail, and no image wrong.
        let _ = lock.lock_shared();
        let (files, pieces) = Default::default();
        let mut kept = Self { directory, most, lock, files, pieces };
        for (path, _) in kept.blobs().map_err(read)? {
            kept.list(&path);
        }
        Ok(kept)
    }

    /// Returns the path of a blob, which may not be there.
    pub fn path(&self, digest: &BlobDigest) -> PathBuf {
        self.directory.join(digest.digest().hex()).with_extension(BLOB)
    }

    /// Returns the files of all blobs, from the oldest, with the time of their last use.
    fn blobs(&self) -> io::Result<Vec<(PathBuf, SystemTime)>> {
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|end| end == BLOB) {
                // Another receiver may remove the file meanwhile.
                let Ok(metadata) = entry.metadata() else { continue };
                blobs.push((path, metadata.modified()?));
            }
        }
        blobs.sort_by(|(path, used), (other, other_used)| (used, path).cmp(&(other_used, other)));
        Ok(blobs)
    }

    /// Adds the pieces of a blob. A file that can't be read has none.
    fn list(&mut self, blob: &Path) {
        let both = (regular_file::open(blob), regular_file::open(&blob.with_extension(PIECES)));
        let (Ok(file), Ok(list)) = both else {
            return;
        };
        let mut list = BufReader::new(list);
        let mut entry = [0; ENTRY];
        let number = self.files.len();
        for _ in 0..MOST_PIECES {
            if list.read_exact(&mut entry).is_err() {
                break;
            }
            let (offset, rest) = entry.split_at(8);
            let (length, digest) = rest.split_at(4);
            let offset = u64::from_le_bytes(offset.try_into().expect("they are eight bytes"));
            let length = u32::from_le_bytes(length.try_into().expect("they are four bytes"));
            let digest = Digest::from_bytes(digest.try_into().expect("they are 32 bytes"));
            self.pieces.insert(digest, Place { file: number, offset, length });
        }
        self.files.push(Arc::new(file));
    }

    /// Reads a piece into `bytes`. Returns whether it is kept, undamaged.
    pub fn read(&self, piece: &PieceId, bytes: &mut Vec<u8>) -> bool {
        let PieceId { digest, length } = *piece;
        let Some(place) = self.pieces.get(&digest).filter(|place| place.length == length) else {
            return false;
        };
        let length = length as usize;
        if length > MOST_PART {
            return false;
        }
        bytes.resize(length, 0);
        let file = &self.files[place.file];
        file.read_exact_at(bytes, place.offset).is_ok() && Digest::of(bytes) == digest
    }

    /// Returns the file of a blob that is kept undamaged, and notes its use.
    pub fn blob(&self, digest: &BlobDigest, size: u64) -> Option<PathBuf> {
        let path = self.path(digest);
        let file = regular_file::open(&path).ok()?;
        if file.metadata().ok()?.len() != size || !is_blob(&file, digest, size) {
            return None;
        }
        // Without the time, the file is removed earlier than others: nothing else depends on it.
        let _ = file.set_modified(SystemTime::now());
        Some(path)
    }

    /// Makes a file for a blob.
    ///
    /// # Errors
    /// Fails with [`Error::File`].
    pub fn begin(&self, digest: &BlobDigest) -> Result<NewBlob, Error> {
        let path = self.path(digest);
        let file = UnnamedFile::beside(&path, PRIVATE);
        let list = UnnamedFile::beside(&path, PRIVATE);
        let (file, list) = file
            .and_then(|file| Ok((file, list?)))
            .map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(NewBlob { file, list, path, size: 0, entries: Vec::new() })
    }

    /// Keeps a blob, if it is what its digest says, and adds its pieces to those that are found.
    ///
    /// # Errors
    /// Fails with [`Error::File`].
    pub fn keep(&mut self, blob: NewBlob, digest: &BlobDigest) -> Result<Option<PathBuf>, Error> {
        let NewBlob { file, list, path, size, entries } = blob;
        if !is_blob(file.as_file(), digest, size) {
            return Ok(None);
        }
        let named = || {
            BufWriter::new(list.as_file()).write_all(&entries)?;
            let list_path = path.with_extension(PIECES);
            for place in [&list_path, &path] {
                make_way(place)?;
            }
            // The blob comes last: a blob without a list is never used for its pieces.
            list.persist(&list_path)?;
            file.persist(&path)
        };
        named().map_err(|source| Error::File { path: path.clone(), source })?;
        self.list(&path);
        Ok(Some(path))
    }

    /// Removes the oldest layers until the rest is within the limit.
    fn remove_oldest(&self) -> io::Result<()> {
        remove_stale(&self.directory)?;
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let both = |blob: &Path| size(blob) + size(&blob.with_extension(PIECES));
        let blobs = self.blobs()?;
        let mut total: u64 = blobs.iter().map(|(blob, _)| both(blob)).sum();
        for (blob, _) in blobs {
            if total <= self.most {
                break;
            }
            total -= both(&blob).min(total);
            // What can't be removed, such as somebody's directory, keeps no other file here.
            let _ = regular_file::clear(&blob);
            let _ = regular_file::clear(&blob.with_extension(PIECES));
        }
        Ok(())
    }
}

impl Drop for KeptLayers {
    fn drop(&mut self) {
        // Another receiver that works here removes the oldest layers when it has finished.
        let is_alone = self.lock.unlock().is_ok() && self.lock.try_lock().is_ok();
        if is_alone {
            let _ = self.remove_oldest();
        }
    }
}

/// Removes what is no file from the place of a file.
fn make_way(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => regular_file::clear(path),
        _ => Ok(()),
    }
}

/// Returns whether a file has the bytes of a blob.
fn is_blob(mut file: &File, digest: &BlobDigest, size: u64) -> bool {
    file.seek(SeekFrom::Start(0)).is_ok()
        && DigestReader::new(file).finish().is_ok_and(|found| found == (*digest.digest(), size))
}

/// A blob that is not complete, and has no name.
pub struct NewBlob {
    file: UnnamedFile,
    list: UnnamedFile,
    path: PathBuf,
    size: u64,
    /// The list of pieces.
    entries: Vec<u8>,
}

impl NewBlob {
    /// Appends bytes.
    ///
    /// # Errors
    /// Fails with [`Error::File`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.fill(self.size, bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Notes that a piece comes next, and returns its offset. Its bytes are appended, or left out with
    /// [`skip`](Self::skip).
    pub fn piece(&mut self, piece: &PieceId) -> u64 {
        self.entries.extend_from_slice(&self.size.to_le_bytes());
        self.entries.extend_from_slice(&piece.length.to_le_bytes());
        self.entries.extend_from_slice(&piece.digest.bytes());
        self.size
    }

    /// Leaves room for bytes that are filled in later.
    pub fn skip(&mut self, bytes: u32) {
        self.size += u64::from(bytes);
    }

    /// Fills in bytes.
    ///
    /// # Errors
    /// Fails with [`Error::File`].
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.as_file().write_all_at(bytes, offset);
        written.map_err(|source| Error::File { path: self.path.clone(), source })
    }

    /// Returns the number of bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(kept: &mut KeptLayers, parts: &[&[u8]]) -> (BlobDigest, Option<PathBuf>) {
        let digest = BlobDigest::new(Digest::of(&parts.concat()));
        let mut blob = kept.begin(&digest).unwrap();
        for part in parts {
            blob.piece(&id(part));
            blob.append(part).unwrap();
        }
        (digest, kept.keep(blob, &digest).unwrap())
    }

    fn id(bytes: &[u8]) -> PieceId {
        PieceId { digest: Digest::of(bytes), length: u32::try_from(bytes.len()).unwrap() }
    }

    fn has(kept: &KeptLayers, piece: &[u8]) -> bool {
        let mut bytes = Vec::new();
        kept.read(&id(piece), &mut bytes) && bytes == piece
    }

    #[test]
    fn pieces_are_found_again_unless_they_are_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let mut kept = KeptLayers::open(&path, 1 << 20).unwrap();
        let (digest, file) = keep(&mut kept, &[b"one", b"two"]);
        let file = file.unwrap();
        assert!(has(&kept, b"one") && has(&kept, b"two") && !has(&kept, b"three"));
        drop(kept);
        let kept = KeptLayers::open(&path, 1 << 20).unwrap();
        assert!(has(&kept, b"two"));
        assert_eq!(kept.blob(&digest, 6), Some(file.clone()));
        assert_eq!(kept.blob(&digest, 7), None);
        fs::write(&file, "oneTWO").unwrap();
        assert!(has(&kept, b"one") && !has(&kept, b"two"));
        assert_eq!(kept.blob(&digest, 6), None);
        drop(kept);
        // Neither list nor blob is believed.
        fs::write(file.with_extension(PIECES), [0xff; ENTRY + 5]).unwrap();
        let kept = KeptLayers::open(&path, 1 << 20).unwrap();
        assert!(!has(&kept, b"one"));
    }

    /// Checks what other programs may have left: FIFOs would make every copy wait.
    #[test]
    fn what_is_no_file_makes_way() {
        use nix::sys::stat::Mode;
        use nix::unistd::mkfifo;
        let directory = tempfile::tempdir().unwrap();
        let digest = BlobDigest::new(Digest::of(b"text"));
        let place = KeptLayers::open(directory.path(), 100).unwrap().path(&digest);
        let make_fifo = |path: &Path| mkfifo(path, Mode::S_IRWXU).unwrap();
        let make_directory = |path: &Path| fs::create_dir(path).unwrap();
        let occupants: [&dyn Fn(&Path); 2] = [&make_fifo, &make_directory];
        for occupy in occupants {
            occupy(&place);
            occupy(&place.with_extension(PIECES));
            let mut kept = KeptLayers::open(directory.path(), 100).unwrap();
            assert_eq!(kept.blob(&digest, 4), None);
            let (_, file) = keep(&mut kept, &[b"text"]);
            assert_eq!(file, Some(place.clone()));
            drop(kept);
            fs::remove_file(place.with_extension(PIECES)).unwrap();
            fs::remove_file(&place).unwrap();
        }
        // A directory with files stays, and keeps no other layer here.
        fs::create_dir_all(place.join("somebody's")).unwrap();
        let mut kept = KeptLayers::open(directory.path(), 0).unwrap();
        keep(&mut kept, &[b"other"]);
        drop(kept);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_wrong_blob_gets_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = KeptLayers::open(directory.path(), 1 << 20).unwrap();
        let digest = BlobDigest::new(Digest::of(b"right"));
        let mut blob = kept.begin(&digest).unwrap();
        blob.append(b"wrong").unwrap();
        assert_eq!(kept.keep(blob, &digest).unwrap(), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_oldest_layers_are_removed_once_no_receiver_uses_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = KeptLayers::open(directory.path(), 100).unwrap();
        let other = KeptLayers::open(directory.path(), 100).unwrap();
        let (old, file) = keep(&mut kept, &[&[1; 40]]);
        let past = SystemTime::now() - std::time::Duration::from_hours(1);
        File::open(file.unwrap()).unwrap().set_modified(past).unwrap();
        let (new, _) = keep(&mut kept, &[&[2; 40]]);
        drop(kept);
        assert!(other.blob(&new, 40).is_some());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
        drop(other);
        let kept = KeptLayers::open(directory.path(), 0).unwrap();
        assert!(kept.blob(&old, 40).is_none() && kept.blob(&new, 40).is_some());
        drop(kept);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
