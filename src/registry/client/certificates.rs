//! Whose word is taken for a registry being the one that it says.
//! Stage: registry. Input: files and directories of certificates. Output: ureq's [`RootCerts`].

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts};

use super::error::ClientError;

/// Those of a directory, or else of a file; none if neither is named, for what is compiled in.
///
/// # Errors
/// [`ClientError::Certificate`] if there is none to be read.
pub fn trusted(
    directory: Option<&Path>,
    file: Option<&Path>,
) -> Result<Option<RootCerts>, ClientError> {
    match (directory, file) {
        (Some(directory), _) => certificates_in(directory).map(Some),
        (None, Some(file)) => root_certs(file, certificates_of(file)?).map(Some),
        (None, None) => Ok(None),
    }
}

/// Those of all `*.crt` and `*.pem` in a directory.
fn certificates_in(directory: &Path) -> Result<RootCerts, ClientError> {
    let entries = fs::read_dir(directory);
    let entries = entries.map_err(|source| certificate_error(directory, source.to_string()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        if file.extension().is_some_and(|extension| extension == "crt" || extension == "pem") {
            found.extend(certificates_of(&file)?);
        }
    }
    root_certs(directory, found)
}

fn certificates_of(file: &Path) -> Result<Vec<Certificate<'static>>, ClientError> {
    let error = |reason: String| certificate_error(file, reason);
    let bytes = fs::read(file).map_err(|source| error(source.to_string()))?;
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|source| error(source.to_string()))?
        {
            found.push(certificate);
        }
    }
    Ok(found)
}

fn root_certs(place: &Path, found: Vec<Certificate<'static>>) -> Result<RootCerts, ClientError> {
    if found.is_empty() {
        return Err(certificate_error(place, "there is no certificate in it".to_owned()));
    }
    Ok(RootCerts::Specific(Arc::new(found)))
}

fn certificate_error(place: &Path, reason: String) -> ClientError {
    ClientError::Certificate { file: place.display().to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_and_missed() {
        let directory = tempfile::tempdir().unwrap();
        let missing = |result: Result<RootCerts, ClientError>| result.err().unwrap().to_string();
        assert!(
            missing(certificates_in(directory.path())).ends_with("there is no certificate in it")
        );
        let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(directory.path().join("ca.crt"), generated.cert.pem()).unwrap();
        fs::write(directory.path().join("notes.txt"), "-----BEGIN CERTIFICATE-----").unwrap();
        assert!(certificates_in(directory.path()).is_ok());
        fs::write(
            directory.path().join("bad.pem"),
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        assert!(missing(certificates_in(directory.path())).contains("bad.pem: "));
        assert!(missing(certificates_in(Path::new("/nonexistent"))).contains("/nonexistent: "));
    }
}
