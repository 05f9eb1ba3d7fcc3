//! The largest paths alone, the rest together.
//! Stage: layer (pure). Input: [`Graph`] and a budget. Output: layers.

use super::budget::LayerBudget;
use super::graph::Graph;

/// Returns the largest paths get a layer each and the others share the last one.
///
/// # Algorithm
/// The budget's N−1 largest paths by NAR size, and the rest. A client keys a layer
/// by all those below it, and a path that changes takes its referrers along; so
/// paths are laid from the bottom up by the length of their chain of references,
/// and the rest, where anything may change, lies on top.
pub(super) fn layers(graph: &Graph, budget: LayerBudget) -> Vec<Vec<usize>> {
    let depths = graph.depths();
    let mut paths = graph.by_size();
    // Where every path fits, none has to share.
    let alone = if paths.len() <= budget.get() { paths.len() } else { budget.get() - 1 };
    let rest = paths.split_off(alone);
    paths.sort_by_key(|path| depths[*path]); // stable: then still by size and name
    paths.into_iter().map(|path| vec![path]).chain([rest]).collect()
}
