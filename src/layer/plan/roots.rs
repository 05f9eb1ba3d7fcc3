//! Finds the places of layers that are copied to `/` among the layers of store paths.
//! Stage: layer (pure). Input: a plan, and what roots are made of. Output: a place for each.

use std::collections::{BTreeMap, BTreeSet};

use super::LayerPlan;
use super::graph::Graph;
use super::heat::{Group, Heat, cooler};
use super::hints::LayeringHints;
use super::package::is_meant;
use super::path_idx::PathIdx;
use crate::closure::Closure;
use crate::store::StorePath;

/// A layer of files that are copied to `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootLayer {
    /// The store paths that the files are copied from.
    pub roots: Vec<StorePath>,
    /// The store paths in the image that the roots refer to; or the roots themselves, if the
    /// image's store has them.
    pub reaches: Vec<StorePath>,
    /// The number of bytes of the files.
    pub size: u64,
}

impl LayerPlan {
    /// Returns for each layer of roots the number of the plan's layers that go below it: those that
    /// are less likely to change for their size.
    ///
    /// A root changes with everything that it refers to. In addition, it changes as often as a path
    /// whose only referrer is on top of the image.
    pub fn places_of_roots(
        &self,
        closure: &Closure,
        copies: &BTreeSet<StorePath>,
        roots: &[RootLayer],
    ) -> Vec<usize> {
        let graph = Graph::new(closure).with_copies(copies);
        let (heat, weights) = Heat::new(&graph);
        let number: BTreeMap<_, _> =
            graph.paths().map(|path| (&graph.info(path).path, path)).collect();
        let numbers = |paths: &[StorePath]| -> Vec<PathIdx> {
            paths.iter().filter_map(|path| number.get(path).copied()).collect()
        };
        let layers: Vec<_> = self
            .layers()
            .iter()
            .filter_map(|layer| Group::of(&heat, &numbers(layer), &weights))
            .map(|group| group.weight)
            .collect();
        let place = |root: &RootLayer| {
            let reached = numbers(&root.reaches);
            let group = Group::of(&heat, &reached, &weights);
            let others = root.roots.iter().filter(|path| !number.contains_key(path)).count();
            let root = heat.of_root(root.size, group.as_ref().map(|group| &group.weight), others);
            // Plans of other layerings are not sorted in this way: go below the first layer that is
            // more likely to change.
            layers.iter().position(|layer| cooler(&root, layer)).unwrap_or(layers.len())
        };
        roots.iter().map(place).collect()
    }
}

impl LayeringHints {
    /// Returns the first rule for a name, in the order of the fields, if there is one.
    pub fn rule_for(&self, name: &str) -> Option<HintRule> {
        let meant = |packages: &[String]| packages.iter().any(|package| is_meant(name, package));
        if let Some(place) = self.pin.iter().position(|package| is_meant(name, package)) {
            return Some(HintRule::Pin(place));
        }
        if let Some(place) = self.together.iter().position(|set| meant(set)) {
            return Some(HintRule::Together(place));
        }
        meant(&self.last).then_some(HintRule::Last)
    }
}

/// The rules of [`LayeringHints`], each with its index in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HintRule {
    /// A package with a layer of its own.
    Pin(usize),
    /// A set of packages that share a layer.
    Together(usize),
    /// The topmost layer.
    Last,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::plan::tests::named;
    use crate::layer::plan::{LayerBudget, Layering, PlanOptions};

    const KIB: u64 = 1 << 10;

    /// Tools that are copied to `/` go below an application of the size of one of their files.
    /// Links to everything go on top.
    #[test]
    fn tools_are_below_and_links_on_top() {
        let closure = named(&[
            ("libc", 30_000 * KIB, &[]),
            ("bash", 1_500 * KIB, &["libc"]),
            ("app", 86 * KIB, &["bash"]),
        ]);
        let plan =
            LayerPlan::new(&closure, LayerBudget::new(10).unwrap(), Layering::Runs.into()).unwrap();
        let path = |name: &str| {
            let all = closure.infos().iter();
            all.map(|info| &info.path).find(|path| path.name() == name).unwrap().clone()
        };
        let other: StorePath = format!("{}-tools", "z".repeat(32)).parse().unwrap();
        let layer = |root: &StorePath, reaches: &[&str], size| RootLayer {
            roots: vec![root.clone()],
            reaches: reaches.iter().map(|name| path(name)).collect(),
            size,
        };
        let places = plan.places_of_roots(
            &closure,
            &BTreeSet::from([path("bash"), other.clone()]),
            &[
                layer(&other, &["libc"], 10_000 * KIB),
                layer(&path("bash"), &["bash"], 1_500 * KIB),
                layer(&other, &["libc", "bash", "app"], 4 * KIB),
                layer(&other, &[], 100),
            ],
        );
        assert_eq!(plan.layers().len(), 3);
        assert!(places[0] < 3 && places[1] < 3, "{places:?}");
        assert_eq!(places[2], 3);
    }

    /// Links to tools alone go below an application: they do not change with it. Links to the
    /// application as well change with it, and go above.
    #[test]
    fn links_to_tools_are_below_an_application() {
        let tools: Vec<_> = (0..20).map(|number| format!("tool-{number}")).collect();
        let mut paths: Vec<(&str, u64, &[&str])> = vec![("libc", 30_000 * KIB, &[])];
        paths.extend(tools.iter().map(|tool| (&tool[..], 300 * KIB, &["libc"][..])));
        paths.push(("app", 110 * KIB, &["libc"]));
        let closure = named(&paths);
        let path = |name: &str| {
            let all = closure.infos().iter();
            all.map(|info| &info.path).find(|path| path.name() == name).unwrap().clone()
        };
        let links: StorePath = format!("{}-links", "z".repeat(32)).parse().unwrap();
        let to_tools: Vec<_> = tools.iter().map(|tool| path(tool)).collect();
        let copies: BTreeSet<_> = to_tools.iter().cloned().chain([links.clone()]).collect();
        let options = PlanOptions { copies: copies.clone(), ..Layering::Runs.into() };
        let plan = LayerPlan::new(&closure, LayerBudget::new(60).unwrap(), options).unwrap();
        assert_eq!(plan.layers().last().unwrap(), &[path("app")]);
        let layer = |reaches: Vec<StorePath>| {
            let (roots, size) = (vec![links.clone()], 120 * KIB);
            RootLayer { roots, reaches, size }
        };
        let to_app = to_tools.iter().cloned().chain([path("app")]).collect();
        let places =
            plan.places_of_roots(&closure, &copies, &[layer(to_tools.clone()), layer(to_app)]);
        let count = plan.layers().len();
        assert_eq!(places, [count - 1, count]);
    }

    #[test]
    fn rules_are_found_in_the_order_of_their_fields() {
        let hints: LayeringHints = serde_json::from_str(
            r#"{"pin": ["a"], "together": [["b"], ["c", "a"]], "last": ["c", "d"]}"#,
        )
        .unwrap();
        for (name, rule) in [
            ("a-1.0", Some(HintRule::Pin(0))),
            ("b", Some(HintRule::Together(0))),
            ("c-2-bin", Some(HintRule::Together(1))),
            ("d", Some(HintRule::Last)),
            ("e", None),
        ] {
            assert_eq!(hints.rule_for(name), rule, "{name}");
        }
    }
}
