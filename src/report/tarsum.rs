//! Computes TarSums: checksums of tars that don't depend on the order of entries, which Docker had
//! before digests.
//! Stage: report. Input: a tar. Output: its sum.
//!
//! Version 1 (moby, `pkg/tarsum/tarsum_spec.md`) hashes, with SHA-256, the fields of each entry's
//! header without the time, and the entry's bytes. The sum is the hash of these hashes, in
//! hexadecimal and sorted.

use std::io::{self, Read, Write};

use tar::EntryType;

use crate::digest::{Digest, DigestWriter};
use crate::oci::unpack::{Budget, Member, TarError, TarReader};

/// The prefix of PAX records that are extended attributes.
const XATTR: &str = "SCHILY.xattr.";

/// Computes the TarSum of an uncompressed tar: `tarsum.v1+sha256:` and 64 hex digits.
///
/// # Errors
/// Fails if the tar can't be read, or the bytes are not a tar.
pub fn tarsum(tar: impl Read) -> Result<String, TarError> {
    let mut sums: Vec<Digest> = Vec::new();
    let budget = Budget::default();
    let mut archive = TarReader::new(tar);
    while let Some(mut entry) = archive.next_member()? {
        let mut sum = DigestWriter::new(io::sink());
        write_header(&entry, &mut sum)?;
        io::copy(&mut entry, &mut sum)?;
        // The list doubles when it grows.
        budget.take(2 * size_of::<Digest>() as u64)?;
        sums.push(sum.finish().0);
    }
    sums.sort_unstable();
    let mut sum = DigestWriter::new(io::sink());
    sums.iter().try_for_each(|of_entry| sum.write_all(of_entry.hex().as_bytes()))?;
    Ok(format!("tarsum.v1+{}", sum.finish().0))
}

fn write_header<R>(entry: &Member<'_, R>, out: &mut impl Write) -> io::Result<()> {
    let (name, target, size) = (entry.path(), entry.target(), entry.size());
    let header = entry.header();
    let kind = match header.entry_type() {
        // Type 0 is older than the other types. Like Go, take a name with a slash at its end for
        // that of a directory.
        kind if kind.as_byte() == 0 && name.ends_with(b"/") => EntryType::Directory,
        EntryType::Regular => EntryType::Regular,
        kind => kind,
    };
    // GNU tar leaves these fields empty in entries that are no devices.
    let (major, minor) = match kind {
        EntryType::Char | EntryType::Block => (header.device_major()?, header.device_minor()?),
        _ => (None, None),
    };
    for (field, value) in [
        ("name", name),
        ("mode", header.mode()?.to_string().as_bytes()),
        ("uid", header.uid()?.to_string().as_bytes()),
        ("gid", header.gid()?.to_string().as_bytes()),
        ("size", size.to_string().as_bytes()),
        ("typeflag", &[kind.as_byte()]),
        ("linkname", target),
        ("uname", header.username_bytes().unwrap_or_default()),
        ("gname", header.groupname_bytes().unwrap_or_default()),
        ("devmajor", major.unwrap_or_default().to_string().as_bytes()),
        ("devminor", minor.unwrap_or_default().to_string().as_bytes()),
    ] {
        out.write_all(field.as_bytes())?;
        out.write_all(value)?;
    }
    let mut attributes = Vec::new();
    for (key, value) in entry.records().iter() {
        if let Some(name) = key.strip_prefix(XATTR.as_bytes()) {
            attributes.push((name, value));
        }
    }
    attributes.sort_unstable();
    for (name, value) in attributes {
        out.write_all(name)?;
        out.write_all(value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    fn header(name: &str, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_size(size);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(EntryType::Regular);
        header
    }

    fn sum(append: impl FnOnce(&mut Builder<&mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        let mut builder = Builder::new(&mut bytes);
        append(&mut builder);
        builder.into_inner().unwrap();
        tarsum(&*bytes).unwrap()
    }

    fn owned(name: &str) -> Header {
        let mut header = header(name, 4);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_username("slartibartfast").unwrap();
        header.set_groupname("users").unwrap();
        header.set_cksum();
        header
    }

    /// Compares with the sums of moby's own test, `TestIteration`, which calls the version `dev`.
    #[test]
    fn sums_are_mobys() {
        let empty = sum(|tar| {
            let mut header = header("file.txt", 0);
            header.set_cksum();
            tar.append(&header, &b""[..]).unwrap();
        });
        let owned_file = sum(|tar| tar.append(&owned("another.txt"), &b"test"[..]).unwrap());
        let attributes = sum(|tar| {
            let records =
                [("SCHILY.xattr.user.key2", &b"value2"[..]), ("SCHILY.xattr.user.key1", b"value1")];
            tar.append_pax_extensions(records).unwrap();
            tar.append(&owned("xattrs.txt"), &b"test"[..]).unwrap();
        });
        let nothing = sum(|_| ());
        for (found, expected) in [
            (empty, "6ffd43a1573a9913325b4918e124ee982a99c0f3cba90fc032a65f5e20bdd465"),
            (owned_file, "b38166c059e11fb77bef30bf16fba7584446e80fcc156ff46d47e36c5305d8ef"),
            (attributes, "4cc2e71ac5d31833ab2be9b4f7842a14ce595ec96a37af4ed08f87bc374228cd"),
            (nothing, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ] {
            assert_eq!(found, format!("tarsum.v1+sha256:{expected}"));
        }
    }

    #[test]
    fn order_and_time_do_not_matter() {
        let late = |name: &str, mtime| {
            let mut header = header(name, 1);
            header.set_mtime(mtime);
            header.set_cksum();
            header
        };
        let of = |names: [&str; 2], mtime| {
            sum(|tar| {
                for name in names {
                    tar.append(&late(name, mtime), &b"x"[..]).unwrap();
                }
            })
        };
        assert_eq!(of(["a", "b"], 1), of(["b", "a"], 2));
        assert_ne!(of(["a", "b"], 1), of(["a", "c"], 1));
        assert!(tarsum(&[1; 2000][..]).is_err());
    }
}
