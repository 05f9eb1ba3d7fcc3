//! Describes and checks a member of a tar archive.
//! Stage: oci.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::pax::Records;
use super::tar_blocks::TarBlocks;
use super::tar_error::{MemberProblem, TarError};
use crate::image_path::{components, shown};

/// A member, which is also the reader of its body.
pub struct Member<'r, R> {
    pub(super) blocks: &'r mut TarBlocks<R>,
    pub(super) header: Header,
    pub(super) path: Vec<u8>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) records: Records,
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) body: MemberBody,
}

pub(super) enum MemberBody {
    Plain { left: u64 },
    Sparse { map: std::vec::IntoIter<(u64, u64)>, hole: u64, data: u64 },
}

impl<R> Member<'_, R> {
    /// Returns the header. Use the methods below for name, target and size.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the type of the member.
    pub fn kind(&self) -> EntryType {
        self.header.entry_type()
    }

    /// Returns the path as it is written.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns the target of a link. It is empty for all other types.
    pub fn target(&self) -> &[u8] {
        self.target.as_deref().unwrap_or_default()
    }

    /// Returns the PAX records.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Returns the size of the body in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the position of the body in the archive.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Makes an error that names the member.
    pub fn error(&self, problem: MemberProblem) -> TarError {
        TarError::Member { name: shown(&self.path), problem }
    }

    /// Checks that the member may be in a layer: names stay in the image, links have targets, and
    /// numbers are valid.
    ///
    /// # Errors
    /// Fails with [`TarError::Member`].
    pub fn check(&self) -> Result<(), TarError> {
        if has_parent(&self.path) {
            return Err(self.error(MemberProblem::LeadsOut));
        }
        if self.kind() == EntryType::Link && has_parent(self.target()) {
            return Err(self.error(MemberProblem::LinkLeadsOut(shown(self.target()))));
        }
        let is_link = matches!(self.kind(), EntryType::Link | EntryType::Symlink);
        if is_link && self.target().is_empty() {
            return Err(self.error(MemberProblem::EmptyTarget));
        }
        if removes_no_name(&self.path) {
            return Err(self.error(MemberProblem::Whiteout));
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

/// Returns whether a member is a whiteout, and what it removes is no name of a file: programs that
/// unpack it would remove its directory, or the one above.
fn removes_no_name(path: &[u8]) -> bool {
    let last = components(path).filter(|part| *part != b".").last();
    matches!(last, Some(b".wh." | b".wh.." | b".wh..."))
}

impl<R: Read> Read for Member<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.body {
            MemberBody::Plain { left } => {
                let read = self.blocks.read_some(buffer, *left)?;
                *left -= read as u64;
                Ok(read)
            }
            MemberBody::Sparse { map, hole, data } => loop {
                if *hole > 0 {
                    let count = usize::try_from(*hole).unwrap_or(usize::MAX).min(buffer.len());
                    buffer[..count].fill(0);
                    *hole -= count as u64;
                    return Ok(count);
                }
                if *data > 0 {
                    let read = self.blocks.read_some(buffer, *data)?;
                    *data -= read as u64;
                    return Ok(read);
                }
                let Some(next) = map.next() else { return Ok(0) };
                (*hole, *data) = next;
            },
        }
    }
}
