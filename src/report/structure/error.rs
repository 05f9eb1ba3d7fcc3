//! The errors of documents with tests.
//! Stage: report (pure).

use thiserror::Error;

/// Says what is wrong with a document.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}{}{reason}", at.map(|(line, column)| format!("line {line}, column {column}: ")).unwrap_or_default(), if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct DocumentError {
    /// The line and column, from 1, if they are known.
    at: Option<(usize, usize)>,
    /// The path of keys to the value.
    path: String,
    reason: String,
}

impl DocumentError {
    pub(super) fn new(at: Option<(usize, usize)>, path: &str, reason: &str) -> Self {
        Self { at, path: path.to_owned(), reason: reason.to_owned() }
    }
}
