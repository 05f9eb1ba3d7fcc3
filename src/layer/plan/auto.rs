//! Splits off the largest paths, each with the paths that only it needs.
//! Stage: layer (pure). Input: [`Graph`] and a budget. Output: layers.

use std::collections::BTreeMap;

use super::budget::LayerBudget;
use super::graph::Graph;
use super::path_idx::{PathIdx, PerPath};

/// Groups paths as nixpkgs does by default since 24.11 (`dockerAutoLayer`).
///
/// # Algorithm
/// The largest path is split off, then the next, and so on while the layers fit. Each takes along
/// the paths that it refers to, unless a path that does not reach it needs them too. Paths that
/// several of the chosen paths need make a layer for each set of these.
///
/// So each path has a set of chosen paths, its *users*, and paths with the same set
/// share a layer. Layers are listed by the size of their closure, smallest first.
///
/// Source: nixpkgs, `pkgs/build-support/docker/auto-layer.py`. Where that breaks ties by
/// the order of the store's hashes, here it is by name.
pub(super) fn layers(graph: &Graph, budget: LayerBudget) -> Vec<Vec<PathIdx>> {
    // One bit for each chosen path. These are fewer than 128: each has a layer of its own.
    let mut users = graph.per_path(0_u128);
    let mut chosen = Vec::new();
    for path in graph.by_size() {
        let bit = 1 << chosen.len();
        chosen.push(path);
        let next = split_off(graph, &users, &chosen, bit);
        if by_users(&next).len() > budget.get() {
            break;
        }
        users = next;
    }
    let mut layers: Vec<_> = by_users(&users).into_values().collect();
    layers.sort_by_cached_key(|layer| {
        let size = |path: &PathIdx| u128::from(graph.size(*path));
        let below = reached(graph, layer, |path| graph.references(path));
        let closure = graph.paths().filter(|path| below[*path]).map(|path| size(&path));
        (closure.sum::<u128>(), layer[0])
    });
    layers
}

/// Returns the users of each path once the last of `chosen` is split off as well.
fn split_off(graph: &Graph, users: &PerPath<u128>, chosen: &[PathIdx], bit: u128) -> PerPath<u128> {
    let Some(path) = chosen.last() else { return users.clone() };
    let below = reached(graph, &[*path], |path| graph.references(path));
    let above = reached(graph, &[*path], |path| graph.referrers(path));
    let bits = |set: &PerPath<bool>| -> u128 {
        let of_chosen = chosen.iter().enumerate().filter(|(_, other)| *other != path);
        of_chosen.filter(|(_, other)| set[**other]).map(|(place, _)| 1 << place).sum()
    };
    let [chosen_below, chosen_above] = [bits(&below), bits(&above)];
    let mut next = users.clone();
    next[*path] = bit;
    for reference in graph.paths().filter(|other| below[*other] && other != path) {
        // The users of a path are the chosen paths nearest above it: a path that needs it only
        // through the new one is replaced by the new one.
        next[reference] &= !chosen_above;
        if next[reference] & chosen_below == 0 {
            next[reference] |= bit;
        }
    }
    next
}

/// Returns the paths of each layer, by name.
fn by_users(users: &PerPath<u128>) -> BTreeMap<u128, Vec<PathIdx>> {
    let mut layers = BTreeMap::<_, Vec<_>>::new();
    for (path, users) in users.iter() {
        layers.entry(*users).or_default().push(path);
    }
    layers
}

/// Returns, for each path, whether it is one of `from` or can be reached from one.
fn reached<N: Iterator<Item = PathIdx>>(
    graph: &Graph,
    from: &[PathIdx],
    next: impl Fn(PathIdx) -> N,
) -> PerPath<bool> {
    let mut open = from.to_vec();
    let mut reached = graph.per_path(false);
    while let Some(path) = open.pop() {
        if !std::mem::replace(&mut reached[path], true) {
            open.extend(next(path));
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::plan::tests::named;

    #[test]
    fn what_only_one_needs_goes_with_it_and_the_common_apart() {
        let closure = named(&[
            ("app", 90, &["common", "own"]),
            ("common", 3, &[]),
            ("env", 1, &["app", "tool"]),
            ("own", 2, &["common"]),
            ("tool", 80, &["common"]),
        ]);
        let graph = Graph::new(&closure);
        let plan = |budget| -> Vec<Vec<_>> {
            let layers = layers(&graph, LayerBudget::new(budget).unwrap());
            let names = |layer: Vec<PathIdx>| layer.into_iter().map(|path| graph.name(path));
            layers.into_iter().map(|layer| names(layer).collect()).collect()
        };
        assert_eq!(plan(1), [vec!["app", "common", "env", "own", "tool"]]);
        // The tool does not fit: it would need two layers, one for itself and one for what both
        // need.
        assert_eq!(plan(3), [vec!["app", "common", "own"], vec!["env", "tool"]]);
        assert_eq!(plan(4), [vec!["common"], vec!["tool"], vec!["app", "own"], vec!["env"]]);
        assert_eq!(plan(5), [vec!["common"], vec!["own"], vec!["tool"], vec!["app"], vec!["env"]]);
    }
}
