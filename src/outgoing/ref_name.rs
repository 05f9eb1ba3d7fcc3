//! An image's name in an image layout.
//! Stage: outgoing (pure). Input: text. Output: [`RefName`].

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The value of `org.opencontainers.image.ref.name` (image-spec, annotations.md): a tag
/// such as `v1`, or a whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefName(String);

/// Says why a text is not a [`RefName`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` can't be a name in an image layout: letters and digits, with one of `-._:@+/` or `--` between them"
)]
pub struct ParseRefNameError(String);

impl RefName {
    /// The key of the annotation.
    pub const ANNOTATION: &str = "org.opencontainers.image.ref.name";

    /// Returns the name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RefName {
    type Err = ParseRefNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.split('/').all(is_component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseRefNameError(text.to_owned()))
        }
    }
}

/// Returns whether a text is a component, `alphanum (separator alphanum)*`.
fn is_component(text: &str) -> bool {
    // `--` is the only separator that has two characters: count it as one dash.
    let text = text.replace("--", "-");
    text.split(['-', '.', '_', ':', '@', '+'])
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        for text in ["v1", "1.0_x", "a--b", "hello:v1", "localhost:5000/a/b:v1", "a@b+c", "A"] {
            assert_eq!(text.parse::<RefName>().unwrap().as_str(), text);
        }
        for text in ["", "-", "v1-", ".v1", "a..b", "a---b", "a//b", "/a", "a/", "a b", "ü", "a:"]
        {
            let error = text.parse::<RefName>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` can't be a name")), "{error}");
        }
    }
}
