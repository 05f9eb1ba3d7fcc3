//! What is copied to `/`, as layers among those of store paths.
//! Stage: oci. Input: options and a closure. Output: [`Roots`], and the contents of all layers.

use std::collections::{BTreeMap, BTreeSet};

use super::options::BuildOptions;
use crate::closure::Closure;
use crate::layer::{
    self, BaseTree, DATABASE, DATABASE_DIR, HintRule, LayerContents, LayerPlan, Layering,
    RootLayer, RootLinks,
};
use crate::oci::Error;
use crate::store::{Store, StorePath};

/// Bytes below which roots share a layer: one of its own would save nobody anything.
const SMALL: u64 = 64 << 10;
/// With fewer layers than these, all that is copied to `/` is in one, on top.
const ENOUGH: usize = 4;

/// The store paths of a layer, and the paths whose files it has in `/`.
pub type Planned = (Vec<StorePath>, Vec<StorePath>);

/// Groups what is copied to `/` into layers.
pub struct Roots {
    groups: Vec<Group>,
    /// Packages that are planned as store paths are: they are copied to `/`, and are not in the store.
    pub planned: BTreeSet<StorePath>,
    /// What is known of the links in all of them.
    pub links: RootLinks,
}

/// Holds roots that are in one layer.
#[derive(Default)]
struct Group {
    layer: RootLayer,
    rule: Option<HintRule>,
    /// Whether nothing may be above it.
    is_top: bool,
    /// Whether it is one package, which is in no store.
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
    /// Groups what is copied to `/`. A package of some size is planned as store paths are. What is
    /// in the store as well gets a layer of its own if it is large; what is small, and links to packages,
    /// are together. What has a directory in common whose mode or owner `perms` give is together as
    /// well, since an upper layer's entry for a directory takes the place of a lower one's. Nix's
    /// database, which every change changes, is on top.
    ///
    /// # Errors
    /// If it can't be read, or two roots disagree on a file.
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
            ..LayerContents::default()
        };
        let roots = &options.copy_to_root;
        let policy = options.directory_links;
        let links = layer::root_links(store, &of(roots), base, policy)?;
        let allowed = options.max_layers.get() / 4;
        if roots.is_empty() {
            return Ok(Self { groups: Vec::new(), planned: BTreeSet::new(), links });
        }
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
                is_top: has_database(store, root),
                is_package: false,
            }
        };
        let mut groups: Vec<Group> = roots.iter().map(single).collect();
        if options.layering != Layering::Runs || options.max_layers.get() < ENOUGH {
            let all = joined(groups).map(|group| Group { is_top: true, rule: None, ..group });
            let groups = all.into_iter().collect();
            return Ok(Self { groups, planned: BTreeSet::new(), links });
        }
        let mut directories = Vec::new();
        for (root, group) in roots.iter().zip(&mut groups) {
            let found = layer::root_outline(store, &of(std::slice::from_ref(root)), base, policy)?;
            // Every layer of store paths has these two.
            let of_store = |(name, given): (&Vec<u8>, &bool)| {
                *given && store.dir().as_bytes()[1..].starts_with(name)
            };
            group.is_top |= found.directories.iter().any(of_store);
            // Links to packages are no reason for these to be anything but the author's own.
            group.is_package = !is_elsewhere(root) && found.file_bytes >= group.layer.size / 2;
            directories.push(found.directories);
        }
        let groups = together(groups, &directories);
        let (planned, groups): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|group| group.is_package && !group.is_top && group.layer.size >= SMALL);
        let planned = planned.into_iter().flat_map(|group| group.layer.roots).collect();
        Ok(Self { groups: arranged(groups, allowed.max(2)), planned, links })
    }

    /// Puts the layers of store paths and those of roots together, from the bottom up. `in_store` has
    /// the packages that are planned as well.
    ///
    /// # Errors
    /// If there is no plan.
    pub fn among(
        self,
        in_store: &Closure,
        options: &BuildOptions,
        plan: impl FnOnce(layer::LayerBudget) -> Result<LayerPlan, Error>,
    ) -> Result<Vec<Planned>, Error> {
        let Self { mut groups, planned: packages, .. } = self;
        let copies = options.copy_to_root.iter().cloned().collect();
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
        // A layer for each side would be one too many.
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
        // At the same place: the larger below, and what must be on top there.
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

/// Returns whether a root brings a Nix database.
fn has_database(store: &Store, root: &StorePath) -> bool {
    let directory = store.physical(root).join(DATABASE_DIR.trim_start_matches('/'));
    directory.join(DATABASE).is_file()
}

fn joined(groups: Vec<Group>) -> Option<Group> {
    groups.into_iter().reduce(|mut all, group| {
        all.join(group);
        all
    })
}

/// Joins the groups that have a directory in common of which `perms` say something.
fn together(groups: Vec<Group>, directories: &[BTreeMap<Vec<u8>, bool>]) -> Vec<Group> {
    // Of each root the first root that it is together with.
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

/// Joins what is small, what has the same rule and what is on top, and then the smallest until there
/// are no more groups than allowed.
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
