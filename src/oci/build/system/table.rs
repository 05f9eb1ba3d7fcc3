//! Reads and writes the tables of accounts: `/etc/passwd`, `group`, `shadow` and `gshadow`.
//! Stage: oci (pure). Input: bytes. Output: [`Table`].
//!
//! Lines that are no entry (comments, empty lines, NIS) stay as they are.

use std::collections::BTreeSet;

/// The largest number of a user or group: the next one means "none" to the kernel.
pub const LARGEST_ID: u32 = u32::MAX - 1;

/// A table with an entry in each line, whose fields are separated by colons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    lines: Vec<Vec<Vec<u8>>>,
}

/// The fields of `/etc/passwd`: name, password, number, number of the group, description, home, shell.
pub const PASSWD: usize = 7;
/// The fields of `/etc/group`: name, password, number, members.
pub const GROUP: usize = 4;
/// The field of `/etc/passwd` and `/etc/group` with the number.
pub const ID: usize = 2;
/// The field of `/etc/passwd` with the number of the user's group.
pub const GID: usize = 3;
/// The field of `/etc/group` and `/etc/gshadow` with the names of the members.
pub const MEMBERS: usize = 3;

impl Table {
    /// Reads a table. Line ends of Windows become those of Linux: with them, the last field of an entry, such as
    /// a shell, is none that exists.
    pub fn parse(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if bytes.is_empty() {
            return Self::default();
        }
        let fields = |line: &[u8]| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            line.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect()
        };
        Self { lines: bytes.split(|byte| *byte == b'\n').map(fields).collect() }
    }

    /// Returns the bytes of the table: a line for each entry.
    pub fn print(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| [&line.join(&b':')[..], b"\n"].concat()).collect()
    }

    /// Returns the entries: lines with a name.
    pub fn entries(&self) -> impl Iterator<Item = &Vec<Vec<u8>>> {
        self.lines.iter().filter(|line| is_entry(line))
    }

    /// Returns the first entry of each name, which is the one that counts.
    pub fn firsts(&self) -> impl Iterator<Item = &Vec<Vec<u8>>> {
        let mut names = BTreeSet::new();
        self.entries().filter(move |line| names.insert(&line[0]))
    }

    /// Returns the first entry of a name.
    pub fn find(&self, name: &str) -> Option<&Vec<Vec<u8>>> {
        self.entries().find(|line| line[0] == name.as_bytes())
    }

    /// Returns the first entry of a number.
    pub fn find_id(&self, id: u32) -> Option<&Vec<Vec<u8>>> {
        self.entries().find(|line| id_of(line) == Some(id))
    }

    /// Puts an entry in the place of the first one of its name, or at the end.
    pub fn set(&mut self, entry: Vec<Vec<u8>>) {
        let same = self.lines.iter_mut().find(|line| is_entry(line) && line[0] == entry[0]);
        match same {
            Some(line) => *line = entry,
            None => self.lines.push(entry),
        }
    }

    /// Adds a name to the members of an entry, if it is not among them.
    pub fn add_member(&mut self, entry: &str, member: &str) {
        let same = self.lines.iter_mut().find(|line| is_entry(line) && line[0] == entry.as_bytes());
        let Some(line) = same else { return };
        line.resize(line.len().max(MEMBERS + 1), Vec::new());
        if !members(line).any(|name| name == member.as_bytes()) {
            let members = &mut line[MEMBERS];
            if !members.is_empty() {
                members.push(b',');
            }
            members.extend_from_slice(member.as_bytes());
        }
    }
}

/// Returns whether a line is an entry of the table's own.
fn is_entry(line: &[Vec<u8>]) -> bool {
    line.len() > 1 && !line[0].is_empty() && !matches!(line[0][0], b'#' | b'+' | b'-')
}

/// Returns the number of an entry.
pub fn id_of(line: &[Vec<u8>]) -> Option<u32> {
    number(line, ID)
}

/// Returns a field that is a number.
pub fn number(line: &[Vec<u8>], field: usize) -> Option<u32> {
    std::str::from_utf8(line.get(field)?).ok()?.parse().ok()
}

/// Returns the name of an entry, for messages.
pub fn name_of(line: &[Vec<u8>]) -> String {
    line[0].escape_ascii().to_string()
}

/// Returns the members of a group's entry.
pub fn members(line: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    let members = line.get(MEMBERS).into_iter();
    members.flat_map(|names| names.split(|byte| *byte == b',')).filter(|name| !name.is_empty())
}

/// Returns `nsswitch.conf` with files among the sources of accounts, which glibc looks into if no other
/// source is named; none if it is so already.
pub fn nsswitch(bytes: Option<&[u8]>) -> Option<Vec<u8>> {
    const NEW: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";
    let Some(bytes) = bytes else { return Some(NEW.as_bytes().to_vec()) };
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let text = String::from_utf8_lossy(line);
        let sources = text.split('#').next().unwrap_or_default();
        let Some((database, sources)) = sources.split_once(':') else { return line.to_vec() };
        let known = ["files", "compat", "db"];
        let is_known = sources.split_whitespace().any(|source| known.contains(&source));
        if !["passwd", "group", "shadow"].contains(&database.trim()) || is_known {
            return line.to_vec();
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or_default();
        [&line[..=colon], b" files", &line[colon + 1..]].concat()
    });
    let changed: Vec<u8> = lines.flatten().collect();
    (changed != bytes).then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_written_as_they_are_read() {
        for (text, written) in [
            ("", ""),
            ("root:x:0:0::/root:/bin/sh\n", "root:x:0:0::/root:/bin/sh\n"),
            ("# a: b\n\n+::::::\na:x:1", "# a: b\n\n+::::::\na:x:1\n"),
            ("a:x:1:\r\nb:x:2:c\r\n", "a:x:1:\nb:x:2:c\n"),
        ] {
            let table = Table::parse(text.as_bytes());
            assert_eq!(String::from_utf8(table.print()).unwrap(), written);
        }
        let table = Table::parse(b"# a:x:1\n+a:x:1\nb:x:1\n:x:1\nc\n");
        assert_eq!(table.entries().count(), 1);
        assert_eq!(table.find_id(1).map(|line| name_of(line)), Some("b".to_owned()));
        assert_eq!(table.find("c"), None);
    }

    #[test]
    fn members_are_added_once() {
        for (before, after) in [
            ("wheel:x:10:\n", "wheel:x:10:app\n"),
            ("wheel:x:10:a,b\n", "wheel:x:10:a,b,app\n"),
            ("wheel:x:10:app,b\n", "wheel:x:10:app,b\n"),
            ("wheel:x:10\n", "wheel:x:10:app\n"),
        ] {
            let mut table = Table::parse(before.as_bytes());
            table.add_member("wheel", "app");
            assert_eq!(String::from_utf8(table.print()).unwrap(), after);
        }
    }

    #[test]
    fn files_are_a_source_of_accounts() {
        assert!(nsswitch(None).unwrap().starts_with(b"passwd: files\n"));
        for (before, after) in [
            ("", None),
            ("passwd: files systemd\ngroup:\tcompat\n", None),
            ("hosts: dns\n", None),
            ("passwd: sss # no files\n", Some("passwd: files sss # no files\n")),
            ("group: ldap", Some("group: files ldap")),
        ] {
            let changed = nsswitch(Some(before.as_bytes()));
            assert_eq!(changed.map(|it| String::from_utf8(it).unwrap()).as_deref(), after);
        }
    }
}
