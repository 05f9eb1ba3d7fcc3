//! Splits a tar into headers and bodies while it is written.
//! Stage: oci (pure). Input: a tar in pieces of any length. Output: [`TarPart`]s.
//!
//! The tars are those of `layer/tar.rs`: files, directories and symbolic links in ustar headers, each
//! with a PAX header before it if it needs one. A tar with anything else, or with a name that JSON
//! can't hold, has no table of contents: its layer is compressed without one.

use tar::{EntryType, Header};

use crate::layer::Kind;
use crate::oci::unpack::Records;

/// The size of a header block.
const BLOCK: usize = 512;
/// The largest number of bytes before a body: paths are shorter than this.
const MOST_HEADERS: usize = 1 << 20;

/// An entry of the tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// The kind of the entry.
    pub kind: Kind,
    /// The name as it is in the tar: a directory's ends in a slash.
    pub name: String,
    /// The target of a symbolic link, or nothing.
    pub target: String,
    /// The permissions.
    pub mode: u32,
    /// The number of bytes of its body.
    pub size: u64,
    /// The number of the owner.
    pub uid: u64,
    /// The number of the group.
    pub gid: u64,
    /// The modification time, in seconds.
    pub mtime: u64,
}

/// A part of a tar.
#[derive(Debug)]
pub enum TarPart<'b> {
    /// The bytes before an entry's body, from the end of the body before; and the entry.
    Headers(Vec<u8>, TarEntry),
    /// The next bytes of the body. `ends` says whether these are the last ones.
    Body {
        /// The bytes.
        bytes: &'b [u8],
        /// True for the last bytes.
        ends: bool,
    },
}

/// Says that a tar can't have a table of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsuitable;

#[derive(Clone, Copy, Debug)]
enum State {
    /// A header block comes next, or the end.
    Header,
    /// The records of a PAX header come next.
    Records { size: usize },
    /// The last `left` bytes of a body come next.
    Body { left: u64 },
    /// The end of the archive was read.
    End,
}

/// A tar that is being written.
#[derive(Debug)]
pub struct TarParts {
    state: State,
    /// The bytes since the last body.
    headers: Vec<u8>,
    /// The number of bytes that `headers` lacks until the next step.
    wanted: usize,
    records: Option<Records>,
    /// The name of the last entry. Names ascend, so that none comes twice.
    last: String,
}

impl TarParts {
    /// Starts at the beginning of a tar.
    pub fn new() -> Self {
        Self {
            state: State::Header,
            headers: Vec::new(),
            wanted: BLOCK,
            records: None,
            last: String::new(),
        }
    }

    /// Takes bytes from the beginning of `bytes`, and returns the part that they complete.
    ///
    /// # Errors
    /// Fails if the tar can't have a table of contents.
    pub fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Option<TarPart<'b>>, Unsuitable> {
        loop {
            if let State::Body { left } = &mut self.state {
                if bytes.is_empty() {
                    return Ok(None);
                }
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let (body, rest) = bytes.split_at(taken);
                (*bytes, *left) = (rest, *left - taken as u64);
                let ends = *left == 0;
                if ends {
                    self.state = State::Header;
                }
                return Ok(Some(TarPart::Body { bytes: body, ends }));
            }
            let taken = bytes.len().min(self.wanted);
            let (more, rest) = bytes.split_at(taken);
            (*bytes, self.wanted) = (rest, self.wanted - taken);
            self.headers.extend_from_slice(more);
            if self.headers.len() > MOST_HEADERS {
                return Err(Unsuitable);
            }
            if self.wanted > 0 {
                return Ok(None);
            }
            if let Some(entry) = self.step()? {
                return Ok(Some(TarPart::Headers(std::mem::take(&mut self.headers), entry)));
            }
        }
    }

    /// Returns the bytes after the last body.
    ///
    /// # Errors
    /// Fails if the tar is not complete.
    pub fn finish(self) -> Result<Vec<u8>, Unsuitable> {
        let is_whole = matches!(self.state, State::End) && self.wanted == BLOCK;
        if is_whole { Ok(self.headers) } else { Err(Unsuitable) }
    }

    /// Reads the block or the records that `headers` ends with.
    fn step(&mut self) -> Result<Option<TarEntry>, Unsuitable> {
        let length = self.headers.len();
        match self.state {
            State::Records { size } => {
                let padded = size.next_multiple_of(BLOCK);
                let records = &self.headers[length - padded..][..size];
                self.records = Some(Records::parse(records).ok_or(Unsuitable)?);
                (self.state, self.wanted) = (State::Header, BLOCK);
                Ok(None)
            }
            State::Header => {
                let block = &self.headers[length - BLOCK..];
                if block.iter().all(|byte| *byte == 0) {
                    (self.state, self.wanted) = (State::End, BLOCK);
                    return Ok(None);
                }
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                let size = header.entry_size().map_err(|_| Unsuitable)?;
                if header.entry_type() == EntryType::XHeader && self.records.is_none() {
                    let size = usize::try_from(size).map_err(|_| Unsuitable)?;
                    if size > MOST_HEADERS {
                        return Err(Unsuitable);
                    }
                    self.state = State::Records { size };
                    self.wanted = size.next_multiple_of(BLOCK);
                    return if self.wanted == 0 { Err(Unsuitable) } else { Ok(None) };
                }
                let entry = entry(&header, &self.records.take().unwrap_or_default())?;
                if entry.name <= self.last {
                    return Err(Unsuitable);
                }
                self.last.clone_from(&entry.name);
                // The next header comes after the padding of the body.
                let padding = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
                self.wanted = BLOCK + usize::try_from(padding).expect("less than a block");
                if entry.size > 0 {
                    self.state = State::Body { left: entry.size };
                }
                Ok(Some(entry))
            }
            State::End if self.headers[length - BLOCK..].iter().all(|byte| *byte == 0) => {
                self.wanted = BLOCK;
                Ok(None)
            }
            State::End | State::Body { .. } => Err(Unsuitable),
        }
    }
}

fn entry(header: &Header, records: &Records) -> Result<TarEntry, Unsuitable> {
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular => Kind::File,
        EntryType::Symlink => Kind::Symlink,
        _ => return Err(Unsuitable),
    };
    let known = ["gid", "linkpath", "path", "size", "uid"].map(str::as_bytes);
    if records.iter().any(|(key, _)| !known.contains(&key)) {
        return Err(Unsuitable);
    }
    let text = |key, in_header: Option<&[u8]>| {
        let bytes = records.get(key).or(in_header).unwrap_or_default();
        String::from_utf8(bytes.to_vec()).map_err(|_| Unsuitable)
    };
    let number = |key, in_header: std::io::Result<u64>| match records.number(key) {
        Some(number) => number.map_err(|()| Unsuitable),
        None => in_header.map_err(|_| Unsuitable),
    };
    let size = number("size", header.entry_size())?;
    if (kind != Kind::File && size > 0) || size > i64::MAX as u64 - BLOCK as u64 {
        return Err(Unsuitable);
    }
    Ok(TarEntry {
        kind,
        name: text("path", Some(&header.path_bytes()))?,
        target: text("linkpath", header.link_name_bytes().as_deref())?,
        mode: header.mode().map_err(|_| Unsuitable)?,
        size,
        uid: number("uid", header.uid())?,
        gid: number("gid", header.gid())?,
        mtime: header.mtime().map_err(|_| Unsuitable)?,
    })
}
