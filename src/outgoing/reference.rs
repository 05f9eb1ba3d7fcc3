//! The name and tag under which an image is loaded.
//! Stage: outgoing (pure). Input: text. Output: [`ImageReference`].

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::{ParseError, Reference};
use thiserror::Error;

/// `[registry/]repository:tag`, as it was written and checked.
#[derive(Clone, Debug)]
pub struct ImageReference {
    written: String,
    parsed: Reference,
}

/// Why a text is no [`ImageReference`].
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseReferenceError {
    /// Not a reference at all.
    #[error("`{text}` is not an image name: {source}")]
    Invalid {
        /// What was given.
        text: String,
        /// What is wrong.
        source: ParseError,
    },
    /// No tag, or a digest, which is a result and not a choice.
    #[error("`{0}` must be a name and a tag, such as `hello:v1`")]
    NotTagged(String),
}

impl ImageReference {
    /// The tag alone.
    pub fn tag(&self) -> &str {
        self.parsed.tag().unwrap_or_default()
    }

    /// With registry and namespace spelled out: `docker.io/library/hello:v1`.
    pub fn whole(&self) -> String {
        self.parsed.whole()
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for ImageReference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed: Reference = text.parse().map_err(|source| ParseReferenceError::Invalid {
            text: text.to_owned(),
            // The parser has this error, but for a name in upper case it finds no reference at all.
            source: match text.to_lowercase().parse::<Reference>() {
                Ok(_) => ParseError::NameContainsUppercase,
                Err(_) => source,
            },
        })?;
        // The parser adds `latest` where there is no tag: a guess, and the wrong one here.
        let tagged = parsed.tag().is_some_and(|tag| text.ends_with(&format!(":{tag}")));
        if !tagged || parsed.digest().is_some() {
            return Err(ParseReferenceError::NotTagged(text.to_owned()));
        }
        Ok(Self { written: text.to_owned(), parsed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_as_written() {
        for (text, tag, whole) in [
            ("hello:v1", "v1", "docker.io/library/hello:v1"),
            ("localhost:5000/a/b:2.0_x", "2.0_x", "localhost:5000/a/b:2.0_x"),
            ("ghcr.io/o/p:latest", "latest", "ghcr.io/o/p:latest"),
        ] {
            let reference: ImageReference = text.parse().unwrap();
            assert_eq!(
                (reference.to_string(), reference.tag(), reference.whole()),
                (text.to_owned(), tag, whole.to_owned())
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("hello", "must be a name and a tag"),
            ("localhost:5000/hello", "must be a name and a tag"),
            ("Hello:v1", "lowercase"),
            ("hello:", "is not an image name"),
            (":v1", "is not an image name"),
            ("hello:a/b", "is not an image name"),
            ("", "is not an image name"),
        ] {
            let error = text.parse::<ImageReference>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
