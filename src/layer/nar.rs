//! Computes the NAR hash of a store path: Nix's own digest of the path's contents.
//! Stage: layer. Input: a store path. Output: [`NarHash`].
//!
//! Layers do not need it, but it shows *which* store path of a layer has changed. It is computed
//! here, since the crates for NARs refuse names that are not UTF-8, which real packages have.

use std::io::{self, Write};

use super::Error;
use super::pieces::Pieces;
use super::scan::{Child, Directory, Kind};
use crate::closure::NarHash;
use crate::digest::DigestWriter;
use crate::sink::Sink;
use crate::store::{Store, StorePath};

/// Hashes the NAR serialisation of a store path as it is now (Nix manual, "Nix Archive (NAR)
/// format").
///
/// # Errors
/// Fails if the path can't be read.
pub fn nar_hash(store: &Store, path: &StorePath) -> Result<NarHash, Error> {
    let mut nar = Nar { out: Pieces::new(DigestWriter::new(io::sink())) };
    nar.text(b"nix-archive-1")?;
    let directory = Directory::of_store(store)?;
    let child = directory.child(path.base_path())?;
    nar.node(&directory, &child)?;
    Ok(NarHash::new(nar.out.finish()?.finish().0.bytes()))
}

/// Hashes the NAR of a directory of plain files, which need not be stored: their bytes are written
/// to this value, one file after the other.
pub struct DirectoryNar {
    nar: Nar<DigestWriter<io::Sink>>,
    name: String,
    size: u64,
    /// The number of bytes of the last file that are still to come.
    left: u64,
}

impl DirectoryNar {
    /// Begins with an empty directory.
    ///
    /// # Errors
    /// Fails never in practice, since hashing can't fail.
    pub fn new() -> io::Result<Self> {
        let mut nar = Nar { out: Pieces::new(DigestWriter::with_thread(io::sink())) };
        nar.texts(&[b"nix-archive-1", b"(", b"type", b"directory"])?;
        Ok(Self { nar, name: String::new(), size: 0, left: 0 })
    }

    /// Begins a file, whose bytes are to be written next. Files must come in the order of the bytes
    /// of their names.
    ///
    /// # Errors
    /// Fails never in practice, since hashing can't fail.
    pub fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        assert!(*name > *self.name, "a NAR has its files in order");
        name.clone_into(&mut self.name);
        (self.size, self.left) = (size, size);
        self.nar.texts(&[b"entry", b"(", b"name", name.as_bytes(), b"node"])?;
        self.nar.texts(&[b"(", b"type", b"regular", b"contents"])?;
        self.nar.out.write_all(&size.to_le_bytes())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::InvalidData`] if bytes are missing.
    pub fn end(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.nar.pad(self.size)?;
        self.nar.texts(&[b")", b")"])
    }

    /// Returns the hash of the directory.
    ///
    /// # Errors
    /// Fails never in practice, since hashing can't fail.
    pub fn finish(mut self) -> io::Result<NarHash> {
        self.nar.text(b")")?;
        Ok(NarHash::new(self.nar.out.finish()?.finish().0.bytes()))
    }
}

impl Write for DirectoryNar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let written = self.nar.out.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Nar<S: Sink> {
    out: Pieces<S>,
}

impl<S: Sink> Nar<S> {
    /// Writes the length as 64 bits in little endian, the bytes, and zeros up to a multiple of 8.
    fn text(&mut self, text: &[u8]) -> io::Result<()> {
        self.out.write_all(&(text.len() as u64).to_le_bytes())?;
        self.out.write_all(text)?;
        self.pad(text.len() as u64)
    }

    fn texts(&mut self, texts: &[&[u8]]) -> io::Result<()> {
        texts.iter().try_for_each(|text| self.text(text))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.out.write_all(&[0; 8][..((8 - size % 8) % 8) as usize])
    }

    fn node(&mut self, parent: &Directory, child: &Child) -> Result<(), Error> {
        self.texts(&[b"(", b"type"])?;
        match child.kind {
            Kind::Symlink => {
                self.texts(&[b"symlink", b"target", &parent.read_link(child)?])?;
            }
            Kind::File => {
                let file = parent.open_file(child)?;
                self.text(b"regular")?;
                if file.executable {
                    self.texts(&[b"executable", b""])?;
                }
                self.text(b"contents")?;
                let size = file.size;
                self.out.write_all(&size.to_le_bytes())?;
                file.copy_to(&mut self.out, || parent.path_of(child))?;
                self.pad(size)?;
            }
            Kind::Directory => {
                self.text(b"directory")?;
                let mut directory = parent.open_directory(child)?;
                for child in directory.children()? {
                    self.texts(&[b"entry", b"(", b"name", child.name(), b"node"])?;
                    self.node(&directory, &child)?;
                    self.text(b")")?;
                }
            }
        }
        Ok(self.text(b")")?)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Compares with the output of `nix-hash --type sha256 --base32` for the same tree.
    #[test]
    fn agrees_with_nix() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path());
        let path: StorePath = "00000000000000000000000000000000-x".parse().unwrap();
        let dir = store.physical(&path);
        fs::create_dir_all(dir.join("a")).unwrap();
        fs::write(dir.join("a/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(dir.join("a/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("a-b"), "12345678").unwrap();
        fs::write(dir.join(OsStr::from_bytes(b"\xff")), "").unwrap();
        symlink("a/run", dir.join("link")).unwrap();
        let expected = "sha256:08r44rwpv3wc5g4fffv550f6ihmkckk3hpiwdl5binfqff1nfsxn";
        assert_eq!(nar_hash(&store, &path).unwrap().to_string(), expected);
    }

    #[test]
    fn files_that_are_not_stored_are_hashed_as_if_they_were() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path());
        let path: StorePath = "00000000000000000000000000000000-x".parse().unwrap();
        let dir = store.physical(&path);
        fs::create_dir_all(&dir).unwrap();
        let mut nar = DirectoryNar::new().unwrap();
        for (name, text) in [("0", "12345678"), ("a", ""), ("manifest.json", "text")] {
            fs::write(dir.join(name), text).unwrap();
            nar.begin(name, text.len() as u64).unwrap();
            nar.write_all(text.as_bytes()).unwrap();
            nar.end().unwrap();
        }
        assert_eq!(nar.finish().unwrap(), nar_hash(&store, &path).unwrap());

        let mut nar = DirectoryNar::new().unwrap();
        nar.begin("a", 2).unwrap();
        assert_eq!(nar.write_all(b"123").unwrap_err().kind(), io::ErrorKind::InvalidData);
        nar.write_all(b"1").unwrap();
        assert_eq!(nar.end().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
