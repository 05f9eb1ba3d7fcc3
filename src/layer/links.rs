//! Follows links between store paths whose files are copied to `/`.
//! Stage: layer. Input: links in the store. Output: paths in the store.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::scan::{Child, Directory};
use crate::store::{Store, StorePath};

/// The largest number of links that a path may lead through, as on Linux (`MAXSYMLINKS`).
pub const LINKS: usize = 40;

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
        Some((place, metadata)) if metadata.is_dir() => {
            let directory = Directory::open(&place)?;
            Ok(Some(directory.with_case_hack(store.case_hack())))
        }
        _ => Ok(None),
    }
}

/// Returns the place on this machine of the file that an absolute path in the store leads to, through
/// links in the store; none if it leads to something else.
pub fn place_behind(store: &Store, path: &[u8]) -> Option<PathBuf> {
    end_behind(store, path).filter(|(_, metadata)| metadata.is_file()).map(|(place, _)| place)
}

fn end_behind(store: &Store, path: &[u8]) -> Option<(PathBuf, fs::Metadata)> {
    let components = |path: &Path| -> VecDeque<Vec<u8>> {
        path.components().map(|part| part.as_os_str().as_bytes().to_vec()).collect()
    };
    let store_dir = Path::new(store.dir());
    let mut left = components(Path::new(OsStr::from_bytes(path)));
    let mut place = PathBuf::from("/");
    let mut links = 0;
    let mut end = None;
    while let Some(component) = left.pop_front() {
        match &component[..] {
            b"/" => place = PathBuf::from("/"),
            b"." => {}
            b".." => drop(place.pop()),
            component => place.push(OsStr::from_bytes(component)),
        }
        // Outside of the store, this machine's files say nothing about the image.
        if !place.starts_with(store_dir) || place == store_dir {
            if left.is_empty() || !store_dir.starts_with(&place) {
                return None;
            }
            continue;
        }
        let metadata = fs::symlink_metadata(store.locate(&place)).ok()?;
        if metadata.is_symlink() {
            links += 1;
            let target = fs::read_link(store.locate(&place)).ok()?;
            if links > LINKS {
                return None;
            }
            place.pop();
            let mut next = components(&target);
            next.append(&mut left);
            left = next;
        } else if !metadata.is_dir() && !left.is_empty() {
            return None;
        } else {
            end = Some(metadata);
        }
    }
    Some((store.locate(&place), end?))
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
