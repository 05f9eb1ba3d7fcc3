//! Classifies the errors of an object storage.
//! Stage: registry (pure). Input: the client's error. Output: [`StorageAnswer`].

use std::error::Error;
use std::io;

use object_store::client::HttpError;

use crate::foreign::{element, with_public_urls};

/// The length of the longest message of a storage that is passed on, in bytes.
const LONGEST: usize = 300;

/// An error of an object storage, classified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageAnswer {
    /// The class of the error.
    pub verdict: Verdict,
    /// The message, in the storage's words, without anything that was sent to it.
    pub reason: String,
}

/// The classes of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The object does not exist.
    Missing,
    /// The bucket does not exist.
    NoBucket,
    /// The credentials are unknown, or do not allow the request.
    Denied,
    /// The storage is full.
    Full,
    /// The storage did not answer, or could not answer at present.
    Silent,
    /// The request was not sent, since the settings do not allow it.
    Unusable,
    /// The storage refused the request.
    Refused,
}

impl StorageAnswer {
    /// Classifies an error of the client. The client's own text is not used in messages: it has the
    /// address, with the signature in it.
    pub fn of(error: &object_store::Error) -> Self {
        let chain = chain(error);
        // Without credentials in the environment, the client asks the cloud's metadata service for
        // them.
        if chain.iter().any(|error| names_metadata_service(&error.to_string())) {
            let reason = "there are no credentials in the environment, nor for this machine";
            return Self { verdict: Verdict::Denied, reason: reason.to_owned() };
        }
        if let Some(answer) = chain.iter().find_map(|error| Self::of_http(&error.to_string())) {
            return answer;
        }
        if let Some(error) = chain.iter().find_map(|error| error.downcast_ref::<HttpError>()) {
            let reason = causes(error);
            // The request was not sent.
            let is_ours = reason.starts_with("builder error");
            let verdict = if is_ours { Verdict::Unusable } else { Verdict::Silent };
            return Self { verdict, reason };
        }
        if let Some((at, error)) = chain
            .iter()
            .enumerate()
            .find_map(|(at, error)| error.downcast_ref::<io::Error>().map(|error| (at, error)))
        {
            // The error that has this one as its cause names the file.
            let reason = shorten(&chain[at.saturating_sub(1)].to_string());
            return Self { verdict: of_io(error.kind()), reason };
        }
        let verdict = match error {
            object_store::Error::NotFound { .. } => Verdict::Missing,
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => Verdict::Denied,
            _ => Verdict::Refused,
        };
        let reason = chain.last().map(|error| with_public_urls(&error.to_string()));
        Self { verdict, reason: shorten(&reason.unwrap_or_default()) }
    }

    /// Classifies an error by its text: the client's type for HTTP errors is private.
    fn of_http(text: &str) -> Option<Self> {
        let status = text.strip_prefix("Server returned non-2xx status code: ");
        let (status, body) = match status {
            Some(rest) => rest.split_once(": ").unwrap_or((rest, "")),
            None => ("200", text.strip_prefix("Server returned error response: ")?),
        };
        let number = status.split(' ').next()?.parse().ok()?;
        // S3, Azure and Google answer with an XML document of the same form.
        let (code, message) = (element(body, "Code"), element(body, "Message"));
        let parts = [Some(status), code, message];
        let reason = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let verdict = of_status(number, code.unwrap_or_default());
        Some(Self { verdict, reason: shorten(&reason) })
    }
}

fn of_status(status: u16, code: &str) -> Verdict {
    // The status does not matter: for a quota, Ceph answers 403, and MinIO 400.
    let full = ["Quota", "StorageFull", "InsufficientStorage"];
    if status == 507 || full.iter().any(|word| code.contains(word)) {
        return Verdict::Full;
    }
    match (status, code) {
        (_, "NoSuchBucket" | "ContainerNotFound") => Verdict::NoBucket,
        (404, _) => Verdict::Missing,
        (401 | 403, _) => Verdict::Denied,
        (200 | 408 | 429 | 500.., _) => Verdict::Silent,
        _ => Verdict::Refused,
    }
}

fn of_io(kind: io::ErrorKind) -> Verdict {
    match kind {
        io::ErrorKind::NotFound => Verdict::Missing,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Verdict::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Verdict::Full,
        _ => Verdict::Refused,
    }
}

/// Returns whether a text names a cloud's metadata service. Amazon's, Google's and Microsoft's have
/// the same address by default.
fn names_metadata_service(text: &str) -> bool {
    let parts =
        ["//169.254.", "//metadata.google.internal", "/latest/api/token", "/latest/meta-data"];
    parts.iter().any(|part| text.contains(part))
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> Vec<&'e (dyn Error + 'static)> {
    let mut chain = vec![error];
    while let Some(cause) = chain[chain.len() - 1].source() {
        chain.push(cause);
    }
    chain
}

/// Returns all causes of an error. The client has removed the address from them.
fn causes(error: &HttpError) -> String {
    let mut causes = Vec::<String>::new();
    for error in &chain(error)[1..] {
        let text = with_public_urls(&error.to_string());
        // Some errors repeat the text of their cause.
        if causes.last().is_none_or(|last| !last.ends_with(&text)) {
            causes.push(text);
        }
    }
    shorten(&causes.join(": "))
}

fn shorten(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().find(|(at, _)| *at >= LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xml(code: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>so it is</Message>\
             <AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>secret</StringToSign></Error>"
        )
    }

    #[test]
    fn answers_are_told_apart() {
        for (status, body, verdict) in [
            ("404 Not Found", String::new(), Verdict::Missing),
            ("404 Not Found", xml("NoSuchKey"), Verdict::Missing),
            ("404 Not Found", xml("NoSuchBucket"), Verdict::NoBucket),
            ("404 Not Found", xml("ContainerNotFound"), Verdict::NoBucket),
            ("401 Unauthorized", String::new(), Verdict::Denied),
            ("403 Forbidden", xml("SignatureDoesNotMatch"), Verdict::Denied),
            ("403 Forbidden", xml("QuotaExceeded"), Verdict::Full),
            ("400 Bad Request", xml("XMinioAdminBucketQuotaExceeded"), Verdict::Full),
            ("507 Insufficient Storage", xml("XMinioStorageFull"), Verdict::Full),
            ("507 Insufficient Storage", String::new(), Verdict::Full),
            ("503 Service Unavailable", xml("SlowDown"), Verdict::Silent),
            ("429 Too Many Requests", String::new(), Verdict::Silent),
            ("400 Bad Request", xml("AuthorizationHeaderMalformed"), Verdict::Refused),
        ] {
            let text = format!("Server returned non-2xx status code: {status}: {body}");
            let answer = StorageAnswer::of_http(&text).unwrap();
            assert_eq!(answer.verdict, verdict, "{text}");
            assert!(answer.reason.starts_with(status), "{}", answer.reason);
            assert!(!answer.reason.contains("AKIA") && !answer.reason.contains("secret"));
        }
        let text = format!("Server returned error response: {}", xml("InternalError"));
        assert_eq!(StorageAnswer::of_http(&text).unwrap().verdict, Verdict::Silent);
        assert_eq!(StorageAnswer::of_http("another error"), None);
    }

    #[test]
    fn signatures_are_left_out() {
        let text = "cannot get https://a/b?X-Amz-Signature=1 of it, why? because";
        assert_eq!(with_public_urls(text), "cannot get https://a/b?… of it, why? because");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shorten(" a\n b "), "a b");
        let long = shorten(&"é".repeat(LONGEST));
        assert!(long.len() <= LONGEST + "…".len() + 1 && long.ends_with("é…"), "{long}");
    }
}
