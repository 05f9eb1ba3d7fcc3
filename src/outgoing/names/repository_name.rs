//! The name of a repository in its registry.
//! Stage: outgoing (pure). Input: text. Output: [`RepositoryName`].

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest name that registries agree on (distribution-spec, "Pulling manifests").
const LONGEST: usize = 255;

/// A repository's name: components with slashes between them, each
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (distribution-spec, "Pulling manifests").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

/// Says why a text is not a [`RepositoryName`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ParseRepositoryNameError {
    /// The name is empty.
    #[error("a repository must have a name")]
    Empty,
    /// The name has upper-case letters, and would be valid in lower case.
    #[error("repository name must be lowercase")]
    Uppercase,
    /// The name has too many characters.
    #[error("repository name must not be more than {LONGEST} characters")]
    TooLong,
    /// The name has characters that are not allowed, or not in their place.
    #[error(
        "repository name must be lower-case letters and digits, with `.`, `_`, `__` or `-` between them, and `/` between components"
    )]
    Characters,
}

impl RepositoryName {
    /// Returns whether a text is the name of a repository.
    pub fn is_valid(text: &str) -> bool {
        check(text).is_ok()
    }

    /// Returns the part after the last slash.
    pub fn last_component(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), ParseRepositoryNameError> {
    if text.is_empty() {
        return Err(ParseRepositoryNameError::Empty);
    }
    if !text.split('/').all(is_component) {
        let lower = text.to_ascii_lowercase();
        return Err(if lower != text && lower.split('/').all(is_component) {
            ParseRepositoryNameError::Uppercase
        } else {
            ParseRepositoryNameError::Characters
        });
    }
    if text.len() > LONGEST {
        return Err(ParseRepositoryNameError::TooLong);
    }
    Ok(())
}

/// Returns whether a text is one component: runs of letters and digits, with one separator between
/// each two and none at the ends.
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let mut gaps = bytes.split(alphanumeric).filter(|gap| !gap.is_empty());
    let is_separator =
        |gap: &[u8]| matches!(gap, b"." | b"_" | b"__") || gap.iter().all(|byte| *byte == b'-');
    alphanumeric(first) && alphanumeric(last) && gaps.all(is_separator)
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = ParseRepositoryNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text).map(|()| Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        use ParseRepositoryNameError::{Characters, Empty, Uppercase};
        for (name, expected) in [
            ("a", Ok(())),
            ("library/alpine", Ok(())),
            ("a/b/c/d", Ok(())),
            ("a.b_c__d-e---f/0", Ok(())),
            ("", Err(Empty)),
            ("A", Err(Uppercase)),
            ("team/App", Err(Uppercase)),
            ("A/", Err(Characters)),
            ("a/", Err(Characters)),
            ("/a", Err(Characters)),
            ("a//b", Err(Characters)),
            ("a/../b", Err(Characters)),
            ("a..b", Err(Characters)),
            ("a___b", Err(Characters)),
            ("a-", Err(Characters)),
            ("-a", Err(Characters)),
            ("a._b", Err(Characters)),
            ("a-_b", Err(Characters)),
            ("a b", Err(Characters)),
            ("a\n", Err(Characters)),
            ("é", Err(Characters)),
            ("É", Err(Characters)),
        ] {
            assert_eq!(check(name), expected, "{name}");
            assert_eq!(RepositoryName::is_valid(name), expected.is_ok(), "{name}");
        }
        assert_eq!(check(&"a".repeat(255)), Ok(()));
        assert_eq!(check(&"a".repeat(256)), Err(ParseRepositoryNameError::TooLong));
    }
}
