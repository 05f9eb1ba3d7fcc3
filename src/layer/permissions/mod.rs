//! Finds the modes and owners that an image's author sets by `perms`.
//! Stage: layer. Input: rules, and a file. Output: [`Given`].
//!
//! Rules and their meaning are nix2container's. A rule is for one store path, and its regular
//! expression is searched for, without anchors, in each file's whole path,
//! `/nix/store/<hash>-<name>/…`. Of several rules that match, a later one overrides the attributes
//! that it sets.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Error;
use super::scan::{Child, Directory, Kind};
use crate::store::{self, Store, StorePath};

mod pattern;

pub use pattern::Pattern;

/// The length of the longest name of a user or group: that of ustar's field.
const NAME_FIELD: usize = 32;
const LARGEST_MODE: u32 = 0o7777;

/// A rule: one entry of `perms`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "RuleJson", into = "RuleJson")]
pub struct PermissionRule {
    /// The store path to whose files the rule applies.
    pub path: StorePath,
    regex: Pattern,
    mode: Option<u32>,
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

impl TryFrom<RuleJson> for PermissionRule {
    type Error = String;

    fn try_from(json: RuleJson) -> Result<Self, String> {
        let RuleJson { path, regex, mode, uid, gid, uname, gname } = json;
        let problem = |what: String| {
            format!("`perms` for {}, `regex` `{regex}`: {what}", Store::default().print(&path))
        };
        let mode = match &mode {
            Some(text) => Some(parse_mode(text).ok_or_else(|| {
                problem(format!(
                    "`mode` must be octal digits such as `0755` or `1777`, not `{text}`"
                ))
            })?),
            None => None,
        };
        for (key, name) in [("uname", &uname), ("gname", &gname)] {
            check_name(key, name.as_deref()).map_err(problem)?;
        }
        let pattern = Pattern::new(&regex).map_err(|error| problem(error.to_string()))?;
        Ok(Self { path, regex: pattern, mode, uid, gid, uname, gname })
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

fn parse_mode(text: &str) -> Option<u32> {
    // Check the digits first: `from_str_radix` would accept a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= LARGEST_MODE)
}

impl From<PermissionRule> for RuleJson {
    fn from(rule: PermissionRule) -> Self {
        let PermissionRule { path, regex, mode, uid, gid, uname, gname } = rule;
        let mode = mode.map(|mode| format!("{mode:04o}"));
        Self { path, regex: regex.into(), mode, uid, gid, uname, gname }
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

    /// Returns the attributes that the rules set for a file on this machine.
    pub fn given(&self, store: &Store, file: impl FnOnce() -> PathBuf) -> Given<'r> {
        let mut given = Given::default();
        if self.is_empty() {
            return given;
        }
        let file = store.logical(&file());
        for rule in self.rules.iter().filter(|rule| rule.regex.is_match(&file)) {
            let of_rule = Given {
                mode: rule.mode,
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

impl PermissionRule {
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
    if rule.regex.is_match(&store.logical(&path)) {
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
            RulesOf::new(all, &path).given(&Store::default(), || format!("{PATH}{file}").into());
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
    fn a_rule_is_for_its_own_path() {
        let rules = rules(&[json!({"mode": "0700"})]);
        let other = Store::default().parse(&PATH.replace("-a", "-b")).unwrap();
        let given = RulesOf::new(&rules, &other).given(&Store::default(), || PATH.into());
        assert_eq!(given, Given::default());
    }

    #[test]
    fn rules_are_written_as_they_are_read() {
        for rule in [
            json!({"path": PATH, "regex": ""}),
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
            (json!({"mode": "u+x"}), "such as `0755` or `1777`, not `u+x`"),
            (json!({"mode": "+755"}), "not `+755`"),
            (json!({"mode": "17777"}), "not `17777`"),
            (json!({"mode": ""}), "not ``"),
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
