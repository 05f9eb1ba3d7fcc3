//! Annotations of manifests, indexes and descriptors (image-spec, annotations.md).
//! Stage: oci (pure). Input: [`Annotations`]. Output: a document with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use thiserror::Error;

/// Annotations by key.
pub type Annotations = BTreeMap<String, String>;

/// Adds annotations to a document. If there are none, the document and its digest stay the same.
pub fn annotated(mut document: Value, annotations: &Annotations) -> Value {
    if !annotations.is_empty() {
        document["annotations"] = json!(annotations);
    }
    document
}

/// Says why an annotation, or a label of an image's configuration, is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AnnotationError {
    /// The key is empty, as Docker has no label without a name.
    #[error("has a key of no letters")]
    EmptyKey,
    /// The key has a control character.
    #[error("has the key {0:?}, with a control character in it")]
    Key(String),
    /// The value has a control character that belongs to no text.
    #[error("has the key `{0}`, with a control character in its value")]
    Value(String),
}

/// Checks the key and the value of an annotation or a label. Values may have tabs and lines.
///
/// # Errors
/// Fails with [`AnnotationError`].
pub fn check_annotation(key: &str, value: &str) -> Result<(), AnnotationError> {
    let is_text = |character| matches!(character, '\t' | '\n' | '\r');
    if key.is_empty() {
        Err(AnnotationError::EmptyKey)
    } else if key.contains(|character: char| character.is_ascii_control()) {
        Err(AnnotationError::Key(key.to_owned()))
    } else if value.contains(|c: char| c.is_ascii_control() && !is_text(c)) {
        Err(AnnotationError::Value(key.to_owned()))
    } else {
        Ok(())
    }
}

/// Parses and checks the annotations that an image's author gives.
pub(super) fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Annotations, D::Error> {
    let annotations = Annotations::deserialize(deserializer)?;
    let checked = annotations.iter().try_for_each(|(key, value)| check_annotation(key, value));
    let named = |error| serde::de::Error::custom(format_args!("`annotations` {error}"));
    checked.map(|()| annotations).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_refused() {
        use AnnotationError::{EmptyKey, Key, Value};
        for (key, value, expected) in [
            ("org.example.key", "", Ok(())),
            ("a b", "two\nlines\r\n\tand é", Ok(())),
            ("", "x", Err(EmptyKey)),
            ("a\nb", "x", Err(Key("a\nb".to_owned()))),
            ("a\u{7f}", "x", Err(Key("a\u{7f}".to_owned()))),
            ("a", "\u{1b}[31m", Err(Value("a".to_owned()))),
            ("a", "\0", Err(Value("a".to_owned()))),
        ] {
            assert_eq!(check_annotation(key, value), expected, "{key:?}: {value:?}");
        }
        let shown = Key("a\u{1b}".to_owned()).to_string();
        assert_eq!(shown, r#"has the key "a\u{1b}", with a control character in it"#);
    }
}
