//! Checks that the links of a base can be followed where its layers need it.
//! Stage: layer (pure). Input: the changes of each layer. Output: the first link that can't be.

use std::convert::Infallible;

use super::changes::BaseLayerTree;
use crate::image_path::shown;
use crate::layer::root_tree::{Change, EntryId, LinkProblem, RootTree};

/// The highest price of the links on the ways of names ([`RootTree::apply`]). Real images need a
/// thousandth of it.
const MOST: u64 = 24 << 20;

/// Checks that the entries of `layers`, from the bottom up, make a root file system: that each hard
/// link leads to a file before it, and that links lead each entry to a path that Linux takes.
///
/// # Errors
/// Fails with the index of the layer, from 0 at the bottom, and its first problem.
pub fn check_links(layers: &[&BaseLayerTree]) -> Result<(), (usize, LinkProblem)> {
    let mut tree = RootTree::for_hard_links(|give| {
        for layer in layers {
            let Ok(()) = layer.log.replay(|_, _, change| {
                if let Change::HardLink(target) = change {
                    give(target);
                }
                Ok::<_, Infallible>(())
            });
        }
    });
    let mut left = MOST;
    for (layer, changes) in layers.iter().enumerate() {
        let checked = changes.log.replay(|index, name, change| {
            let price = tree.apply(EntryId { layer, index }, name, change)?;
            let after = left.checked_sub(price);
            left = after.ok_or_else(|| LinkProblem::Costly(shown(name)))?;
            Ok(())
        });
        checked.map_err(|problem| (layer, problem))?;
    }
    Ok(())
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
        let problem = LinkProblem::NoTarget { name: "./h".to_owned(), target: "g/".to_owned() };
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
        let names: Vec<String> = (0..4000).map(|number| format!("l/{number}/a/b")).collect();
        let mut entries = vec![link("l", &deep)];
        entries.extend(names.iter().map(|name| file(name)));
        let problem = check(&[&entries]).unwrap_err().1.to_string();
        assert!(problem.contains("behind too many links"), "{problem}");
        // Ten levels of real directories behind a link.
        let names: Vec<String> = (0..3000).map(|number| format!("l/{number}/a/b")).collect();
        let mut entries = vec![link("l", "usr/share/a/b/c/d/e/f/g/h")];
        entries.extend(names.iter().map(|name| file(name)));
        assert_eq!(check(&[&entries]), Ok(()));
    }
}
