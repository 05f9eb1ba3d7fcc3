//! Writes tar headers: each entry in one way, the same on every machine.
//! Stage: layer (pure). Input: an entry's name and kind. Output: header bytes.
//!
//! Every constant here affects the bytes of every layer: changing one changes every diff ID.

use std::io::Write;

use tar::{EntryType, Header};

use super::base_tree::Attributes;
use super::permissions::Given;
use super::store_modes::{LINK_MODE, file_mode};

/// Tar's unit: headers are one block, and bodies are padded to whole blocks.
pub const BLOCK: usize = 512;

/// The modification time of files in Nix's store. A time of 0 would work as well, but some tools
/// take it for "unset".
const MTIME: u64 = 1;
/// The owner of an entry, by number and by name, unless a base image's directories or `perms` set
/// another.
pub const OWNER: u64 = 0;
const OWNER_NAME: &str = "root";
/// The name of a PAX header itself, which readers ignore.
const PAX_NAME: &[u8] = b"PaxHeaders.0";
const PAX_MODE: u32 = 0o644;
/// The length of a name or link target in a ustar header.
const NAME_FIELD: usize = 100;
/// The largest size that fits a ustar header: eleven octal digits.
const SIZE_FIELD: u64 = 0o77777777777;
/// The largest number of a user or group that fits a ustar header: seven octal digits.
const ID_FIELD: u64 = 0o7777777;

/// The kind of an entry, with the data that its header needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A directory with its mode and owner.
    Directory(Attributes),
    /// A regular file of `size` bytes.
    File {
        /// True if the file may be executed.
        executable: bool,
        /// The number of bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// The target, as bytes.
        target: &'a [u8],
    },
}

/// Returns the header blocks of an entry, with PAX extensions before the header where they are
/// needed.
///
/// `name` is relative; a directory's name gets its final slash here. Values that a ustar header
/// can't hold go to PAX records (POSIX.1-2001 `pax`, "pax Header Block"): names and targets over
/// 100 bytes or with a byte outside of ASCII, files over 8 GiB. Names that are not UTF-8 are
/// written unchanged, as GNU tar does. ustar's own `prefix` field is never used, so that each name
/// is written in one way only.
///
/// Values in `given` replace the entry's own. A link's mode has no meaning, and is not replaced.
pub fn header_blocks(name: &[u8], entry: Entry, given: Given) -> Vec<u8> {
    let mut name = name.to_vec();
    let mut owner = (OWNER, OWNER);
    let (kind, mode, size, target) = match entry {
        Entry::Directory(Attributes { mode, uid, gid }) => {
            name.push(b'/');
            owner = (uid, gid);
            (EntryType::Directory, mode, 0, &[][..])
        }
        Entry::File { executable, size } => {
            (EntryType::Regular, file_mode(executable), size, &[][..])
        }
        Entry::Symlink { target } => (EntryType::Symlink, LINK_MODE, 0, target),
    };

    let mode = if kind == EntryType::Symlink { mode } else { given.mode.unwrap_or(mode) };
    let (uid, gid) = (given.uid.unwrap_or(owner.0), given.gid.unwrap_or(owner.1));
    // Other owners have no name here, since names depend on the image: the numbers are what counts.
    let usual_name = |id| if id == OWNER { OWNER_NAME } else { "" };
    let mtime = given.mtime.unwrap_or(MTIME);
    let names = (given.uname.unwrap_or(usual_name(uid)), given.gname.unwrap_or(usual_name(gid)));

    // The records are sorted by key.
    let mut records = Vec::new();
    if gid > ID_FIELD {
        pax_record(&mut records, "gid", gid.to_string().as_bytes());
    }
    if needs_record(target) {
        pax_record(&mut records, "linkpath", target);
    }
    if needs_record(&name) {
        pax_record(&mut records, "path", &name);
    }
    if size > SIZE_FIELD {
        pax_record(&mut records, "size", size.to_string().as_bytes());
    }
    if uid > ID_FIELD {
        pax_record(&mut records, "uid", uid.to_string().as_bytes());
    }

    let mut blocks = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        let size = records.len() as u64;
        blocks.extend_from_slice(&ustar(
            PAX_NAME,
            EntryType::XHeader,
            PAX_MODE,
            (OWNER, OWNER),
            (OWNER_NAME, OWNER_NAME),
            (size, MTIME),
            &[],
        ));
        blocks.extend_from_slice(&records);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    }
    blocks.extend_from_slice(&ustar(
        &name,
        kind,
        mode,
        (fitting(uid, ID_FIELD), fitting(gid, ID_FIELD)),
        names,
        (fitting(size, SIZE_FIELD), mtime.min(SIZE_FIELD)),
        target,
    ));
    blocks
}

/// Returns the value of a header field for a number that may only fit a PAX record.
fn fitting(number: u64, largest: u64) -> u64 {
    if number > largest { 0 } else { number }
}

fn needs_record(text: &[u8]) -> bool {
    text.len() > NAME_FIELD || !text.is_ascii()
}

/// Appends `<length> <key>=<value>\n`, in which the length counts its own digits.
fn pax_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3; // " ", "=" and "\n"
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    write!(records, "{length} {key}=").expect("writing to memory");
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Returns a ustar header block. Names that are too long are cut: a PAX record has them in full.
fn ustar(
    name: &[u8],
    kind: EntryType,
    mode: u32,
    (uid, gid): (u64, u64),
    (uname, gname): (&str, &str),
    (size, mtime): (u64, u64),
    target: &[u8],
) -> [u8; BLOCK] {
    let mut header = Header::new_ustar();
    let fields = header.as_old_mut();
    let name = &name[..name.len().min(NAME_FIELD)];
    fields.name[..name.len()].copy_from_slice(name);
    let target = &target[..target.len().min(NAME_FIELD)];
    fields.linkname[..target.len()].copy_from_slice(target);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(mtime);
    header.set_size(size);
    header.set_username(uname).expect("fits the field");
    header.set_groupname(gname).expect("fits the field");
    header.set_device_major(0).expect("is a ustar header");
    header.set_device_minor(0).expect("is a ustar header");
    header.set_cksum();
    *header.as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIRECTORY: Attributes = Attributes { mode: 0o555, uid: 0, gid: 0 };

    fn blocks_of(name: &[u8], entry: Entry) -> usize {
        let bytes = header_blocks(name, entry, Given::default());
        assert_eq!(bytes.len() % BLOCK, 0);
        bytes.len() / BLOCK
    }

    #[test]
    fn pax_headers_only_where_needed() {
        let file = Entry::File { executable: false, size: 1 };
        let directory = Entry::Directory(DIRECTORY);
        for (blocks, name, entry) in [
            (1, vec![b'n'; 100], file),
            (3, vec![b'n'; 101], file),
            (1, vec![b'n'; 99], directory),
            (3, vec![b'n'; 100], directory), // the slash is the 101st byte
            (3, "é".as_bytes().to_vec(), file),
            (3, vec![0xff], file),
            (1, b"n".to_vec(), Entry::Symlink { target: &[b't'; 100] }),
            (3, b"n".to_vec(), Entry::Symlink { target: &[b't'; 101] }),
            (1, b"n".to_vec(), Entry::File { executable: false, size: SIZE_FIELD }),
            (3, b"n".to_vec(), Entry::File { executable: false, size: SIZE_FIELD + 1 }),
            (1, b"n".to_vec(), Entry::Directory(Attributes { uid: ID_FIELD, ..DIRECTORY })),
            (3, b"n".to_vec(), Entry::Directory(Attributes { uid: ID_FIELD + 1, ..DIRECTORY })),
            (3, b"n".to_vec(), Entry::Directory(Attributes { gid: ID_FIELD + 1, ..DIRECTORY })),
        ] {
            assert_eq!(blocks_of(&name, entry), blocks, "{} {entry:?}", name.escape_ascii());
        }
    }

    #[test]
    fn a_pax_record_counts_its_own_length() {
        for length in 80..120 {
            let mut records = Vec::new();
            pax_record(&mut records, "path", &vec![b'x'; length]);
            let text = String::from_utf8(records).unwrap();
            assert_eq!(text.split(' ').next().unwrap(), text.len().to_string());
        }
    }

    /// Reads the entry with the tar crate, whose code is independent of this program's.
    fn read_back(bytes: &[u8]) -> (Vec<u8>, Option<Vec<u8>>, u64, u32) {
        let mut archive = tar::Archive::new(bytes);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        (
            entry.path_bytes().into_owned(),
            entry.link_name_bytes().map(|target| target.into_owned()),
            entry.size(),
            entry.header().mode().unwrap(),
        )
    }

    #[test]
    fn what_is_given_takes_the_place_of_the_usual() {
        let file = Entry::File { executable: false, size: 0 };
        let link = Entry::Symlink { target: b"t" };
        let all = Given {
            mode: Some(0o4755),
            uid: Some(7),
            gid: Some(8),
            uname: Some("me"),
            ..Given::default()
        };
        let root = Given { uid: Some(0), gname: Some("all"), ..Given::default() };
        for (entry, given, expected) in [
            (file, Given::default(), (0o444, 0, 0, "root", "root")),
            (file, all, (0o4755, 7, 8, "me", "")),
            (file, root, (0o444, 0, 0, "root", "all")),
            (link, all, (0o777, 7, 8, "me", "")),
            (Entry::Directory(DIRECTORY), all, (0o4755, 7, 8, "me", "")),
        ] {
            let bytes = header_blocks(b"n", entry, given);
            let header = Header::from_byte_slice(&bytes);
            let found = (
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.username().unwrap().unwrap(),
                header.groupname().unwrap().unwrap(),
            );
            assert_eq!(found, expected, "{entry:?} {given:?}");
        }
    }

    #[test]
    fn sizes_over_8_gib_are_read_back() {
        for size in [SIZE_FIELD, SIZE_FIELD + 1, 1 << 40] {
            let bytes =
                header_blocks(b"big", Entry::File { executable: true, size }, Given::default());
            assert_eq!(read_back(&bytes), (b"big".to_vec(), None, size, 0o555));
        }
    }

    proptest! {
        #[test]
        fn names_and_targets_are_read_back(
            name in prop::collection::vec(1u8..=255, 1..300),
            target in prop::collection::vec(1u8..=255, 1..300),
        ) {
            prop_assume!(!name.contains(&b'\n') && !target.contains(&b'\n')); // the tar crate's reader splits records at newlines
            let (read, read_target, ..) = read_back(&header_blocks(&name, Entry::Symlink { target: &target }, Given::default()));
            prop_assert_eq!(read, name.clone());
            prop_assert_eq!(read_target, Some(target));
            let (read, ..) = read_back(&header_blocks(&name, Entry::Directory(DIRECTORY), Given::default()));
            prop_assert_eq!(read, [&name[..], b"/"].concat());
        }
    }
}
