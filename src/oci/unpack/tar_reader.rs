//! Reads a tar archive, member by member, with limits.
//! Stage: oci. Input: an archive's bytes. Output: [`Member`]s.
//!
//! Names, records and the map of a sparse file are kept in memory, with at most 1 MiB each. Bodies
//! are not.

use std::fs::File;
use std::io::{self, BufReader, Read};

use super::limits::UnpackLimits;
use super::member::{Member, MemberBody};
use super::pax::Records;
use super::tar_blocks::{BLOCK, TarBlocks};
use super::tar_error::{MemberProblem, TarError};
use crate::image_path::{LONGEST_COMPONENT, LONGEST_PATH, shown};
use tar::{EntryType, GnuExtSparseHeader, Header};

/// The largest size of an extended header, such as one with a long name.
const RECORD: u64 = 1 << 20;

/// Reads a tar archive.
pub struct TarReader<R> {
    blocks: TarBlocks<R>,
    /// The position of the next header.
    next: u64,
    limits: UnpackLimits,
}

impl TarReader<BufReader<File>> {
    /// Makes a reader that seeks over bodies. Such a reader does not notice that bytes of a body
    /// are missing.
    pub fn seeking(from: BufReader<File>) -> Self {
        Self { blocks: TarBlocks::seeking(from), next: 0, limits: UnpackLimits::chosen() }
    }
}

/// The extended headers of a member.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Option<Records>,
}

impl<R: Read> TarReader<R> {
    /// Makes a reader of an archive.
    pub fn new(from: R) -> Self {
        Self { blocks: TarBlocks::new(from), next: 0, limits: UnpackLimits::chosen() }
    }

    /// Returns the next member, or `None` at the end of the archive.
    ///
    /// # Errors
    /// Fails with [`TarError`]. Do not read on after an error.
    pub fn next_member(&mut self) -> Result<Option<Member<'_, R>>, TarError> {
        let mut extensions = Extensions::default();
        let mut described = false;
        loop {
            let Some(mut header) = self.header()? else {
                if described {
                    return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into()));
                }
                return Ok(None);
            };
            let kind = header.entry_type();
            let known = header.as_gnu().is_some() || header.as_ustar().is_some();
            let problem =
                |name: Vec<u8>, problem| Err(TarError::Member { name: shown(&name), problem });
            let place = match kind {
                EntryType::GNULongName if known => &mut extensions.name,
                EntryType::GNULongLink if known => &mut extensions.target,
                EntryType::XHeader if known => {
                    let bytes = self.extension(&header)?;
                    let name = header.path_bytes().into_owned();
                    let Some(records) = Records::parse(&bytes) else {
                        return problem(name, MemberProblem::Records);
                    };
                    if extensions.records.replace(records).is_some() {
                        return problem(name, MemberProblem::Twice);
                    }
                    described = true;
                    continue;
                }
                _ => return self.member(&mut header, extensions).map(Some),
            };
            let mut bytes = self.extension(&header)?;
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            bytes.truncate(end);
            if let Some(first) = place.replace(bytes) {
                return problem(first, MemberProblem::Twice);
            }
            described = true;
        }
    }

    /// Returns the inner reader.
    pub fn into_inner(self) -> R {
        self.blocks.into_inner()
    }

    /// Reads the next header.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        self.blocks.skip_to(self.next)?;
        let mut header = Header::new_old();
        if !self.blocks.read_block(header.as_mut_bytes())? || *header.as_bytes() == [0; 512] {
            return Ok(None);
        }
        if !has_check_sum(header.as_bytes()) {
            return Err(TarError::NoHeader(self.next));
        }
        self.next = self.blocks.at();
        Ok(Some(header))
    }

    /// Reads the body of an extended header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let problem = |problem| TarError::Member { name: shown(&header.path_bytes()), problem };
        let size = header.entry_size().map_err(|_| problem(MemberProblem::Number("size")))?;
        if size > RECORD {
            return Err(problem(MemberProblem::Record { size, most: RECORD }));
        }
        let bytes = self.blocks.read_bytes(size)?;
        self.next += size.next_multiple_of(BLOCK);
        Ok(bytes)
    }

    fn member(
        &mut self,
        header: &mut Header,
        extensions: Extensions,
    ) -> Result<Member<'_, R>, TarError> {
        let Extensions { name, target, records } = extensions;
        let records = records.unwrap_or_default();
        let record = |key| records.get(key).map(<[u8]>::to_vec);
        let path =
            name.or_else(|| record("path")).unwrap_or_else(|| header.path_bytes().into_owned());
        let target = target
            .or_else(|| record("linkpath"))
            .or_else(|| header.link_name_bytes().map(|target| target.into_owned()));
        let problem = |problem| TarError::Member { name: shown(&path), problem };
        let number = |key: &'static str| match records.number(key) {
            Some(number) => number.map(Some).map_err(|()| problem(MemberProblem::Number(key))),
            None => Ok(None),
        };
        number("uid")?.into_iter().for_each(|id| header.set_uid(id));
        number("gid")?.into_iter().for_each(|id| header.set_gid(id));
        let stored = match number("size")? {
            Some(size) => size,
            None => header.entry_size().map_err(|_| problem(MemberProblem::Number("size")))?,
        };
        let end =
            stored.checked_next_multiple_of(BLOCK).and_then(|size| self.next.checked_add(size));
        let end = end.filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or_else(|| problem(MemberProblem::Number("size")))?;
        if path.len() > LONGEST_PATH
            || target.as_ref().is_some_and(|target| target.len() > LONGEST_PATH)
        {
            return Err(problem(MemberProblem::LongPath));
        }
        if path.split(|byte| *byte == b'/').any(|part| part.len() > LONGEST_COMPONENT) {
            return Err(problem(MemberProblem::LongComponent));
        }
        if path.contains(&0) || target.as_ref().is_some_and(|target| target.contains(&0)) {
            return Err(problem(MemberProblem::Nul));
        }
        let offset = self.next;
        let (body, size) = match header.entry_type() {
            EntryType::GNUSparse => {
                let map = self.sparse_map(header, stored).map_err(|error| match error {
                    MapError::Read(error) => error,
                    MapError::Wrong => problem(MemberProblem::Sparse),
                })?;
                let size = map.iter().map(|(hole, data)| hole + data).sum();
                self.limits.check(size, stored)?;
                (MemberBody::Sparse { map: map.into_iter(), hole: 0, data: 0 }, size)
            }
            _ => (MemberBody::Plain { left: stored }, stored),
        };
        // The blocks of the map are between the header and the body.
        self.next = end + (self.blocks.at() - offset);
        let header = header.clone();
        Ok(Member { blocks: &mut self.blocks, header, path, target, records, size, offset, body })
    }

    /// Reads the map of a sparse file in the format of old GNU tars: sizes of holes and of data.
    fn sparse_map(&mut self, header: &Header, stored: u64) -> Result<Vec<(u64, u64)>, MapError> {
        const MOST: usize = (RECORD / 24) as usize;
        let gnu = header.as_gnu().ok_or(MapError::Wrong)?;
        let (mut map, mut at, mut left) = (Vec::new(), 0_u64, stored);
        let mut add = |block: &tar::GnuSparseHeader| -> Result<(), MapError> {
            if block.is_empty() {
                return Ok(());
            }
            let wrong = |_| MapError::Wrong;
            let (offset, length) = (block.offset().map_err(wrong)?, block.length().map_err(wrong)?);
            let hole = offset.checked_sub(at).ok_or(MapError::Wrong)?;
            let is_aligned = length == 0 || (stored - left).is_multiple_of(BLOCK);
            left = left.checked_sub(length).filter(|_| is_aligned).ok_or(MapError::Wrong)?;
            at = offset.checked_add(length).ok_or(MapError::Wrong)?;
            map.push((hole, length));
            if map.len() > MOST { Err(MapError::Wrong) } else { Ok(()) }
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            let mut bytes = [0; BLOCK as usize];
            if !self.blocks.read_block(&mut bytes).map_err(MapError::Read)? {
                return Err(MapError::Read(TarError::Read(io::ErrorKind::UnexpectedEof.into())));
            }
            block.as_mut_bytes().copy_from_slice(&bytes);
            block.sparse.iter().try_for_each(&mut add)?;
            more = block.is_extended();
        }
        let is_whole = left == 0 && gnu.real_size().is_ok_and(|size| size == at);
        if is_whole { Ok(map) } else { Err(MapError::Wrong) }
    }
}

enum MapError {
    Read(TarError),
    Wrong,
}

/// Returns whether a block has the checksum of a header.
pub fn has_check_sum(block: &[u8; 512]) -> bool {
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    // The checksum counts its own field as blanks.
    let mut sum = 8 * u32::from(b' ');
    for byte in block[..148].iter().chain(&block[156..]) {
        sum += u32::from(*byte);
    }
    header.cksum().is_ok_and(|recorded| recorded == sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, name: &str, size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn extension(kind: EntryType, bytes: &[u8]) -> Vec<u8> {
        [header(kind, "x", bytes.len() as u64), padded(bytes)].concat()
    }

    /// Name, size, offset and body.
    type Found = (String, u64, u64, Vec<u8>);

    /// Returns the name, size, position and body of each member.
    fn read(tar: &[u8]) -> Result<Vec<Found>, String> {
        let mut reader = TarReader::new(tar);
        let mut found = Vec::new();
        while let Some(mut member) = reader.next_member().map_err(|error| error.to_string())? {
            member.check().map_err(|error| error.to_string())?;
            let mut body = Vec::new();
            member.read_to_end(&mut body).map_err(|error| error.to_string())?;
            found.push((shown(member.path()), member.size(), member.offset(), body));
        }
        Ok(found)
    }

    #[test]
    fn members_have_their_names_and_bodies() {
        let long = "d/".repeat(100) + "x";
        let tar = [
            header(EntryType::Regular, "a", 3),
            padded(b"abc"),
            extension(EntryType::GNULongName, format!("{long}\0").as_bytes()),
            header(EntryType::Regular, "cut", 0),
            extension(EntryType::XHeader, b"10 path=p\n9 size=2\n"),
            header(EntryType::Regular, "cut", 7),
            padded(b"pp"),
            header(EntryType::Regular, "z", 1),
            padded(b"z"),
            vec![0; 1024],
        ]
        .concat();
        let found = read(&tar).unwrap();
        let expected = [
            ("a".to_owned(), 3, 512, b"abc".to_vec()),
            (shown(long.as_bytes()), 0, 2560, Vec::new()),
            ("p".to_owned(), 2, 4096, b"pp".to_vec()),
            ("z".to_owned(), 1, 5120, b"z".to_vec()),
        ];
        assert_eq!(found, expected);
        // Bodies that are not read do not change the positions.
        let mut reader = TarReader::new(&tar[..]);
        let mut names = Vec::new();
        while let Some(member) = reader.next_member().unwrap() {
            names.push(member.offset());
        }
        assert_eq!(names, [512, 2560, 4096, 5120]);
        for cut in [600, 1100, 1600, 2100, 3000, 4100, 5200] {
            assert!(read(&tar[..cut]).is_err(), "{cut}");
        }
    }

    fn sparse(blocks: &[(u64, u64)], stored: u64, real: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_path("s").unwrap();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_size(stored);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        let gnu = header.as_gnu_mut().unwrap();
        let binary = |field: &mut [u8; 12], number: u64| {
            field[0] = 0x80;
            field[4..].copy_from_slice(&number.to_be_bytes());
        };
        for (block, (offset, length)) in gnu.sparse.iter_mut().zip(blocks) {
            binary(&mut block.offset, *offset);
            binary(&mut block.numbytes, *length);
        }
        binary(&mut gnu.realsize, real);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn holes_are_zeros() {
        let tar = [
            sparse(&[(3, 2), (1000, 0)], 2, 1000),
            padded(b"ab"),
            header(EntryType::Regular, "z", 0),
        ];
        let found = read(&tar.concat()).unwrap();
        let mut expected = vec![0; 1000];
        expected[3..5].copy_from_slice(b"ab");
        assert_eq!(found[0], ("s".to_owned(), 1000, 512, expected));
        assert_eq!(found[1].0, "z");
        for (blocks, stored, real) in [
            (&[(3, 2)][..], 2, 6),
            (&[(3, 2)], 3, 5),
            (&[(3, 2), (4, 1)], 3, 5),
            (&[(u64::MAX, 2)], 2, 1),
        ] {
            let error = read(&sparse(blocks, stored, real)).unwrap_err();
            assert_eq!(error, "its member `s` has a wrong map of a sparse file");
        }
        let error = read(&sparse(&[(1 << 40, 0)], 0, 1 << 40)).unwrap_err();
        assert!(error.ends_with("(`--max-unpacked`, or `maxUnpacked` in Nix)"), "{error}");
    }

    #[test]
    fn odd_members_are_refused() {
        let file = header(EntryType::Regular, "f", 0);
        let named = |record: &[u8]| [extension(EntryType::XHeader, record), file.clone()].concat();
        let path = |path: &str| {
            let mut length = path.len() + 7;
            length += length.to_string().len();
            length += usize::from(length.to_string().len() != (path.len() + 7).to_string().len());
            named(format!("{length} path={path}\n").as_bytes())
        };
        let device = |major: &[u8; 8]| {
            let mut header = Header::new_gnu();
            header.as_mut_bytes().copy_from_slice(&self::header(EntryType::Char, "null", 0));
            let gnu = header.as_gnu_mut().unwrap();
            (gnu.dev_major, gnu.dev_minor) = (*major, *major);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        let long = extension(EntryType::GNULongName, b"f");
        for (tar, expected) in [
            (
                header(EntryType::XHeader, "x", (1 << 20) + 1),
                "its member `x` has 1048577 bytes of names and records, and 1048576 are the most",
            ),
            (
                header(EntryType::GNULongLink, "x", 1 << 40),
                "its member `x` has 1099511627776 bytes of names and records, and 1048576 are the most",
            ),
            (
                [long.clone(), long, file.clone()].concat(),
                "its member `f` has two names or two sets of records",
            ),
            (named(b"9999999999"), "its member `x` has malformed PAX records"),
            (named(b"11 size=-1\n"), "its member `f` has no valid size"),
            (named(b"29 size=18446744073709551615\n"), "its member `f` has no valid size"),
            (
                path(&"a/".repeat(2049)),
                "its member `a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/…` has a path of more than 4096 bytes",
            ),
            (path(&"n".repeat(256)), "has a name of more than 255 bytes"),
            (path("a\0b"), "its member `a\\x00b` has a NUL in its name"),
            (path("a/../../b"), "its member `a/../../b` leads out of the image"),
            (device(b"       \0"), "its member `null` has no valid device number"),
            (vec![b'x'; 512], "it has no tar header at byte 0"),
        ] {
            let error = read(&tar).unwrap_err();
            assert!(error.ends_with(expected), "{error}");
        }
        assert!(read(&path(&"a/".repeat(2048))).is_ok());
        assert!(read(&device(b"0000001\0")).is_ok());
    }
}
