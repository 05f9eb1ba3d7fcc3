//! A tag of a repository.
//! Stage: outgoing (pure). Input: text. Output: [`Tag`].

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The length of the longest tag (distribution-spec, "Pulling manifests").
const LONGEST: usize = 128;
/// The tag of names that have none.
const LATEST: &str = "latest";

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec, "Pulling manifests").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// Says why a text is not a [`Tag`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{}` is no tag: 1 to {LONGEST} letters, digits, `_`, `.` and `-`, and neither `.` nor `-` first", .0.escape_debug())]
pub struct ParseTagError(String);

impl Tag {
    /// Returns the tag of names that have none, `latest`.
    pub fn latest() -> Self {
        Self(LATEST.to_owned())
    }

    /// Returns whether the tag is that of names that have none.
    pub fn is_latest(&self) -> bool {
        self.0 == LATEST
    }

    /// Returns whether a text is a tag.
    pub fn is_valid(text: &str) -> bool {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        text.len() <= LONGEST
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
    }

    /// Returns the tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = ParseTagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if Self::is_valid(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseTagError(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_the_specification() {
        for (tag, good) in [
            ("v1.0-a_b", true),
            ("_", true),
            ("LATEST", true),
            ("0", true),
            ("", false),
            (".a", false),
            ("-a", false),
            ("a/b", false),
            ("a:b", false),
            ("a b", false),
            ("a\n", false),
            ("é", false),
        ] {
            assert_eq!(Tag::is_valid(tag), good, "{tag}");
            assert_eq!(tag.parse::<Tag>().is_ok(), good, "{tag}");
        }
        assert!(Tag::is_valid(&"a".repeat(128)) && !Tag::is_valid(&"a".repeat(129)));
        assert_eq!(Tag::latest(), "latest".parse().unwrap());
    }
}
