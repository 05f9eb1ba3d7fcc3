//! A member of a tar archive.
//! Stage: oci.

use std::io::{self, Read};

use tar::{EntryType, Header};
use thiserror::Error;

use super::pax::Records;
use super::tar_reader::{TarError, TarReader, shown};

/// Bytes of a path and of one of its components: Linux has no longer ones.
pub const PATH: usize = 4096;
pub const COMPONENT: usize = 255;

/// Says what is wrong with a member.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MemberProblem {
    /// A header with a name or records is too large.
    #[error("has {size} bytes of names and records, and {most} are the most")]
    Record {
        /// Its bytes.
        size: u64,
        /// The most.
        most: u64,
    },
    /// Records that can't be told apart.
    #[error("has malformed PAX records")]
    Records,
    /// Two headers for the same.
    #[error("has two names or two sets of records")]
    Twice,
    /// A path that no file of Linux can have.
    #[error("has a path of more than {PATH} bytes")]
    LongPath,
    /// A component that no file of Linux can have.
    #[error("has a name of more than {COMPONENT} bytes")]
    LongComponent,
    /// A byte that ends names.
    #[error("has a NUL in its name")]
    Nul,
    /// A field that is no number, or none that can be.
    #[error("has no valid {0}")]
    Number(&'static str),
    /// Holes and data that do not add up.
    #[error("has a wrong map of a sparse file")]
    Sparse,
    /// It would be somewhere else.
    #[error("leads out of the image")]
    LeadsOut,
    /// A hard link to what is somewhere else.
    #[error("is a hard link to `{0}`, which leads out of the image")]
    LinkLeadsOut(String),
}

/// Reads a member's body, and has what its header says.
pub struct Member<'r, R> {
    pub(super) reader: &'r mut TarReader<R>,
    pub(super) header: Header,
    pub(super) path: Vec<u8>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) records: Records,
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) body: Body,
}

pub(super) enum Body {
    Plain { left: u64 },
    Sparse { map: std::vec::IntoIter<(u64, u64)>, hole: u64, data: u64 },
}

impl<R> Member<'_, R> {
    /// Returns its header. Names and sizes may be in records instead.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns what it is.
    pub fn kind(&self) -> EntryType {
        self.header.entry_type()
    }

    /// Returns its name as it was written.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns where a link points, or nothing.
    pub fn target(&self) -> &[u8] {
        self.target.as_deref().unwrap_or_default()
    }

    /// Returns its PAX records.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Returns the bytes of its body.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns where its body begins in the archive.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns an error that names it.
    pub fn error(&self, problem: MemberProblem) -> TarError {
        TarError::Member { name: shown(&self.path), problem }
    }

    /// Checks that it may be in a layer: that it leads nowhere else, and that its numbers are some.
    ///
    /// # Errors
    /// [`TarError::Member`].
    pub fn check(&self) -> Result<(), TarError> {
        if has_parent(&self.path) {
            return Err(self.error(MemberProblem::LeadsOut));
        }
        if self.kind() == EntryType::Link && has_parent(self.target()) {
            return Err(self.error(MemberProblem::LinkLeadsOut(shown(self.target()))));
        }
        let header = &self.header;
        let is_device = matches!(self.kind(), EntryType::Char | EntryType::Block);
        let device = |number: io::Result<Option<u32>>| number.is_ok_and(|number| number.is_some());
        for (what, is_valid) in [
            ("mode", header.mode().is_ok()),
            ("owner", header.uid().is_ok()),
            ("group", header.gid().is_ok()),
            (
                "device number",
                !is_device || device(header.device_major()) && device(header.device_minor()),
            ),
        ] {
            if !is_valid {
                return Err(self.error(MemberProblem::Number(what)));
            }
        }
        Ok(())
    }
}

fn has_parent(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|part| part == b"..")
}

impl<R: Read> Read for Member<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.body {
            Body::Plain { left } => {
                let read = self.reader.read_stored(buffer, *left)?;
                *left -= read as u64;
                Ok(read)
            }
            Body::Sparse { map, hole, data } => loop {
                if *hole > 0 {
                    let count = usize::try_from(*hole).unwrap_or(usize::MAX).min(buffer.len());
                    buffer[..count].fill(0);
                    *hole -= count as u64;
                    return Ok(count);
                }
                if *data > 0 {
                    let read = self.reader.read_stored(buffer, *data)?;
                    *data -= read as u64;
                    return Ok(read);
                }
                let Some(next) = map.next() else { return Ok(0) };
                (*hole, *data) = next;
            },
        }
    }
}
