//! Checks that the links of a base can be followed where its layers need it.
//! Stage: layer (pure). Input: the changes of each layer. Output: the first link that can't be.

use std::collections::BTreeSet;
use std::iter;

use thiserror::Error;

use super::changes::{BaseChange, BaseLayerTree, ChangedEntry, HardLink};
use super::{BadLink, BaseNode, BaseTree, Links};
use crate::image_path::{ImagePath, LONGEST_PATH, split};

/// Says which link of a layer can't be followed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LinkProblem {
    /// The target of a hard link does not exist, or is a directory.
    #[error("`{}` is a hard link to `{}`", .name.escape_ascii(), .target.escape_ascii())]
    NoTarget {
        /// The name of the link, as in the archive.
        name: Vec<u8>,
        /// The name of the target, as in the archive.
        target: Vec<u8>,
    },
    /// Symbolic links that have members below them lead to no path.
    #[error(transparent)]
    Symbolic(#[from] BadLink),
}

/// The most steps on the way of names that are below links. Real images need some thousands.
const MOST_STEPS: u64 = 4_000_000;

/// Checks that each hard link of `layers`, from the bottom up, leads to a file before it in its
/// layer, or in the layers below, and that links lead each entry to a path that Linux takes.
/// Follows symbolic links on the way to a target, and takes a hard link to a symbolic link as a
/// further name of that link, both as in a container.
///
/// # Errors
/// Fails with the index of the layer, from 0 at the bottom, and its first problem.
pub fn check_links(layers: &[&BaseLayerTree]) -> Result<(), (usize, LinkProblem)> {
    let mut places = Places { tree: BaseTree::default(), steps: MOST_STEPS };
    for (index, layer) in layers.iter().enumerate() {
        places.tree.apply(layer);
        places.follow_names(layer).map_err(|problem| (index, problem.into()))?;
        for link in &layer.hard_links {
            let found = places.leads_to_file(&layers[..=index], link);
            if !found.map_err(|problem| (index, problem.into()))? {
                let (name, target) = (link.name.clone(), link.target.clone());
                return Err((index, LinkProblem::NoTarget { name, target }));
            }
        }
    }
    Ok(())
}

/// The tree of some layers, in which what is below links also has its path without links.
struct Places {
    tree: BaseTree,
    /// The number of steps that are left.
    steps: u64,
}

impl Places {
    /// Follows the names of a layer that are below links, and gives directories and links among them
    /// their paths without links, since other names may lead through these.
    fn follow_names(&mut self, layer: &BaseLayerTree) -> Result<(), BadLink> {
        let is_link =
            |name: &ImagePath| matches!(self.tree.nodes.get(name), Some(BaseNode::Symlink(_)));
        let links: BTreeSet<ImagePath> =
            layer.passed().filter(|name| is_link(name)).cloned().collect();
        for link in &links {
            // A link that is below another one comes with that one.
            let mut above = iter::successors(Some(link.parent()), |name| {
                (!name.is_root()).then(|| name.parent())
            });
            if !above.any(|name| links.contains(&name)) {
                self.follow_below(layer, link)?;
            }
        }
        for directory in &layer.cleared() {
            self.follow(directory)?;
        }
        Ok(())
    }

    /// Follows a link and the names of a layer below it.
    fn follow_below(&mut self, layer: &BaseLayerTree, link: &ImagePath) -> Result<(), BadLink> {
        // The path without links of the last directory.
        let mut last = (link.parent(), link.parent());
        for (name, ChangedEntry { change, longest_name, .. }) in layer.from(link) {
            let (parent, own) = (name.parent(), split(name.as_bytes()).1);
            if last.0 != parent {
                last = (parent.clone(), self.follow(&parent)?);
            }
            let place = last.1.join(own);
            if let BaseChange::Node(node) = change
                && name != link
            {
                self.tree.nodes.insert(place.clone(), node.clone());
            }
            if *longest_name == 0 {
                continue;
            }
            let end = match self.tree.nodes.get(&place) {
                Some(BaseNode::Symlink(_)) => self.follow(name)?,
                _ => place,
            };
            if end.as_bytes().len() + 1 + usize::from(*longest_name) > LONGEST_PATH {
                return Err(BadLink::LongPath(name.clone()));
            }
            last = (name.clone(), end);
        }
        Ok(())
    }

    /// Follows the links on the way of a path, and at its end.
    fn follow(&mut self, path: &ImagePath) -> Result<ImagePath, BadLink> {
        let mut links = Links { tree: &self.tree, steps: 0 };
        let end = links.follow(path.as_bytes());
        self.steps =
            self.steps.checked_sub(links.steps).ok_or_else(|| BadLink::ManySteps(path.clone()))?;
        end
    }

    /// Returns whether the target of a hard link in the topmost of `layers` exists. This tree is the
    /// tree of all of them.
    fn leads_to_file(
        &mut self,
        layers: &[&BaseLayerTree],
        link: &HardLink,
    ) -> Result<bool, BadLink> {
        let Some((own, below)) = layers.split_last() else { return Ok(false) };
        let target = ImagePath::normal(&link.target);
        if target.is_root() {
            return Ok(false);
        }
        let place = self.follow(&target.parent())?.join(split(target.as_bytes()).1);
        match self.tree.nodes.get(&place) {
            Some(BaseNode::Symlink(_)) if !own.has_link_after(&place, link) => return Ok(true),
            Some(BaseNode::Directory(_)) => return Ok(false),
            _ => {}
        }
        // A file of the layer itself that is found by its own name comes after the link.
        let comes_after = place == target || place == ImagePath::normal(&link.name);
        if !comes_after && own.has_file(&place) {
            return Ok(true);
        }
        if own.removes(&place) {
            return Ok(false);
        }
        for layer in below.iter().rev() {
            if layer.has_file(&place) || layer.has_link(&place) {
                return Ok(true);
            }
            if layer.hides(&place) {
                return Ok(false);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::BaseEntry;
    use super::super::tests::{directory, file, layer, link};
    use super::*;

    fn hard<'a>(name: &'a str, target: &'a str) -> (&'a str, BaseEntry<'a>) {
        (name, BaseEntry::HardLink(target.as_bytes()))
    }

    type Layers<'a> = &'a [&'a [(&'a str, BaseEntry<'a>)]];

    fn check(layers: Layers) -> Result<(), (usize, LinkProblem)> {
        let layers: Vec<_> = layers.iter().map(|entries| layer(entries)).collect();
        check_links(&layers.iter().collect::<Vec<_>>())
    }

    #[test]
    fn targets_are_files_before_their_links() {
        let cases: [(&str, Layers, bool); 25] = [
            ("before", &[&[file("a/f"), hard("h", "./a//f")]], true),
            ("link to a link", &[&[file("f"), hard("g", "f"), hard("h", "/g")]], true),
            ("missing", &[&[file("f"), hard("h", "g")]], false),
            ("itself", &[&[hard("h", "h")]], false),
            ("each other", &[&[hard("g", "h"), hard("h", "g")]], false),
            ("after", &[&[hard("h", "f"), file("f")]], false),
            ("a directory", &[&[directory("d"), hard("h", "d")]], false),
            ("a parent of others", &[&[file("d/f"), hard("h", "d")]], false),
            ("the root", &[&[file("f"), hard("h", "/")]], false),
            ("replaced by a directory", &[&[file("d"), directory("d"), hard("h", "d")]], false),
            ("a symbolic link", &[&[link("l", "nowhere"), hard("h", "l")]], true),
            ("a link after it", &[&[hard("h", "l"), link("l", "nowhere")]], false),
            ("a link, twice", &[&[link("l", "a"), hard("h", "l"), link("l", "b")]], true),
            (
                "a link below, and after",
                &[&[link("l", "a")], &[hard("h", "l"), link("l", "b")]],
                true,
            ),
            (
                "a link that is removed",
                &[&[link("l", "a")], &[file(".wh.l"), hard("h", "l")]],
                false,
            ),
            ("through a link", &[&[link("l", "d"), file("d/f"), hard("h", "l/f")]], true),
            ("through a link, missing", &[&[link("l", "d"), hard("h", "l/f")]], false),
            ("through a circle", &[&[link("l", "l"), hard("h", "l/f")]], false),
            ("in a layer below", &[&[file("f")], &[], &[hard("h", "f")]], true),
            ("below, and after", &[&[file("f")], &[hard("h", "f"), file("f")]], true),
            ("removed between", &[&[file("f")], &[file(".wh.f")], &[hard("h", "f")]], false),
            ("removed above", &[&[file("d/f")], &[file(".wh.d"), hard("h", "d/f")]], false),
            ("emptied", &[&[file("d/f")], &[file("d/.wh..wh..opq"), hard("h", "d/f")]], false),
            ("state", &[&[file("etc/passwd")], &[hard("h", "etc/passwd")]], true),
            ("a name of its own below", &[&[file("h")], &[hard("h", "h")]], true),
        ];
        for (what, layers, is_valid) in cases {
            let found = check(layers);
            assert_eq!(found.is_ok(), is_valid, "{what}: {found:?}");
        }
        let problem = LinkProblem::NoTarget { name: b"./h".to_vec(), target: b"g/".to_vec() };
        assert_eq!(check(&[&[file("f")], &[hard("./h", "g/")]]), Err((1, problem)));
    }

    #[test]
    fn nothing_is_below_links_in_a_circle() {
        let cases: [(&str, Layers, bool); 21] = [
            ("nothing below", &[&[link("l", "l")]], true),
            ("a file below", &[&[link("l", "l"), file("l/f")]], false),
            ("deep below", &[&[link("d/l", "../d/l"), file("d/l/a/b/f")]], false),
            ("two links", &[&[link("a", "b"), link("b", "a"), file("a/f")]], false),
            ("in a layer above", &[&[link("l", "l")], &[file("l/f")]], false),
            ("replaced", &[&[link("l", "l")], &[directory("l"), file("l/f")]], true),
            ("removed", &[&[link("l", "l")], &[file(".wh.l")], &[file("l/f")]], true),
            ("a good link", &[&[directory("d"), link("l", "d"), file("l/f")]], true),
            ("nested", &[&[link("l", "d"), link("d/a", "a"), file("l/a/f")]], false),
            ("nested, above", &[&[link("l", "d"), link("d/a", "a")], &[file("l/a/f")]], false),
            ("nested, deep", &[&[link("l", "d"), link("d/a/b", "b"), file("l/a/b/c/f")]], false),
            ("nested, a good one", &[&[link("l", "d"), link("d/a", "b"), file("l/a/f")]], true),
            ("both through a link", &[&[link("l", "d"), link("l/a", "a"), file("l/a/f")]], false),
            (
                "replaced through a link",
                &[&[link("l", "d"), link("d/a", "a")], &[directory("l/a"), file("l/a/b/f")]],
                true,
            ),
            ("a hard link", &[&[link("l", "l"), hard("h", "l/f")]], false),
            ("a whiteout", &[&[link("l", "l")], &[file("l/.wh.f")]], false),
            ("an opaque whiteout", &[&[link("l", "l")], &[file("l/.wh..wh..opq")]], false),
            ("a whiteout deep below", &[&[link("l", "l")], &[file("l/a/.wh.f")]], false),
            ("a nested whiteout", &[&[link("l", "d"), link("d/a", "a"), file("l/a/.wh.f")]], false),
            ("the whiteout of a circle", &[&[link("l", "l")], &[file(".wh.l")]], true),
            ("a whiteout through a good link", &[&[link("l", "d")], &[file("l/.wh.f")]], true),
        ];
        for (what, layers, is_valid) in cases {
            let found = check(layers);
            assert_eq!(found.is_ok(), is_valid, "{what}: {found:?}");
        }
    }

    #[test]
    fn names_below_links_are_as_long_as_their_paths() {
        // The path has 4,095 bytes.
        let deep = ["a"; 2048].join("/");
        let shorter = &deep[..4091];
        for (what, layers, is_valid) in [
            ("no room", &[link("l", &deep), file("l/x")][..], false),
            ("room for a name of four", &[link("l", shorter), file("l/four")], true),
            ("no room for five", &[link("l", shorter), file("l/x"), file("l/fives")], false),
            ("no room below", &[link("l", shorter), directory("l/a"), file("l/a/bcd")], false),
            ("a hard link", &[link("l", shorter), file("l/x"), hard("h", "l/x")], true),
            ("two links", &[link("l", shorter), link("k", "l"), file("k/fives")], false),
        ] {
            let found = check(&[layers]);
            assert_eq!(found.is_ok(), is_valid, "{what}: {found:?}");
            if !is_valid {
                let problem = found.unwrap_err().1.to_string();
                assert!(problem.ends_with("make too long a path"), "{what}: {problem}");
            }
        }
    }

    #[test]
    fn ways_of_names_have_a_limit() {
        let deep = ["a"; 2000].join("/");
        let names: Vec<String> = (0..3000).map(|number| format!("l/{number}/a/b")).collect();
        let mut entries = vec![link("l", &deep)];
        entries.extend(names.iter().map(|name| file(name)));
        let problem = check(&[&entries]).unwrap_err().1.to_string();
        assert!(problem.ends_with("take too many steps"), "{problem}");
        // Ten levels of real directories behind a link.
        let names: Vec<String> = (0..3000).map(|number| format!("l/{number}/a/b")).collect();
        let mut entries = vec![link("l", "usr/share/a/b/c/d/e/f/g/h")];
        entries.extend(names.iter().map(|name| file(name)));
        assert_eq!(check(&[&entries]), Ok(()));
    }
}
