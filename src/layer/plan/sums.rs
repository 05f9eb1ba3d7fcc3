//! Sums over all that a path refers to, or all that refers to it.
//! Stage: layer (pure). Input: [`Graph`] and weights. Output: a sum for each path.

use super::graph::Graph;

/// For each path the weights of the path itself and of all that it refers to, directly
/// or not, each once.
pub(super) fn over_references(graph: &Graph, weights: &[u128]) -> Vec<u128> {
    sums(graph.topological().iter(), |path| graph.references(path), weights)
}

/// For each path the weights of the path itself and of all that refer to it, directly
/// or not, each once.
pub(super) fn over_referrers(graph: &Graph, weights: &[u128]) -> Vec<u128> {
    sums(graph.topological().iter().rev(), |path| graph.referrers(path), weights)
}

/// Who is reached by whom is found for 64 paths at a time, one bit each: a graph of
/// 100,000 paths takes no matrix of 10^10 bits. `order` has each path after its `next`.
fn sums<'g>(
    order: impl Iterator<Item = &'g usize> + Clone,
    next: impl Fn(usize) -> &'g [usize],
    weights: &[u128],
) -> Vec<u128> {
    let mut sums = vec![0_u128; weights.len()];
    let mut reached = vec![0_u64; weights.len()];
    for (block, weights) in weights.chunks(64).enumerate() {
        for path in order.clone() {
            let own = if path / 64 == block { 1 << (path % 64) } else { 0 };
            let mut bits = next(*path).iter().fold(own, |bits, next| bits | reached[*next]);
            reached[*path] = bits;
            while bits != 0 {
                let weight = weights[bits.trailing_zeros() as usize];
                sums[*path] = sums[*path].saturating_add(weight);
                bits &= bits - 1;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::closure::Closure;
    use crate::layer::plan::tests::{closure, shapes};

    fn reached<'g>(path: usize, next: &impl Fn(usize) -> &'g [usize]) -> BTreeSet<usize> {
        let below = next(path).iter().flat_map(|next_path| reached(*next_path, next));
        below.chain([path]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn sums_are_those_of_sets(shape in shapes().prop_filter("small", |shape| shape.len() < 14)) {
            let closure = Closure::new(closure(&shape, 0)).unwrap();
            let graph = Graph::new(&closure);
            let weights: Vec<u128> = graph.paths().map(|path| 1 << path).collect();
            let [below, above] =
                [over_references(&graph, &weights), over_referrers(&graph, &weights)];
            for path in graph.paths() {
                let bits = |set: BTreeSet<usize>| set.into_iter().map(|path| 1 << path).sum::<u128>();
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
        let mut sums = over_references(&graph, &[1; 120]);
        sums.sort_unstable();
        assert_eq!(sums, (1..=60).flat_map(|sum| [sum, sum]).collect::<Vec<_>>());
    }
}
