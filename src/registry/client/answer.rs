//! Reads a registry's answers to their end.
//! Stage: registry. Input: a response that is being received. Output: [`Answer`].

use std::io::Read;

use serde_json::Value;
use ureq::http::{HeaderMap, Response};
use ureq::{Body, ResponseExt};

use super::challenge::Challenge;
use super::no_answer::NoAnswer;
use crate::digest::BlobDigest;
use crate::foreign::plain_text;
use crate::registry::headers::CONTENT_DIGEST;

/// The longest body that is read: twice the longest manifest (distribution-spec, "Pushing
/// Manifests": 4 MiB).
const LONGEST_BODY: u64 = 8 << 20;
/// The longest part of a refusal that is read: messages quote no more.
const LONGEST_REFUSAL: u64 = 64 << 10;

/// Returns true if a header's value is this digest.
fn names(value: &str, digest: &BlobDigest) -> bool {
    value.eq_ignore_ascii_case(&digest.to_string())
}

/// Returns true if the length that a success states, or without a length the digest in its headers,
/// is that of some content, and no other digest is in the headers.
pub fn is_of(headers: &HeaderMap, length: Option<u64>, digest: &BlobDigest, size: u64) -> bool {
    let reported = reported_digest(headers);
    let is_named = || reported.is_some_and(|reported| names(reported, digest));
    contradiction(headers, digest).is_none() && length.map_or_else(is_named, |it| it == size)
}

fn reported_digest(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_DIGEST)?.to_str().ok().map(str::trim)
}

/// Returns the digest in an answer's headers, if it contradicts the expected one. A registry may
/// report a digest by another algorithm, which contradicts nothing.
fn contradiction<'h>(headers: &'h HeaderMap, expected: &BlobDigest) -> Option<&'h str> {
    let found = reported_digest(headers)?;
    let (algorithm, _) = found.split_once(':').unwrap_or_default();
    let is_other = algorithm.is_empty() || algorithm.eq_ignore_ascii_case("sha256");
    (is_other && !names(found, expected)).then_some(found)
}

/// An answer of a registry.
pub struct Answer {
    /// HTTP's status code.
    pub status: u16,
    /// The address that answered, after all redirections.
    pub url: String,
    /// The headers of the answer.
    pub headers: HeaderMap,
    /// The body; for a refusal, the beginning of the body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads a response.
    ///
    /// # Errors
    /// Fails if the connection breaks, or if the body of a success is longer than 8 MiB.
    pub fn read(response: Response<Body>) -> Result<Self, NoAnswer> {
        let url = response.get_uri().to_string();
        let (parts, mut body) = response.into_parts();
        let body = if parts.status.is_success() {
            body.with_config().limit(LONGEST_BODY).read_to_vec()?
        } else {
            let mut bytes = Vec::new();
            let reader = body.with_config().limit(u64::MAX).reader();
            let read = reader.take(LONGEST_REFUSAL).read_to_end(&mut bytes);
            read.map_err(ureq::Error::from)?;
            bytes
        };
        Ok(Self { status: parts.status.as_u16(), url, headers: parts.headers, body })
    }

    /// Returns a header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns whether the registry did what it was asked for. Accepts any 2xx status: the
    /// distribution spec names one status for each step, but registries use others.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the challenges that this program can answer, the strongest first.
    pub fn challenges(&self) -> Vec<Challenge> {
        Challenge::parse_all(self.challenge_headers())
    }

    /// Returns the names of the ways to authenticate that the registry offers.
    pub fn schemes(&self) -> Vec<String> {
        Challenge::schemes(self.challenge_headers())
    }

    /// Returns whether the registry asks for authorization. RFC 6750, section 3.1, has 403 for a
    /// token that lacks a scope.
    pub fn asks_for_authorization(&self) -> bool {
        self.status == 401 || (self.status == 403 && !self.challenges().is_empty())
    }

    fn challenge_headers(&self) -> impl Iterator<Item = &str> {
        let headers = self.headers.get_all("www-authenticate").iter();
        headers.filter_map(|value| value.to_str().ok())
    }

    /// Returns true if this is a success for content of this digest and size: the answer has one of
    /// the two, and no other digest.
    pub fn proves(&self, digest: &BlobDigest, size: u64) -> bool {
        let length = self.header("content-length").and_then(|text| text.parse().ok());
        self.is_success() && is_of(&self.headers, length, digest, size)
    }

    /// Returns the digest that the registry reports, if it contradicts the expected one. A registry
    /// may report a digest by another algorithm, which contradicts nothing.
    pub fn contradicts(&self, expected: &BlobDigest) -> Option<&str> {
        contradiction(&self.headers, expected)
    }

    /// Returns the registry's own message, fit for printing.
    pub fn message(&self) -> String {
        let message = message(&self.body);
        // The title of an error page often begins with the status.
        let rest = message.strip_prefix(&format!("{} ", self.status)).map(str::to_owned);
        rest.unwrap_or(message)
    }

    /// Returns the blobs because of which a manifest was refused, or `None` if that was not the
    /// reason. The list has all digests in the answer, and may be empty.
    pub fn unknown_blobs(&self) -> Option<Vec<BlobDigest>> {
        if !matches!(self.status, 400 | 404 | 409 | 412 | 422) {
            return None;
        }
        let errors = errors(&self.body);
        let is_unknown = errors.iter().any(|error| {
            // The codes are those of distribution-spec, "Error Codes". Other registries have one
            // code for all problems of a manifest, and describe the problem in the message.
            let code = error["code"].as_str().unwrap_or_default();
            let message = error["message"].as_str().unwrap_or_default().to_ascii_lowercase();
            matches!(code, "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "MANIFEST_UNKNOWN")
                || message.contains("blob unknown")
                || message.contains("unknown blob")
        });
        let is_unsaid = errors.is_empty() && matches!(self.status, 400 | 404);
        (is_unknown || is_unsaid).then(|| digests(&String::from_utf8_lossy(&self.body)))
    }
}

fn errors(body: &[u8]) -> Vec<Value> {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    json["errors"].as_array().cloned().unwrap_or_default()
}

/// Returns all digests in a text.
fn digests(text: &str) -> Vec<BlobDigest> {
    let places = text.match_indices("sha256:");
    let texts = places.filter_map(|(place, _)| text.get(place..place + 7 + 64));
    texts.filter_map(|digest| digest.parse().ok()).collect()
}

/// Returns a registry's own messages (distribution-spec, "Error Codes"), or the text of the body if
/// there are none.
fn message(body: &[u8]) -> String {
    let errors = errors(body);
    let texts = errors.iter().filter_map(|error| {
        let texts = ["message", "code"].map(|key| error[key].as_str());
        texts.into_iter().flatten().find(|text| !text.trim().is_empty())
    });
    let texts: Vec<_> = texts.map(plain_text).collect();
    let text = if texts.is_empty() {
        String::from_utf8_lossy(body).into_owned()
    } else {
        texts.join("; ")
    };
    let text = plain_text(&text);
    if text.is_empty() { "without a word".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use ureq::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_registrys_words_are_found() {
        for (body, expected) in [
            (&br#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X"}]}"#[..], "no; X"),
            (br#"{"errors":[{"code":"DENIED","message":""}]}"#, "DENIED"),
            (br#"{"errors":[]}"#, r#"{"errors":[]}"#),
            (b"\n <html><title>no</title>\n", "no"),
            (b"<html></html>", "without a word"),
            (b"", "without a word"),
        ] {
            assert_eq!(message(body), expected);
        }
    }

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        let headers = headers.collect();
        Answer { status, url: String::new(), headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_status_is_not_said_twice() {
        for (status, body, expected) in [
            (413, "<html><title>413 Request Entity Too Large</title>", "Request Entity Too Large"),
            (413, "413", "413"),
            (413, "41300 bytes", "41300 bytes"),
            (500, "413 Request Entity Too Large", "413 Request Entity Too Large"),
        ] {
            assert_eq!(answer(status, &[], body).message(), expected);
        }
    }

    #[test]
    fn a_challenge_asks_for_authorization() {
        for (status, challenge, expected) in [
            (401, None, true),
            (401, Some("Negotiate"), true),
            (403, None, false),
            (403, Some("Negotiate"), false),
            (403, Some("Basic"), true),
            (403, Some("Bearer realm=\"https://a/t\",error=\"insufficient_scope\""), true),
            (404, Some("Basic"), false),
            (200, Some("Basic"), false),
        ] {
            let headers: Vec<_> =
                challenge.map(|value| ("www-authenticate", value)).into_iter().collect();
            let asks = answer(status, &headers, "").asks_for_authorization();
            assert_eq!(asks, expected, "{status} {challenge:?}");
        }
    }

    #[test]
    fn another_algorithm_contradicts_nothing() {
        let digest = BlobDigest::new(crate::digest::Digest::of(b"x"));
        let text = digest.to_string();
        for (reported, contradicts) in [
            (None, false),
            (Some(text.clone()), false),
            (Some(text.to_uppercase()), false),
            (Some(format!(" {text} ")), false),
            (Some(format!("sha512:{}", "0".repeat(128))), false),
            (Some(format!("sha256:{}", "0".repeat(64))), true),
            (Some("sha256:".to_owned()), true),
            (Some(String::new()), true),
            (Some("0".repeat(64)), true),
        ] {
            let headers: Vec<_> = reported.iter().map(|value| (CONTENT_DIGEST, &**value)).collect();
            let answer = answer(200, &headers, "");
            assert_eq!(answer.contradicts(&digest).is_some(), contradicts, "{reported:?}");
            // A length does not outweigh another digest.
            let by_length = is_of(&answer.headers, Some(1), &digest, 1);
            assert_eq!(by_length, !contradicts, "{reported:?}");
            assert!(!is_of(&answer.headers, Some(2), &digest, 1), "{reported:?}");
        }
    }

    #[test]
    fn unknown_blobs_are_found() {
        let digest = BlobDigest::new(crate::digest::Digest::of(b"x"));
        let of = |status: u16, body: &str| {
            answer(status, &[], &body.replace("{}", &digest.to_string())).unknown_blobs()
        };
        for (status, body, expected) in [
            (404, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","detail":"{}"}]}"#, Some(1)),
            (400, r#"{"errors":[{"code":"BLOB_UNKNOWN","detail":{"Digest":"{}"}}]}"#, Some(1)),
            (
                400,
                r#"{"errors":[{"code":"X","message":"Blob unknown to registry {}, {}"}]}"#,
                Some(2),
            ),
            (400, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#, Some(0)),
            (404, "", Some(0)),
            (400, "not here", Some(0)),
            (400, r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}"#, None),
            (404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#, None),
            (403, "", None),
            (500, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#, None),
        ] {
            assert_eq!(of(status, body), expected.map(|count| vec![digest; count]), "{body}");
        }
    }
}
