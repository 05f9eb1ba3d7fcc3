//! Groups the files that are copied to `/` into layers, among the layers of store paths.
//! Stage: oci. Input: options and a closure. Output: [`Roots`], and the contents of all layers.

use std::collections::{BTreeMap, BTreeSet};

use super::merged_of;
use super::options::BuildOptions;
use crate::closure::Closure;
use crate::image_path::ImagePath;
use crate::layer::{
    self, BaseTree, DATABASE, DATABASE_DIR, HintRule, LayerContents, LayerPlan, Layering,
    RootLayer, RootLinks,
};
use crate::oci::Error;
use crate::store::{Store, StorePath};

/// The size below which roots share a layer, since a layer of its own would not save anything.
const SMALL: u64 = 64 << 10;
/// The number of bytes of an entry's header in a tar.
const HEADER: u64 = 512;
/// The number of layers below which everything that is copied to `/` is in one layer, on top.
const ENOUGH: usize = 4;

/// The store paths of a layer, and the store paths whose files the layer copies to `/`.
pub type Planned = (Vec<StorePath>, Vec<StorePath>);

/// The layers of the files that are copied to `/`. A store path that is copied is called a root.
pub struct Roots {
    groups: Vec<Group>,
    /// The packages that are planned like store paths, although they are copied to `/` and are not
    /// in the image's store.
    pub planned: BTreeSet<StorePath>,
    /// The paths whose files are copied to `/`, and those that nothing but these refers to: links
    /// to tools.
    pub copies: BTreeSet<StorePath>,
    /// The links in all roots.
    pub links: RootLinks,
}

/// The roots that share a layer.
#[derive(Default)]
struct Group {
    layer: RootLayer,
    rule: Option<HintRule>,
    /// True if no other layer may be above this one.
    is_top: bool,
    /// True if this is a single package that is not in the image's store.
    is_package: bool,
}

impl Group {
    fn join(&mut self, other: Self) {
        self.layer.roots.extend(other.layer.roots);
        self.layer.reaches.extend(other.layer.reaches);
        self.layer.size = self.layer.size.saturating_add(other.layer.size);
        self.rule = self.rule.min(other.rule).or(self.rule).or(other.rule);
        self.is_top |= other.is_top;
        self.is_package = false;
    }
}

impl Roots {
    /// Groups the roots into layers:
    ///
    /// * A large package that is not in the image's store is planned like a store path.
    /// * A large root that is also in the store gets a layer of its own.
    /// * Small roots, and roots of links to packages, share a layer.
    /// * Roots with a common directory whose mode or owner `perms` sets share a layer, since an
    ///   upper layer's entry for a directory replaces a lower one's.
    /// * Nix's database, which every change of the image changes, is on top.
    ///
    /// # Errors
    /// Fails if a root can't be read, or two roots disagree on a file.
    pub fn new(
        store: &Store,
        closure: &Closure,
        in_store: &Closure,
        is_elsewhere: impl Fn(&StorePath) -> bool,
        base: &BaseTree,
        options: &BuildOptions,
    ) -> Result<Self, Error> {
        let of = |roots: &[StorePath]| LayerContents {
            copy_to_root: roots.to_vec(),
            permissions: options
                .perms
                .iter()
                .filter(|rule| roots.contains(&rule.path))
                .cloned()
                .collect(),
            links_into_store: true,
            merged: merged_of(options, roots),
            ..LayerContents::default()
        };
        let roots = &options.copy_to_root;
        let policy = options.directory_links;
        let links = layer::root_links(store, &of(roots), base, policy)?;
        let allowed = options.max_layers.get() / 4;
        if roots.is_empty() {
            let (planned, copies) = (BTreeSet::new(), BTreeSet::new());
            return Ok(Self { groups: Vec::new(), planned, copies, links });
        }
        let copies = copies(store, closure, options);
        // The root with files that are merged from other roots has to be above these roots.
        let is_declared = |root: &StorePath| {
            options.merged_files.as_ref().is_some_and(|merged| merged.path == *root)
        };
        let single = |root: &StorePath| {
            let node = closure.node(root);
            let size = node.map_or(0, |node| closure.info(node).nar_size);
            let reaches = match in_store.node(root) {
                Some(_) => vec![root.clone()],
                None => {
                    node.map(|node| closure.references(node).cloned().collect()).unwrap_or_default()
                }
            };
            Group {
                layer: RootLayer { roots: vec![root.clone()], reaches, size },
                rule: options.layering_hints.rule_for(root.name()),
                is_top: has_database(store, root) || is_declared(root),
                is_package: false,
            }
        };
        let mut groups: Vec<Group> = roots.iter().map(single).collect();
        if options.layering != Layering::Runs || options.max_layers.get() < ENOUGH {
            let all = joined(groups).map(|group| Group { is_top: true, rule: None, ..group });
            let groups = all.into_iter().collect();
            return Ok(Self { groups, planned: BTreeSet::new(), copies, links });
        }
        let (mut directories, mut root_links) = (Vec::new(), Vec::new());
        for (root, group) in roots.iter().zip(&mut groups) {
            let found = layer::root_outline(store, &of(std::slice::from_ref(root)), base, policy)?;
            // Every layer of store paths has entries for `/nix` and `/nix/store`.
            let of_store = |(name, given): (&ImagePath, &bool)| {
                *given && store.dir().as_bytes()[1..].starts_with(name.as_bytes())
            };
            group.is_top |= found.directories.iter().any(of_store);
            // A package that mostly consists of files, and not of links to other packages, can be
            // planned like a store path.
            group.is_package = !is_elsewhere(root) && found.file_bytes >= group.layer.size / 2;
            // In a tar, a link takes more bytes than in a NAR.
            let entries = found.links.len() + found.directories.len();
            let in_tar = found.file_bytes.saturating_add(HEADER * entries as u64);
            group.layer.size = group.layer.size.max(in_tar);
            directories.push(found.directories);
            root_links.push(found.links);
        }
        if let Some(declared) = roots.iter().position(is_declared) {
            with_declared(&mut directories, &root_links, declared);
        }
        let groups = together(groups, &directories);
        let (planned, groups): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|group| group.is_package && !group.is_top && group.layer.size >= SMALL);
        let planned = planned.into_iter().flat_map(|group| group.layer.roots).collect();
        Ok(Self { groups: arranged(groups, allowed.max(2)), planned, copies, links })
    }

    /// Returns all layers, from the bottom up: those of store paths, and those of roots among them.
    /// `in_store` also has the packages that are planned like store paths.
    ///
    /// # Errors
    /// Fails if there is no plan.
    pub fn among(
        self,
        in_store: &Closure,
        options: &BuildOptions,
        plan: impl FnOnce(layer::LayerBudget) -> Result<LayerPlan, Error>,
    ) -> Result<Vec<Planned>, Error> {
        let Self { mut groups, planned: packages, copies, .. } = self;
        let budget = options.max_layers.less(groups.len());
        let plan = plan(budget.unwrap_or(options.max_layers))?;
        let split = |paths: Vec<StorePath>, joined: Vec<StorePath>| {
            let (copied, paths): (Vec<_>, Vec<_>) =
                paths.into_iter().partition(|path| packages.contains(path));
            (paths, [copied, joined].concat())
        };
        let mut layers: Vec<Planned> = Vec::new();
        let rule_of = |layer: &[StorePath]| {
            layer.iter().find_map(|path| options.layering_hints.rule_for(path.name()))
        };
        let rules: Vec<_> = plan.layers().iter().map(|layer| rule_of(layer)).collect();
        // If the budget is too small for separate layers, the roots join the top layer.
        if budget.is_none() && !plan.layers().is_empty() {
            let mut whole = plan.into_layers();
            let roots = groups.into_iter().flat_map(|group| group.layer.roots).collect();
            let top = whole.pop().unwrap_or_default();
            layers.extend(whole.into_iter().map(|paths| split(paths, Vec::new())));
            layers.push(split(top, roots));
            return Ok(layers);
        }
        let last = rules.last() == Some(&Some(HintRule::Last));
        let count = plan.layers().len();
        let highest = if last { count - 1 } else { count };
        let items: Vec<_> = groups.iter().map(|group| group.layer.clone()).collect();
        let mut places = plan.places_of_roots(in_store, &copies, &items);
        for (place, group) in places.iter_mut().zip(&groups) {
            let is_last = group.is_top || group.rule == Some(HintRule::Last);
            *place = if is_last { count } else { (*place).min(highest) };
        }
        let mut joined: Vec<Vec<StorePath>> = vec![Vec::new(); count];
        let mut apart: Vec<(usize, Group)> = Vec::new();
        for (group, place) in groups.drain(..).zip(places) {
            let with = rules.iter().position(|rule| rule.is_some() && *rule == group.rule);
            match with.filter(|_| !group.is_top) {
                Some(layer) => joined[layer].extend(group.layer.roots),
                None => apart.push((place, group)),
            }
        }
        // At the same place, larger layers are below smaller ones, and those that have to be on top
        // come last.
        apart.sort_by_key(|(place, group)| {
            (*place, group.is_top, group.rule == Some(HintRule::Last), u64::MAX - group.layer.size)
        });
        let mut apart = apart.into_iter().peekable();
        let planned = plan.into_layers().into_iter().zip(joined).map(Some).chain([None]);
        for (place, planned) in planned.enumerate() {
            while let Some((_, group)) = apart.next_if(|(at, _)| *at == place) {
                layers.push((Vec::new(), group.layer.roots));
            }
            layers.extend(planned.map(|(paths, joined)| split(paths, joined)));
        }
        Ok(layers)
    }
}

/// Returns whether a root contains a Nix database.
fn has_database(store: &Store, root: &StorePath) -> bool {
    let directory = store.physical(root).join(DATABASE_DIR.trim_start_matches('/'));
    directory.join(DATABASE).is_file()
}

/// Returns [`Roots::copies`]. A path that the excluded files refer to, such as the one with the image's
/// `config`, was asked for by its author, who may change it with every build.
fn copies(store: &Store, closure: &Closure, options: &BuildOptions) -> BTreeSet<StorePath> {
    let references_of = |path: &StorePath| {
        closure.node(path).into_iter().flat_map(|node| closure.references(node)).cloned()
    };
    let asked_for: BTreeSet<_> = options.exclude.iter().flat_map(references_of).collect();
    let roots = options.copy_to_root.iter();
    let linking = roots.clone().filter(|root| !has_database(store, root));
    let linked = linking.flat_map(references_of).filter(|path| !asked_for.contains(path));
    roots.cloned().chain(linked).collect()
}

fn joined(groups: Vec<Group>) -> Option<Group> {
    groups.into_iter().reduce(|mut all, group| {
        all.join(group);
        all
    })
}

/// Notes, of links where the declared files have a directory, that the two are to be together: in a layer
/// above, the directory would hide what the link leads to.
fn with_declared(
    directories: &mut [BTreeMap<ImagePath, bool>],
    links: &[Vec<ImagePath>],
    declared: usize,
) {
    let own = directories[declared].clone();
    for (directories, links) in directories.iter_mut().zip(links) {
        let over = links.iter().filter(|link| own.contains_key(*link));
        directories.extend(over.map(|link| (link.clone(), true)));
    }
}

/// Joins the groups that have a directory in common whose mode or owner `perms` sets.
fn together(groups: Vec<Group>, directories: &[BTreeMap<ImagePath, bool>]) -> Vec<Group> {
    // For each root, the first root of its group.
    let mut first: Vec<usize> = (0..groups.len()).collect();
    let given: BTreeSet<_> = directories
        .iter()
        .flat_map(|names| names.iter().filter(|(_, given)| **given).map(|(name, _)| name))
        .collect();
    for name in given {
        let with: Vec<_> =
            (0..groups.len()).filter(|root| directories[*root].contains_key(name)).collect();
        let Some(target) = with.iter().map(|root| first[*root]).min() else { continue };
        let gone: BTreeSet<_> = with.iter().map(|root| first[*root]).collect();
        for root in &mut first {
            if gone.contains(root) {
                *root = target;
            }
        }
    }
    let mut by_first = BTreeMap::<usize, Vec<Group>>::new();
    for (group, first) in groups.into_iter().zip(first) {
        by_first.entry(first).or_default().push(group);
    }
    by_first.into_values().filter_map(joined).collect()
}

/// Joins small groups, groups with the same rule and groups for the top; then the smallest, until
/// there are not more groups than allowed.
fn arranged(groups: Vec<Group>, allowed: usize) -> Vec<Group> {
    let (top, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.is_top);
    let mut by_rule = BTreeMap::<HintRule, Vec<Group>>::new();
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for group in others {
        match group.rule {
            Some(rule) => by_rule.entry(rule).or_default().push(group),
            None if group.layer.size < SMALL => small.push(group),
            None => large.push(group),
        }
    }
    let ruled: Vec<_> = by_rule.into_values().filter_map(joined).collect();
    large.sort_by_key(|group| u64::MAX - group.layer.size); // stable
    let taken = ruled.len() + usize::from(!top.is_empty());
    let left = allowed.saturating_sub(taken).max(1);
    let needed = large.len() + usize::from(!small.is_empty());
    if needed > left {
        small.extend(large.split_off(left - 1));
    }
    let mut arranged = large;
    arranged.extend(ruled);
    arranged.extend(joined(small));
    arranged.extend(joined(top));
    arranged
}
