//! Merges the accounts that an image's author declares with those that the image has already.
//! Stage: oci (pure). Input: [`Accounts`], and the tables of each source. Output: [`Merged`].

mod declared;
mod error;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::table::{
    GID, GROUP, LARGEST_ID, MEMBERS, PASSWD, Table, id_of, members, name_of, nsswitch, number,
};
pub use declared::{Accounts, DeclaredGroup, Field, User};
pub use error::AccountError;

pub use crate::layer::ACCOUNT_FILES as FILES;

/// The tables that a part of the image has.
#[derive(Clone, Debug, Default)]
pub struct AccountSource {
    /// The part, for messages, such as "the base image".
    pub name: String,
    /// The bytes of those of [`FILES`] that are there, by name.
    pub files: BTreeMap<&'static str, Vec<u8>>,
}

/// The accounts of an image.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    passwd: Table,
    group: Table,
    shadow: Table,
    gshadow: Option<Table>,
    nsswitch: Option<Vec<u8>>,
    /// The source of each user and group, for messages.
    users: BTreeMap<String, String>,
    groups: BTreeMap<String, String>,
}

/// An account's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The number of the user.
    pub uid: u32,
    /// The number of the user's group, where it is known.
    pub gid: Option<u32>,
}

fn bytes(text: impl ToString) -> Vec<u8> {
    text.to_string().into_bytes()
}

impl Merged {
    /// Merges the tables of the parts of an image, from the bottom up: entries of an upper one take the
    /// place of those of the same name.
    ///
    /// # Errors
    /// [`AccountError`] if a name has two numbers or a number two names.
    pub fn of(sources: &[AccountSource]) -> Result<Self, AccountError> {
        let mut merged = Self::default();
        for AccountSource { name, files } in sources {
            let table = |file: &str| files.get(file).map(|bytes| Table::parse(bytes));
            let passwd = table("passwd").unwrap_or_default();
            let group = table("group").unwrap_or_default();
            let is_first = |table: &Table| table.entries().next().is_none();
            let first = (is_first(&merged.passwd), is_first(&merged.group));
            for line in passwd.firsts() {
                let by = format!("/etc/passwd of {name}");
                merged.user(line.clone(), &by)?;
            }
            for line in group.firsts() {
                let by = format!("/etc/group of {name}");
                merged.group(line.clone(), &by)?;
            }
            // Comments, and further entries of a name, have a place in the first table only.
            if first.0 {
                merged.passwd = passwd;
            }
            if first.1 {
                merged.group = group;
            }
            for line in table("shadow").unwrap_or_default().firsts() {
                merged.shadow.set(line.clone());
            }
            if let Some(gshadow) = table("gshadow") {
                let all = merged.gshadow.get_or_insert_default();
                gshadow.firsts().for_each(|line| all.set(line.clone()));
            }
            if let Some(file) = files.get("nsswitch.conf") {
                merged.nsswitch = Some(file.clone());
            }
        }
        Ok(merged)
    }

    /// Adds the declared accounts. An image without root and nobody gets these.
    ///
    /// # Errors
    /// [`AccountError`].
    pub fn declare(&mut self, accounts: &Accounts) -> Result<(), AccountError> {
        for (Field(name), DeclaredGroup { gid, .. }) in &accounts.groups {
            let option = format!("accounts.groups.{name}");
            let mut line = self.group.find(name).cloned().unwrap_or_default();
            let there = id_of(&line);
            let gid = gid.or(there).ok_or_else(|| AccountError::NoId {
                option: format!("{option}.gid"),
                kind: "group",
                name: name.clone(),
            })?;
            check_id(&format!("{option}.gid"), gid)?;
            if there != Some(gid) {
                line = vec![bytes(name), bytes("x"), bytes(gid), Vec::new()];
            }
            self.group(line, &format!("`{option}`"))?;
        }
        for (Field(name), user) in &accounts.users {
            self.declare_user(name, user)?;
        }
        self.add_defaults()?;
        for (Field(name), User { groups, .. }) in &accounts.users {
            for (place, Field(group)) in groups.iter().enumerate() {
                let option = format!("accounts.users.{name}.groups[{place}]");
                self.member(group, name, &option)?;
            }
        }
        for (Field(name), DeclaredGroup { members, .. }) in &accounts.groups {
            for (place, Field(member)) in members.iter().enumerate() {
                let option = format!("accounts.groups.{name}.members[{place}]");
                self.member(name, member, &option)?;
            }
        }
        self.shadow_all();
        Ok(())
    }

    fn declare_user(&mut self, name: &str, user: &User) -> Result<(), AccountError> {
        let option = format!("accounts.users.{name}");
        let by = format!("`{option}`");
        let mut line = self.passwd.find(name).cloned().unwrap_or_default();
        let uid = user.uid.or_else(|| id_of(&line)).ok_or_else(|| AccountError::NoId {
            option: format!("{option}.uid"),
            kind: "user",
            name: name.to_owned(),
        })?;
        check_id(&format!("{option}.uid"), uid)?;
        let of_name = || self.group.find(name).and_then(|line| id_of(line));
        let given = user.gid.or_else(|| number(&line, GID)).or_else(of_name);
        let gid = given.unwrap_or(uid);
        check_id(&format!("{option}.gid"), gid)?;
        // A group that nobody named is the user's own.
        if given.is_none() || self.group.find_id(gid).is_none() {
            self.group(vec![bytes(name), bytes("x"), bytes(gid), Vec::new()], &by)?;
        }
        let is_new = line.is_empty();
        if is_new {
            let home = if uid == 0 { "/root".to_owned() } else { format!("/home/{name}") };
            line = [name, "x", "", "", "", &home, "/bin/sh"].map(bytes).to_vec();
        }
        line.resize(line.len().max(PASSWD), Vec::new());
        line[2] = bytes(uid);
        line[GID] = bytes(gid);
        for (field, given) in [(4, &user.description), (5, &user.home), (6, &user.shell)] {
            if let Some(Field(given)) = given {
                line[field] = bytes(given);
            }
        }
        self.user(line, &by)
    }

    fn add_defaults(&mut self) -> Result<(), AccountError> {
        const USERS: [(&str, u32, &str, &str); 2] = [
            ("root", 0, "System administrator", "/root"),
            ("nobody", 65534, "Unprivileged account", "/var/empty"),
        ];
        for (name, id, description, home) in USERS {
            if self.group.find(name).is_none() && self.group.find_id(id).is_none() {
                self.group(vec![bytes(name), bytes("x"), bytes(id), Vec::new()], "default")?;
            }
            if self.passwd.find(name).is_none() && self.passwd.find_id(id).is_none() {
                let fields =
                    [name, "x", &id.to_string(), &id.to_string(), description, home, "/bin/sh"];
                self.user(fields.map(bytes).to_vec(), "default")?;
            }
        }
        Ok(())
    }

    /// Gives every user without one an entry in `shadow`, by which there is no password; and every
    /// group an entry in `gshadow`, if the image has that.
    fn shadow_all(&mut self) {
        for line in self.passwd.entries() {
            if line.get(1).is_some_and(|field| field == b"x")
                && !self.shadow.entries().any(|entry| entry[0] == line[0])
            {
                let mut entry = vec![line[0].clone(), bytes("!"), bytes("1")];
                entry.resize(9, Vec::new());
                self.shadow.set(entry);
            }
        }
        let Some(gshadow) = &mut self.gshadow else { return };
        for line in self.group.entries() {
            let there = gshadow.entries().find(|entry| entry[0] == line[0]).cloned();
            let mut entry =
                there.unwrap_or_else(|| vec![line[0].clone(), bytes("!"), Vec::new(), Vec::new()]);
            entry.resize(entry.len().max(MEMBERS + 1), Vec::new());
            entry[MEMBERS] = line.get(MEMBERS).cloned().unwrap_or_default();
            gshadow.set(entry);
        }
    }

    fn user(&mut self, line: Vec<Vec<u8>>, by: &str) -> Result<(), AccountError> {
        put(("user", &mut self.passwd, &mut self.users), line, by)
    }

    fn group(&mut self, mut line: Vec<Vec<u8>>, by: &str) -> Result<(), AccountError> {
        // Keep the members of a group that exists already.
        let there = self.group.entries().find(|entry| entry[0] == line[0]).cloned();
        let name = name_of(&line);
        line.resize(line.len().max(GROUP), Vec::new());
        put(("group", &mut self.group, &mut self.groups), line, by)?;
        for member in there.iter().flat_map(|line| members(line)) {
            if let Ok(member) = std::str::from_utf8(member) {
                self.group.add_member(&name, member);
            }
        }
        Ok(())
    }

    fn member(&mut self, group: &str, user: &str, option: &str) -> Result<(), AccountError> {
        for (table, kind, name) in [(&self.group, "group", group), (&self.passwd, "user", user)] {
            if table.find(name).is_none() {
                return Err(unknown(table, option, kind, name));
            }
        }
        self.group.add_member(group, user);
        Ok(())
    }

    /// Returns the bytes of the files that an image with these accounts has.
    pub fn files(&self) -> BTreeMap<&'static str, Vec<u8>> {
        let tables = [
            ("passwd", Some(&self.passwd)),
            ("group", Some(&self.group)),
            ("shadow", Some(&self.shadow)),
            ("gshadow", self.gshadow.as_ref()),
        ];
        let tables = tables.into_iter().filter_map(|(name, table)| Some((name, table?.print())));
        let nsswitch = nsswitch(self.nsswitch.as_deref());
        tables.chain(nsswitch.map(|bytes| ("nsswitch.conf", bytes))).collect()
    }

    /// Returns the homes of the declared users, each with its owner.
    pub fn homes(&self, accounts: &Accounts) -> BTreeMap<String, Ids> {
        let mut homes = BTreeMap::new();
        let declared: BTreeSet<&str> = accounts.users.keys().map(Field::as_str).collect();
        for line in self.passwd.entries() {
            let name = name_of(line);
            let is_default = self.users.get(&name).is_some_and(|by| by == "default");
            if !declared.contains(&name[..]) && !is_default {
                continue;
            }
            let home = line.get(5).and_then(|home| std::str::from_utf8(home).ok());
            if let (Some(home), Some(uid)) = (home, id_of(line)) {
                // The first of several users with the same home owns it.
                let ids = Ids { uid, gid: number(line, GID) };
                homes.entry(home.to_owned()).or_insert(ids);
            }
        }
        homes
    }

    /// Finds a user by name or number.
    ///
    /// # Errors
    /// [`AccountError::Unknown`] for a name that there is not.
    pub fn user_ids(&self, user: &str, option: &str) -> Result<Ids, AccountError> {
        let line = match user.parse() {
            Ok(uid) => match self.passwd.find_id(uid) {
                Some(line) => line,
                None => return Ok(Ids { uid, gid: None }),
            },
            Err(_) => match self.passwd.find(user) {
                Some(line) => line,
                None => return Err(unknown(&self.passwd, option, "user", user)),
            },
        };
        let uid = id_of(line).ok_or_else(|| unknown(&self.passwd, option, "user", user))?;
        Ok(Ids { uid, gid: number(line, GID) })
    }

    /// Finds the number of a group by its name or number.
    ///
    /// # Errors
    /// [`AccountError::Unknown`] for a name that there is not.
    pub fn gid(&self, group: &str, option: &str) -> Result<u32, AccountError> {
        let of_name = || self.group.find(group).and_then(|line| id_of(line));
        let gid = group.parse().ok().or_else(of_name);
        gid.ok_or_else(|| unknown(&self.group, option, "group", group))
    }

    /// Returns `User` of the container's configuration for `user` or `user:group`, in numbers, as
    /// Kubernetes wants it. With both numbers an engine gives a process no other group: of a user who is
    /// in more groups there is only the first number, and the engine reads `/etc/passwd` and `/etc/group`.
    ///
    /// # Errors
    /// [`AccountError::Unknown`].
    pub fn config_user(&self, user: &str) -> Result<String, AccountError> {
        const OPTION: &str = "user";
        if let Some((user, group)) = user.split_once(':') {
            let Ids { uid, .. } = self.user_ids(user, OPTION)?;
            return Ok(format!("{uid}:{}", self.gid(group, OPTION)?));
        }
        let Ids { uid, gid } = self.user_ids(user, OPTION)?;
        let name = self.passwd.find_id(uid).map(|line| &line[0]);
        let is_in =
            |line: &Vec<Vec<u8>>| members(line).any(|member| Some(&member.to_vec()) == name);
        let has_more = self.group.entries().any(|line| id_of(line) != gid && is_in(line));
        Ok(match gid {
            Some(gid) if !has_more => format!("{uid}:{gid}"),
            _ => uid.to_string(),
        })
    }
}

/// Puts an entry into a table. Fails if its name has another number, or its number another name.
fn put(
    (kind, table, sources): (&'static str, &mut Table, &mut BTreeMap<String, String>),
    line: Vec<Vec<u8>>,
    by: &str,
) -> Result<(), AccountError> {
    let Some(id) = id_of(&line) else { return Ok(()) };
    let (name, by) = (name_of(&line), by.to_owned());
    let source = |name: &str| sources.get(name).cloned().unwrap_or_default();
    if let Some(other) = table.entries().find(|other| other[0] == line[0]).and_then(|it| id_of(it))
        && other != id
    {
        let other_by = source(&name);
        return Err(AccountError::OtherId { kind, name, id, by, other, other_by });
    }
    // A source may give one number to several of its own names, but not to a name of another source.
    let others = table.entries().filter(|other| id_of(other) == Some(id) && other[0] != line[0]);
    let there = table.entries().any(|other| other[0] == line[0]);
    for other in others.map(|other| name_of(other)) {
        let other_by = source(&other);
        if other_by != by && !there {
            return Err(AccountError::OtherName { kind, id, name, by, other, other_by });
        }
    }
    table.set(line);
    sources.insert(name, by);
    Ok(())
}

fn check_id(option: &str, id: u32) -> Result<(), AccountError> {
    match id > LARGEST_ID {
        true => Err(AccountError::TooLarge { option: option.to_owned(), id }),
        false => Ok(()),
    }
}

fn unknown(table: &Table, option: &str, kind: &'static str, name: &str) -> AccountError {
    let there = table.entries().map(|line| name_of(line)).collect();
    let (option, name) = (option.to_owned(), name.to_owned());
    AccountError::Unknown { option, kind, name, there }
}
