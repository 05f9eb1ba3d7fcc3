//! Puts the most referenced paths into layers of their own, and the rest together.
//! Stage: layer (pure). Input: [`Graph`] and a budget. Output: layers.

use std::cmp::Reverse;

use super::budget::LayerBudget;
use super::graph::Graph;
use super::path_idx::PathIdx;
use super::sums;

/// Gives the most popular paths a layer each, most popular first; the others share the last layer.
///
/// # Algorithm
/// Sorts by [`by_popularity`], and gives the first N−1 paths a layer each. This is what nixpkgs'
/// `dockerTools` did until 2024, and what a `layeringPipeline` of `popularity_contest` and
/// `limit_layers` still does. nix2container uses nearly the same method.
///
/// The application and all large paths that only it needs share the last layer, so that nearly
/// every update sends it: see `docs/layering.md`.
pub(super) fn layers(graph: &Graph, budget: LayerBudget) -> Vec<Vec<PathIdx>> {
    let mut paths = by_popularity(graph);
    let alone = if paths.len() <= budget.get() { paths.len() } else { budget.get() - 1 };
    let rest = paths.split_off(alone);
    paths.into_iter().map(|path| vec![path]).chain([rest]).collect()
}

/// Returns every path, most popular first; equally popular ones are in the order of names.
///
/// If the references were written out as a tree from each root, a path's popularity would be the
/// number of places in these trees from which it can be reached: the sum, over the path itself and
/// each path that reaches it, of the number of ways from the roots to that path.
///
/// Source: nixpkgs, `pkgs/build-support/references-by-popularity/closure-graph.py`. There, numbers
/// have no limit; here, counts stop at 2^128 − 1.
pub(super) fn by_popularity(graph: &Graph) -> Vec<PathIdx> {
    let mut ways = graph.per_path(0_u128);
    for path in graph.topological().iter().rev() {
        let through = graph.referrers(*path).map(|referrer| ways[referrer]);
        ways[*path] = through.fold(0, u128::saturating_add).max(1);
    }
    let popularity = sums::over_referrers(graph, &ways);
    let mut paths: Vec<_> = graph.paths().collect();
    paths.sort_by_key(|path| Reverse(popularity[*path])); // stable: then by name
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::plan::tests::named;

    /// Checks the example of nixpkgs' own documentation: A refers to B and G, B to C, C to D and E,
    /// B to E, D and E to F.
    #[test]
    fn popularity_is_as_documented() {
        let closure = named(&[
            ("A", 0, &["B", "G"]),
            ("B", 0, &["C", "E"]),
            ("C", 0, &["D", "E"]),
            ("D", 0, &["F"]),
            ("E", 0, &["F"]),
            ("F", 0, &[]),
            ("G", 0, &[]),
        ]);
        let graph = Graph::new(&closure);
        let order: Vec<_> =
            by_popularity(&graph).into_iter().map(|path| graph.name(path)).collect();
        assert_eq!(order, ["F", "E", "D", "C", "B", "G", "A"]);
    }
}
