//! Follows links between store paths whose files are copied to `/`.
//! Stage: layer. Input: links in the store. Output: paths in the store.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Error;
use super::scan::{Child, Directory};
use crate::image_path::{ImagePath, Last, NodeKind, Tree, resolve};
use crate::store::{Store, StorePath};

/// Returns the absolute path of a relative link's target if the link leads from its store path to
/// another place in the store. Returns none for all other links: copied to `/`, they still lead to
/// the same place.
pub fn into_store(store: &Store, directory: &Path, target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let directory = store.logical(directory);
    let below = directory.strip_prefix(store.dir()).ok()?;
    let mut place: Vec<&[u8]> = below.iter().map(OsStr::as_bytes).collect();
    let mut has_left = false;
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                place.pop()?;
                has_left |= place.is_empty();
            }
            component => place.push(component),
        }
    }
    let first = place.first().filter(|_| has_left)?;
    std::str::from_utf8(first).ok()?.parse::<StorePath>().ok()?;
    Some([store.dir().as_bytes(), &b"/"[..], &place.join(&b'/')].concat())
}

/// The target of a relative link that stays in its store path.
#[derive(Debug, PartialEq, Eq)]
pub struct Within {
    /// The target's path in the store.
    pub stored: Vec<u8>,
    /// The target's path in an image to whose root the store path is copied.
    pub copied: Vec<u8>,
}

impl Within {
    /// Returns the target of a link in a directory of the store; none if the link is absolute, or leads out of
    /// its store path or to the whole of it.
    pub fn of(store: &Store, directory: &Path, target: &[u8]) -> Option<Self> {
        if target.starts_with(b"/") {
            return None;
        }
        let directory = store.logical(directory);
        let mut below = directory.strip_prefix(store.dir()).ok()?.iter().map(OsStr::as_bytes);
        let store_path = below.next()?;
        let mut place: Vec<&[u8]> = below.collect();
        for component in target.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => drop(place.pop()?),
                component => place.push(component),
            }
        }
        let copied = [b"/", &place.join(&b'/')[..]].concat();
        let stored = [store.dir().as_bytes(), b"/", store_path, &copied].concat();
        (!place.is_empty()).then_some(Self { stored, copied })
    }
}

/// Returns the store path that an absolute path is in, if it is in the store.
pub fn store_path_of(store: &Store, path: &[u8]) -> Option<StorePath> {
    let path = Path::new(OsStr::from_bytes(path));
    let first = path.strip_prefix(store.dir()).ok()?.iter().next()?;
    first.to_str()?.parse().ok()
}

/// Opens the directory in the store that an absolute path leads to, through links. Returns none if
/// it leads to something else.
///
/// # Errors
/// Fails if a directory can't be opened.
pub fn directory_behind(store: &Store, path: &[u8]) -> Result<Option<Directory>, Error> {
    match end_behind(store, path) {
        Some((place, kind)) if kind.is_dir() => {
            let directory = Directory::open(&place)?;
            Ok(Some(directory.with_case_hack(store.case_hack())))
        }
        _ => Ok(None),
    }
}

/// Returns the place on this machine of the file that an absolute path in the store leads to, through
/// links in the store; none if it leads to something else.
pub fn place_behind(store: &Store, path: &[u8]) -> Option<PathBuf> {
    end_behind(store, path).filter(|(_, kind)| kind.is_file()).map(|(place, _)| place)
}

/// Returns the place on this machine of what an absolute path in the store leads to, and its kind.
fn end_behind(store: &Store, path: &[u8]) -> Option<(PathBuf, fs::FileType)> {
    let (place, node) = resolve(&mut StoreTree(store), path, Last::Followed).ok()?;
    match node {
        StoreNode::Above => None,
        StoreNode::Entry(kind, _) => Some((store.locate(&absolute(&place)), kind)),
    }
}

/// The part of a root file system that is the store. Outside of the store, this machine's files say
/// nothing about the image.
struct StoreTree<'s>(&'s Store);

enum StoreNode {
    /// A directory that leads to the store, or the store directory.
    Above,
    /// A file in the store, with the target of a link.
    Entry(fs::FileType, Vec<u8>),
}

impl Tree for StoreTree<'_> {
    type Node = StoreNode;
    type Error = Infallible;

    fn node(&mut self, path: &ImagePath) -> Result<Option<StoreNode>, Infallible> {
        let path = absolute(path);
        if Path::new(self.0.dir()).starts_with(&path) {
            return Ok(Some(StoreNode::Above));
        }
        // A file that can't be looked at is none.
        let kind = match path.starts_with(self.0.dir()) {
            true => fs::symlink_metadata(self.0.locate(&path)).map(|it| it.file_type()).ok(),
            false => None,
        };
        Ok(kind.and_then(|kind| {
            let target = match kind.is_symlink() {
                true => fs::read_link(self.0.locate(&path)).ok()?.into_os_string().into_vec(),
                false => Vec::new(),
            };
            Some(StoreNode::Entry(kind, target))
        }))
    }

    fn kind(node: &StoreNode) -> NodeKind<'_> {
        match node {
            StoreNode::Above => NodeKind::Directory,
            StoreNode::Entry(kind, _) if kind.is_dir() => NodeKind::Directory,
            StoreNode::Entry(kind, target) if kind.is_symlink() => NodeKind::Symlink(target),
            StoreNode::Entry(..) => NodeKind::Other,
        }
    }
}

fn absolute(path: &ImagePath) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path.as_bytes()))
}

/// Returns the path of a child of a directory that a link leads to.
pub fn child_target(target: &[u8], child: &Child) -> Vec<u8> {
    let target = target.strip_suffix(b"/").unwrap_or(target);
    [target, b"/", child.name()].concat()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_leave_their_store_path_are_found() {
        let store = Store::default();
        let (a, b) = (format!("{}-a", "a".repeat(32)), format!("{}-b", "b".repeat(32)));
        for (directory, target, found) in [
            ("bin", format!("../../{b}/dist/cli.sh"), Some(format!("/nix/store/{b}/dist/cli.sh"))),
            ("", format!("../{b}"), Some(format!("/nix/store/{b}"))),
            ("x/y", format!("../.././../{b}//z"), Some(format!("/nix/store/{b}/z"))),
            ("bin", format!("../../{a}/x"), Some(format!("/nix/store/{a}/x"))),
            ("bin", "../lib/x".to_owned(), None),
            ("bin", "x".to_owned(), None),
            ("bin", format!("/nix/store/{b}/x"), None),
            ("bin", "../../../../etc/passwd".to_owned(), None),
            ("bin", "../../no-store-path".to_owned(), None),
            ("bin", "../..".to_owned(), None),
        ] {
            let directory = PathBuf::from(format!("/nix/store/{a}/{directory}"));
            let path = into_store(&store, &directory, target.as_bytes());
            let path = path.map(|path| String::from_utf8(path).unwrap());
            assert_eq!(path, found, "{target}");
        }
    }

    #[test]
    fn links_within_their_store_path_have_a_place_at_the_root() {
        let store = Store::default();
        let package = format!("/nix/store/{}-package", "1".repeat(32));
        for (directory, target, copied) in [
            ("", "bin", Some("/bin")),
            ("", "./a//b/", Some("/a/b")),
            ("/lib/deep", "../../bin", Some("/bin")),
            ("/lib", "..", None),
            ("/lib", "../../other", None),
            ("", "/bin", None),
        ] {
            let directory = format!("{package}{directory}");
            let within = Within::of(&store, Path::new(&directory), target.as_bytes());
            let expected = copied.map(|copied| Within {
                stored: format!("{package}{copied}").into_bytes(),
                copied: copied.as_bytes().to_vec(),
            });
            assert_eq!(within, expected, "{directory} {target}");
        }
    }

    #[test]
    fn directories_are_found_through_links() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path());
        let name = |digit: &str, name: &str| format!("{}-{name}", digit.repeat(32));
        let (real, link, deep) = (name("1", "real"), name("2", "link"), name("3", "deep"));
        let at = |name: &str| root.path().join("nix/store").join(name);
        fs::create_dir_all(at(&real).join("bin")).unwrap();
        fs::write(at(&real).join("bin/x"), "").unwrap();
        symlink(format!("/nix/store/{real}"), at(&link)).unwrap();
        symlink(format!("{link}/bin"), at(&deep)).unwrap();
        symlink("self", at(&real).join("self")).unwrap();
        symlink("/etc", at(&real).join("out")).unwrap();
        let found = |path: String| {
            let directory = directory_behind(&store, path.as_bytes()).unwrap();
            directory.map(|mut directory| directory.children().unwrap().len())
        };
        for (path, count) in [
            (format!("/nix/store/{real}/bin"), Some(1)),
            (format!("/nix/store/{link}/bin/"), Some(1)),
            (format!("/nix/store/{deep}"), Some(1)),
            (format!("/nix/store/{link}"), Some(3)),
            (format!("/nix/store/{real}/bin/x"), None),
            (format!("/nix/store/{real}/self"), None),
            (format!("/nix/store/{real}/out"), None),
            (format!("/nix/store/{real}/nowhere"), None),
            ("/nix/store".to_owned(), None),
            ("/etc".to_owned(), None),
            ("/".to_owned(), None),
        ] {
            assert_eq!(found(path.clone()), count, "{path}");
        }
    }
}
