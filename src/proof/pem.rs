//! Reads text encodings of keys (RFC 7468).
//! Stage: proof (pure). Input: text. Output: [`Pem`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The text between the first `-----BEGIN …-----` and its `-----END …-----`, decoded.
pub struct Pem {
    /// The label after `BEGIN`, such as `PRIVATE KEY`.
    pub label: String,
    /// The decoded bytes.
    pub bytes: Vec<u8>,
}

impl Pem {
    /// Parses the first such block of a text. Returns none if there is no block.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (_, rest) = text.split_once("-----BEGIN ")?;
        let (label, rest) = rest.split_once("-----")?;
        let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
        let digits: String = body.split_ascii_whitespace().collect();
        Some(Self { label: label.to_owned(), bytes: STANDARD.decode(digits).ok()? })
    }
}
