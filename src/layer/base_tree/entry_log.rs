//! Keeps the entries of a layer in the order of its archive, in little memory.
//! Stage: layer (pure). Input: entries. Output: the same entries, once more.

use crate::layer::root_tree::Change;

/// The size up to which a part of a log grows, in bytes: lists that double would take twice the
/// memory.
const PART: usize = 64 << 10;

const DIRECTORY: u8 = 0;
const SYMLINK: u8 = 1;
const HARD_LINK: u8 = 2;
const OTHER: u8 = 3;

/// The entries of a layer in the order of its archive.
///
/// An entry is its kind, the length of what its name has in common with the name before, the rest of
/// the name, and the target of a link. So a file takes some 20 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EntryLog {
    parts: Vec<Vec<u8>>,
    /// The name of the last entry.
    last: Vec<u8>,
}

impl EntryLog {
    /// Adds an entry. Returns the number of bytes that it takes.
    pub fn add(&mut self, name: &[u8], change: Change) -> u64 {
        let (kind, target) = match change {
            Change::Directory => (DIRECTORY, None),
            Change::Symlink(target) => (SYMLINK, Some(target)),
            Change::HardLink(target) => (HARD_LINK, Some(target)),
            Change::Other => (OTHER, None),
        };
        if self.parts.last().is_none_or(|part| part.len() >= PART) {
            self.parts.push(Vec::new());
        }
        let Some(part) = self.parts.last_mut() else { return 0 };
        let before = part.len();
        let shared = name.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        let shared = length(shared);
        part.push(kind);
        part.extend(shared.to_le_bytes());
        put(part, &name[usize::from(shared)..]);
        if let Some(target) = target {
            put(part, target);
        }
        self.last.truncate(shared.into());
        self.last.extend_from_slice(&name[usize::from(shared)..]);
        (part.len() - before) as u64
    }

    /// Gives each entry's index, name and change to `each`, in order, until one fails.
    ///
    /// # Errors
    /// Fails with the error of `each`.
    pub fn replay<E>(
        &self,
        mut each: impl FnMut(usize, &[u8], Change) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut index, mut name) = (0, Vec::new());
        for part in &self.parts {
            let mut rest = &part[..];
            while let Some((kind, after)) = rest.split_first() {
                rest = after;
                name.truncate(number(&mut rest));
                name.extend_from_slice(take(&mut rest));
                let change = match *kind {
                    DIRECTORY => Change::Directory,
                    SYMLINK => Change::Symlink(take(&mut rest)),
                    HARD_LINK => Change::HardLink(take(&mut rest)),
                    _ => Change::Other,
                };
                each(index, &name, change)?;
                index += 1;
            }
        }
        Ok(())
    }
}

/// Returns a length as it is written. No path that Linux takes is longer, and readers of archives
/// refuse those that are.
fn length(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn put(part: &mut Vec<u8>, text: &[u8]) {
    let length = length(text.len());
    part.extend(length.to_le_bytes());
    part.extend_from_slice(&text[..length.into()]);
}

fn number(rest: &mut &[u8]) -> usize {
    let (bytes, after) = rest.split_first_chunk().unwrap_or((&[0; 2], &[]));
    *rest = after;
    u16::from_le_bytes(*bytes).into()
}

fn take<'b>(rest: &mut &'b [u8]) -> &'b [u8] {
    let length = number(rest);
    let (text, after) = rest.split_at(length.min(rest.len()));
    *rest = after;
    text
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn replayed(log: &EntryLog) -> Vec<String> {
        let mut found = Vec::new();
        log.replay(|index, name, change| {
            found.push(format!("{index} {} {change:?}", name.escape_ascii()));
            Ok::<_, Infallible>(())
        })
        .unwrap();
        found
    }

    proptest! {
        /// Checks, over the ends of parts as well, that entries come back as they were.
        #[test]
        fn entries_come_back_in_order(
            entries in prop::collection::vec((0..4, "(\\./)?[a-c](/[a-c]){0,3}/?", "[a-c/]{0,5}"), 0..20),
            repeated in prop::sample::select(vec![1usize, 2000]),
        ) {
            let (mut log, mut expected, mut bytes) = (EntryLog::default(), Vec::new(), 0);
            for (kind, name, target) in entries.iter().cycle().take(entries.len() * repeated) {
                let change = match kind {
                    0 => Change::Directory,
                    1 => Change::Symlink(target.as_bytes()),
                    2 => Change::HardLink(target.as_bytes()),
                    _ => Change::Other,
                };
                bytes += log.add(name.as_bytes(), change);
                expected.push(format!("{} {name} {change:?}", expected.len()));
            }
            prop_assert_eq!(replayed(&log), expected);
            prop_assert_eq!(log.parts.iter().map(Vec::len).sum::<usize>() as u64, bytes);
        }
    }

    #[test]
    fn files_take_little_memory() {
        let mut log = EntryLog::default();
        let names = (0..100_000).map(|number| format!("usr/share/doc/some-package/file-{number}"));
        let bytes: u64 = names.map(|name| log.add(name.as_bytes(), Change::Other)).sum();
        assert!(bytes < 8 * 100_000, "{bytes}");
        assert!(log.parts.iter().all(|part| part.len() < PART + 100));
    }
}
