//! Computes sums over all paths that a path refers to, or over all that refer to it.
//! Stage: layer (pure). Input: [`Graph`] and weights. Output: a sum for each path.

use super::graph::Graph;
use super::path_idx::{PathIdx, PerPath};
use crate::closure::Rows;

/// Returns, for each path, the sum of the weights of the path and of all that it refers to,
/// directly or not, each counted once.
pub(super) fn over_references(graph: &Graph, weights: &PerPath<u128>) -> PerPath<u128> {
    sums(graph.topological().to_vec(), |path| graph.references(path), weights)
}

/// Returns, for each path, the sum of the weights of the path and of all that refer to it, directly
/// or not, each counted once.
pub(super) fn over_referrers(graph: &Graph, weights: &PerPath<u128>) -> PerPath<u128> {
    let order = graph.topological().iter().rev().copied().collect();
    sums(order, |path| graph.referrers(path), weights)
}

/// The number of paths that one pass handles, one bit for each.
const BLOCK: usize = 64;

/// Computes reachability for one block of paths at a time, so that a graph of 100,000 paths needs
/// no matrix of 10^10 bits. `order` has each path after its `next`, so that the paths before a
/// block reach nothing in it.
fn sums<N: Iterator<Item = PathIdx>>(
    order: Vec<PathIdx>,
    next: impl Fn(PathIdx) -> N,
    weights: &PerPath<u128>,
) -> PerPath<u128> {
    let mut place = PerPath::filled(0, order.len());
    order.iter().zip(0..).for_each(|(path, at)| place[*path] = at);
    let next: Rows = order.iter().map(|path| next(*path).map(|next| place[next])).collect();
    let mut sums = vec![0_u128; order.len()];
    let mut reached = vec![0_u64; order.len()];
    for start in (0..order.len()).step_by(BLOCK) {
        let block = &order[start..order.len().min(start + BLOCK)];
        let by_byte = tables(&block.iter().map(|path| weights[*path]).collect::<Vec<_>>());
        for at in start..order.len() {
            let own = if at < start + BLOCK { 1 << (at - start) } else { 0 };
            let below = next.of(at).filter(|next| *next >= start);
            let bits = below.fold(own, |bits, next| bits | reached[next]);
            reached[at] = bits;
            if bits != 0 {
                let bytes = bits.to_le_bytes();
                let weights = by_byte.iter().zip(bytes).map(|(sums, byte)| sums[usize::from(byte)]);
                sums[at] = weights.fold(sums[at], u128::saturating_add);
            }
        }
    }
    place.into_values().into_iter().map(|at| sums[at]).collect()
}

/// Returns, for each eight weights, the sum of each subset, indexed by the bits of its members.
fn tables(weights: &[u128]) -> Vec<[u128; 256]> {
    let table = |weights: &[u128]| {
        let mut sums = [0; 256];
        for (bit, weight) in weights.iter().enumerate() {
            for subset in 0..1 << bit {
                sums[1 << bit | subset] = u128::saturating_add(sums[subset], *weight);
            }
        }
        sums
    };
    weights.chunks(8).map(table).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::closure::Closure;
    use crate::layer::plan::tests::{closure, shapes};

    fn reached<N: Iterator<Item = PathIdx>>(
        path: PathIdx,
        next: &impl Fn(PathIdx) -> N,
    ) -> BTreeSet<PathIdx> {
        let below = next(path).flat_map(|next_path| reached(next_path, next));
        below.chain([path]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn sums_are_those_of_sets(shape in shapes().prop_filter("small", |shape| shape.len() < 14)) {
            let closure = Closure::new(closure(&shape, 0)).unwrap();
            let graph = Graph::new(&closure);
            let bit = |path: PathIdx| 1_u128 << path.index();
            let weights: PerPath<_> = graph.paths().map(bit).collect();
            let [below, above] =
                [over_references(&graph, &weights), over_referrers(&graph, &weights)];
            for path in graph.paths() {
                let bits = |set: BTreeSet<_>| set.into_iter().map(bit).sum::<u128>();
                prop_assert_eq!(below[path], bits(reached(path, &|path| graph.references(path))));
                prop_assert_eq!(above[path], bits(reached(path, &|path| graph.referrers(path))));
            }
        }
    }

    #[test]
    fn there_may_be_more_than_64_paths() {
        let shape: Vec<_> = (0..60).map(|_| (0, 1, vec![true; 60])).collect();
        let mut infos = closure(&shape, 0);
        infos.extend(closure(&shape, 1));
        let closure = Closure::new(infos).unwrap();
        let graph = Graph::new(&closure);
        let mut sums = over_references(&graph, &graph.per_path(1)).into_values();
        sums.sort_unstable();
        assert_eq!(sums, (1..=60).flat_map(|sum| [sum, sum]).collect::<Vec<_>>());
    }
}
