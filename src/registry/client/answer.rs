//! What a registry said.
//! Stage: registry. Input: a response on its way. Output: [`Answer`], read to its end.

use serde_json::Value;
use ureq::http::{HeaderMap, Response};
use ureq::{Body, ResponseExt};

/// Longest manifest that is read (distribution-spec, "Pushing Manifests": 4 MiB), and answer.
const LONGEST_BODY: u64 = 8 << 20;

/// What a registry says.
pub struct Answer {
    /// HTTP's status code.
    pub status: u16,
    /// Where it is from, after whatever redirections.
    pub url: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads all of it.
    ///
    /// # Errors
    /// If the connection breaks, or the body is longer than any that is known.
    pub fn read(response: Response<Body>) -> Result<Self, ureq::Error> {
        let url = response.get_uri().to_string();
        let (parts, mut body) = response.into_parts();
        let body = body.with_config().limit(LONGEST_BODY).read_to_vec()?;
        Ok(Self { status: parts.status.as_u16(), url, headers: parts.headers, body })
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The registry's own words.
    pub fn message(&self) -> String {
        message(&self.body)
    }
}

/// A registry's own words (distribution-spec, "Error Codes"), or the first of whatever it said.
fn message(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = json["errors"].as_array().into_iter().flatten();
    let texts = errors.filter_map(|error| error["message"].as_str().or(error["code"].as_str()));
    let texts: Vec<_> = texts.collect();
    if !texts.is_empty() {
        return texts.join("; ");
    }
    let text = String::from_utf8_lossy(body);
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("without a word")
        .trim()
        .chars()
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_words_are_found() {
        for (body, expected) in [
            (&br#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X"}]}"#[..], "no; X"),
            (b"\n <html>\n", "<html>"),
            (b"", "without a word"),
        ] {
            assert_eq!(message(body), expected);
        }
    }
}
