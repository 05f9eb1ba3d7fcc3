//! Names a document that is to be attached to an image, by its file and its media type.
//! Stage: proof (pure). Input: `FILE:TYPE`. Output: [`AttachedFile`].

use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// A document to attach to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedFile {
    /// The file with the document.
    pub file: PathBuf,
    /// The media type of the document.
    pub media_type: String,
}

/// Says that a text names no document.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("expected a file and its media type, such as `hello.spdx.json:application/spdx+json`")]
pub struct ParseAttachedFileError;

impl FromStr for AttachedFile {
    type Err = ParseAttachedFileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (file, media_type) = text.rsplit_once(':').ok_or(ParseAttachedFileError)?;
        let (kind, name) = media_type.split_once('/').unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c);
        let is_type =
            !kind.is_empty() && !name.is_empty() && kind.chars().chain(name.chars()).all(allowed);
        if file.is_empty() || !is_type {
            return Err(ParseAttachedFileError);
        }
        Ok(Self { file: file.into(), media_type: media_type.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_media_type() {
        for (text, expected) in [
            ("a.json:application/spdx+json", Some(("a.json", "application/spdx+json"))),
            ("/a:b:text/plain", Some(("/a:b", "text/plain"))),
            ("a", None),
            ("a:", None),
            (":text/plain", None),
            ("a:text", None),
            ("a:text/", None),
            ("a:text/pl ain", None),
            ("a:text/plain; charset=utf-8", None),
        ] {
            let found: Option<AttachedFile> = text.parse().ok();
            let expected = expected.map(|(file, media_type)| AttachedFile {
                file: file.into(),
                media_type: media_type.to_owned(),
            });
            assert_eq!(found, expected, "{text}");
        }
    }
}
