//! Finds the modes and owners that an image's author sets by `perms`.
//! Stage: layer. Input: rules, and a file. Output: [`Given`].
//!
//! Rules and their meaning are nix2container's. A rule is for one store path, and its regular
//! expression is searched for, without anchors, in each file's whole path,
//! `/nix/store/<hash>-<name>/…`. Of several rules that match, a later one overrides the attributes
//! that it sets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::scan::{Child, Directory, Kind};
use super::store_modes::file_mode;
use crate::store::{self, Store, StorePath};

mod mode;
mod pattern;

use mode::Mode;
pub use pattern::Pattern;

/// The length of the longest name of a user or group: that of ustar's field.
const NAME_FIELD: usize = 32;

/// A rule: one entry of `perms`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "RuleJson", into = "RuleJson")]
pub struct PermissionRule {
    /// The store path to whose files the rule applies.
    pub path: StorePath,
    regex: Pattern,
    kind: Option<RuleKind>,
    mode: Option<Mode>,
    uid: Option<u64>,
    gid: Option<u64>,
    uname: Option<String>,
    gname: Option<String>,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RuleJson {
    #[serde(with = "store::full_path")]
    path: StorePath,
    #[serde(default)]
    regex: String,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<RuleKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gname: Option<String>,
}

/// The kind of the entries that a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum RuleKind {
    Directory,
    File,
    Link,
}

impl RuleKind {
    fn is(self, kind: Kind) -> bool {
        matches!(
            (self, kind),
            (Self::Directory, Kind::Directory)
                | (Self::File, Kind::File)
                | (Self::Link, Kind::Symlink)
        )
    }
}

impl TryFrom<RuleJson> for PermissionRule {
    type Error = String;

    fn try_from(json: RuleJson) -> Result<Self, String> {
        let RuleJson { path, regex, kind, mode, uid, gid, uname, gname } = json;
        let problem = |what: String| {
            format!("`perms` for {}, `regex` `{regex}`: {what}", Store::default().print(&path))
        };
        let mode = match &mode {
            Some(text) => Some(Mode::parse(text).ok_or_else(|| {
                problem(format!(
                    "`mode` must be octal digits such as `0755` or `1777`, or changes such as `g=u` or `a+rX`, not `{text}`"
                ))
            })?),
            None => None,
        };
        for (key, name) in [("uname", &uname), ("gname", &gname)] {
            check_name(key, name.as_deref()).map_err(&problem)?;
        }
        for (key, id) in [("uid", uid), ("gid", gid)] {
            check_id(key, id).map_err(&problem)?;
        }
        let pattern = Pattern::new(&regex).map_err(|error| problem(error.to_string()))?;
        Ok(Self { path, regex: pattern, kind, mode, uid, gid, uname, gname })
    }
}

/// Checks that a header has room for the name of a user or group.
pub fn check_name(key: &str, name: Option<&str>) -> Result<(), String> {
    match name {
        Some(name) if name.len() > NAME_FIELD || name.contains('\0') => {
            Err(format!("`{key}` must have {NAME_FIELD} bytes at most"))
        }
        _ => Ok(()),
    }
}

/// Checks that a user or group can have a number. The largest that is stored stands for none.
pub fn check_id(key: &str, id: Option<u64>) -> Result<(), String> {
    const LARGEST: u64 = u32::MAX as u64 - 1;
    match id {
        Some(id) if id > LARGEST => Err(format!("`{key}` must be {LARGEST} at most, not {id}")),
        _ => Ok(()),
    }
}

impl From<PermissionRule> for RuleJson {
    fn from(rule: PermissionRule) -> Self {
        let PermissionRule { path, regex, kind, mode, uid, gid, uname, gname } = rule;
        let mode = mode.map(String::from);
        Self { path, regex: regex.into(), kind, mode, uid, gid, uname, gname }
    }
}

/// The attributes that rules set for one entry; others stay as they are without rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given<'r> {
    /// Permission bits, with set-ID and sticky bits.
    pub mode: Option<u32>,
    /// The number of the owner.
    pub uid: Option<u64>,
    /// The number of the group.
    pub gid: Option<u64>,
    /// The name of the owner.
    pub uname: Option<&'r str>,
    /// The name of the group.
    pub gname: Option<&'r str>,
    /// Modification time, in seconds since 1970.
    pub mtime: Option<u64>,
}

impl Given<'_> {
    /// Returns these attributes, and those of `other` where these are not set.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            mode: self.mode.or(other.mode),
            uid: self.uid.or(other.uid),
            gid: self.gid.or(other.gid),
            uname: self.uname.or(other.uname),
            gname: self.gname.or(other.gname),
            mtime: self.mtime.or(other.mtime),
        }
    }
}

/// The rules for one store path.
#[derive(Debug, Default)]
pub struct RulesOf<'r> {
    rules: Vec<&'r PermissionRule>,
}

impl<'r> RulesOf<'r> {
    /// Selects those of `rules` that are for `path`.
    pub fn new(rules: &'r [PermissionRule], path: &StorePath) -> Self {
        Self { rules: rules.iter().filter(|rule| rule.path == *path).collect() }
    }

    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the attributes that the rules set for a file on this machine. `directory_mode` is the mode
    /// that it would have in the image without rules, if it is a directory.
    pub fn given(
        &self,
        store: &Store,
        (kind, directory_mode): (Kind, u32),
        file: impl FnOnce() -> PathBuf,
    ) -> Given<'r> {
        let mut given = Given::default();
        if self.is_empty() {
            return given;
        }
        let place = file();
        let file = store.logical(&place);
        let mode = || match kind {
            Kind::Directory => directory_mode,
            Kind::Symlink => 0o777,
            Kind::File => file_mode(is_executable(&place)),
        };
        for rule in self.rules.iter().filter(|rule| rule.is_for(kind, &file)) {
            let before = given.mode;
            let changed = |change: &Mode| {
                let mode =
                    if let Mode::Octal(_) = change { 0 } else { before.unwrap_or_else(mode) };
                change.apply(mode, kind == Kind::Directory)
            };
            let of_rule = Given {
                mode: rule.mode.as_ref().map(changed),
                uid: rule.uid,
                gid: rule.gid,
                uname: rule.uname.as_deref(),
                gname: rule.gname.as_deref(),
                mtime: None,
            };
            given = of_rule.or(given);
        }
        given
    }
}

/// Returns those of `rules` that match no file, which is most likely a mistake.
///
/// # Errors
/// Fails if their store paths can't be read.
pub fn unmatched_rules<'r>(
    store: &Store,
    rules: &'r [PermissionRule],
) -> Result<Vec<&'r PermissionRule>, Error> {
    let mut unmatched = Vec::new();
    for rule in rules {
        let directory = Directory::of_store(store)?;
        let child = directory.child(rule.path.base_path())?;
        if !matches_below(store, rule, &directory, &child)? {
            unmatched.push(rule);
        }
    }
    Ok(unmatched)
}

fn is_executable(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o100 != 0)
}

impl PermissionRule {
    fn is_for(&self, kind: Kind, file: &Path) -> bool {
        self.kind.is_none_or(|of| of.is(kind)) && self.regex.is_match(file)
    }

    /// Returns the regular expression as it was written, for messages.
    pub fn regex(&self) -> &str {
        self.regex.as_str()
    }
}

fn matches_below(
    store: &Store,
    rule: &PermissionRule,
    parent: &Directory,
    child: &Child,
) -> Result<bool, Error> {
    let path = parent.path_of(child);
    if rule.is_for(child.kind, &store.logical(&path)) {
        return Ok(true);
    }
    if child.kind == Kind::Directory {
        let mut directory = parent.open_directory(child)?;
        for child in directory.children()? {
            if matches_below(store, rule, &directory, &child)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PATH: &str = "/nix/store/00000000000000000000000000000000-a";

    fn rules(rules: &[Value]) -> Vec<PermissionRule> {
        let with_path = rules.iter().cloned().map(|mut rule| {
            rule["path"] = PATH.into();
            serde_json::from_value(rule).unwrap()
        });
        with_path.collect()
    }

    fn given(all: &[PermissionRule], file: &str) -> String {
        let path = Store::default().parse(PATH).unwrap();
        let given =
            RulesOf::new(all, &path).given(&Store::default(), (Kind::Directory, 0o555), || {
                format!("{PATH}{file}").into()
            });
        let Given { mode, uid, gid, uname, gname, .. } = given;
        format!("{mode:?} {uid:?} {gid:?} {} {}", uname.unwrap_or("-"), gname.unwrap_or("-"))
    }

    #[test]
    fn a_later_rule_overrides_only_what_it_gives() {
        let rules = rules(&[
            json!({"mode": "0755", "uid": 1, "gname": "all"}),
            json!({"regex": "/tmp$", "mode": "1777"}),
            json!({"regex": "tmp", "uid": 7, "gid": 8, "uname": "me"}),
        ]);
        for (file, expected) in [
            ("", "Some(493) Some(1) None - all"),
            ("/etc", "Some(493) Some(1) None - all"),
            ("/tmp", "Some(1023) Some(7) Some(8) me all"),
            ("/tmp/x", "Some(493) Some(7) Some(8) me all"),
        ] {
            assert_eq!(given(&rules, file), expected, "{file}");
        }
    }

    #[test]
    fn changes_are_made_one_after_the_other() {
        let rules = rules(&[
            json!({"mode": "u+w"}),
            json!({"mode": "g=u"}),
            json!({"regex": "/private$", "mode": "0700"}),
            json!({"type": "file", "mode": "0600"}),
        ]);
        for (file, expected) in [("", 0o775), ("/private", 0o700)] {
            assert!(given(&rules, file).starts_with(&format!("Some({expected})")), "{file}");
        }
    }

    #[test]
    fn a_rule_is_for_its_own_path() {
        let rules = rules(&[json!({"mode": "0700"})]);
        let other = Store::default().parse(&PATH.replace("-a", "-b")).unwrap();
        let given =
            RulesOf::new(&rules, &other).given(&Store::default(), (Kind::File, 0), || PATH.into());
        assert_eq!(given, Given::default());
    }

    #[test]
    fn rules_are_written_as_they_are_read() {
        for rule in [
            json!({"path": PATH, "regex": ""}),
            json!({"path": PATH, "regex": "", "type": "directory", "mode": "g=u,a+X"}),
            json!({"path": PATH, "regex": "/x", "mode": "4755", "uid": 1, "gid": 2, "uname": "a", "gname": "b"}),
        ] {
            let read: PermissionRule = serde_json::from_value(rule.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), rule);
        }
    }

    #[test]
    fn mistakes_name_the_rule() {
        for (rule, message) in [
            (
                json!({"regex": "^/x$", "mode": "0888"}),
                "`regex` `^/x$`: `mode` must be octal digits",
            ),
            (json!({"mode": "rwx"}), "such as `g=u` or `a+rX`, not `rwx`"),
            (json!({"mode": "+755"}), "not `+755`"),
            (json!({"mode": "17777"}), "not `17777`"),
            (json!({"mode": ""}), "not ``"),
            (
                json!({"type": "dir"}),
                "unknown variant `dir`, expected one of `directory`, `file`, `link`",
            ),
            (json!({"uid": 4_294_967_295_u64}), "`uid` must be 4294967294 at most, not 4294967295"),
            (json!({"regex": "a(b"}), "`regex` `a(b`"),
            (json!({"uname": "n".repeat(33)}), "`uname` must have 32 bytes at most"),
            (json!({"user": "root"}), "unknown field `user`"),
            (json!({"path": "/etc"}), "/etc"),
            (json!({"uid": -1}), "-1"),
        ] {
            let mut whole = json!({"path": PATH});
            whole.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
            let error = serde_json::from_value::<PermissionRule>(whole).unwrap_err().to_string();
            assert!(error.contains(message), "{rule}: {error}");
        }
    }
}
