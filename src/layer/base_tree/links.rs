//! Checks that the links of a base can be followed where its layers need it.
//! Stage: layer (pure). Input: the changes of each layer. Output: the first link that can't be.

use thiserror::Error;

use super::changes::{BaseLayerTree, HardLink};
use super::{BadLink, BaseNode, BaseTree};
use crate::image_path::{ImagePath, split};

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

/// Checks that each hard link of `layers`, from the bottom up, leads to a file before it in its
/// layer, or in the layers below, and that no entry is below a symbolic link that leads to itself.
/// Follows symbolic links on the way to a target, and takes a hard link to a symbolic link as a
/// further name of that link, both as in a container.
///
/// # Errors
/// Fails with the index of the layer, from 0 at the bottom, and its first problem.
pub fn check_links(layers: &[&BaseLayerTree]) -> Result<(), (usize, LinkProblem)> {
    let mut tree = BaseTree::default();
    for (index, layer) in layers.iter().enumerate() {
        tree.apply(layer);
        for name in layer.passed() {
            if matches!(tree.nodes.get(name), Some(BaseNode::Symlink(_))) {
                tree.follow(name.as_bytes()).map_err(|problem| (index, problem.into()))?;
            }
        }
        let is_missing = |link: &&HardLink| !leads_to_file(&tree, &layers[..=index], link);
        if let Some(HardLink { name, target, .. }) = layer.hard_links.iter().find(is_missing) {
            let (name, target) = (name.clone(), target.clone());
            return Err((index, LinkProblem::NoTarget { name, target }));
        }
    }
    Ok(())
}

/// Returns whether the target of a hard link in the topmost of `layers` exists. `tree` is the tree
/// of all of them.
fn leads_to_file(tree: &BaseTree, layers: &[&BaseLayerTree], link: &HardLink) -> bool {
    let target = ImagePath::normal(&link.target);
    let (parent, last) = split(target.as_bytes());
    if last.is_empty() {
        return false;
    }
    let Ok(parent) = tree.follow(parent) else { return false };
    let place = parent.join(last);
    match tree.nodes.get(&place) {
        Some(BaseNode::Symlink(_)) => return true,
        Some(BaseNode::Directory(_)) => return false,
        Some(BaseNode::State) | None => {}
    }
    let Some((own, below)) = layers.split_last() else { return false };
    // A file of the layer itself that is found by its own name comes after the link.
    let comes_after = place == target || place == ImagePath::normal(&link.name);
    if !comes_after && own.has_file(&place) {
        return true;
    }
    if own.removes(&place) {
        return false;
    }
    for layer in below.iter().rev() {
        if layer.has_file(&place) {
            return true;
        }
        if layer.hides(&place) {
            return false;
        }
    }
    false
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
        let cases: [(&str, Layers, bool); 21] = [
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
        let cases: [(&str, Layers, bool); 8] = [
            ("nothing below", &[&[link("l", "l")]], true),
            ("a file below", &[&[link("l", "l"), file("l/f")]], false),
            ("deep below", &[&[link("d/l", "../d/l"), file("d/l/a/b/f")]], false),
            ("two links", &[&[link("a", "b"), link("b", "a"), file("a/f")]], false),
            ("in a layer above", &[&[link("l", "l")], &[file("l/f")]], false),
            ("replaced", &[&[link("l", "l")], &[directory("l"), file("l/f")]], true),
            ("removed", &[&[link("l", "l")], &[file(".wh.l")], &[file("l/f")]], true),
            ("a good link", &[&[directory("d"), link("l", "d"), file("l/f")]], true),
        ];
        for (what, layers, is_valid) in cases {
            let found = check(layers);
            assert_eq!(found.is_ok(), is_valid, "{what}: {found:?}");
        }
    }
}
