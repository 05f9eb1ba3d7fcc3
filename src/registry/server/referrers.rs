//! Lists the documents that refer to a manifest (distribution-spec 1.1, "Listing Referrers").
//! Stage: registry (pure). Input: a request's query and all documents. Output: [`Referrers`].

use std::borrow::Cow;

use serde_json::{Value, json};
use url::form_urlencoded;

use crate::digest::BlobDigest;
use crate::oci::IMAGE_INDEX;
use crate::proof::Attachment;

/// The most entries of a page, which has about 300 kB then.
const PAGE: usize = 1000;

/// A page of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Referrers {
    /// An index of the documents' manifests.
    pub index: Value,
    /// True if the list has only documents of the type that the query asks for.
    pub is_filtered: bool,
    /// The query for the next page, if there is one.
    pub next: Option<String>,
}

/// Returns whether a list of documents that a query asks for may have documents of a type.
pub fn asks_for(query: Option<&str>, kind: &str) -> bool {
    parameter(query.unwrap_or_default(), "artifactType").is_none_or(|asked| asked == kind)
}

fn parameter<'q>(query: &'q str, key: &str) -> Option<Cow<'q, str>> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == key).map(|(_, value)| value)
}

/// Returns the documents after `last`, of one `artifactType`, which are parameters of the query.
pub fn list_referrers<'a>(
    query: &str,
    documents: impl Iterator<Item = &'a Attachment>,
) -> Referrers {
    let kind = parameter(query, "artifactType");
    let last: Option<BlobDigest> = parameter(query, "last").and_then(|last| last.parse().ok());
    let mut documents = documents
        .filter(|document| kind.as_deref().is_none_or(|kind| kind == document.artifact_type()))
        .filter(|document| last.is_none_or(|last| document.manifest.digest > last))
        .peekable();
    let page: Vec<_> = documents.by_ref().take(PAGE).collect();
    let next = page.last().filter(|_| documents.peek().is_some()).map(|last| {
        let mut next = form_urlencoded::Serializer::new(String::new());
        next.append_pair("last", &last.manifest.digest.to_string());
        if let Some(kind) = &kind {
            next.append_pair("artifactType", kind);
        }
        next.finish()
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE_INDEX,
        "manifests": page.into_iter().map(Attachment::entry).collect::<Vec<_>>(),
    });
    Referrers { index, is_filtered: kind.is_some(), next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Blob;
    use crate::proof::Subject;

    #[test]
    fn queries_may_ask_for_one_type() {
        for (query, expected) in [
            (None, true),
            (Some(""), true),
            (Some("last=x"), true),
            (Some("artifactType=text%2Fa%2Bb"), true),
            (Some("artifactType=text%2Fa"), false),
            (Some("artifactType="), false),
        ] {
            assert_eq!(asks_for(query, "text/a+b"), expected, "{query:?}");
        }
    }

    #[test]
    fn pages_have_all_documents_of_a_type() {
        let subject = Subject::new("x/y", &Blob::new(Vec::new()));
        let document = |number: usize| {
            let kind = if number.is_multiple_of(3) { "text/a+b" } else { "text/c" };
            let document = number.to_string().into_bytes();
            Attachment::new(subject.clone(), kind, document, Default::default())
        };
        let mut documents: Vec<_> = (0..3 * PAGE).map(document).collect();
        documents.sort_by_key(|document| document.manifest.digest);
        for (query, count, pages) in [
            ("", 3 * PAGE, 3),
            ("artifactType=text%2Fa%2Bb", PAGE, 1),
            ("artifactType=text/c", 2 * PAGE, 2),
            ("artifactType=none", 0, 1),
            ("last=sha256:0", 3 * PAGE, 3),
        ] {
            let mut found = Vec::new();
            let mut next = Some(query.to_owned());
            let mut asked = 0;
            while let Some(query) = next {
                let page = list_referrers(&query, documents.iter());
                assert_eq!(page.is_filtered, query.contains("artifactType"), "{query}");
                found.extend(page.index["manifests"].as_array().unwrap().clone());
                next = page.next;
                asked += 1;
            }
            assert_eq!((found.len(), asked), (count, pages), "{query}");
            found.dedup();
            assert_eq!(found.len(), count, "{query}");
        }
    }
}
