//! Reads and writes the attributes of a tar's entry: all except its name and its contents.
//! Stage: oci. Input: an entry. Output: an entry with the same attributes.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use crate::oci::unpack::Member;

/// The keys of PAX records (POSIX.1-2001 `pax`, "pax Header Block"). Values that fit are in the
/// header instead.
const UID: &str = "uid";
const GID: &str = "gid";
const MTIME: &str = "mtime";
/// The prefix of extended attributes, as GNU tar and bsdtar write them.
const XATTR: &str = "SCHILY.xattr.";
/// The largest number that fits into the header: seven octal digits.
const ID_FIELD: u64 = 0o7777777;

/// Mode, owner, time, extended attributes, and the target of a link or the numbers of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarAttributes {
    mode: u32,
    uid: u64,
    gid: u64,
    uname: Vec<u8>,
    gname: Vec<u8>,
    mtime: u64,
    xattrs: Vec<(String, Vec<u8>)>,
    target: Vec<u8>,
    device: Option<(u32, u32)>,
}

impl TarAttributes {
    /// Reads the attributes of an entry.
    ///
    /// # Errors
    /// Fails if the header can't be read.
    pub fn of<R>(entry: &Member<'_, R>) -> io::Result<Self> {
        let target = entry.target().to_vec();
        let header = entry.header();
        let device = match header.entry_type() {
            EntryType::Char | EntryType::Block => {
                let (major, minor) = (header.device_major()?, header.device_minor()?);
                Some((major.unwrap_or_default(), minor.unwrap_or_default()))
            }
            _ => None,
        };
        let mut attributes = Self {
            mode: header.mode()? & 0o7777,
            uid: header.uid()?,
            gid: header.gid()?,
            uname: header.username_bytes().unwrap_or_default().to_vec(),
            gname: header.groupname_bytes().unwrap_or_default().to_vec(),
            // A container's files may have any time.
            mtime: header.mtime().unwrap_or_default(),
            xattrs: Vec::new(),
            target,
            device,
        };
        for (key, value) in entry.records().iter() {
            let Ok(key) = std::str::from_utf8(key) else { continue };
            // A time may have a fraction.
            let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
            let number = std::str::from_utf8(whole).ok().and_then(|text| text.parse().ok());
            match (key, number) {
                (UID, Some(number)) => attributes.uid = number,
                (GID, Some(number)) => attributes.gid = number,
                (MTIME, Some(number)) => attributes.mtime = number,
                _ if key.starts_with(XATTR) => {
                    attributes.xattrs.push((key.to_owned(), value.to_vec()));
                }
                _ => {}
            }
        }
        attributes.xattrs.sort();
        Ok(attributes)
    }

    /// Estimates the memory that the attributes take, in bytes.
    pub fn memory(&self) -> u64 {
        let xattrs: usize =
            self.xattrs.iter().map(|(key, value)| key.len() + value.len() + 96).sum();
        (400 + self.target.len() + xattrs) as u64
    }

    /// Returns the attributes of a hard link to a file with these attributes.
    pub fn linked_to(&self, name: &[u8]) -> Self {
        Self { target: name.to_vec(), xattrs: Vec::new(), ..self.clone() }
    }

    /// Writes an entry whose kind and size are in the header.
    ///
    /// # Errors
    /// Fails if the writer or the body fails.
    pub fn write(
        &self,
        out: &mut Builder<impl Write>,
        header: &mut Header,
        name: &[u8],
        body: impl Read,
    ) -> io::Result<()> {
        let mut records: Vec<(&str, Vec<u8>)> = Vec::new();
        for (key, id) in [(UID, self.uid), (GID, self.gid)] {
            if id > ID_FIELD {
                records.push((key, id.to_string().into_bytes()));
            }
        }
        records.extend(self.xattrs.iter().map(|(key, value)| (&**key, value.clone())));
        if !records.is_empty() {
            out.append_pax_extensions(records.iter().map(|(key, value)| (*key, &**value)))?;
        }
        header.set_mode(self.mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_mtime(self.mtime);
        if let Some(gnu) = header.as_gnu_mut() {
            let fill = |field: &mut [u8; 32], name: &[u8]| {
                let length = name.len().min(field.len());
                field[..length].copy_from_slice(&name[..length]);
            };
            fill(&mut gnu.uname, &self.uname);
            fill(&mut gnu.gname, &self.gname);
        }
        if let Some((major, minor)) = self.device {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        let path = |bytes| Path::new(OsStr::from_bytes(bytes)).to_owned();
        match header.entry_type() {
            EntryType::Symlink | EntryType::Link => {
                out.append_link(header, path(name), path(&self.target))
            }
            _ => out.append_data(header, path(name), body),
        }
    }
}
