//! Store paths themselves.
//! Vocabulary: names no stage.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::digest::base32;

/// Says why a text is not a store path (Nix manual, "Store path").
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("`{text}` is not a store path: {problem}")]
pub struct ParseStorePathError {
    text: String,
    problem: Problem,
}

/// Says which rule of store paths is broken. Positions count bytes of `<hash>-<name>`, from 0.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
enum Problem {
    #[error("it is not absolute")]
    NotAbsolute,
    #[error("it is not in the store directory `{0}`")]
    NotInStore(&'static str),
    #[error("expected 32 base-32 digits, a dash and a name")]
    Length,
    #[error("a name has 1 to {max} characters", max = StorePath::MAX_NAME)]
    NameLength,
    #[error("the character {0:?} at position {1} is not allowed there")]
    Character(char, usize),
}

/// A store path by its name in the store directory: `<hash>-<name>`.
///
/// Clones share their text: a closure of 100,000 paths names each of them a dozen times.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(Arc<str>);

impl StorePath {
    /// The position of the dash, after the hash of 20 bytes.
    const DASH: usize = base32::encoded_len(20);
    /// The position of the name, after the dash.
    const NAME: usize = Self::DASH + 1;
    /// The longest name, in bytes.
    const MAX_NAME: usize = 211;

    /// Returns the name without the hash.
    pub fn name(&self) -> &str {
        &self.base_path()[Self::NAME..]
    }

    /// Returns the 32 digits of the hash.
    pub fn hash_part(&self) -> &str {
        &self.base_path()[..Self::DASH]
    }

    /// Returns hash and name, as the store directory has them.
    pub fn base_path(&self) -> &str {
        &self.0
    }

    /// Parses a whole path, `<dir>/<hash>-<name>`.
    pub(super) fn parse_in(dir: &'static str, text: &str) -> Result<Self, ParseStorePathError> {
        if !text.starts_with('/') {
            return Err(Problem::NotAbsolute.of(text));
        }
        let below = text.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/'));
        let base = below.ok_or_else(|| Problem::NotInStore(dir).of(text))?;
        Self::parse_base(base).map_err(|problem| problem.of(text))
    }

    /// Parses `<hash>-<name>`.
    ///
    /// The hash is 20 bytes in base 32: all 32 digits are significant, so that every text of
    /// digits is one. A name is of ASCII letters, digits and `+-._?=`.
    fn parse_base(base: &str) -> Result<Self, Problem> {
        if base.len() < Self::NAME {
            return Err(Problem::Length);
        }
        for (position, character) in base.char_indices() {
            let allowed = match position {
                0..Self::DASH => {
                    u8::try_from(character).is_ok_and(|byte| base32::value(byte).is_some())
                }
                Self::DASH => character == '-',
                _ => character.is_ascii_alphanumeric() || "+-._?=".contains(character),
            };
            if !allowed {
                return Err(Problem::Character(character, position));
            }
        }
        if !(1..=Self::MAX_NAME).contains(&(base.len() - Self::NAME)) {
            return Err(Problem::NameLength);
        }
        Ok(Self(base.into()))
    }
}

impl Problem {
    /// Returns the error that names the whole text.
    fn of(self, text: &str) -> ParseStorePathError {
        ParseStorePathError { text: text.to_owned(), problem: self }
    }
}

impl FromStr for StorePath {
    type Err = ParseStorePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_base(text).map_err(|problem| problem.of(text))
    }
}

/// Store paths are equal, sorted and hashed as their text is.
impl Borrow<str> for StorePath {
    fn borrow(&self) -> &str {
        self.base_path()
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base_path())
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StorePath").field(&format_args!("{self}")).finish()
    }
}
