//! Walks to a file of an image, through links, as the kernel does in a container.
//! Stage: report. Input: a path. Output: [`Found`].

use super::{FileKind, FilesError, ImageFile, ImageFiles};
use crate::layer::Attributes;

/// The largest number of links that a path may lead through, as on Linux (`MAXSYMLINKS`).
const LINKS: usize = 40;
/// The largest length of a path, as on Linux.
const PATH: usize = 4096;

/// The way to treat a link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// The link is followed.
    Followed,
    /// The link itself is the result.
    Itself,
}

/// The result of looking a path up.
#[derive(Clone, Debug)]
pub enum Found {
    /// The file, and the directories on the way to it.
    Here(ImageFile, Vec<Searched>),
    /// The image has no such file.
    Nowhere(Absent),
    /// The file may be in a layer that was not read.
    Unknown,
}

/// A directory that is searched on the way to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Searched {
    /// The path in the image, without the leading slash.
    pub path: Vec<u8>,
    /// The mode and the owner.
    pub attributes: Attributes,
}

/// Says why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The file does not exist. Holds the path without the leading slash, which differs from the
    /// path that was looked up if links are on the way.
    Nothing(Vec<u8>),
    /// A file on the way is not a directory. Holds its path without the leading slash.
    NoDirectory(Vec<u8>),
    /// Links lead in a circle.
    Circle,
}

impl ImageFiles<'_> {
    /// Looks a path up from the root.
    ///
    /// # Errors
    /// Fails if a file of the store can't be read.
    pub fn find(&self, path: impl AsRef<[u8]>, last: Last) -> Result<Found, FilesError> {
        let mut left = components(path.as_ref());
        let mut way: Vec<ImageFile> = Vec::new();
        let mut searched = Vec::new();
        let mut links = 0;
        let root = || self.at(b"").map(|root| root.into_iter().collect::<Vec<_>>());
        way.extend(root()?);
        while let Some(component) = left.pop() {
            let Some(here) = way.last() else { return Ok(Found::Unknown) };
            if here.kind != FileKind::Directory {
                return Ok(Found::Nowhere(Absent::NoDirectory(here.path.clone())));
            }
            searched.push(Searched { path: here.path.clone(), attributes: here.attributes });
            if component == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            if component == b"." {
                continue;
            }
            let mut next = here.path.clone();
            if !next.is_empty() {
                next.push(b'/');
            }
            next.extend_from_slice(&component);
            if next.len() > PATH {
                return Ok(Found::Nowhere(Absent::Nothing(next)));
            }
            let Some(file) = self.at(&next)? else {
                return Ok(if self.is_incomplete() {
                    Found::Unknown
                } else {
                    Found::Nowhere(Absent::Nothing(next))
                });
            };
            let FileKind::Symlink(target) = &file.kind else {
                way.push(file);
                continue;
            };
            if left.is_empty() && last == Last::Itself {
                way.push(file);
                continue;
            }
            links += 1;
            if links > LINKS || target.is_empty() {
                return Ok(Found::Nowhere(Absent::Circle));
            }
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            left.extend(components(target));
        }
        Ok(match way.pop() {
            Some(file) => Found::Here(file, searched),
            None => Found::Unknown,
        })
    }
}

/// Splits a path, the last component first. A final slash demands a directory, as `/.` does.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let mut components: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(Vec::from).collect();
    if path.ends_with(b"/") && !components.is_empty() {
        components.push(b".".to_vec());
    }
    components.reverse();
    components
}
