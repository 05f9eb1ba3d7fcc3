//! Puts the largest paths into layers of their own, and the rest together.
//! Stage: layer (pure). Input: [`Graph`] and a budget. Output: layers.

use super::budget::LayerBudget;
use super::graph::Graph;
use super::path_idx::PathIdx;

/// Gives the largest paths a layer each; the others share the last layer.
///
/// # Algorithm
/// The budget's N−1 largest paths by NAR size get a layer each, and the others share one. A client
/// keys a layer by all layers below it, and a path that changes also changes its referrers. So
/// layers are listed from the bottom up by the length of their paths' chains of references, and the
/// shared layer, in which anything may change, lies on top.
pub(super) fn layers(graph: &Graph, budget: LayerBudget) -> Vec<Vec<PathIdx>> {
    let depths = graph.depths();
    let mut paths = graph.by_size();
    // If every path fits, no layer is shared.
    let alone = if paths.len() <= budget.get() { paths.len() } else { budget.get() - 1 };
    let rest = paths.split_off(alone);
    paths.sort_by_key(|path| depths[*path]); // stable: then still by size and name
    paths.into_iter().map(|path| vec![path]).chain([rest]).collect()
}
