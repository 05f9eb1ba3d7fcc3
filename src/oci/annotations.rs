//! Annotations of manifests, indexes and descriptors (image-spec, annotations.md).
//! Stage: oci (pure). Input: [`Annotations`]. Output: a document with them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Annotations by key.
pub type Annotations = BTreeMap<String, String>;

/// Adds annotations to a document. If there are none, the document and its digest stay the same.
pub fn annotated(mut document: Value, annotations: &Annotations) -> Value {
    if !annotations.is_empty() {
        document["annotations"] = json!(annotations);
    }
    document
}
