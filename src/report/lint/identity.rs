//! The user that an image's programs run as, and what this user may do.
//! Stage: report. Input: `User`, and the image's files of users and groups. Output: [`Identity`].

use std::fmt;

use thiserror::Error;

use super::provided::Provided;
use crate::layer::Attributes;
use crate::report::image_files::{Found, ImageFiles, Last};

/// The largest file of users or groups that is read.
const LARGEST: u64 = 4 << 20;
/// The largest number of a user or group that engines take without an entry (runc, `libcontainer/user`).
const LARGEST_NUMBER: i64 = 2_147_483_647;

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

/// Says why engines start no program as a user or group.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoSuchUser {
    /// The image lacks the name.
    #[error("{what} `{name}`, and {file} of the image has none of that name")]
    Lacking {
        /// The word `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// The file in which it would be.
        file: &'static str,
    },
    /// The number is not one that engines take without an entry in the image.
    #[error(
        "{what} {number}, and Docker takes numbers from 0 to {LARGEST_NUMBER} alone, unless {file} of the image has it"
    )]
    OutOfRange {
        /// The word `user` or `group`.
        what: &'static str,
        /// The number.
        number: i64,
        /// The file in which it would be.
        file: &'static str,
    },
}

/// Splits `user[:group]`. Docker ignores what is behind a second colon (runc, `libcontainer/user`).
pub fn user_and_group(text: &str) -> (&str, &str) {
    let mut parts = text.split(':');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Returns the number of a user or group, if the text is one, as Go's `strconv.Atoi` does.
pub fn number_of(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// Finds the user for `user[:group]`, each by name or by number. Returns none if the user is not
/// known: in a layer that was not read.
///
/// # Errors
/// Fails with a name that the image lacks, or a number that engines refuse.
pub fn identity_of(
    files: &ImageFiles,
    provided: &Provided,
    user: &str,
) -> Result<Option<Identity>, NoSuchUser> {
    let (user, group) = user_and_group(user);
    let mut identity = Some(Identity::root());
    let users = table(files, provided, "/etc/passwd");
    let groups = table(files, provided, "/etc/group");
    // A number needs no entry.
    match users.find("user", user)? {
        _ if user.is_empty() => {}
        Wanted::Row(row) => {
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
        Wanted::Number(uid) => identity = Some(Identity { uid, gids: vec![0] }),
        Wanted::Unknown => identity = None,
    }
    let gid = match groups.find("group", group)? {
        _ if group.is_empty() => return Ok(identity),
        Wanted::Row(row) => number(&row, 2),
        Wanted::Number(gid) => Some(gid),
        Wanted::Unknown => None,
    };
    Ok(match (identity, gid) {
        (Some(identity), Some(gid)) => Some(Identity { gids: vec![gid], ..identity }),
        _ => None,
    })
}

/// Returns the name of a user that is given by name or number.
fn users_name(users: &Table, user: &str) -> String {
    users.row(user).map_or_else(|| user.to_owned(), |row| row[0].clone())
}

fn unsigned(text: &str) -> Option<u64> {
    number_of(text)?.try_into().ok()
}

fn number(row: &[String], field: usize) -> Option<u64> {
    unsigned(row.get(field)?)
}

/// The rows of a file of users or groups.
struct Table {
    file: &'static str,
    rows: Vec<Vec<String>>,
    is_known: bool,
}

/// A user or group of `User`, as far as the image's files say who it is.
enum Wanted {
    Row(Vec<String>),
    /// A number without a row.
    Number(u64),
    /// A name, or a number beyond what engines take without a row, in a file that was not read.
    Unknown,
}

impl Table {
    /// Finds a row by its number, which engines never take for a name, or else by its name.
    fn row(&self, wanted: &str) -> Option<&Vec<String>> {
        match number_of(wanted) {
            Some(wanted) => {
                self.rows.iter().find(|row| row.get(2).and_then(|it| number_of(it)) == Some(wanted))
            }
            None => self.rows.iter().find(|row| row[0] == wanted),
        }
    }

    /// Finds a user or group by its name or number, which may be empty for none. `what` says which.
    fn find(&self, what: &'static str, wanted: &str) -> Result<Wanted, NoSuchUser> {
        let file = self.file;
        match (self.row(wanted), number_of(wanted)) {
            (Some(row), _) => Ok(Wanted::Row(row.clone())),
            (None, Some(number @ 0..=LARGEST_NUMBER)) => Ok(Wanted::Number(number.unsigned_abs())),
            _ if !self.is_known || wanted.is_empty() => Ok(Wanted::Unknown),
            (None, Some(number)) => Err(NoSuchUser::OutOfRange { what, number, file }),
            (None, None) => Err(NoSuchUser::Lacking { what, name: wanted.to_owned(), file }),
        }
    }
}

fn table(files: &ImageFiles, provided: &Provided, file: &'static str) -> Table {
    let nothing = |is_known| Table { file, rows: Vec::new(), is_known };
    match provided.find(files, file, Last::Followed) {
        Found::Nowhere(_) => nothing(true),
        Found::Unknown => nothing(false),
        Found::Here(found, _) => match files.bytes(&found, LARGEST) {
            Ok(Some(bytes)) => {
                let text = String::from_utf8_lossy(&bytes);
                let row = |line: &str| line.trim().split(':').map(str::to_owned).collect();
                Table { file, rows: text.lines().map(row).collect(), is_known: true }
            }
            Ok(None) => nothing(true),
            Err(_) => nothing(false),
        },
    }
}
