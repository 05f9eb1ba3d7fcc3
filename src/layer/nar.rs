//! The NAR hash of a store path: what Nix itself says a path's contents are.
//! Stage: layer. Input: a store path. Output: [`NarHash`].
//!
//! Layers don't need it, but it tells *which* store path of a layer is not what it
//! was. Written here, as the crates that read and write NARs refuse names that are
//! no UTF-8, which real packages have.

use std::io::{self, BufWriter, Write};

use super::Error;
use super::scan::{BUFFER, Child, Directory, Kind};
use crate::closure::NarHash;
use crate::digest::DigestWriter;
use crate::store::{Store, StorePath};

/// Hashes the NAR serialisation of a store path as it is now (Nix manual, "Nix
/// Archive (NAR) format").
///
/// # Errors
/// Whatever keeps it from being read.
pub fn nar_hash(store: &Store, path: &StorePath) -> Result<NarHash, Error> {
    let mut digest = DigestWriter::new(io::sink());
    let mut nar =
        Nar { out: BufWriter::with_capacity(BUFFER, &mut digest), buffer: vec![0; BUFFER] };
    nar.text(b"nix-archive-1")?;
    let directory = Directory::of_store(store)?;
    let child = directory.child(path.to_base_path())?;
    nar.node(&directory, &child)?;
    nar.out.flush()?;
    drop(nar);
    Ok(NarHash::new(digest.finish().0.bytes()))
}

struct Nar<W: Write> {
    out: BufWriter<W>,
    buffer: Vec<u8>,
}

impl<W: Write> Nar<W> {
    /// Length as 64 bits in little endian, bytes, zeros up to a multiple of 8.
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
                file.copy_to(&mut self.out, &mut self.buffer, || parent.path_of(child))?;
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

    /// Golden: `nix-hash --type sha256 --base32` of the same tree.
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
}
