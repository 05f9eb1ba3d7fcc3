//! Follows the symbolic links on a path in an image, as the kernel does in a container
//! (path_resolution(7)).
//! Vocabulary (pure). Input: a [`Tree`] and a path. Output: the node at the end, or an [`Obstacle`].

use std::borrow::Cow;
use std::convert::Infallible;

use super::{ImagePath, LONGEST_PATH};

/// The largest number of links that a path may lead through, as on Linux (`MAXSYMLINKS`).
pub const MOST_LINKS: usize = 40;

/// The way to treat a link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// The link is followed.
    Followed,
    /// The link itself is the result.
    Itself,
}

/// The kind of a node, as far as it decides the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind<'n> {
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(&'n [u8]),
    /// A file, a device or another kind.
    Other,
}

/// A tree of directories, links and files with one root.
///
/// A tree decides how strict it is: one that is still incomplete gives [`NodeKind::Directory`] for
/// every path at which it has no link.
pub trait Tree {
    /// The description of a file.
    type Node;
    /// The reason why a node can't be read.
    type Error;

    /// Returns the node at a path without following any link, or `None` if there is none.
    ///
    /// # Errors
    /// Fails if the node can't be read.
    fn node(&mut self, path: &ImagePath) -> Result<Option<Self::Node>, Self::Error>;

    /// Returns the kind of a node.
    fn kind(node: &Self::Node) -> NodeKind<'_>;

    /// Receives each directory in which a component is looked up, from the root on.
    fn search(&mut self, _directory: &Self::Node) {}
}

/// Says what is in the way of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is nothing at this path, which differs from the path that was looked up if links are on
    /// the way.
    Missing(ImagePath),
    /// The node at this path is not a directory, though the path goes on.
    NotADirectory(ImagePath),
    /// There are more than [`MOST_LINKS`] links on the way.
    ManyLinks,
    /// The link at this path has an empty target.
    EmptyLink(ImagePath),
    /// A path or a target on the way is longer than [`LONGEST_PATH`]. This is the path so far.
    LongPath(ImagePath),
}

/// Says why a path was not followed to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped<E> {
    /// Something is in the way.
    Obstacle(Obstacle),
    /// A node can't be read.
    Unreadable(E),
}

impl Stopped<Infallible> {
    /// Returns the obstacle in a tree whose nodes can always be read.
    pub fn obstacle(self) -> Obstacle {
        match self {
            Self::Obstacle(obstacle) => obstacle,
            Self::Unreadable(never) => match never {},
        }
    }
}

impl<E> From<Obstacle> for Stopped<E> {
    fn from(obstacle: Obstacle) -> Self {
        Self::Obstacle(obstacle)
    }
}

/// Follows a path from the root of a tree: links lead within the tree, and `..` at the root stays
/// there. A final slash demands a directory, as `/.` does. Returns the path without links, and its
/// node.
///
/// The time is bounded: at most [`MOST_LINKS`] targets of [`LONGEST_PATH`] bytes are followed.
///
/// # Errors
/// Fails with [`Stopped::Obstacle`] if the path leads nowhere, and with the tree's errors.
pub fn resolve<T: Tree>(
    tree: &mut T,
    path: &[u8],
    last: Last,
) -> Result<(ImagePath, T::Node), Stopped<T::Error>> {
    let mut rest = Rest(vec![(Cow::Borrowed(path), 0)]);
    let mut place = ImagePath::root();
    let missing = |place: &ImagePath| Obstacle::Missing(place.clone());
    let mut node =
        tree.node(&place).map_err(Stopped::Unreadable)?.ok_or_else(|| missing(&place))?;
    // The directories above `node`, from the root down.
    let mut above: Vec<T::Node> = Vec::new();
    let mut links = 0;
    while let Some(component) = rest.next() {
        if T::kind(&node) != NodeKind::Directory {
            return Err(Obstacle::NotADirectory(place).into());
        }
        tree.search(&node);
        match component {
            b"." => continue,
            b".." => {
                if let Some(parent) = above.pop() {
                    place.pop();
                    node = parent;
                }
                continue;
            }
            name => place.push(name),
        }
        if place.as_bytes().len() > LONGEST_PATH {
            return Err(Obstacle::LongPath(place).into());
        }
        let next = tree.node(&place).map_err(Stopped::Unreadable)?;
        let next = next.ok_or_else(|| missing(&place))?;
        match T::kind(&next) {
            NodeKind::Symlink(target) if last == Last::Followed || !rest.is_empty() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Obstacle::ManyLinks.into());
                }
                if target.is_empty() {
                    return Err(Obstacle::EmptyLink(place).into());
                }
                if target.len() > LONGEST_PATH {
                    return Err(Obstacle::LongPath(place).into());
                }
                place.pop();
                if target.starts_with(b"/") {
                    place = ImagePath::root();
                    above.truncate(1);
                    node = above.pop().unwrap_or(node);
                }
                rest.0.push((Cow::Owned(target.to_vec()), 0));
            }
            _ => above.push(std::mem::replace(&mut node, next)),
        }
    }
    Ok((place, node))
}

/// The components that are still to be followed: texts, each with the number of bytes that were
/// taken. The last text comes first.
struct Rest<'p>(Vec<(Cow<'p, [u8]>, usize)>);

impl Rest<'_> {
    fn is_empty(&self) -> bool {
        self.0.iter().all(|(text, taken)| *taken == text.len())
    }

    /// Takes the next component; `.` for a final slash.
    fn next(&mut self) -> Option<&[u8]> {
        while self.0.last().is_some_and(|(text, taken)| {
            let is_slashes = text[*taken..].iter().all(|byte| *byte == b'/');
            *taken == text.len() || *taken == 0 && is_slashes
        }) {
            self.0.pop();
        }
        let (text, taken) = self.0.last_mut()?;
        let is_slash = |byte: &u8| *byte == b'/';
        let start = text[*taken..].iter().position(|byte| !is_slash(byte));
        let Some(start) = start.map(|start| *taken + start) else {
            *taken = text.len();
            return Some(b".");
        };
        *taken = text[start..].iter().position(is_slash).map_or(text.len(), |end| start + end);
        Some(&text[start..*taken])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A tree with all its nodes; a link has its target, a file the target `None`.
    #[derive(Clone, Debug, Default)]
    struct Nodes {
        nodes: BTreeMap<ImagePath, Kind>,
        searched: usize,
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Kind {
        Directory,
        Symlink(String),
        File,
    }

    impl Tree for Nodes {
        type Node = Kind;
        type Error = Infallible;

        fn node(&mut self, path: &ImagePath) -> Result<Option<Kind>, Infallible> {
            let root = path.is_root().then_some(Kind::Directory);
            Ok(root.or_else(|| self.nodes.get(path).cloned()))
        }

        fn kind(node: &Kind) -> NodeKind<'_> {
            match node {
                Kind::Directory => NodeKind::Directory,
                Kind::Symlink(target) => NodeKind::Symlink(target.as_bytes()),
                Kind::File => NodeKind::Other,
            }
        }

        fn search(&mut self, directory: &Kind) {
            assert_eq!(*directory, Kind::Directory);
            self.searched += 1;
        }
    }

    /// Makes a tree of lines `d NAME`, `f NAME` and `s NAME TARGET`.
    fn tree(lines: &[String]) -> Nodes {
        let mut tree = Nodes::default();
        for line in lines {
            let words: Vec<_> = line.splitn(3, ' ').collect();
            let kind = match words[0] {
                "d" => Kind::Directory,
                "s" => Kind::Symlink(words[2].to_owned()),
                _ => Kind::File,
            };
            tree.nodes.insert(ImagePath::normal(words[1].as_bytes()), kind);
        }
        tree
    }

    fn shown(found: Result<(ImagePath, Kind), Stopped<Infallible>>) -> String {
        match found.map_err(Stopped::obstacle) {
            Ok((path, _)) => path.to_string(),
            Err(Obstacle::Missing(path)) => format!("nothing at {path}"),
            Err(Obstacle::NotADirectory(path)) => format!("no directory at {path}"),
            Err(Obstacle::ManyLinks) => "many links".to_owned(),
            Err(Obstacle::EmptyLink(path)) => format!("empty link at {path}"),
            Err(Obstacle::LongPath(path)) => format!("long path of {}", path.as_bytes().len()),
        }
    }

    #[test]
    fn links_are_followed_within_the_root() {
        let tree = tree(
            &[
                "d usr",
                "d usr/bin",
                "f usr/bin/x",
                "s bin usr/bin",
                "s lib /usr",
                "d a",
                "d a/b",
                "s a/b/up ../..",
                "s root /",
                "s out ../../../usr",
                "s self self",
                "s one two/x",
                "s two one",
                "s dangling usr/none",
                "s empty ",
                "s dot .",
                "s slash usr/bin/x/",
                "s deep a/b/up/bin/",
            ]
            .map(String::from),
        );
        for (path, followed, itself) in [
            ("", "/", "/"),
            ("/", "/", "/"),
            ("..", "/", "/"),
            ("/usr//./bin/x", "/usr/bin/x", "/usr/bin/x"),
            ("bin", "/usr/bin", "/bin"),
            ("bin/", "/usr/bin", "/usr/bin"),
            ("bin/x", "/usr/bin/x", "/usr/bin/x"),
            ("bin/..", "/usr", "/usr"),
            ("lib/bin/../bin/x", "/usr/bin/x", "/usr/bin/x"),
            ("a/b/up", "/", "/a/b/up"),
            ("a/b/up/../usr", "/usr", "/usr"),
            ("root/usr", "/usr", "/usr"),
            ("out/bin", "/usr/bin", "/usr/bin"),
            ("dot/dot/dot", "/", "/dot"),
            ("deep/x", "/usr/bin/x", "/usr/bin/x"),
            ("usr/bin/x/", "no directory at /usr/bin/x", "no directory at /usr/bin/x"),
            ("usr/bin/x/..", "no directory at /usr/bin/x", "no directory at /usr/bin/x"),
            ("slash", "no directory at /usr/bin/x", "/slash"),
            ("none/..", "nothing at /none", "nothing at /none"),
            ("dangling", "nothing at /usr/none", "/dangling"),
            ("dangling/x", "nothing at /usr/none", "nothing at /usr/none"),
            ("self", "many links", "/self"),
            ("one", "many links", "/one"),
            ("empty", "empty link at /empty", "/empty"),
            ("empty/x", "empty link at /empty", "empty link at /empty"),
        ] {
            for (last, expected) in [(Last::Followed, followed), (Last::Itself, itself)] {
                let found = resolve(&mut tree.clone(), path.as_bytes(), last);
                assert_eq!(shown(found), expected, "{path} {last:?}");
            }
        }
    }

    #[test]
    fn every_directory_on_the_way_is_searched() {
        let mut tree = tree(&["d a", "d a/b", "s l a/b", "f a/b/f"].map(String::from));
        resolve(&mut tree, b"/l/f", Last::Followed).unwrap();
        // `/` for `l`, `/` for `a`, `a` for `b`, `b` for `f`.
        assert_eq!(tree.searched, 4);
    }

    #[test]
    fn links_and_lengths_have_limits() {
        let chain = |count: usize| {
            let links = (0..count).map(|number| format!("s l{number} l{}", number + 1));
            tree(&links.chain([format!("d l{count}")]).collect::<Vec<_>>())
        };
        let end = |count| shown(resolve(&mut chain(count), b"l0", Last::Followed));
        assert_eq!((end(40), end(41)), ("/l40".to_owned(), "many links".to_owned()));
        let long = format!("a/{}", "./".repeat(LONGEST_PATH / 2));
        let mut tree = tree(&["d a".to_owned(), format!("s l {long}")]);
        assert_eq!(shown(resolve(&mut tree, long.as_bytes(), Last::Followed)), "/a");
        assert_eq!(shown(resolve(&mut tree, b"l", Last::Followed)), "long path of 1");
        assert_eq!(
            shown(resolve(&mut tree, &[b'x'; LONGEST_PATH + 1], Last::Followed)),
            "long path of 4097"
        );
    }

    /// Compares with the kernel, which follows links in a directory as its root
    /// (`RESOLVE_IN_ROOT`, openat2(2)).
    #[cfg(target_os = "linux")]
    mod kernel {
        use std::fs::{self, File};
        use std::os::unix::fs::{MetadataExt, symlink};

        use nix::errno::Errno;
        use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn paths_lead_where_the_kernel_goes(
                lines in prop::collection::vec(("[dfs]", "[ab]{1,2}(/[ab]{1,2}){0,2}",
                    "/?(\\.\\./|\\./|[ab]{1,2}/){0,3}[ab]{0,2}"), 0..12),
                paths in prop::collection::vec("/?([ab]{1,2}|\\.\\.?)(//?([ab]{1,2}|\\.\\.?)){0,4}/?", 8),
            ) {
                let root = tempfile::tempdir().unwrap();
                let mut nodes = Nodes::default();
                let at = |path: &ImagePath| root.path().join(str::from_utf8(path.as_bytes()).unwrap());
                for (kind, name, target) in lines {
                    // As in a layer, a directory is made for each name, unless a link or a file is in its place.
                    let name = ImagePath::normal(name.as_bytes());
                    let fits = |path: &ImagePath| {
                        path.is_root() || nodes.nodes.get(path).is_none_or(|kind| *kind == Kind::Directory)
                    };
                    let (parent, grandparent) = (name.parent(), name.parent().parent());
                    if nodes.nodes.contains_key(&name) || !fits(&parent) || !fits(&grandparent) {
                        continue;
                    }
                    for directory in [grandparent, parent].into_iter().filter(|it| !it.is_root()) {
                        fs::create_dir_all(at(&directory)).unwrap();
                        nodes.nodes.insert(directory, Kind::Directory);
                    }
                    let kind = match &*kind {
                        "s" if !target.is_empty() => {
                            symlink(&target, at(&name)).unwrap();
                            Kind::Symlink(target)
                        }
                        "d" => {
                            fs::create_dir(at(&name)).unwrap();
                            Kind::Directory
                        }
                        _ => {
                            File::create(at(&name)).unwrap();
                            Kind::File
                        }
                    };
                    nodes.nodes.insert(name, kind);
                }
                for path in paths {
                    for last in [Last::Followed, Last::Itself] {
                        let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
                        flags.set(OFlag::O_NOFOLLOW, last == Last::Itself);
                        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
                        // The kernel gives up if files are renamed at the same time, anywhere.
                        let opened = loop {
                            match openat2(File::open(root.path()).unwrap(), &*path, how) {
                                Err(Errno::EAGAIN) => {}
                                opened => break opened,
                            }
                        };
                        if matches!(opened, Err(Errno::ENOSYS)) {
                            return Ok(());
                        }
                        let found = resolve(&mut nodes.clone(), path.as_bytes(), last);
                        let found = found.map_err(Stopped::obstacle);
                        match (opened, found) {
                            (Ok(file), Ok((found, _))) => {
                                let opened = File::from(file).metadata().unwrap();
                                let found = fs::symlink_metadata(at(&found)).unwrap();
                                prop_assert_eq!(opened.ino(), found.ino(), "{} {:?}", path, last);
                            }
                            (Err(Errno::ENOENT), Err(Obstacle::Missing(_)))
                            | (Err(Errno::ENOTDIR), Err(Obstacle::NotADirectory(_)))
                            | (Err(Errno::ELOOP), Err(Obstacle::ManyLinks)) => {}
                            (opened, found) => prop_assert!(false, "{path} {last:?}: {opened:?}, {found:?}"),
                        }
                    }
                }
            }
        }
    }
}
