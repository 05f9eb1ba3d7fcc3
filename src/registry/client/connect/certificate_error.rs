//! The error of a file with certificates or keys.
//! Stage: registry. Output: messages.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Says why a file or directory of certificates can't be used.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub struct CertificateError {
    path: PathBuf,
    /// The reason, for people.
    reason: String,
}

impl CertificateError {
    /// Makes the error of a file or directory.
    pub fn new(path: &Path, reason: impl ToString) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}
