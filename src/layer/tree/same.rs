//! Compares the entries that two roots have for one name.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::layer::Error;
use crate::layer::node::{Node, TreeEntry};

/// Returns whether two entries would be written in the same way.
pub(super) fn is_same(first: &Node, second: &Node) -> Result<bool, Error> {
    Ok(match (first.entry(), second.entry()) {
        (
            Some(TreeEntry::Symlink { target: first, .. }),
            Some(TreeEntry::Symlink { target: second, .. }),
        ) => first == second,
        (
            Some(TreeEntry::File { source: first, .. }),
            Some(TreeEntry::File { source: second, .. }),
        ) => same_file(first, second)?,
        _ => false,
    })
}

fn same_file(first: &Path, second: &Path) -> Result<bool, Error> {
    let open = |path: &Path| -> std::io::Result<_> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok((metadata.len(), metadata.permissions().mode() & 0o100, BufReader::new(file)))
    };
    let error = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Read { path, source }
    };
    let (size, executable, a) = open(first).map_err(error(first))?;
    let (other_size, other_executable, b) = open(second).map_err(error(second))?;
    if (size, executable) != (other_size, other_executable) {
        return Ok(false);
    }
    for (a, b) in a.bytes().zip(b.bytes()) {
        if a.map_err(error(first))? != b.map_err(error(second))? {
            return Ok(false);
        }
    }
    Ok(true)
}
