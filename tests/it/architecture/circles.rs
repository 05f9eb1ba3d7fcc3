//! The rule that no files name each other in a circle.
//!
//! Code that names a type through the `pub use` of another module names the file that defines the type. A
//! module may name its own children, and they may name it: it is made of them.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;
use syn::{Attribute, File, Item, ItemMod, ItemUse, Meta, UseTree};

use super::{SOURCE, sources};

/// The names of a module from the root of the crate: `["oci", "spec"]`.
type ModulePath = Vec<String>;

/// The modules of a crate, each with its names and the paths that its code uses.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Default)]
struct Module {
    /// The paths that `use` declarations bring in, by the name under which they do.
    imports: BTreeMap<String, Vec<String>>,
    /// The paths of which all names are brought in: `use super::*`.
    globs: Vec<Vec<String>>,
    /// All paths in the code, those of `pub use` excepted: a module that only hands on a name does not
    /// depend on it.
    used: BTreeSet<Vec<String>>,
}

impl Crate {
    fn of(files: &[(ModulePath, String)]) -> Self {
        let module = |(path, text): &(ModulePath, String)| {
            let file = syn::parse_file(text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            (path.clone(), Module::of(&file))
        };
        Self { modules: files.iter().map(module).collect() }
    }

    /// Returns the module that defines what a path means in another module, if it is one of this crate.
    fn definition(&self, from: &ModulePath, path: &[String]) -> Option<ModulePath> {
        self.resolve(from, path, 0)
    }

    fn resolve(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        // Two modules may bring in all names of each other.
        if depth > 16 {
            return None;
        }
        let mut here = from.clone();
        let mut rest = path;
        let mut relative = true;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => here = Vec::new(),
                "self" => {}
                "super" => drop(here.pop()?),
                _ => break,
            }
            (rest, relative) = (after, false);
        }
        while let Some((first, after)) = rest.split_first() {
            let child = [here.as_slice(), std::slice::from_ref(first)].concat();
            if self.modules.contains_key(&child) {
                (here, rest, relative) = (child, after, false);
                continue;
            }
            let module = self.modules.get(&here)?;
            if let Some(target) = module.imports.get(first) {
                let target = [target.as_slice(), after].concat();
                return self.resolve(&here, &target, depth + 1);
            }
            let of_all = module.globs.iter().find_map(|glob| {
                let target = [glob.as_slice(), rest].concat();
                let found = self.resolve(&here, &target, depth + 1)?;
                (found != here).then_some(found)
            });
            // The first name of a path such as `std::fs` may be another crate.
            return of_all.or((!relative).then_some(here));
        }
        (!relative).then_some(here)
    }

    /// Returns for each module the modules that it names, its own children excepted.
    fn edges(&self) -> BTreeMap<&ModulePath, BTreeSet<ModulePath>> {
        let named = |(path, module): (&'_ ModulePath, &Module)| -> BTreeSet<ModulePath> {
            let found = module.used.iter().filter_map(|used| self.definition(path, used));
            found.filter(|found| !found.starts_with(path)).collect()
        };
        self.modules.iter().map(|(path, module)| (path, named((path, module)))).collect()
    }

    /// Returns the circles: sets of modules each of which reaches all others of its set.
    fn circles(&self) -> BTreeSet<BTreeSet<ModulePath>> {
        let edges = self.edges();
        let reached = |from: &ModulePath| {
            let (mut found, mut open) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(next) = open.pop() {
                open.extend(edges[&next].iter().filter(|to| found.insert((*to).clone())).cloned());
            }
            found
        };
        let reached: BTreeMap<_, _> = edges.keys().map(|&path| (path, reached(path))).collect();
        let circle = |path: &&ModulePath| -> BTreeSet<ModulePath> {
            reached[*path].iter().filter(|other| reached[other].contains(*path)).cloned().collect()
        };
        edges.keys().map(circle).filter(|circle| circle.len() > 1).collect()
    }
}

impl Module {
    fn of(file: &File) -> Self {
        let mut module = Self::default();
        module.visit_file(file);
        module
    }

    fn add_use(&mut self, tree: &UseTree, before: &[String], handed_on: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &with(&path.ident), handed_on),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_use(tree, before, handed_on));
            }
            UseTree::Glob(_) => self.globs.push(before.to_vec()),
            UseTree::Name(name) => self.add_import(&name.ident, with(&name.ident), handed_on),
            UseTree::Rename(name) => self.add_import(&name.rename, with(&name.ident), handed_on),
        }
    }

    fn add_import(&mut self, name: &syn::Ident, path: Vec<String>, handed_on: bool) {
        if !handed_on {
            self.used.insert(path.clone());
        }
        // `use module::{self}` brings in the module by its own name.
        let (name, path) = match path.split_last() {
            Some((last, module)) if last == "self" && !module.is_empty() => {
                (module.last().cloned().unwrap_or_default(), module.to_vec())
            }
            _ => (name.to_string(), path),
        };
        self.imports.insert(name, path);
    }
}

impl Visit<'_> for Module {
    fn visit_item(&mut self, item: &Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_for_tests) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &ItemMod) {
        let Some((_, items)) = &item.content else { return };
        items.iter().for_each(|item| self.visit_item(item));
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        let is_private = matches!(item.vis, syn::Visibility::Inherited);
        self.add_use(&item.tree, &[], !is_private);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.used.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }
}

/// Returns whether an attribute is `#[cfg(test)]`.
fn is_for_tests(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    list.path.is_ident("cfg") && list.tokens.to_string() == "test"
}

/// Returns the files of `src/` with the paths of their modules, those of tests excepted.
fn modules() -> Vec<(ModulePath, String)> {
    let mut found = Vec::new();
    sources(std::path::Path::new(SOURCE), &mut found);
    let module = |(file, text): (String, String)| {
        let path = file.strip_prefix(SOURCE)?.strip_prefix('/')?.strip_suffix(".rs")?;
        let mut names: ModulePath = path.split('/').map(str::to_owned).collect();
        if matches!(names.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            names.pop();
        }
        // The crate of the program is `main.rs`, which only calls the library.
        let is_used = path != "main" && !names.iter().any(|name| name == "tests");
        is_used.then_some((names, text))
    };
    found.into_iter().filter_map(module).collect()
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let all = Crate::of(&modules());
    let edges = all.edges();
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > 1000, "{edges:#?}");
    let circles: Vec<String> = all
        .circles()
        .iter()
        .map(|circle| {
            let within = |path: &&ModulePath| {
                edges[*path]
                    .iter()
                    .filter(|to| circle.contains(*to))
                    .map(|to| to.join("::"))
                    .collect::<Vec<_>>()
            };
            let lines = circle
                .iter()
                .map(|path| format!("\n  {} names {}", path.join("::"), within(&path).join(", ")));
            lines.collect()
        })
        .collect();
    assert!(circles.is_empty(), "files that name each other in a circle:{}", circles.join("\n"));
}

/// Tests the test of circles: it follows names through `pub use`, and leaves out tests.
#[test]
fn circles_are_seen() {
    let circles = |files: &[(&str, &str)]| {
        let file = |(path, text): &(&str, &str)| {
            let path =
                path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            (path, (*text).to_owned())
        };
        let files: Vec<_> = files.iter().map(file).collect();
        let circles = Crate::of(&files).circles();
        circles
            .iter()
            .map(|circle| circle.iter().map(|path| path.join("::")).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let root = ("", "mod a; mod b;");
    assert_eq!(
        circles(&[root, ("a", "use crate::b::B;"), ("b", "fn f() { crate::a::g() }")]),
        ["a b"]
    );
    assert_eq!(
        circles(&[root, ("a", "use super::b;"), ("b", "use std::{fs, io}; use crate::{a, c};")]),
        ["a b"]
    );
    assert_eq!(
        circles(&[
            root,
            ("a", "use crate::b::B;"),
            ("b", "#[cfg(test)] mod tests { use crate::a::A; }")
        ]),
        [""; 0]
    );
    // A module and its child.
    let parent = ("a", "mod child; pub use child::C; use C; struct A;");
    assert_eq!(circles(&[root, parent, ("a::child", "use super::A;")]), [""; 0]);
    // Through the parent, one child names the other.
    let parent = ("a", "mod x; mod y; pub use x::X; pub use y::Y;");
    assert_eq!(
        circles(&[root, parent, ("a::x", "use super::Y;"), ("a::y", "use crate::a::X;")]),
        ["a::x a::y"]
    );
}
