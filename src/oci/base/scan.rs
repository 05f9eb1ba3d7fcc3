//! Reads one layer of a base once: computes digests and sizes, and collects the changes to the
//! tree.
//! Stage: oci. Input: a blob's bytes. Output: [`Scan`].

use std::io::{self, BufRead, BufReader, Read};

use tar::EntryType;

use super::error::Problem;
use crate::digest::{BlobDigest, DiffId, DigestReader};
use crate::layer::{Attributes, BaseEntry, BaseLayerBuilder, BaseLayerTree};
use crate::oci::compression::Compression;
use crate::oci::unpack::{Budget, TarError, TarReader};

const BUFFER: usize = 256 << 10;

/// The result of reading a layer.
pub struct Scan {
    /// The digest of the blob as it is stored.
    pub digest: BlobDigest,
    /// The number of bytes of the blob as it is stored.
    pub size: u64,
    /// The compression of the tar.
    pub compression: Compression,
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The number of bytes of the tar.
    pub uncompressed_size: u64,
    /// The directories and links of the layer.
    pub tree: BaseLayerTree,
}

/// Reads a whole blob. The memory of its tree is taken from the budget.
///
/// # Errors
/// Fails with [`Problem::Truncated`], [`Problem::Unpack`] or [`Problem::Archive`] if the blob is
/// not a complete layer.
pub fn scan(blob: impl Read + Send, budget: &Budget) -> Result<Scan, Problem> {
    let mut blob = BufReader::with_capacity(BUFFER, DigestReader::new(blob));
    let start = blob.fill_buf().map_err(|error| unpack_error(Compression::None, error))?;
    let compression = Compression::of(start);
    let error = |error| unpack_error(compression, error);
    if compression.is_none() {
        let (tree, blob) = tree_of(blob, budget).map_err(error)?;
        let (digest, size) = blob.into_inner().finish().map_err(error)?;
        let (diff_id, digest) = (DiffId::new(digest), BlobDigest::new(digest));
        return Ok(Scan { digest, size, compression, diff_id, uncompressed_size: size, tree });
    }
    let tar = DigestReader::new(compression.reader(&mut blob).map_err(error)?);
    let (tree, tar) = tree_of(BufReader::with_capacity(BUFFER, tar), budget).map_err(error)?;
    let (diff_id, uncompressed_size) = tar.into_inner().finish().map_err(error)?;
    // A decoder may stop before the end of its input.
    let (digest, size) = blob.into_inner().finish().map_err(error)?;
    let (diff_id, digest) = (DiffId::new(diff_id), BlobDigest::new(digest));
    Ok(Scan { digest, size, compression, diff_id, uncompressed_size, tree })
}

/// Reads the directories and links of a tar. Also returns the reader, after the last entry.
fn tree_of<R: Read>(tar: R, budget: &Budget) -> io::Result<(BaseLayerTree, R)> {
    let mut tree = BaseLayerBuilder::default();
    let mut archive = TarReader::new(tar);
    while let Some(member) = archive.next_member()? {
        if member.kind() == EntryType::XGlobalHeader {
            continue;
        }
        member.check()?;
        let header = member.header();
        let kind = match member.kind() {
            EntryType::Directory => BaseEntry::Directory(Attributes {
                mode: header.mode()? & 0o7777,
                uid: header.uid()?,
                gid: header.gid()?,
            }),
            EntryType::Symlink => BaseEntry::Symlink(member.target()),
            EntryType::Link => BaseEntry::HardLink(member.target()),
            _ => BaseEntry::Other,
        };
        budget.take(tree.add(member.path(), kind))?;
    }
    Ok((tree.finish(), archive.into_inner()))
}

fn unpack_error(compression: Compression, source: io::Error) -> Problem {
    let what = match compression {
        Compression::None => "tar archive",
        Compression::Gzip => "tar archive in a gzip stream",
        Compression::Zstd => "tar archive in a zstd stream",
    };
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return Problem::Truncated(format!("it is not a complete {what}"));
    }
    match TarError::from(source) {
        TarError::Read(source) => Problem::Unpack { what, source },
        error @ TarError::NoHeader(_) => Problem::Unpack { what, source: io::Error::other(error) },
        error => Problem::Archive(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::digest::Digest;
    use crate::image_path::ImagePath;
    use crate::layer::BaseTree;

    /// Returns a tar with a directory, a link, a file, and GNU tar's padding.
    fn tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o41777);
        header.set_uid(7);
        header.set_gid(8);
        header.set_size(0);
        tar.append_data(&mut header, "tmp/", &[][..]).unwrap();
        header.set_entry_type(EntryType::Symlink);
        tar.append_link(&mut header, "bin", "tmp").unwrap();
        header.set_entry_type(EntryType::Regular);
        header.set_size(3);
        tar.append_data(&mut header, "etc/passwd", &b"abc"[..]).unwrap();
        let mut bytes = tar.into_inner().unwrap();
        bytes.resize(10240, 0);
        bytes
    }

    #[test]
    fn every_compression_gives_the_same_tree_and_diff_id() {
        let tar = tar();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        for (blob, compression) in [
            (tar.clone(), Compression::None),
            (gzip.finish().unwrap(), Compression::Gzip),
            (zstd::encode_all(&tar[..], 1).unwrap(), Compression::Zstd),
        ] {
            let found = scan(&blob[..], &Budget::default()).unwrap();
            assert_eq!((found.compression, found.size), (compression, blob.len() as u64));
            assert_eq!(found.digest.digest(), &Digest::of(&blob));
            assert_eq!(found.uncompressed_size, 10240);
            assert_eq!(found.diff_id.digest(), &Digest::of(&tar));
            let mut tree = BaseTree::default();
            tree.apply(&found.tree);
            let attributes = Attributes { mode: 0o1777, uid: 7, gid: 8 };
            assert_eq!(tree.attributes(&ImagePath::normal(b"tmp")), Some(attributes));
            assert_eq!(tree.attributes(&ImagePath::normal(b"etc")), Some(Attributes::IMPLIED));
            assert_eq!(tree.resolve(&ImagePath::normal(b"bin")).unwrap().as_bytes(), b"tmp");
            // Cut the blob in the middle, and try another format.
            assert!(
                scan(&blob[..blob.len() / 10 + 5], &Budget::default()).is_err(),
                "{compression:?}"
            );
        }
        let problem =
            scan(&[b'x'; 4096][..], &Budget::default()).map(|_| ()).unwrap_err().to_string();
        assert_eq!(problem, "is not a complete tar archive");
    }
}
