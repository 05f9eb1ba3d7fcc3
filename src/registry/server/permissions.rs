//! Decides which users may pull from which repositories.
//! Stage: registry. Input: a file. Output: yes or no.
//!
//! ```text
//! # REPOSITORIES: WHO…
//! public/**: @anybody
//! team/*: ann bob
//! **: @users
//! ```

use std::collections::BTreeSet;
use std::path::Path;

use super::users::{LONGEST_NAME, Users};
use crate::outgoing::RepositoryName;
use crate::registry::error::SetupError;
use crate::small_file;

/// The name for all clients, with or without a password.
const ANYBODY: &str = "@anybody";
/// The name for all users with a password.
const USERS: &str = "@users";

/// The largest number of rules and names of users in a file. Each request may be compared with all of them.
const MOST: usize = 100_000;
/// The largest number of bytes in a pattern. Names of repositories have 255 at most.
const LONGEST_PATTERN: usize = 255;

/// The sender of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client without a password.
    Anybody,
    /// A user.
    User(String),
}

/// The rules that say which users may pull from which repositories. Anything that no rule allows is
/// refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Permissions(Vec<Rule>);

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    pattern: Vec<String>,
    who: BTreeSet<String>,
}

impl Permissions {
    /// Reads a file of `REPOSITORIES: WHO…` lines.
    ///
    /// # Errors
    /// Fails if the file can't be read, or with the line's number if a line is not valid.
    pub fn read(file: &Path) -> Result<Self, SetupError> {
        let text = small_file::read_text(file)
            .map_err(|source| SetupError::Read { path: file.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, reason)| SetupError::Permissions {
            file: file.to_owned(),
            line,
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let (mut rules, mut count) = (Vec::new(), 0);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let error = |reason: &str| (number, reason.to_owned());
            let (pattern, who) =
                line.split_once(':').ok_or_else(|| error("not `REPOSITORIES: WHO…`"))?;
            count += 1 + who.split_whitespace().count();
            if count > MOST {
                return Err((number, format!("the file has more than {MOST} rules and names")));
            }
            if pattern.trim().len() > LONGEST_PATTERN {
                return Err((number, format!("a pattern has more than {LONGEST_PATTERN} bytes")));
            }
            let pattern: Vec<_> = pattern.trim().split('/').map(str::to_owned).collect();
            let in_names = |c: char| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '*')
            };
            if pattern.iter().any(|part| part.is_empty() || !part.chars().all(in_names)) {
                return Err(error("not the name of a repository, with `*` or `**` in it"));
            }
            if pattern.iter().any(|part| part.contains("**") && part != "**") {
                return Err(error("`**` stands for whole components of a name"));
            }
            let who: BTreeSet<_> = who.split_whitespace().map(str::to_owned).collect();
            if who.is_empty() {
                return Err(error("nobody is named"));
            }
            if who.iter().any(|who| who.len() > LONGEST_NAME) {
                return Err((number, format!("a name has more than {LONGEST_NAME} bytes")));
            }
            if let Some(odd) = who.iter().find(|who| who.chars().any(char::is_control)) {
                return Err((number, format!("`{}` has a control character", odd.escape_debug())));
            }
            if let Some(odd) = who
                .iter()
                .find(|who| who.starts_with('@') && ![ANYBODY, USERS].contains(&who.as_str()))
            {
                return Err((number, format!("`{odd}` is neither `{ANYBODY}` nor `{USERS}`")));
            }
            rules.push(Rule { pattern, who });
        }
        Ok(Self(rules))
    }

    /// Returns the users that the rules name and `users` does not have. They can't log in.
    pub fn unknown_users(&self, users: Option<&Users>) -> BTreeSet<&str> {
        let named = self.0.iter().flat_map(|rule| &rule.who).map(String::as_str);
        let unknown = |user: &&str| {
            ![ANYBODY, USERS].contains(user) && !users.is_some_and(|users| users.has(user))
        };
        named.filter(unknown).collect()
    }

    /// Returns whether a client may pull from a repository.
    pub fn allow(&self, asker: &Asker, repository: &RepositoryName) -> bool {
        let name: Vec<_> = repository.as_str().split('/').collect();
        self.0.iter().any(|rule| {
            let named = match asker {
                Asker::Anybody => rule.who.contains(ANYBODY),
                Asker::User(user) => {
                    [ANYBODY, USERS, user].iter().any(|who| rule.who.contains(*who))
                }
            };
            named && matches(&rule.pattern, &name)
        })
    }
}

/// Returns whether the components of a name match those of a pattern. Takes time in proportion to
/// the product of their numbers.
fn matches(pattern: &[String], name: &[&str]) -> bool {
    // `reach[i]` says whether the pattern up to now matches the first `i` components.
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    for part in pattern {
        if part == "**" {
            let first = reach.iter().position(|reached| *reached).unwrap_or(reach.len());
            reach.iter_mut().skip(first).for_each(|reached| *reached = true);
        } else {
            for at in (0..name.len()).rev() {
                reach[at + 1] = reach[at] && matches_component(part, name[at]);
            }
            reach[0] = false;
        }
    }
    reach[name.len()]
}

/// Returns whether a component matches a pattern, in which `*` stands for any text.
fn matches_component(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_who_may_pull() {
        let text =
            "# ours\n\npublic/**: @anybody\nteam/*: ann bob\nteam/secret*/x: @users\n**: root\n";
        let permissions = Permissions::parse(text).unwrap();
        for (user, repository, expected) in [
            ("", "public/a", true),
            ("", "public/a/b", true),
            ("", "public", true),
            ("", "publicly", false),
            ("", "team/a", false),
            ("ann", "team/a", true),
            ("ann", "team/a/b", false),
            ("ann", "team", false),
            ("ann", "public/a", true),
            ("eve", "team/a", false),
            ("eve", "team/secret1/x", true),
            ("eve", "team/secret1/y", false),
            ("root", "any/thing/at/all", true),
            ("@users", "team/secret1/x", true),
        ] {
            let asker = if user.is_empty() { Asker::Anybody } else { Asker::User(user.to_owned()) };
            assert_eq!(
                permissions.allow(&asker, &repository.parse().unwrap()),
                expected,
                "{user} {repository}"
            );
        }
    }

    #[test]
    fn components_match() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*b*c", "axbxc", true),
            ("a*b*c", "acb", false),
            ("ab*b", "ab", false),
        ] {
            assert_eq!(matches_component(pattern, text), expected, "{pattern} {text}");
        }
        let parts: Vec<_> = ["**"; 100].map(str::to_owned).into();
        assert!(matches(&parts, &["a"; 100]));
    }

    #[test]
    fn what_is_no_rule_is_said() {
        for (text, line, reason) in [
            ("a", 1, "not `REPOSITORIES: WHO…`"),
            ("\nA: ann", 2, "not the name of a repository, with `*` or `**` in it"),
            ("a//b: ann", 1, "not the name of a repository, with `*` or `**` in it"),
            ("a/**b: ann", 1, "`**` stands for whole components of a name"),
            ("a:", 1, "nobody is named"),
            ("a: ann\u{1}", 1, "`ann\\u{1}` has a control character"),
            (&*format!("a: {}", "a".repeat(256)), 1, "a name has more than 255 bytes"),
            (&*format!("{}: b", "a/".repeat(128)), 1, "a pattern has more than 255 bytes"),
            (&*"a: b c\n".repeat(33_334), 33_334, "the file has more than 100000 rules and names"),
            ("a: @all", 1, "`@all` is neither `@anybody` nor `@users`"),
        ] {
            assert_eq!(Permissions::parse(text), Err((line, reason.to_owned())), "{text}");
        }
    }
}
