//! The user that an image's programs run as, and what this user may do.
//! Stage: report. Input: `User`, and the image's files of users and groups. Output: [`Identity`].

use std::fmt;

use super::provided::Provided;
use crate::layer::Attributes;
use crate::report::image_files::{Found, ImageFiles, Last};

/// The largest file of users or groups that is read.
const LARGEST: u64 = 4 << 20;

/// A user by number, with the groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The number of the user.
    pub uid: u64,
    /// The numbers of the groups.
    pub gids: Vec<u64>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.uid)
    }
}

impl Identity {
    /// Returns the user that containers run as by default.
    pub fn root() -> Self {
        Self { uid: 0, gids: vec![0] }
    }

    /// Returns whether the user may execute a file. Even root needs one of the bits.
    pub fn may_execute(&self, file: Attributes) -> bool {
        if self.uid == 0 { file.mode & 0o111 != 0 } else { self.has_bit(file, 0) }
    }

    /// Returns whether the user may search a directory.
    pub fn may_search(&self, directory: Attributes) -> bool {
        self.uid == 0 || self.has_bit(directory, 0)
    }

    /// Returns whether the user may read a file.
    pub fn may_read(&self, file: Attributes) -> bool {
        self.uid == 0 || self.has_bit(file, 2)
    }

    /// Returns whether the user has one of the three permissions: execute is 0, and read is 2.
    fn has_bit(&self, Attributes { mode, uid, gid }: Attributes, bit: u32) -> bool {
        let shift = if uid == self.uid {
            6
        } else if self.gids.contains(&gid) {
            3
        } else {
            0
        };
        mode >> (shift + bit) & 1 != 0
    }
}

/// A user or group that an image lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The word `user` or `group`, for messages.
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// The file in which it would be.
    pub file: &'static str,
}

/// Finds the user for `user[:group]`, each by name or by number. Returns none if the user is not
/// known: in a layer that was not read.
///
/// # Errors
/// Fails with a name that the image lacks.
pub fn identity_of(
    files: &ImageFiles,
    provided: &Provided,
    user: &str,
) -> Result<Option<Identity>, Lacking> {
    let (user, group) = user.split_once(':').map_or((user, ""), |(user, group)| (user, group));
    let mut identity = Some(Identity::root());
    let users = table(files, provided, "/etc/passwd");
    let groups = table(files, provided, "/etc/group");
    // Engines compare a number with the names too, but it needs no entry.
    match (users.entry(user, 2), user.parse::<u64>()) {
        _ if user.is_empty() => {}
        (Entry::Here(row), _) => {
            let uid = number(&row, 2);
            let supplementary = groups.rows.iter().filter(|row| {
                let name = users_name(&users, user);
                row.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
            });
            identity = uid.map(|uid| Identity {
                uid,
                gids: number(&row, 3)
                    .into_iter()
                    .chain(supplementary.filter_map(|row| number(row, 2)))
                    .collect(),
            });
        }
        (_, Ok(uid)) => identity = Some(Identity { uid, gids: vec![0] }),
        (Entry::Unknown, Err(_)) => identity = None,
        (Entry::Nowhere, Err(_)) => {
            return Err(Lacking { what: "user", name: user.to_owned(), file: "/etc/passwd" });
        }
    }
    let gid = match (groups.entry(group, 2), group.parse::<u64>()) {
        _ if group.is_empty() => return Ok(identity),
        (Entry::Here(row), _) => number(&row, 2),
        (_, Ok(gid)) => Some(gid),
        (Entry::Unknown, Err(_)) => None,
        (Entry::Nowhere, Err(_)) => {
            return Err(Lacking { what: "group", name: group.to_owned(), file: "/etc/group" });
        }
    };
    Ok(match (identity, gid) {
        (Some(identity), Some(gid)) => Some(Identity { gids: vec![gid], ..identity }),
        _ => None,
    })
}

/// Returns the name of a user that is given by name or number.
fn users_name(users: &Table, user: &str) -> String {
    match users.entry(user, 2) {
        Entry::Here(row) => row.first().cloned().unwrap_or_default(),
        Entry::Nowhere | Entry::Unknown => user.to_owned(),
    }
}

fn number(row: &[String], field: usize) -> Option<u64> {
    row.get(field)?.parse().ok()
}

/// The rows of a file of users or groups.
struct Table {
    rows: Vec<Vec<String>>,
    is_known: bool,
}

enum Entry {
    Here(Vec<String>),
    Nowhere,
    Unknown,
}

impl Table {
    /// Finds a row by its name, or by its number.
    fn entry(&self, name: &str, number: usize) -> Entry {
        let by = |field: usize| {
            self.rows.iter().find(|row| row.get(field).is_some_and(|text| text == name)).cloned()
        };
        let is_number = name.parse::<u64>().is_ok();
        match by(0).or_else(|| is_number.then(|| by(number)).flatten()) {
            Some(row) => Entry::Here(row),
            None if self.is_known => Entry::Nowhere,
            None => Entry::Unknown,
        }
    }
}

fn table(files: &ImageFiles, provided: &Provided, path: &str) -> Table {
    let nothing = |is_known| Table { rows: Vec::new(), is_known };
    match provided.find(files, path, Last::Followed) {
        Found::Nowhere(_) => nothing(true),
        Found::Unknown => nothing(false),
        Found::Here(file, _) => match files.bytes(&file, LARGEST) {
            Ok(Some(bytes)) => {
                let text = String::from_utf8_lossy(&bytes);
                let row = |line: &str| line.trim().split(':').map(str::to_owned).collect();
                Table { rows: text.lines().map(row).collect(), is_known: true }
            }
            Ok(None) => nothing(true),
            Err(_) => nothing(false),
        },
    }
}
