//! Documents that refer to an image in a registry: SBOMs, signatures and the like
//! (distribution-spec 1.1, "Pushing Manifests with Subject" and "Listing Referrers").
//! Stage: registry. Input: [`Attachment`]s. Output: them, in a registry.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::answer::Answer;
use super::error::ClientError;
use super::repository::{Client, Presence};
use super::upload::Upload;
use crate::digest::BlobDigest;
use crate::oci::{Blob, ForeignDescriptor, ForeignDocument, IMAGE_INDEX, IMAGE_MANIFEST};
use crate::proof::{Attachment, Subject};

/// The largest number of pages that are read of a list, and of entries.
const MOST_PAGES: usize = 64;
const MOST_ENTRIES: usize = 4096;
/// The largest number of times that a list is read and written while other clients write it too.
const ATTEMPTS: usize = 64;
/// The shortest pause before a list is read again to see whether another client has overwritten it.
const SETTLED: Duration = Duration::from_millis(25);

/// The list of the documents that refer to a manifest.
pub struct ReferrersList {
    /// The descriptors of the documents' manifests, as they are in the list.
    pub entries: Vec<Value>,
}

impl ReferrersList {
    fn has(&self, digest: &BlobDigest) -> bool {
        has(&self.entries, &digest.to_string())
    }
}

fn has(entries: &[Value], digest: &str) -> bool {
    entries.iter().any(|entry| ForeignDescriptor::of(entry).digest_text() == digest)
}

impl Client<'_> {
    /// Attaches a document to an image in the registry. Returns whether anything was sent.
    ///
    /// # Errors
    /// Fails with [`ClientError`].
    pub fn attach(&self, attachment: &Attachment) -> Result<bool, ClientError> {
        let Attachment { manifest, blobs, subject, .. } = attachment;
        let listed = self.referrers(subject)?.has(&manifest.digest);
        let size = manifest.bytes.len() as u64;
        if listed && self.has_manifest(&manifest.digest, size)? == Presence::There {
            return Ok(false);
        }
        for blob in blobs {
            self.send_small(blob)?;
        }
        let name = manifest.digest.into();
        let answer = self.store_manifest(&name, &manifest.bytes, IMAGE_MANIFEST, "the document")?;
        // A registry that does not return this header does not maintain the list of referrers: the
        // client does.
        if answer.header("oci-subject").is_none() {
            self.list(subject, &attachment.entry())?;
        }
        Ok(true)
    }

    /// Sends a blob that is in memory, unless the registry has it.
    pub(super) fn send_small(&self, blob: &Blob) -> Result<(), ClientError> {
        let size = blob.bytes.len() as u64;
        if self.has_blob(&blob.digest, size)? == Presence::There {
            return Ok(());
        }
        let upload = Upload { client: self, digest: blob.digest, size, trusts: true };
        upload.send_bytes(&blob.bytes)
    }

    /// Lists the documents that refer to a manifest.
    ///
    /// # Errors
    /// Fails with [`ClientError`].
    pub fn referrers(&self, subject: &Subject) -> Result<ReferrersList, ClientError> {
        let mut url = self.url(&format!("referrers/{}", subject.digest));
        let mut entries = Vec::new();
        for page in 0..MOST_PAGES {
            let answer = self.request("GET", &url)?;
            if !answer.is_success() {
                let may_have_no_list =
                    page == 0 && !matches!(answer.status, 401 | 403 | 429 | 500..);
                if may_have_no_list {
                    return Ok(ReferrersList { entries: self.tagged_list(subject)? });
                }
                return Err(self.refused("to list the documents that refer to an image", &answer));
            }
            let list = entries_of(&answer.body);
            let list = list.map_err(|reason| self.odd_list(subject, &reason))?;
            entries.extend(list);
            match next_page(&answer) {
                Some(next) if entries.len() <= MOST_ENTRIES => url = self.resolve(&answer, &next),
                _ => break,
            }
        }
        Ok(ReferrersList { entries })
    }

    /// Reads the list that clients keep under a tag, for registries without the referrers API.
    fn tagged_list(&self, subject: &Subject) -> Result<Vec<Value>, ClientError> {
        let there = self.get(&format!("manifests/{}", subject.fallback_tag()), IMAGE_INDEX)?;
        let Some(bytes) = there else { return Ok(Vec::new()) };
        entries_of(&bytes).map_err(|reason| self.odd_list(subject, &reason))
    }

    fn odd_list(&self, subject: &Subject, reason: &str) -> ClientError {
        ClientError::Referrers {
            registry: self.name(),
            digest: subject.digest,
            reason: reason.to_owned(),
        }
    }

    /// Adds an entry to the list under a tag. Registries have no conditional write: two clients
    /// that read and write at the same time can lose an entry. Therefore this function keeps every
    /// entry that it has ever seen in the list, and returns only after the list has had all of them
    /// three times in a row, with pauses longer than a reading and writing. A client that
    /// overwrites the list meanwhile has either seen this entry, or sees it the next time that it
    /// reads the list.
    fn list(&self, subject: &Subject, entry: &Value) -> Result<(), ClientError> {
        let tag = subject.fallback_tag().into();
        let mut known: Vec<Value> = Vec::new();
        let (mut calm, mut window, mut wrote) = (0, SETTLED, false);
        for _ in 0..ATTEMPTS {
            let begin = Instant::now();
            let there = self.tagged_list(subject)?;
            merge(&mut known, &there);
            merge(&mut known, std::slice::from_ref(entry));
            let is_there = |entry| has(&there, ForeignDescriptor::of(entry).digest_text());
            if known.iter().all(is_there) {
                calm += 1;
                if !wrote || calm == 3 {
                    return Ok(());
                }
            } else {
                let index = Blob::json(&json!({
                    "schemaVersion": 2,
                    "mediaType": IMAGE_INDEX,
                    "manifests": known,
                }));
                let what = "the list of documents that refer to an image";
                self.store_manifest(&tag, &index.bytes, IMAGE_INDEX, what)?;
                (calm, wrote) = (0, true);
                window = window.max(begin.elapsed() * 2);
            }
            sleep(window);
        }
        Err(self.odd_list(subject, "other clients keep overwriting the list"))
    }
}

/// Adds the entries whose digests are not in the list yet.
fn merge(known: &mut Vec<Value>, entries: &[Value]) {
    for entry in entries {
        if !has(known, ForeignDescriptor::of(entry).digest_text()) {
            known.push(entry.clone());
        }
    }
}

fn entries_of(index: &[u8]) -> Result<Vec<Value>, String> {
    let index = ForeignDocument::parse(index)?;
    let entries = index.manifests().ok_or("it is no index")?;
    let is_named = |entry: &ForeignDescriptor| !entry.digest_text().is_empty();
    if entries.len() > MOST_ENTRIES || !entries.iter().all(is_named) {
        return Err("it has too many entries, or some without a digest".to_owned());
    }
    Ok(entries.into_iter().map(|entry| entry.as_value().clone()).collect())
}

/// Returns the address of a list's next page (RFC 8288).
fn next_page(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let (address, rest) = link.split_once('<')?.1.split_once('>')?;
    let rest = rest.replace(' ', "");
    (rest.contains("rel=\"next\"") || rest.contains("rel=next")).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_each_digest_once() {
        let entry = |digest: &str| json!({ "digest": digest, "x": 1 });
        let mut known = vec![entry("a")];
        merge(&mut known, &[entry("b"), json!({ "digest": "a" }), entry("b")]);
        assert_eq!(known, [entry("a"), entry("b")]);
        for text in ["", "{}", r#"{"manifests":[{}]}"#, "[]"] {
            assert!(entries_of(text.as_bytes()).is_err(), "{text}");
        }
    }
}
