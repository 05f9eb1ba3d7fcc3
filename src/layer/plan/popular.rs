//! Finds packages that many others need, to make layers that images of different names share.
//! Stage: layer (pure). Input: the closure of a package set; a [`Graph`]. Output: [`Popularity`]; layers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::budget::LayerBudget;
use super::graph::Graph;
use super::package::package;
use super::path_idx::{PathIdx, PerPath};
use super::runs::{SMALL, for_runs};
use super::sums;
use crate::closure::Closure;
use crate::store::StorePath;

/// The number that, divided by the number of layers, is the size above which a path is bulky: 4 MiB
/// with 100 layers.
const BULK: u64 = 400 << 20;

/// Counts, for each package of a package set, how many packages need it, and tells which packages
/// go together.
///
/// In JSON, an object with a count for each package, or with the name of the package that it goes
/// with: `{ "glibc": 120, "libgcc": "glibc", "git": 0 }`.
///
/// Packages are identified by their names without versions (`package.rs`), so that the file for one
/// state of a package set also serves the next one, and images with other versions of packages.
/// Whole names are found as well, as in the file of Nixery's `popcount`.
///
/// Nixery counts direct references only. But an image has everything that its packages need,
/// directly or not: a library to which only one other library refers, which every package needs, is
/// in every image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Popularity(BTreeMap<String, Entry>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    /// The number of store paths of the set that need the package, directly or not, without the
    /// package itself.
    NeededBy(u64),
    /// The name of the leader: nearly every path that needs this package needs the leader too, and
    /// the leader needs this package.
    GoesWith(String),
}

impl Popularity {
    /// Counts in the closure of a package set. `packages` are the paths that images can ask for. If
    /// the set has a package several times, for example in two versions, the highest count is kept.
    ///
    /// # Algorithm
    /// From the top down, each path goes with the leader of one of its referrers: the most needed
    /// one. It does so if at most a quarter more paths need it than need the leader and what goes
    /// with the leader. A package that can be asked for by name goes with no other: it is in images
    /// without the other.
    pub fn of(set: &Closure, packages: &BTreeSet<StorePath>) -> Self {
        let graph = Graph::new(set);
        let counts: PerPath<_> = sums::over_referrers(&graph, &graph.per_path(1))
            .into_values()
            .into_iter()
            // The sum includes the path itself.
            .map(|paths| u64::try_from(paths.saturating_sub(1)).unwrap_or(u64::MAX))
            .collect();
        let leaders = leaders(&graph, &counts, |path| packages.contains(&graph.info(path).path));
        let mut found = BTreeMap::<_, (u64, String)>::new();
        for path in graph.paths() {
            let entry = (counts[path], package(graph.name(leaders[path])));
            let most = found.entry(package(graph.name(path))).or_insert_with(|| entry.clone());
            if entry.0 > most.0 {
                *most = entry;
            }
        }
        let entry = |(name, (count, leader)): (&String, &(u64, String))| {
            // Another version of the leader may go with another package.
            let leads = found.get(leader).is_some_and(|(_, its)| its == leader);
            let entry = match leader != name && leads {
                true => Entry::GoesWith(leader.clone()),
                false => Entry::NeededBy(*count),
            };
            (name.clone(), entry)
        };
        Self(found.iter().map(entry).collect())
    }

    /// Returns whether no package is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the package that decides for a name in a store path, and the number of paths that
    /// need it; `None` if the set has no such package.
    fn leader<'p>(&'p self, name: &str) -> Option<(&'p str, u64)> {
        let get = |name: &str| self.0.get_key_value(name);
        match get(name).or_else(|| get(&package(name)))? {
            (name, Entry::NeededBy(count)) => Some((name, *count)),
            (_, Entry::GoesWith(leader)) => match self.0.get(leader) {
                Some(Entry::NeededBy(count)) => Some((leader, *count)),
                _ => Some((leader, 0)),
            },
        }
    }

    /// Returns the number of packages that need the package of this name, or 0 if the name is not
    /// known.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.leader(name).map(|(_, count)| count)
    }

    /// Makes a layer for each package of the set with the paths that go with it, most valuable
    /// first, as far as the budget allows.
    ///
    /// # Algorithm
    /// Bulky members have layers of their own; the fewer layers there are, the bulkier they must
    /// be. A layer's value is its size times the number of binary digits of its popularity: with
    /// the popularity itself, large and rare paths would be left to layers that images do not
    /// share. No small layer is made, and none of paths that the set does not have. As many layers
    /// are left over as `runs` would use for small paths. (`docs/layering.md` has the figures.)
    ///
    /// The contents of such a layer depend only on the package set and the budget. So the layer is
    /// the same in every image that has the package and room for the layer.
    pub(super) fn layers(&self, graph: &Graph, budget: LayerBudget) -> Vec<Vec<PathIdx>> {
        let bulky = BULK / budget.get() as u64;
        let mut groups = BTreeMap::<_, (u64, Vec<PathIdx>)>::new();
        for path in graph.paths() {
            if let Some((leader, count)) = self.leader(graph.name(path)) {
                let alone = (graph.size(path) > bulky).then_some(path);
                groups.entry((leader, alone)).or_insert((count, Vec::new())).1.push(path);
            }
        }
        let size = |paths: &[PathIdx]| paths.iter().map(|path| u128::from(graph.size(*path))).sum();
        let value = |(count, paths): &(u64, Vec<PathIdx>)| {
            let size: u128 = size(paths);
            Reverse(size * u128::from(count.saturating_add(1).ilog2() + 1))
        };
        let mut layers: Vec<_> = groups.into_values().collect();
        layers.retain(|(_, paths)| size(paths) >= u128::from(SMALL));
        layers.sort_by_key(value); // stable: then by the leader's name
        layers.truncate(budget.get() - for_runs(budget.get()));
        layers.into_iter().map(|(_, paths)| paths).collect()
    }
}

/// Returns, for each path, the path that it goes with, perhaps itself.
fn leaders(
    graph: &Graph,
    counts: &PerPath<u64>,
    is_asked_for: impl Fn(PathIdx) -> bool,
) -> PerPath<PathIdx> {
    let depths = graph.depths();
    let mut order: Vec<_> = graph.paths().collect();
    order.sort_by_key(|path| Reverse(depths[*path])); // referrers first, then by name
    let mut leaders: PerPath<_> = graph.paths().collect();
    let mut followers = graph.per_path(0);
    for path in order.into_iter().filter(|path| !is_asked_for(*path)) {
        let candidates = graph.referrers(path).map(|referrer| leaders[referrer]);
        let leader = candidates.max_by_key(|leader| (counts[*leader], Reverse(*leader)));
        let Some(leader) = leader else { continue };
        let expected = u128::from(counts[leader]) + 1 + followers[leader];
        if u128::from(counts[path]) * 4 <= expected * 5 {
            leaders[path] = leader;
            followers[leader] += 1;
        }
    }
    leaders
}

impl<N: Into<String>> FromIterator<(N, u64)> for Popularity {
    fn from_iter<I: IntoIterator<Item = (N, u64)>>(counts: I) -> Self {
        Self(
            counts.into_iter().map(|(name, count)| (name.into(), Entry::NeededBy(count))).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::plan::tests::{Shape, closure, named, shapes};

    const MIB: u64 = 1 << 20;

    fn read(json: &str) -> Popularity {
        serde_json::from_str(json).unwrap()
    }

    fn layers(closure: &Closure, budget: u64, popularity: &Popularity) -> Vec<Vec<String>> {
        let graph = Graph::new(closure);
        let layers = popularity.layers(&graph, LayerBudget::new(budget).unwrap());
        let name = |path| graph.name(path).to_owned();
        layers.into_iter().map(|layer| layer.into_iter().map(name).collect()).collect()
    }

    /// Returns a set in which ten tools need `libc`, and through it `locale`; two of them also need
    /// `plugins`.
    fn package_set() -> Closure {
        let tools: Vec<_> = (0..10).map(|number| format!("tool{number}-1.0")).collect();
        let mut rows: Vec<(&str, u64, &[&str])> = vec![
            ("locale-2.39", MIB, &[]),
            ("libc-2.40", 30 * MIB, &["locale-2.39"]),
            ("plugins-7", MIB, &["libc-2.40"]),
        ];
        for (number, tool) in tools.iter().enumerate() {
            let references: &[&str] =
                if number < 2 { &["libc-2.40", "plugins-7"] } else { &["libc-2.40"] };
            rows.push((tool, 2 * MIB, references));
        }
        named(&rows)
    }

    #[test]
    fn what_always_comes_together_goes_together() {
        let popularity = Popularity::of(&package_set(), &BTreeSet::new());
        assert_eq!(popularity.leader("libc-2.40"), Some(("libc", 11)));
        // The rule also holds for another version.
        assert_eq!(popularity.leader("locale-3.0"), Some(("libc", 11)));
        assert_eq!(popularity.leader("plugins-7"), Some(("plugins", 2)));
        assert_eq!(popularity.leader("tool9-1.0"), Some(("tool9", 0)));
        assert_eq!(popularity.leader("app"), None);
        let json = serde_json::to_string(&popularity).unwrap();
        assert!(json.starts_with(r#"{"libc":11,"locale":"libc","plugins":2,"tool0":0,"#), "{json}");
        assert_eq!(read(&json), popularity);
    }

    /// Checks that `locale` is found in images without `libc` as well.
    #[test]
    fn what_is_asked_for_goes_with_nothing() {
        let set = package_set();
        let locale = set.infos().iter().find(|info| info.path.name() == "locale-2.39");
        let asked_for = BTreeSet::from([locale.unwrap().path.clone()]);
        let popularity = Popularity::of(&set, &asked_for);
        assert_eq!(popularity.leader("locale-2.39"), Some(("locale", 12)));
    }

    #[test]
    fn of_two_versions_the_most_needed_stands() {
        let closure = named(&[
            ("lib-1", 1, &[]),
            ("lib-2", 1, &[]),
            ("a", 1, &["lib-1"]),
            ("b", 1, &["lib-1"]),
            ("c", 1, &["lib-2"]),
        ]);
        let popularity = Popularity::of(&closure, &BTreeSet::new());
        assert_eq!(popularity, read(r#"{"a": 0, "b": 0, "c": 0, "lib": 2}"#));
    }

    #[test]
    fn the_most_valuable_have_layers() {
        let closure = named(&[
            ("libc-2.40", 30 * MIB, &[]),
            ("locale-2.39", MIB, &[]),
            ("plugins-8", 2 * MIB, &["libc-2.40"]),
            ("small", 1000, &[]),
            ("tool3-1.1", 2 * MIB, &["libc-2.40"]),
            ("app", 500 * MIB, &["tool3-1.1", "plugins-8"]),
        ]);
        let popularity = Popularity::of(&package_set(), &BTreeSet::new());
        let libc = ["libc-2.40", "locale-2.39"];
        for (budget, expected) in [
            (1, vec![]),
            (2, vec![&libc[..]]),
            (8, vec![&libc, &["plugins-8"], &["tool3-1.1"]]),
            // With more layers, bulky paths are kept apart.
            (60, vec![&libc[..1], &libc[1..], &["plugins-8"], &["tool3-1.1"]]),
        ] {
            assert_eq!(layers(&closure, budget, &popularity), expected, "{budget} layers");
        }
    }

    #[test]
    fn nixerys_file_is_read() {
        let popularity = read(r#"{"libc-2.40": 1000, "tool3-1.0": 1}"#);
        assert_eq!(popularity.count("libc-2.40"), Some(1000));
        assert_eq!(popularity.count("libc-2.41"), None);
        for bad in [r#"{"libc": -1}"#, r#"{"libc": 1.5}"#, r#"["libc"]"#, r#"{"libc": {}}"#] {
            assert!(serde_json::from_str::<Popularity>(bad).is_err(), "{bad}");
        }
        // No program writes such files, but they are valid JSON.
        for odd in [r#"{"libc": "gone"}"#, r#"{"libc": "locale", "locale": "libc"}"#] {
            assert_eq!(read(odd).count("libc"), Some(0), "{odd}");
        }
    }

    /// Returns the part of a package set that some of its packages need.
    fn image(shape: &Shape, roots: &[bool]) -> Closure {
        let infos = closure(shape, 0);
        let mut needed = BTreeSet::new();
        for (info, root) in infos.iter().zip(roots).rev() {
            if *root || needed.contains(&info.path) {
                needed.insert(info.path.clone());
                needed.extend(info.references.iter().cloned());
            }
        }
        Closure::new(infos.into_iter().filter(|info| needed.contains(&info.path)).collect())
            .unwrap()
    }

    proptest! {
        /// Checks that layers are shared: two images that have a popular layer have the same layer.
        #[test]
        fn layers_do_not_depend_on_the_image(
            shape in shapes(), budget in 1u64..=127,
            roots in prop::array::uniform2(prop::collection::vec(any::<bool>(), 60)),
        ) {
            let shape: Shape = shape.into_iter().enumerate()
                .map(|(number, (_, size, edges))| (number as u8, size * 16, edges)).collect();
            let set = Closure::new(closure(&shape, 0)).unwrap();
            let asked_for = set.infos().iter().zip(&roots[0]).filter(|(_, root)| **root);
            let asked_for = asked_for.map(|(info, _)| info.path.clone()).collect();
            let popularity = Popularity::of(&set, &asked_for);
            let images = roots.map(|roots| image(&shape, &roots));
            let has = |image: &Closure, name: &str| {
                image.infos().iter().any(|info| info.path.name() == name)
            };
            // Check with room for all layers, and with room for some.
            for (budget, has_room) in [(127, true), (budget, false)] {
                let [one, other] = [0, 1].map(|image| layers(&images[image], budget, &popularity));
                let layer_of = |layers: &[Vec<String>], name: &str| {
                    layers.iter().find(|layer| layer.iter().any(|member| member == name)).cloned()
                };
                for info in images[0].infos() {
                    let name: &str = info.path.name();
                    let (leader, _) = popularity.leader(name).unwrap();
                    if has(&images[1], name) && images.iter().all(|image| has(image, leader)) {
                        let [one, other] = [&one, &other].map(|layers| layer_of(layers, name));
                        if has_room || (one.is_some() && other.is_some()) {
                            prop_assert_eq!(one, other);
                        }
                    }
                }
            }
        }
    }
}
