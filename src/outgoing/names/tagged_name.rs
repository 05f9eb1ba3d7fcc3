//! The name of an image in a server.
//! Stage: outgoing (pure). Input: text. Output: [`TaggedName`].

use std::fmt;

use thiserror::Error;

use super::{RepositoryName, Tag};

/// The name of an image in a server: a repository and a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaggedName {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
}

/// Says why a repository and a tag are not a [`TaggedName`].
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseTaggedNameError {
    /// The name is not one that a client could ask for.
    #[error(
        "`{0}` is no name for a repository: components of lower-case letters and digits, with `.`, `_`, `-` between them, and slashes"
    )]
    Repository(String),
    /// The tag is not one that a client could ask for.
    #[error("`{0}` is no tag: 1 to 128 letters, digits, `_`, `.` and `-`")]
    Tag(String),
}

impl TaggedName {
    /// Parses the name of a repository and a tag.
    ///
    /// # Errors
    /// Fails with [`ParseTaggedNameError`] if either is not valid.
    pub fn parse(repository: &str, tag: &str) -> Result<Self, ParseTaggedNameError> {
        let invalid = |_| ParseTaggedNameError::Repository(repository.to_owned());
        let repository = repository.parse().map_err(invalid)?;
        let tag = tag.parse().map_err(|_| ParseTaggedNameError::Tag(tag.to_owned()))?;
        Ok(Self { repository, tag })
    }
}

impl fmt::Display for TaggedName {
    /// Writes `repository:tag`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}
