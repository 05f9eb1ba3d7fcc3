//! Paths of files in an image, and the one way to follow symbolic links on them.
//! Vocabulary (pure): names no stage.

mod resolve;

use std::borrow::Borrow;
use std::fmt;

use thiserror::Error;

pub use resolve::{Last, MOST_LINKS, NodeKind, Obstacle, Stopped, Tree, resolve};

/// The largest length of a path in bytes, as on Linux.
pub const LONGEST_PATH: usize = 4096;
/// The largest length of a component of a path in bytes, as on Linux.
pub const LONGEST_COMPONENT: usize = 255;

/// A path in an image, relative to the image's root: no slash at either end, and no `.`, `..` or
/// empty component. The root is empty. Paths sort by their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath(Vec<u8>);

/// Says that a text is not a path relative to an image's root in its only form.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no path relative to the image's root")]
pub struct ParseImagePathError(String);

impl ImagePath {
    /// Returns the root.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Parses a path that has no other form: `a/b`, but not `/a/b`, `a//b` or `./a/b`.
    ///
    /// # Errors
    /// Fails with [`ParseImagePathError`] if the path has another form.
    pub fn parse(path: &[u8]) -> Result<Self, ParseImagePathError> {
        let is_name = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
        if path.is_empty() || path.split(|byte| *byte == b'/').all(is_name) {
            return Ok(Self(path.to_vec()));
        }
        Err(ParseImagePathError(String::from_utf8_lossy(path).into_owned()))
    }

    /// Normalises the name of an archive's member: `./a//b/` is `a/b`. As `..` removes the component
    /// before it, links must not be on the way.
    pub fn normal(name: &[u8]) -> Self {
        let mut path = Self(Vec::with_capacity(name.len()));
        for part in components(name) {
            match part {
                b"." => {}
                b".." => path.pop(),
                part => path.push(part),
            }
        }
        path
    }

    /// Returns whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the path as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the components, from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        components(&self.0)
    }

    /// Returns the path of a name in this directory.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = Self(Vec::with_capacity(self.0.len() + 1 + name.len()));
        path.0.extend_from_slice(&self.0);
        path.push(name);
        path
    }

    /// Adds a component.
    pub fn push(&mut self, name: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
    }

    /// Removes the last component, if there is one.
    pub fn pop(&mut self) {
        self.0.truncate(split(&self.0).0.len());
    }

    /// Returns the bytes with which the path of everything in this directory begins.
    pub fn prefix(&self) -> Vec<u8> {
        if self.is_root() { Vec::new() } else { [&self.0[..], b"/"].concat() }
    }

    /// Returns the path of the directory that has this path; the root's is the root.
    pub fn parent(&self) -> Self {
        Self(split(&self.0).0.to_vec())
    }
}

impl AsRef<[u8]> for ImagePath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Lets maps be asked by bytes: paths compare as their bytes do.
impl Borrow<[u8]> for ImagePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Writes the path as in messages, with a slash in front.
impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

/// Splits a path into the directory that has it, and the last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Returns the components of any path that are not empty.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// Returns the first 100 bytes of a name in an archive, for messages.
pub fn shown(name: &[u8]) -> String {
    const SHOWN: usize = 100;
    let text = name[..name.len().min(SHOWN)].escape_ascii().to_string();
    if name.len() > SHOWN { text + "…" } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_archives_have_one_form() {
        for (name, path) in [
            ("", ""),
            ("./", ""),
            ("/", ""),
            ("./a//b/", "a/b"),
            ("/a/./b", "a/b"),
            ("a/../b", "b"),
            ("../../a", "a"),
            ("a/..", ""),
            (".a/..b", ".a/..b"),
        ] {
            assert_eq!(ImagePath::normal(name.as_bytes()).as_bytes(), path.as_bytes(), "{name}");
        }
    }

    #[test]
    fn directories_and_names_go_together() {
        let mut path = ImagePath::root().join(b"a").join(b"b");
        assert_eq!((path.as_bytes(), path.to_string()), (&b"a/b"[..], "/a/b".to_owned()));
        assert_eq!(split(path.as_bytes()), (&b"a"[..], &b"b"[..]));
        path.pop();
        assert_eq!((path.as_bytes(), path.parent().is_root()), (&b"a"[..], true));
        path.pop();
        path.pop();
        assert_eq!((path.is_root(), path.to_string()), (true, "/".to_owned()));
    }

    proptest! {
        /// Checks that a path is parsed exactly if it is normal.
        #[test]
        fn only_normal_paths_are_parsed(text in "(/|\\.|a|b|\u{e9}){0,8}") {
            let normal = ImagePath::normal(text.as_bytes());
            let parsed = ImagePath::parse(text.as_bytes());
            prop_assert_eq!(parsed.is_ok(), normal.as_bytes() == text.as_bytes());
            prop_assert_eq!(ImagePath::parse(normal.as_bytes()).unwrap(), normal.clone());
            let joined = normal.components().fold(ImagePath::root(), |path, part| path.join(part));
            prop_assert_eq!(joined, normal);
        }
    }
}
