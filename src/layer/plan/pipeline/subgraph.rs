//! A part of a closure's graph, as a pipeline's steps cut it.
//! Stage: layer (pure). Vocabulary of the pipeline.

use std::collections::{BTreeMap, BTreeSet};

use super::super::graph::Graph;
use super::super::path_idx::PathIdx;
use crate::store::StorePath;

/// A part of a graph: paths, with some of the references between them.
#[derive(Clone, Debug, Default)]
pub(super) struct Subgraph {
    /// The paths, the smallest first unless a step has sorted them.
    pub paths: Vec<PathIdx>,
    /// The references of the paths that refer to others of this subgraph.
    references: BTreeMap<PathIdx, Vec<PathIdx>>,
}

impl Subgraph {
    /// Returns the whole graph.
    pub fn whole(graph: &Graph) -> Self {
        let mut paths: Vec<_> = graph.paths().collect();
        paths.sort_by_key(|path| graph.size(*path)); // stable: then by name
        let references = graph.paths().map(|path| (path, graph.references(path).collect()));
        Self { paths, references: references.collect() }
    }

    /// Returns a single path.
    pub fn single(path: PathIdx) -> Self {
        Self { paths: vec![path], references: BTreeMap::new() }
    }

    /// Returns the given store paths that are in this subgraph.
    pub fn find(&self, graph: &Graph, wanted: &[StorePath]) -> Vec<PathIdx> {
        let is_wanted = |path: &PathIdx| wanted.contains(&graph.info(*path).path);
        self.paths.iter().copied().filter(is_wanted).collect()
    }

    /// Returns the other paths that a path refers to in this subgraph.
    pub fn references(&self, path: PathIdx) -> &[PathIdx] {
        self.references.get(&path).map_or(&[], Vec::as_slice)
    }

    /// Returns the other paths that refer to a path in this subgraph.
    pub fn referrers(&self) -> BTreeMap<PathIdx, Vec<PathIdx>> {
        let mut referrers = BTreeMap::<_, Vec<_>>::new();
        for (path, references) in &self.references {
            for reference in references {
                referrers.entry(*reference).or_default().push(*path);
            }
        }
        referrers
    }

    /// Returns the given paths and all that they refer to, directly or not.
    pub fn below(&self, paths: &[PathIdx]) -> BTreeSet<PathIdx> {
        reached(paths, |path| self.references(path))
    }

    /// Returns the given paths and all that refer to them, directly or not.
    pub fn above(&self, paths: &[PathIdx]) -> BTreeSet<PathIdx> {
        let referrers = self.referrers();
        reached(paths, |path| referrers.get(&path).map_or(&[], Vec::as_slice))
    }

    /// Returns some of the paths, and the references between them.
    pub fn pick(&self, paths: Vec<PathIdx>) -> Self {
        let picked: BTreeSet<_> = paths.iter().copied().collect();
        let references = |path: &PathIdx| {
            let among = self.references(*path).iter().filter(|path| picked.contains(path));
            (*path, among.copied().collect())
        };
        Self { references: paths.iter().map(references).collect(), paths }
    }

    /// Returns the paths for which `keep` is true, and the references between them.
    pub fn only(&self, keep: impl Fn(PathIdx) -> bool) -> Self {
        self.pick(self.paths.iter().copied().filter(|path| keep(*path)).collect())
    }

    /// Returns the same paths without the references to `targets`.
    pub fn without_references_to(&self, targets: &BTreeSet<PathIdx>) -> Self {
        let mut rest = self.clone();
        rest.references.values_mut().for_each(|paths| paths.retain(|path| !targets.contains(path)));
        rest
    }

    /// Returns both subgraphs side by side. References between the two stay removed.
    pub fn merge(mut self, other: Self) -> Self {
        self.paths.extend(other.paths);
        self.references.extend(other.references);
        self
    }
}

fn reached<'g>(from: &[PathIdx], next: impl Fn(PathIdx) -> &'g [PathIdx]) -> BTreeSet<PathIdx> {
    let mut open = from.to_vec();
    let mut reached = BTreeSet::new();
    while let Some(path) = open.pop() {
        if reached.insert(path) {
            open.extend_from_slice(next(path));
        }
    }
    reached
}
