//! Parses an argument of `serve`: a file with a name, or a directory of files.
//! Stage: registry. Input: an argument. Output: [`Source`].

use std::path::{Path, PathBuf};

use super::reach::Reach;
use crate::outgoing::{ParseTaggedNameError, Tag, TaggedName};
use crate::registry::error::SetupError;

/// The number of digits of the hash in a store path.
const HASH: usize = 32;

/// A file or directory with the images that a server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image spec with a name.
    Image(TaggedName, PathBuf),
    /// A directory of image specs, `REPOSITORY/TAG` each.
    Directory(PathBuf),
}

impl Source {
    /// Parses `NAME:TAG=FILE`, or the path of an image spec or of a directory.
    ///
    /// # Errors
    /// Fails if the argument does not yield a valid name.
    pub fn parse(argument: &str, reach: &Reach) -> Result<Self, SetupError> {
        let invalid = |source: ParseTaggedNameError| SetupError::Name {
            argument: format!("`{argument}`"),
            source,
        };
        // A path that looks like this can be written with `./` before it.
        let reference = argument.split_once('=').and_then(|(reference, file)| {
            let (name, tag) = reference.rsplit_once(':')?;
            (!reference.starts_with(['.', '/'])).then_some((name, tag, file))
        });
        if let Some((name, tag, file)) = reference {
            let name = TaggedName::parse(name, tag).map_err(invalid)?;
            return Ok(Self::Image(name, file.into()));
        }
        let path = Path::new(argument);
        // A file system that hangs is mounted at a directory.
        if !reach.answers(path) || path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let repository = name_of(path);
        let repository = repository
            .parse()
            .map_err(|_| invalid(ParseTaggedNameError::Repository(repository.to_owned())))?;
        Ok(Self::Image(TaggedName { repository, tag: Tag::latest() }, path.to_owned()))
    }
}

/// Returns the image's name as part of the file's name: without the hash of a store path.
fn name_of(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".json").unwrap_or(name);
    let name = name.strip_suffix("-image").unwrap_or(name);
    let is_hash = |text: &str| {
        text.len() == HASH && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    match name.split_once('-') {
        Some((hash, rest)) if is_hash(hash) => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let image = |name: &str, tag: &str, file: &str| {
            Some(Source::Image(TaggedName::parse(name, tag).unwrap(), file.into()))
        };
        let hash = "a".repeat(32);
        let path = directory.path().to_str().unwrap();
        for (argument, expected) in [
            ("a/b:v1=image.json", image("a/b", "v1", "image.json")),
            ("a:v1=b=c", image("a", "v1", "b=c")),
            ("x/hello.json", image("hello", "latest", "x/hello.json")),
            ("hello-image.json", image("hello", "latest", "hello-image.json")),
            ("./a:v=hello.json", None),
            ("./a:v/hello.json", image("hello", "latest", "./a:v/hello.json")),
            ("image.json", image("image", "latest", "image.json")),
            (
                &*format!("/nix/store/{hash}-hello-image.json"),
                image("hello", "latest", &format!("/nix/store/{hash}-hello-image.json")),
            ),
            (path, Some(Source::Directory(path.into()))),
            ("A:v1=image.json", None),
            ("a:.=image.json", None),
            ("Hello.json", None),
            ("", None),
        ] {
            assert_eq!(Source::parse(argument, &Reach::default()).ok(), expected, "{argument}");
        }
    }
}
