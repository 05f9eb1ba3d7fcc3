//! The users and groups that an image's author declares.
//! Stage: oci (pure). Input: JSON. Output: [`Accounts`].

use std::collections::BTreeMap;

use serde::Deserialize;

/// The users and groups that the author declares.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accounts {
    /// Users by name.
    pub users: BTreeMap<Field, User>,
    /// Groups by name.
    pub groups: BTreeMap<Field, DeclaredGroup>,
}

/// A user. What is left out is as the image has it, or a default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) home: Option<Field>,
    pub(super) shell: Option<Field>,
    pub(super) groups: Vec<Field>,
    pub(super) description: Option<Field>,
}

/// A group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeclaredGroup {
    pub(super) gid: Option<u32>,
    pub(super) members: Vec<Field>,
}

/// Text that fits a field of a table: it has no colon and is one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Field(pub(super) String);

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
