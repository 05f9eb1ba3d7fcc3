//! Subtrees that only one way leads to, as the image service Nixery has them.
//! Stage: layer (pure). Input: [`Graph`], a budget and popularity. Output: layers.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::budget::LayerBudget;
use super::graph::Graph;
use super::path_idx::{PathIdx, PerPath};
use super::popular::Popularity;
use super::sums;

/// The number of bytes of a closure above which its root gets a layer.
const LARGE: u128 = 100_000_000;
/// The number of referrers from which on a path gets a layer.
const POPULAR: u64 = 100;
/// Packages that every image of Nixery has, with a popularity above all others.
const EVERYWHERE: [(&str, u64); 2] = [("nss-cacert", 500_000), ("iana-etc", 500_000)];

/// # Algorithm
/// A path stands at the top if nothing refers to it, if its closure is large, or if it is popular.
/// Every other path is *dominated* by a path at the top if all ways to it lead through that path;
/// otherwise it stands at the top as well. Each path at the top makes a layer with the paths that
/// it dominates. A layer's rating is the popularity of its top times the closure sizes of its
/// members. The layers with the lowest ratings are merged until the number fits, and layers are
/// listed by rating, highest first.
///
/// Source: Nixery, `layers/layers.go`. Popularity takes an evaluation of all of nixpkgs; without
/// it, every path counts 1, as in Nixery.
pub(super) fn layers(
    graph: &Graph,
    budget: LayerBudget,
    popularity: &Popularity,
) -> Vec<Vec<PathIdx>> {
    let sizes: PerPath<_> = graph.paths().map(|path| u128::from(graph.size(path))).collect();
    let closure_sizes = sums::over_references(graph, &sizes);
    let popularity = |path: PathIdx| {
        let name = graph.name(path);
        let everywhere = EVERYWHERE.iter().find(|(prefix, _)| name.starts_with(prefix));
        everywhere.map(|(_, count)| *count).or(popularity.count(name)).unwrap_or(1)
    };
    let stands_out = |path: PathIdx| closure_sizes[path] > LARGE || popularity(path) >= POPULAR;

    let mut layers: Vec<_> = subtrees(graph, stands_out)
        .into_iter()
        .map(|(top, members)| {
            let size = members.iter().map(|path| closure_sizes[*path]);
            let size = size.fold(0, u128::saturating_add);
            (size.saturating_mul(u128::from(popularity(top))), members)
        })
        .collect();
    layers.sort_by_key(|(rating, _)| *rating); // stable: then by the top's name
    let excess = layers.len().saturating_sub(budget.get());
    if excess > 0 {
        let merged: Vec<_> = layers.drain(..=excess).collect();
        let rating = merged.iter().map(|(rating, _)| *rating).fold(0, u128::saturating_add);
        layers.push((rating, merged.into_iter().flat_map(|(_, members)| members).collect()));
    }
    layers.sort_by_key(|(rating, _)| Reverse(*rating));
    layers.into_iter().map(|(_, members)| members).collect()
}

/// Returns the subtrees right below the root of the dominator tree, by the path at the top of each.
///
/// One walk is enough in a graph without cycles: a path is in the subtree that has all of its
/// referrers, and begins a new subtree if its referrers are in several.
fn subtrees(
    graph: &Graph,
    stands_out: impl Fn(PathIdx) -> bool,
) -> BTreeMap<PathIdx, Vec<PathIdx>> {
    let mut top: PerPath<_> = graph.paths().collect();
    let mut subtrees = BTreeMap::<_, Vec<_>>::new();
    for path in graph.topological().iter().rev() {
        let mut tops = graph.referrers(*path).map(|referrer| top[referrer]);
        let shared = tops.next().filter(|first| tops.all(|other| other == *first));
        top[*path] = shared.filter(|_| !stands_out(*path)).unwrap_or(*path);
        subtrees.entry(top[*path]).or_default().push(*path);
    }
    subtrees
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::plan::tests::named;

    /// Checks the example of Nixery's own documentation, in which E is popular and G is large.
    #[test]
    fn layers_are_as_documented() {
        let closure = named(&[
            ("A", 1, &["E"]),
            ("B", 2, &["E"]),
            ("C", 3, &["D", "E"]),
            ("D", 4, &["F", "G"]),
            ("E", 50, &[]),
            ("F", 6, &[]),
            ("G", 200_000_000, &[]),
            ("img", 0, &["A", "B", "C", "D"]),
        ]);
        let graph = Graph::new(&closure);
        let popularity = Popularity::from_iter([("E", 1_000_000_000)]);
        let plan = |budget| -> Vec<Vec<_>> {
            let mut layers = layers(&graph, LayerBudget::new(budget).unwrap(), &popularity);
            layers.iter_mut().for_each(|layer| layer.sort_unstable());
            let names = |layer: Vec<PathIdx>| layer.into_iter().map(|path| graph.name(path));
            layers.into_iter().map(|layer| names(layer).collect()).collect()
        };
        // G and all paths above it are large; A and B are small, and only the image has them.
        assert_eq!(
            plan(10),
            [vec!["E"], vec!["A", "B", "img"], vec!["C"], vec!["D", "F"], vec!["G"]]
        );
        // E rates highest by far; all others count 1 and are merged.
        assert_eq!(plan(2), [vec!["E"], vec!["A", "B", "C", "D", "F", "G", "img"]]);
        assert_eq!(plan(1).len(), 1);
    }
}
