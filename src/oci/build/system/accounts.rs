//! Merges the accounts that an image's author declares with those that the image has already.
//! Stage: oci (pure). Input: [`Accounts`], and the tables of each source. Output: [`Merged`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use thiserror::Error;

use super::table::{
    GID, GROUP, LARGEST_ID, MEMBERS, PASSWD, Table, id_of, members, name_of, nsswitch, number,
};
use crate::error::Hint;

pub use crate::layer::ACCOUNT_FILES as FILES;

/// The users and groups that the author declares.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accounts {
    /// Users by name.
    pub users: BTreeMap<Field, User>,
    /// Groups by name.
    pub groups: BTreeMap<Field, Group>,
}

/// A user. What is left out is as the image has it, or a default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    uid: Option<u32>,
    gid: Option<u32>,
    home: Option<Field>,
    shell: Option<Field>,
    groups: Vec<Field>,
    description: Option<Field>,
}

/// A group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    gid: Option<u32>,
    members: Vec<Field>,
}

/// Text that fits a field of a table: it has no colon and is one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Field(String);

impl TryFrom<String> for Field {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.contains([':', '\n', '\0']) {
            true => Err(format!("`{text}` has a colon or is more than one line")),
            false => Ok(Self(text)),
        }
    }
}

impl Field {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tables that a part of the image has.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The part, for messages, such as "the base image".
    pub name: String,
    /// The bytes of those of [`FILES`] that are there, by name.
    pub files: BTreeMap<&'static str, Vec<u8>>,
}

/// Says why accounts don't go together.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AccountError {
    /// A name has two numbers.
    #[error("{kind} `{name}` has the number {id} by {by}, and {other} by {other_by}")]
    OtherId {
        /// "user" or "group".
        kind: &'static str,
        /// The name of the account.
        name: String,
        /// The number.
        id: u32,
        /// The source of the number.
        by: String,
        /// The number that the image has already.
        other: u32,
        /// The source of that number.
        other_by: String,
    },
    /// A number has two names.
    #[error("{kind} {id} is `{name}` by {by}, and `{other}` by {other_by}")]
    OtherName {
        /// "user" or "group".
        kind: &'static str,
        /// The number.
        id: u32,
        /// The name.
        name: String,
        /// The source of the name.
        by: String,
        /// The name that the image has already.
        other: String,
        /// The source of that name.
        other_by: String,
    },
    /// A declared account has no number.
    #[error("`{option}` is missing: there is no {kind} `{name}` to take it from")]
    NoId {
        /// The option that would give the number.
        option: String,
        /// "user" or "group".
        kind: &'static str,
        /// The name of the account.
        name: String,
    },
    /// A number is larger than any that there is.
    #[error("`{option}` is {id}, and the largest number is {LARGEST_ID}")]
    TooLarge {
        /// The option.
        option: String,
        /// The number.
        id: u32,
    },
    /// A name is that of no account.
    #[error("`{option}` has the {kind} `{name}`, which is none of the image's: {}", there.join(", "))]
    Unknown {
        /// The option.
        option: String,
        /// "user" or "group".
        kind: &'static str,
        /// The name.
        name: String,
        /// The names that there are.
        there: Vec<String>,
    },
}

impl Hint for AccountError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::OtherId { kind, .. } | Self::OtherName { kind, .. } => Some(format!(
                "use the {kind} that is there, by its name and number, or give this one another name and number"
            )),
            Self::Unknown { kind, name, .. } => {
                Some(format!("declare it: `accounts.{kind}s.{name}`"))
            }
            _ => None,
        }
    }
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
    pub fn of(sources: &[Source]) -> Result<Self, AccountError> {
        let mut merged = Self::default();
        for Source { name, files } in sources {
            let table = |file: &str| files.get(file).map(|bytes| Table::parse(bytes));
            let passwd = table("passwd").unwrap_or_default();
            let group = table("group").unwrap_or_default();
            for line in passwd.entries() {
                let by = format!("/etc/passwd of {name}");
                merged.user(line.clone(), &by)?;
            }
            for line in group.entries() {
                let by = format!("/etc/group of {name}");
                merged.group(line.clone(), &by)?;
            }
            // Comments and the like have a place in the first table only.
            if merged.passwd.entries().count() == passwd.entries().count() {
                merged.passwd = passwd;
            }
            if merged.group.entries().count() == group.entries().count() {
                merged.group = group;
            }
            for line in table("shadow").unwrap_or_default().entries() {
                merged.shadow.set(line.clone());
            }
            if let Some(gshadow) = table("gshadow") {
                let all = merged.gshadow.get_or_insert_default();
                gshadow.entries().for_each(|line| all.set(line.clone()));
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
        for (Field(name), Group { gid, .. }) in &accounts.groups {
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
        for (Field(name), Group { members, .. }) in &accounts.groups {
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
        // Those who are in the group stay in it.
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
                // Of users who share a home it is the first one's.
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
    // Of one source's own entries several may have a number.
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn source(name: &str, files: &[(&'static str, &str)]) -> Source {
        let files = files.iter().map(|(file, text)| (*file, bytes(text))).collect();
        Source { name: name.to_owned(), files }
    }

    fn debian() -> Source {
        source(
            "the base image",
            &[
                (
                    "passwd",
                    "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/sh\nnobody:x:65534:65534::/:/x\n",
                ),
                ("group", "root:x:0:\nwheel:x:10:node\nnode:x:1000:\nnogroup:x:65534:\n"),
                ("shadow", "root:*:19000:0:99999:7:::\nnode:!:19000::::::\nnobody:*:1::::::\n"),
            ],
        )
    }

    fn merged(sources: &[Source], accounts: Value) -> Result<Merged, String> {
        let accounts: Accounts = serde_json::from_value(accounts).map_err(|it| it.to_string())?;
        let mut merged = Merged::of(sources).map_err(|error| error.to_string())?;
        merged.declare(&accounts).map_err(|error| error.to_string())?;
        Ok(merged)
    }

    fn file(merged: &Merged, name: &str) -> String {
        String::from_utf8(merged.files()[name].clone()).unwrap()
    }

    #[test]
    fn an_image_of_nothing_has_root_and_nobody() {
        let merged = merged(&[], json!({"users": {"app": {"uid": 1000}}})).unwrap();
        assert_eq!(
            file(&merged, "passwd"),
            "app:x:1000:1000::/home/app:/bin/sh\n\
             root:x:0:0:System administrator:/root:/bin/sh\n\
             nobody:x:65534:65534:Unprivileged account:/var/empty:/bin/sh\n"
        );
        assert_eq!(file(&merged, "group"), "app:x:1000:\nroot:x:0:\nnobody:x:65534:\n");
        assert_eq!(file(&merged, "shadow"), "app:!:1::::::\nroot:!:1::::::\nnobody:!:1::::::\n");
        assert_eq!(merged.config_user("app").unwrap(), "1000:1000");
    }

    #[test]
    fn the_base_keeps_what_it_has() {
        let accounts = json!({
            "users": {
                "app": {"uid": 1001, "gid": 10, "home": "/srv", "shell": "/bin/app", "groups": ["node"], "description": "An app"},
                "node": {"shell": "/bin/bash"},
            },
            "groups": {"data": {"gid": 5000, "members": ["app", "node"]}, "wheel": {}},
        });
        let merged = merged(&[debian()], accounts).unwrap();
        assert_eq!(
            file(&merged, "passwd"),
            "root:x:0:0:root:/root:/bin/bash\n\
             node:x:1000:1000::/home/node:/bin/bash\n\
             nobody:x:65534:65534::/:/x\n\
             app:x:1001:10:An app:/srv:/bin/app\n"
        );
        assert_eq!(
            file(&merged, "group"),
            "root:x:0:\nwheel:x:10:node\nnode:x:1000:app\nnogroup:x:65534:\ndata:x:5000:app,node\n"
        );
        assert_eq!(
            file(&merged, "shadow"),
            "root:*:19000:0:99999:7:::\nnode:!:19000::::::\nnobody:*:1::::::\napp:!:1::::::\n"
        );
        assert!(!merged.files().contains_key("gshadow"));
        // Both numbers would take the other groups away.
        for (user, expected) in [
            ("app", Ok("1001")),
            ("app:app", Err("app")),
            ("app:wheel", Ok("1001:10")),
            ("nobody", Ok("65534:65534")),
            ("0", Ok("0:0")),
            ("7", Ok("7")),
            ("7:wheel", Ok("7:10")),
            ("7:8", Ok("7:8")),
        ] {
            match (merged.config_user(user), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{user}"),
                (Err(error), Err(name)) => assert!(error.to_string().contains(name), "{error}"),
                (found, _) => panic!("{user}: {found:?}"),
            }
        }
    }

    #[test]
    fn groups_have_shadows_where_the_base_has_them() {
        let mut base = debian();
        base.files.insert("gshadow", bytes("root:*::\nwheel:!:a:node\n"));
        let merged =
            merged(&[base], json!({"users": {"app": {"uid": 7, "groups": ["wheel"]}}})).unwrap();
        let gshadow = file(&merged, "gshadow");
        assert!(
            gshadow.contains("wheel:!:a:node,app\n") && gshadow.contains("app:!::\n"),
            "{gshadow}"
        );
    }

    #[test]
    fn upper_parts_come_before_lower_ones() {
        let nss = source(
            "`copyToRoot`",
            &[
                ("passwd", "# ours\nroot:x:0:0::/root:/nix/bash\n"),
                ("group", "root:x:0:\nbuild:x:300:\n"),
            ],
        );
        let merged = merged(&[debian(), nss], json!({"users": {"app": {"uid": 2000}}})).unwrap();
        let passwd = file(&merged, "passwd");
        assert!(passwd.starts_with("root:x:0:0::/root:/nix/bash\nnode:"), "{passwd}");
        assert!(file(&merged, "group").contains("wheel:x:10:node\n"));
        assert!(file(&merged, "group").contains("build:x:300:\n"));
    }

    #[test]
    fn conflicts_name_both_sides() {
        let user = |name: &str, user: Value| json!({"users": {name: user}});
        let group = |name: &str, group: Value| json!({"groups": {name: group}});
        for (accounts, message) in [
            (
                user("node", json!({"uid": 1001})),
                "user `node` has the number 1001 by `accounts.users.node`, and 1000 by /etc/passwd of the base image",
            ),
            (
                user("app", json!({"uid": 1000, "gid": 10})),
                "user 1000 is `app` by `accounts.users.app`, and `node` by /etc/passwd of the base image",
            ),
            (
                user("app", json!({"uid": 1000})),
                "group 1000 is `app` by `accounts.users.app`, and `node` by /etc/group of the base image",
            ),
            (
                group("wheel", json!({"gid": 11})),
                "group `wheel` has the number 11 by `accounts.groups.wheel`, and 10 by /etc/group of the base image",
            ),
            (
                group("ten", json!({"gid": 10})),
                "group 10 is `ten` by `accounts.groups.ten`, and `wheel` by /etc/group",
            ),
            (
                json!({"users": {"a": {"uid": 7, "gid": 10}, "b": {"uid": 7, "gid": 10}}}),
                "user 7 is `b` by `accounts.users.b`, and `a` by `accounts.users.a`",
            ),
            (user("app", json!({})), "`accounts.users.app.uid` is missing"),
            (group("app", json!({})), "`accounts.groups.app.gid` is missing"),
            (user("app", json!({"uid": 4294967295_u32})), "the largest number is 4294967294"),
            (
                user("app", json!({"uid": 7, "groups": ["root", "whel"]})),
                "`accounts.users.app.groups[1]` has the group `whel`, which is none of the image's: root, wheel",
            ),
            (
                group("data", json!({"gid": 7, "members": ["nod"]})),
                "`accounts.groups.data.members[0]` has the user `nod`",
            ),
            (user("a:b", json!({"uid": 7})), "has a colon"),
            (
                user("app", json!({"uid": 7, "home": "/a\nb:x:0:0"})),
                "has a colon or is more than one line",
            ),
            (user("app", json!({"uid": 7, "password": "x"})), "unknown field `password`"),
        ] {
            let error = merged(&[debian()], accounts).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
