//! The errors of reading a tar archive.
//! Stage: oci. Vocabulary of the reader.

use std::io;

use thiserror::Error;

use crate::image_path::{LONGEST_COMPONENT, LONGEST_PATH};

/// Says why reading an archive failed.
#[derive(Debug, Error)]
pub enum TarError {
    /// The archive can't be read, or ends too early ([`io::ErrorKind::UnexpectedEof`]).
    #[error(transparent)]
    Read(io::Error),
    /// The body of a member can't be read.
    #[error("its member `{name}` can't be read: {error}")]
    Body {
        /// The member's name.
        name: String,
        /// The error of the reader.
        error: io::Error,
    },
    /// A block is not a header.
    #[error("it has no tar header at byte {0}")]
    NoHeader(u64),
    /// A member is not valid.
    #[error("its member `{name}` {problem}")]
    Member {
        /// The member's name.
        name: String,
        /// The problem.
        problem: MemberProblem,
    },
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => Self::Read(error),
        }
    }
}

impl From<TarError> for io::Error {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Read(error) => error,
            error => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// Says what is wrong with a member.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MemberProblem {
    /// A header with a name or records is too large.
    #[error("has {size} bytes of names and records, and {most} are the most")]
    Record {
        /// The number of bytes that the header announces.
        size: u64,
        /// The largest allowed number.
        most: u64,
    },
    /// PAX records are malformed.
    #[error("has malformed PAX records")]
    Records,
    /// The member has two extended headers with a name, a target or records.
    #[error("has two names or two sets of records")]
    Twice,
    /// The path is too long for Linux.
    #[error("has a path of more than {LONGEST_PATH} bytes")]
    LongPath,
    /// A component of the path is too long for Linux.
    #[error("has a name of more than {LONGEST_COMPONENT} bytes")]
    LongComponent,
    /// The name has a NUL.
    #[error("has a NUL in its name")]
    Nul,
    /// A number is missing, malformed or too large.
    #[error("has no valid {0}")]
    Number(&'static str),
    /// The map of a sparse file does not match its size.
    #[error("has a wrong map of a sparse file")]
    Sparse,
    /// The path leads out of the image.
    #[error("leads out of the image")]
    LeadsOut,
    /// A link has no target, which no file system has.
    #[error("is a link without a target")]
    EmptyTarget,
    /// The member removes no name of the layers below.
    #[error("is a whiteout of no name")]
    Whiteout,
    /// The target of a hard link leads out of the image.
    #[error("is a hard link to `{0}`, which leads out of the image")]
    LinkLeadsOut(String),
}
