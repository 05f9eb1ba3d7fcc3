//! Names a document that is to be attached to an image, by its file and its media type.
//! Stage: proof (pure). Input: `FILE:TYPE`, and the file's bytes. Output: [`AttachedFile`], [`AttachedDocument`].

use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use crate::store::Store;

/// The files and directories that stand for pipes, such as those of a shell's `<(…)`.
const PIPES: [&str; 3] = ["/dev/fd", "/dev/stdin", "/proc"];

/// A document to attach to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedFile {
    /// The file with the document.
    pub file: PathBuf,
    /// The media type of the document.
    pub media_type: String,
}

/// A document to attach to an image, with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedDocument {
    /// The media type of the document.
    pub media_type: String,
    /// The name under which clients such as `oras pull` write the document; `None` if its file has no name of its own.
    pub title: Option<String>,
    /// The document.
    pub bytes: Vec<u8>,
}

impl AttachedFile {
    /// Returns the document that was read from this file.
    pub fn document(&self, bytes: Vec<u8>) -> AttachedDocument {
        AttachedDocument { media_type: self.media_type.clone(), title: self.title(), bytes }
    }

    /// Returns the file's name. The name of a store path has no hash, since the hash tells nothing about the
    /// document. A pipe has no name: its number is another one each time.
    fn title(&self) -> Option<String> {
        if PIPES.iter().any(|pipes| self.file.starts_with(pipes)) {
            return None;
        }
        if let Ok(path) = Store::default().parse(&self.file.to_string_lossy()) {
            return Some(path.name().to_owned());
        }
        self.file.file_name().map(|name| name.to_string_lossy().into_owned())
    }
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
    fn a_document_has_the_name_of_its_file() {
        let hash = "qa7szv3zlr9br5wz81g1hxavdms79sly";
        for (file, title) in [
            ("notes", Some("notes")),
            ("../a/sbom.json", Some("sbom.json")),
            (&format!("/nix/store/{hash}-hello.spdx.json"), Some("hello.spdx.json")),
            (&format!("/nix/store/{hash}-documents/a.json"), Some("a.json")),
            ("/nix/store/short-name", Some("short-name")),
            ("/dev/stdin", None),
            ("/dev/fd/63", None),
            ("/dev/shm/notes", Some("notes")),
            ("/proc/self/fd/63", None),
            ("..", None),
        ] {
            let file = AttachedFile { file: file.into(), media_type: "text/plain".to_owned() };
            assert_eq!(file.document(Vec::new()).title.as_deref(), title, "{file:?}");
        }
    }

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
