//! Store paths themselves.
//! Vocabulary: names no stage.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use harmonia_store_core::store_path::{
    self, FromStoreDirStr, ParseStorePathError, StoreDir, StoreDirDisplay,
};

/// A store path by its name in the store directory: `<hash>-<name>`.
///
/// Clones share their text: a closure of 100,000 paths names each of them a dozen times over.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(Arc<str>);

impl StorePath {
    /// Where the name begins, after 32 digits and a dash.
    const NAME: usize = store_path::StorePathHash::encoded_len() + 1;

    /// The name without the hash.
    pub fn name(&self) -> &str {
        &self.base_path()[Self::NAME..]
    }

    /// Hash and name, as the store directory has it.
    pub fn base_path(&self) -> &str {
        &self.0
    }

    /// Parses a whole path.
    pub(super) fn parse_in(dir: &StoreDir, text: &str) -> Result<Self, ParseStorePathError> {
        store_path::StorePath::from_store_dir_str(dir, text).map(|path| Self::of(&path))
    }

    fn of(parsed: &store_path::StorePath) -> Self {
        Self(parsed.to_string().into())
    }
}

impl FromStr for StorePath {
    type Err = ParseStorePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<store_path::StorePath>().map(|path| Self::of(&path))
    }
}

/// As text they are equal, sort and hash as they do as store paths.
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

impl StoreDirDisplay for StorePath {
    fn fmt(&self, dir: &StoreDir, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{dir}/{self}")
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StorePath").field(&format_args!("{self}")).finish()
    }
}
