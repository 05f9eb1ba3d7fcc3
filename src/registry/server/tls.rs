//! Reads a certificate and its key.
//! Stage: registry. Input: PEM files. Output: a [`TlsAcceptor`].

use std::path::Path;
use std::sync::Arc;

use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::registry::error::SetupError;
use crate::registry::pem::{self, PemError};

/// A certificate with its key.
pub struct Certificate {
    /// The acceptor of connections with this certificate.
    pub acceptor: TlsAcceptor,
    /// The earliest time at which a certificate of the chain expires, if it can be read.
    pub ends: Option<OffsetDateTime>,
}

/// Reads a chain of certificates, the server's own first, and the key.
///
/// # Errors
/// Fails with [`SetupError`], which names the file, if a file can't be used.
pub fn read(certificate: &Path, key: &Path) -> Result<Certificate, SetupError> {
    let wrong = |file: &Path, what: &'static str, reason: String| SetupError::Tls {
        file: file.to_owned(),
        what,
        reason,
    };
    let unusable = |file: &Path, what, error| match error {
        PemError::Read(source) => SetupError::Read { path: file.to_owned(), source },
        PemError::Contents(reason) => wrong(file, what, reason),
    };
    let chain = pem::certificates(certificate)
        .map_err(|error| unusable(certificate, "a certificate", error))?;
    let private = pem::key(key).map_err(|error| unusable(key, "a key", error))?;
    let of_certificate = |error: tokio_rustls::rustls::Error| {
        wrong(key, "the key of that certificate", error.to_string())
    };
    let ends = chain.iter().filter_map(|certificate| not_after(certificate)).min();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(of_certificate)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Certificate { acceptor: TlsAcceptor::from(Arc::new(config)), ends })
}

/// Returns the time when a certificate expires (RFC 5280, 4.1): the second time in `validity`.
fn not_after(certificate: &[u8]) -> Option<OffsetDateTime> {
    const SEQUENCE: u8 = 0x30;
    let (mut fields, _) = element(element(certificate, SEQUENCE)?.0, SEQUENCE)?;
    // Certificates of version 1 have no field for the version.
    if let Some((_, rest)) = element(fields, 0xa0) {
        fields = rest;
    }
    // Skip serial number, algorithm and issuer.
    for tag in [0x02, SEQUENCE, SEQUENCE] {
        fields = element(fields, tag)?.1;
    }
    let (validity, _) = element(fields, SEQUENCE)?;
    let (_, after) = any_element(validity)?.1;
    let (tag, (text, _)) = any_element(after)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // A UTCTime, which has two digits of the year (RFC 5280, 4.1.2.5.1).
        0x17 if text.get(..2)? < "50" => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let number = |at: usize, digits: usize| text.get(at..at + digits)?.parse::<u16>().ok();
    let small = |at| u8::try_from(number(at, 2)?).ok();
    let month = time::Month::try_from(small(4)?).ok()?;
    let date = time::Date::from_calendar_date(i32::from(number(0, 4)?), month, small(6)?).ok()?;
    let time = time::Time::from_hms(small(8)?, small(10)?, small(12)?).ok()?;
    Some(date.with_time(time).assume_utc())
}

/// Returns the contents of a DER element with this tag, and the bytes after it.
fn element(bytes: &[u8], tag: u8) -> Option<Parts<'_>> {
    any_element(bytes).filter(|(found, _)| *found == tag).map(|(_, parts)| parts)
}

/// The contents of a DER element, and the bytes after it.
type Parts<'a> = (&'a [u8], &'a [u8]);

/// Returns the tag of a DER element, its contents, and the bytes after it.
fn any_element(bytes: &[u8]) -> Option<(u8, Parts<'_>)> {
    let (&[tag, first], mut rest) = bytes.split_first_chunk()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = after;
    }
    Some((tag, rest.split_at_checked(length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (year, month) in [(2031, 2), (2049, 12), (2051, 6), (1999, 1)] {
            let mut made = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            made.not_before = rcgen::date_time_ymd(1990, 1, 1);
            made.not_after = rcgen::date_time_ymd(year, month, 3);
            let made = made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let found = not_after(made.der()).unwrap();
            assert_eq!((found.year(), u8::from(found.month()), found.day()), (year, month, 3));
            // A part of a certificate gives no time, wherever it is cut.
            for end in 0..made.der().len() {
                assert_eq!(not_after(&made.der()[..end]), None);
            }
        }
    }
}
