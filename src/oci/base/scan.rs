//! Reads one layer of a base once: computes digests and sizes, and collects the changes to the
//! tree.
//! Stage: oci. Input: a blob's bytes. Output: [`Scan`].

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

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
    pub tree: Arc<BaseLayerTree>,
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
fn tree_of<R: Read>(tar: R, budget: &Budget) -> io::Result<(Arc<BaseLayerTree>, R)> {
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
    Ok((Arc::new(tree.finish()), archive.into_inner()))
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

    use proptest::prelude::*;

    use super::*;
    use crate::digest::Digest;
    use crate::image_path::ImagePath;
    use crate::layer::{BaseTree, check_links};
    use crate::oci::flatten::flatten;
    use crate::oci::media_type::LayerMediaType;
    use crate::oci::spec_layer::{LayerSource, SpecLayer};
    use crate::oci::stored::StoredBlob;
    use crate::store::Store;

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

    /// Makes a tar of members, each with its type, name and target.
    fn tar_of(members: &[(EntryType, String, String)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, name, target) in members {
            let mut header = tar::Header::new_ustar();
            let fields = header.as_old_mut();
            fields.name[..name.len()].copy_from_slice(name.as_bytes());
            fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            header.set_cksum();
            bytes.extend(header.as_bytes());
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn is_taken_by_build(tars: &[Vec<u8>]) -> bool {
        let mut trees = Vec::new();
        for tar in tars {
            let Ok(scanned) = scan(&tar[..], &Budget::default()) else { return false };
            trees.push(scanned.tree);
        }
        check_links(&trees.iter().map(|tree| &**tree).collect::<Vec<_>>()).is_ok()
    }

    fn is_taken_by_flatten(tars: &[Vec<u8>]) -> bool {
        let directory = tempfile::tempdir().unwrap();
        let layers = tars.iter().enumerate().map(|(number, tar)| {
            let file = directory.path().join(number.to_string());
            std::fs::write(&file, tar).unwrap();
            let (digest, size) = (Digest::of(tar), tar.len() as u64);
            let blob = StoredBlob {
                file,
                offset: 0,
                archive: Compression::None,
                digest: BlobDigest::new(digest),
                size,
                media_type: LayerMediaType::oci(Compression::None),
                toc: None,
            };
            SpecLayer {
                diff_id: DiffId::new(digest),
                size,
                checksum: None,
                source: LayerSource::Stored(blob),
                compressed: None,
                compressed_file: None,
            }
        });
        flatten(&Store::default(), &layers.collect::<Vec<_>>(), io::sink()).is_ok()
    }

    fn members(lines: &[&str]) -> Vec<(EntryType, String, String)> {
        let member = |line: &&str| {
            let words: Vec<_> = line.split(' ').collect();
            let kind = match words[0] {
                "d" => EntryType::Directory,
                "s" => EntryType::Symlink,
                "h" => EntryType::Link,
                _ => EntryType::Regular,
            };
            (kind, words[1].to_owned(), words.get(2).copied().unwrap_or_default().to_owned())
        };
        lines.iter().map(member).collect()
    }

    #[test]
    fn build_and_flatten_refuse_the_same_layers() {
        for (layers, is_taken) in [
            (&[&["s l .", "h f l/f"][..]][..], false),
            (&[&["s a .", "s a/b c", "s c a/b", "f b/x"]], false),
            (&[&["s a d", "s a/b c", "s d/c b", "f d/b/x"]], false),
            (&[&["s l"]], false),
            (&[&["f x"], &["f .wh."]], false),
            (&[&["f a/x"], &["f a/.wh..."]], false),
            (&[&["f a/x"], &["d a/.wh../"]], false),
            (&[&["f a/x"], &["f a/.wh....", "f a/.wh.x"]], true),
            (&[&["f f"], &["h g f", "f .wh.f"]], true),
            (&[&["f f"], &["f .wh.f", "h g f"]], false),
            (&[&["f f", "s l .", "h l/g l/f", "h k g"]], true),
        ] {
            let tars: Vec<_> = layers.iter().map(|lines| tar_of(&members(lines))).collect();
            assert_eq!(is_taken_by_build(&tars), is_taken, "build: {layers:?}");
            assert_eq!(is_taken_by_flatten(&tars), is_taken, "flatten: {layers:?}");
        }
    }

    proptest! {
        /// Checks that `build` takes small layers exactly if `flatten` does.
        #[test]
        fn build_takes_what_flatten_takes(
            layers in prop::collection::vec(
                prop::collection::vec(
                    (
                        prop::sample::select(vec![
                            EntryType::Directory,
                            EntryType::Regular,
                            EntryType::Symlink,
                            EntryType::Symlink,
                            EntryType::Link,
                            EntryType::Char,
                        ]),
                        "(\\./|/)?[a-c](/[a-c]){0,2}/?|([a-c]/){0,2}\\.wh\\.(\\.wh\\.\\.opq|[a-c]|\\.{0,3})|\\./|a/\\.\\./b",
                        "/?(\\./|\\.\\./)?[a-c](/[a-c]){0,2}|\\.|/|",
                    ),
                    0..6,
                ),
                1..4,
            ),
        ) {
            let tars: Vec<_> = layers.iter().map(|members| tar_of(members)).collect();
            prop_assert_eq!(is_taken_by_build(&tars), is_taken_by_flatten(&tars));
        }
    }
}
