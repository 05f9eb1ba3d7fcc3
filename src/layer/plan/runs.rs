//! Plans layers for the next update: paths that change together share a layer.
//! Stage: layer (pure). Input: [`Graph`] and a budget. Output: layers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::budget::LayerBudget;
use super::graph::Graph;
use super::heat::{Group, Heat, LayerWeight, coolest_first};
use super::path_idx::{PathIdx, PerPath};

/// The number of bytes below which a layer of its own saves nothing: a request costs as much.
pub(super) const SMALL: u64 = 64 << 10;

/// Gives the largest paths a layer each, and cuts the others into runs.
///
/// # Algorithm
/// Large paths get layers of their own, so that images share them, and they are never sent because
/// of a neighbour. The others are listed in the order of a depth-first walk, each after the paths
/// that only it needs; so paths that change together are neighbours. This list is cut into runs:
/// beginning with single paths, the two neighbours whose union costs the fewest expected bytes
/// ([`Heat`]) are joined, again and again until the layers fit. Layers that could save only a few
/// KiB are joined as well.
///
/// With V paths and E references: O((V + E) · V / 64 + V log V) operations, and above
/// 20,000 paths, by sketches, O((V + E) log V).
pub(super) fn layers(graph: &Graph, budget: LayerBudget) -> Vec<Vec<PathIdx>> {
    let (heat, weights) = Heat::new(graph);
    layers_by(graph, budget, &heat, weights)
}

fn layers_by(
    graph: &Graph,
    budget: LayerBudget,
    heat: &Heat,
    weights: PerPath<LayerWeight>,
) -> Vec<Vec<PathIdx>> {
    let alone = alone(graph, budget);
    let mut is_alone = graph.per_path(false);
    for path in &alone {
        is_alone[*path] = true;
    }
    let mut rest = depth_first(graph);
    rest.retain(|path| !is_alone[*path]);
    let single = |path: &PathIdx| Group { members: vec![*path], weight: weights[*path].clone() };
    let mut groups: Vec<_> = alone.iter().map(single).collect();
    groups.extend(runs(heat, Line::new(rest, weights), (budget.get() - alone.len()).max(1)));
    coolest_first(groups)
}

/// Returns the largest paths, each of which gets a layer of its own. A few layers are left for the
/// other paths, and small paths never get one.
fn alone(graph: &Graph, budget: LayerBudget) -> Vec<PathIdx> {
    let layers = budget.get();
    let mut paths = graph.by_size();
    paths.truncate(layers - for_runs(layers));
    paths.retain(|path| graph.size(*path) >= SMALL);
    paths
}

/// Returns how many of `layers` layers are for runs of small paths.
pub(super) fn for_runs(layers: usize) -> usize {
    if layers <= 2 { 1 } else { (4 + layers / 8).clamp(2, layers - 1) }
}

/// Returns every path, each after all that it refers to. Among several paths, the one with the
/// longest chain below it comes first, followed by its whole subtree: paths with many referrers are
/// found early, and paths with one referrer right before it.
fn depth_first(graph: &Graph) -> Vec<PathIdx> {
    let depths = graph.depths();
    let by_depth = |mut paths: Vec<PathIdx>| {
        paths.sort_by_key(|path| Reverse(depths[*path])); // stable: then by name
        paths.into_iter()
    };
    let mut seen = graph.per_path(false);
    let mut order = Vec::with_capacity(graph.len());
    // An explicit stack: chains of references may be longer than a thread's stack.
    let mut open: Vec<(Option<PathIdx>, _)> = vec![(None, by_depth(graph.roots().collect()))];
    while let Some((path, below)) = open.last_mut() {
        if let Some(next) = below.next() {
            if !std::mem::replace(&mut seen[next], true) {
                open.push((Some(next), by_depth(graph.references(next).collect())));
            }
        } else {
            order.extend(*path);
            open.pop();
        }
    }
    order
}

/// Joins neighbours, cheapest first, until at most `count` groups are left and no further join is
/// nearly free.
fn runs(heat: &Heat, mut line: Line, count: usize) -> Vec<Group> {
    let nearly_free = u128::from(SMALL) * u128::from(heat.of_all());
    let mut left = line.paths.len();
    // The queue may hold twice as many pairs as there are. From time to time, outdated pairs are
    // removed, before it grows further.
    let mut queue = BinaryHeap::with_capacity(left + left / 4 + 64);
    queue.extend((1..left).filter_map(|place| line.pair(heat, place - 1, place)));
    while let Some(Reverse(pair)) = queue.pop() {
        if !line.is_current(&pair) {
            continue;
        }
        if left <= count && pair.cost >= nearly_free {
            break;
        }
        line.join(heat, &pair);
        left -= 1;
        if queue.len() + 2 > queue.capacity() {
            queue.retain(|Reverse(pair)| line.is_current(pair));
        }
        let place = pair.first as usize;
        queue.extend(line.next(place).and_then(|next| line.pair(heat, place, next)));
        queue.extend(line.previous(place).and_then(|before| line.pair(heat, before, place)));
    }
    line.into_groups()
}

/// A pair of neighbouring runs with the cost of joining them. Pairs are ordered by the cost, then
/// by the place in the list.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    cost: u128,
    first: u32,
    second: u32,
    /// The number of times that each of the two runs had been joined when the cost was computed. A
    /// higher number now means that the cost is out of date.
    joined: (u32, u32),
}

/// A list of paths that is cut into runs. Joining two neighbours makes one run of both.
#[derive(Debug)]
struct Line {
    paths: Vec<PathIdx>,
    /// True for each place of the list where a run begins.
    begins: Vec<bool>,
    /// The weight of each run, at the index of the path that begins it. The weights of other paths
    /// are not defined: an `Option` would be larger and double the memory.
    weights: PerPath<LayerWeight>,
    joined: Vec<u32>,
    /// The place where the run before begins, plus one, for each run. 0 means that there is none.
    before: Vec<u32>,
    /// The place where each run ends and the next one begins.
    after: Vec<u32>,
}

impl Line {
    /// Begins with a run for each path. `weights` has the weights of all paths.
    fn new(paths: Vec<PathIdx>, weights: PerPath<LayerWeight>) -> Self {
        let end = u32::try_from(paths.len()).expect("a closure has fewer than 2^32 paths");
        Self {
            joined: vec![0; paths.len()],
            before: (0..end).collect(),
            after: (1..=end).collect(),
            begins: vec![true; paths.len()],
            paths,
            weights,
        }
    }

    fn weight(&self, place: usize) -> Option<&LayerWeight> {
        self.begins[place].then(|| &self.weights[self.paths[place]])
    }

    fn next(&self, place: usize) -> Option<usize> {
        Some(self.after[place] as usize).filter(|next| *next < self.paths.len())
    }

    fn previous(&self, place: usize) -> Option<usize> {
        self.before[place].checked_sub(1).map(|before| before as usize)
    }

    fn pair(&self, heat: &Heat, first: usize, second: usize) -> Option<Reverse<Pair>> {
        let cost = self.weight(first)?.cost_of_joining(heat, self.weight(second)?);
        let joined = (self.joined[first], self.joined[second]);
        // Each number is a place in a line, whose length `Line::new` has checked.
        Some(Reverse(Pair { cost, first: first as u32, second: second as u32, joined }))
    }

    fn is_current(&self, pair: &Pair) -> bool {
        let [first, second] = [pair.first, pair.second].map(|place| place as usize);
        self.begins[first]
            && self.begins[second]
            && pair.joined == (self.joined[first], self.joined[second])
    }

    fn join(&mut self, heat: &Heat, pair: &Pair) {
        let [first, second] = [pair.first, pair.second].map(|place| place as usize);
        let joined = std::mem::take(&mut self.weights[self.paths[second]]);
        self.weights[self.paths[first]].join(heat, &joined);
        self.begins[second] = false;
        self.joined[first] += 1;
        self.after[first] = self.after[second];
        if let Some(next) = self.next(first) {
            self.before[next] = pair.first + 1;
        }
    }

    fn into_groups(self) -> Vec<Group> {
        let Self { paths, begins, mut weights, after, .. } = self;
        let runs = after.into_iter().map(|end| end as usize).enumerate();
        let group = |(start, end): (usize, usize)| {
            let weight = std::mem::take(&mut weights[paths[start]]);
            Group { members: paths[start..end].to_vec(), weight }
        };
        runs.filter(|(start, _)| begins[*start]).map(group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closure::Closure;
    use crate::layer::plan::tests::{closure, library_tool_app, shapes};
    use proptest::prelude::*;

    fn plan(closure: &Closure, budget: u64, exact: usize) -> Vec<Vec<PathIdx>> {
        let graph = Graph::new(closure);
        let (heat, weights) = Heat::with_exact_up_to(&graph, exact);
        layers_by(&graph, LayerBudget::new(budget).unwrap(), &heat, weights)
    }

    proptest! {
        /// Checks that a graph of fewer paths than a sketch keeps is counted exactly by both
        /// methods.
        #[test]
        fn sketches_plan_small_graphs_as_bitsets_do(shape in shapes(), budget in 1u64..=127) {
            let closure = Closure::new(closure(&shape, 0)).unwrap();
            prop_assert_eq!(plan(&closure, budget, usize::MAX), plan(&closure, budget, 0));
        }
    }

    #[test]
    fn what_is_written_down_stands_after_what_it_needs() {
        let closure = library_tool_app();
        let graph = Graph::new(&closure);
        let names: Vec<_> = depth_first(&graph).into_iter().map(|path| graph.name(path)).collect();
        assert_eq!(names, ["libc", "tool", "app", "conf", "data"]);
    }
}
