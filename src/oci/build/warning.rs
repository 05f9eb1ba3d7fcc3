//! Warnings about likely mistakes in the options of a build.
//! Stage: oci. Output: [`Warning`].

use std::fmt;

use crate::layer::{self, LayerContents, PermissionRule};
use crate::oci::Error;
use crate::store::{Store, StorePath};

/// A result, and warnings about it.
#[derive(Clone, Debug)]
pub struct Built<T> {
    /// The result.
    pub made: T,
    /// Options that the author may not have meant.
    pub warnings: Vec<Warning>,
}

/// A part of the options that had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A rule of `perms` for a store path that no layer of this build has.
    PermissionForAbsent(StorePath),
    /// A rule of `perms` that no file matches.
    PermissionForNothing {
        /// The rule's store path.
        path: StorePath,
        /// The rule's regular expression.
        regex: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let print = |path| Store::default().print(path);
        match self {
            Self::PermissionForAbsent(path) => write!(
                f,
                "`perms` for {}: neither `copyToRoot` nor the store of these layers has it",
                print(path)
            ),
            Self::PermissionForNothing { path, regex } => {
                write!(f, "`perms` for {}: no file of it matches `{regex}`", print(path))
            }
        }
    }
}

/// Returns the rules that had no effect on layers with these contents.
pub fn idle_rules(
    store: &Store,
    rules: &[PermissionRule],
    contents: &[LayerContents],
) -> Result<Vec<Warning>, Error> {
    let (present, absent): (Vec<_>, Vec<_>) = rules
        .iter()
        .cloned()
        .partition(|rule| contents.iter().any(|layer| layer.permissions.contains(rule)));
    let absent = absent.into_iter().map(|rule| Warning::PermissionForAbsent(rule.path));
    let unmatched = layer::unmatched_rules(store, &present)?.into_iter().map(|rule| {
        Warning::PermissionForNothing { path: rule.path.clone(), regex: rule.regex().to_owned() }
    });
    Ok(absent.chain(unmatched).collect())
}
