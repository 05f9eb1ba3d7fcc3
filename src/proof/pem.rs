//! Reads text encodings of keys (RFC 7468).
//! Stage: proof (pure).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What is between the first pair of `-----BEGIN …-----` and `-----END …-----`.
pub struct Pem {
    /// What it is, such as `PRIVATE KEY`.
    pub label: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Pem {
    /// Parses a text; none if there is nothing of the kind in it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (_, rest) = text.split_once("-----BEGIN ")?;
        let (label, rest) = rest.split_once("-----")?;
        let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
        let digits: String = body.split_ascii_whitespace().collect();
        Some(Self { label: label.to_owned(), bytes: STANDARD.decode(digits).ok()? })
    }
}
