//! The reasons for which accounts don't go together.
//! Stage: oci (pure).

use thiserror::Error;

use super::LARGEST_ID;
use crate::error::Hint;

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
    #[error("`{option}` has the {kind} `{name}`, {}", among(there))]
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

/// Says which names there are, in which another one is missing.
fn among(there: &[String]) -> String {
    match there {
        [] => "and the image has no accounts".to_owned(),
        there => format!("which is none of the image's: {}", there.join(", ")),
    }
}
