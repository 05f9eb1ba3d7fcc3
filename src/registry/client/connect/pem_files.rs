//! Reads files of certificates (PEM, RFC 7468).
//! Stage: registry. Reads files. Input: files and directories. Output: certificates.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::registry::pem;

/// Returns the certificates in the files of directories. Like OpenSSL, skips other files, and a
/// directory that does not exist. A file with several names, as `openssl rehash` makes them, is read
/// once.
pub fn certificates_of(directories: &[PathBuf]) -> Vec<CertificateDer<'static>> {
    let files = directories.iter().flat_map(|directory| files_in(directory).unwrap_or_default());
    let files: BTreeSet<_> = files.filter_map(|file| file.canonicalize().ok()).collect();
    files.iter().flat_map(|file| pem::certificates(file).unwrap_or_default()).collect()
}

/// Returns what a directory has besides directories, sorted by name: files, and what can't be read as
/// one, such as a link that leads nowhere.
///
/// # Errors
/// Fails if the directory can't be read.
pub fn files_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
