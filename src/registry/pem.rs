//! Reads certificates and keys (PEM, RFC 7468), and says why a file has none.
//! Stage: registry. Reads files. Input: paths. Output: certificates and keys.

use std::io;
use std::path::Path;

use thiserror::Error;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::small_file;

/// The bytes by which editors on Windows mark UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Says why a file has no certificate or key that can be used.
#[derive(Debug, Error)]
pub enum PemError {
    /// The file can't be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The file has something else, or something in another format.
    #[error("{0}")]
    Contents(String),
}

/// Returns the certificates of a file.
///
/// # Errors
/// Fails if the file can't be read, or no certificate is in it.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    parse_certificates(&small_file::read(file)?).map_err(PemError::Contents)
}

/// Returns the key of a file.
///
/// # Errors
/// Fails if the file can't be read, or no key is in it that can be used without a passphrase.
pub fn key(file: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    parse_key(&small_file::read(file)?).map_err(PemError::Contents)
}

fn parse_certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| broken(&error))?;
    if found.is_empty() {
        return Err(why_no_certificate(text));
    }
    Ok(found)
}

fn parse_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let is_encrypted = labels(text).any(|label| label == "ENCRYPTED PRIVATE KEY")
        || contains(text, b"Proc-Type: 4,ENCRYPTED");
    if is_encrypted {
        return Err("the key is encrypted, and no passphrase can be given; \
                    `openssl pkey -in FILE -out NEW` writes it without"
            .to_owned());
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => why_no_key(text),
        error => broken(&error),
    })
}

fn why_no_certificate(text: &[u8]) -> String {
    if let Some(reason) = not_pem(text, "x509 -inform DER", "-nokeys") {
        return reason;
    }
    let way = match labels(text).next() {
        None => return "there is no certificate in it".to_owned(),
        Some("TRUSTED CERTIFICATE" | "X509 CERTIFICATE") => "openssl x509 -in FILE -out NEW",
        Some("PKCS7") => "openssl pkcs7 -print_certs -in FILE -out NEW",
        Some(label) => return format!("there is no certificate in it, but `{label}`"),
    };
    let label = labels(text).next().unwrap_or_default();
    format!("it has to have `CERTIFICATE`, and has `{label}`; `{way}` converts it")
}

fn why_no_key(text: &[u8]) -> String {
    let reason = not_pem(text, "pkey -inform DER", "-nocerts -nodes");
    reason.unwrap_or_else(|| match labels(text).next() {
        None => "there is no key in it".to_owned(),
        Some("OPENSSH PRIVATE KEY") => "its key is one for SSH, not for TLS".to_owned(),
        Some(label) => format!("there is no key in it, but `{label}`"),
    })
}

/// Says how to convert a file that is not PEM.
fn not_pem(bytes: &[u8], of_der: &str, of_pkcs_12: &str) -> Option<String> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let way = "iconv -f UTF-16 -t UTF-8 FILE >NEW";
        return Some(format!("it is UTF-16, and has to be UTF-8; `{way}` converts it"));
    }
    // A sequence that is longer than 127 bytes (X.690, 8.1.3.5).
    let [0x30, 0x81..=0x84, ..] = bytes else { return None };
    // A file of PKCS #12 begins with its version, which is 3 (RFC 7292, 4).
    let contents = bytes.get(2 + usize::from(bytes[1] & 0x7f)..);
    let (format, way) = if contents.is_some_and(|contents| contents.starts_with(&[2, 1, 3])) {
        ("PKCS #12", format!("openssl pkcs12 -in FILE {of_pkcs_12} -out NEW"))
    } else {
        ("DER", format!("openssl {of_der} -in FILE -out NEW"))
    };
    Some(format!("it is {format}, and has to be PEM; `{way}` converts it"))
}

/// Returns the labels of the file's parts: `LABEL` for `-----BEGIN LABEL-----`.
fn labels(text: &[u8]) -> impl Iterator<Item = &str> {
    let lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
    lines.filter_map(|line| {
        let label = str::from_utf8(line).ok()?.trim().strip_prefix("-----BEGIN ")?;
        let is_plain =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
        label.strip_suffix("-----").filter(|label| label.bytes().all(is_plain))
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn broken(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a part of it has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => {
            "a line that begins with `-----BEGIN` does not end with `-----`".to_owned()
        }
        pem::Error::Base64Decode(_) => "a part of it is no base64".to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str) -> Vec<u8> {
        format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n").into_bytes()
    }

    #[test]
    fn files_without_a_certificate_say_why() {
        let der = b"\x30\x82\x01\x0b\x30\x82";
        let pkcs_12 = b"\x30\x82\x01\x0b\x02\x01\x03";
        for (bytes, expected) in [
            (b"".to_vec(), "there is no certificate in it"),
            (b"text".to_vec(), "there is no certificate in it"),
            (
                der.to_vec(),
                "it is DER, and has to be PEM; `openssl x509 -inform DER -in FILE -out NEW`",
            ),
            (pkcs_12.to_vec(), "PKCS #12, and has to be PEM; `openssl pkcs12 -in FILE -nokeys"),
            (b"\xff\xfe-\0-\0".to_vec(), "it is UTF-16, and has to be UTF-8; `iconv"),
            (
                pem("TRUSTED CERTIFICATE"),
                "has `TRUSTED CERTIFICATE`; `openssl x509 -in FILE -out NEW`",
            ),
            (pem("PKCS7"), "has `PKCS7`; `openssl pkcs7 -print_certs -in FILE -out NEW`"),
            (pem("CERTIFICATE REQUEST"), "no certificate in it, but `CERTIFICATE REQUEST`"),
            (pem("PRIVATE KEY"), "no certificate in it, but `PRIVATE KEY`"),
            (b"-----BEGIN CERTIFICATE-----\nMAA=\n".to_vec(), "a part of it has no end"),
            (b"-----BEGIN CERTIFICATE---\n".to_vec(), "does not end with `-----`"),
            (
                b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----".to_vec(),
                "a part of it is no base64",
            ),
        ] {
            let reason = parse_certificates(&bytes).unwrap_err();
            assert!(reason.contains(expected), "{expected}: {reason}");
        }
        let marked = [BYTE_ORDER_MARK, &*pem("CERTIFICATE")].concat();
        assert_eq!(parse_certificates(&marked).unwrap().len(), 1);
    }

    #[test]
    fn files_without_a_key_say_why() {
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                      DEK-Info: AES-256-CBC,00\n\nMAA=\n-----END RSA PRIVATE KEY-----\n";
        for (bytes, expected) in [
            (b"".to_vec(), "there is no key in it"),
            (
                pem("ENCRYPTED PRIVATE KEY"),
                "encrypted, and no passphrase can be given; `openssl pkey",
            ),
            (legacy.into(), "encrypted, and no passphrase can be given; `openssl pkey"),
            (pem("OPENSSH PRIVATE KEY"), "its key is one for SSH"),
            (pem("CERTIFICATE"), "there is no key in it, but `CERTIFICATE`"),
            (
                b"\x30\x81\x80\x02\x01\x00".to_vec(),
                "is DER, and has to be PEM; `openssl pkey -inform DER",
            ),
            (
                b"\x30\x82\x01\x0b\x02\x01\x03".to_vec(),
                "PKCS #12, and has to be PEM; `openssl pkcs12",
            ),
        ] {
            let reason = parse_key(&bytes).unwrap_err();
            assert!(reason.contains(expected), "{expected}: {reason}");
        }
        parse_key(&[BYTE_ORDER_MARK, &*pem("PRIVATE KEY")].concat()).unwrap();
    }
}
