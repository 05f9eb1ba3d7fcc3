//! A closure as planners see it.
//! Stage: layer (pure). Input: [`Closure`]. Output: [`Graph`].

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeSet;

use super::path_idx::{PathIdx, PerPath};
use crate::closure::{Closure, ClosureMember, Rows};
use crate::store::StorePath;

/// The paths of a closure and their references. Paths are numbered in the order of their names.
///
/// Every tie in a plan is broken by these numbers: by name, and never by the hash of a store path,
/// which changes with every rebuild. Two paths of the same name are ordered by size, then by
/// contents, and by hash only if these are equal too.
#[derive(Clone, Debug)]
pub(super) struct Graph<'c> {
    infos: PerPath<&'c ClosureMember>,
    references: Rows,
    /// The referrers of each path. They are computed on demand, since not every layering needs
    /// them.
    referrers: OnceCell<Rows>,
    topological: Vec<PathIdx>,
    /// Paths whose files are copied to `/`, or only linked from there.
    copies: Option<&'c BTreeSet<StorePath>>,
}

/// A graph of some paths of another one, the *whole* graph. A path has another number in each of the
/// two: numbers of the part become numbers of the whole graph only here.
#[derive(Debug)]
pub(super) struct GraphPart<'w, 'c> {
    /// The part as a graph of its own.
    pub graph: Cow<'w, Graph<'c>>,
    /// The number in the whole graph, for each path of the part.
    in_whole: PerPath<PathIdx>,
}

impl GraphPart<'_, '_> {
    /// Returns the number that a path of the part has in the whole graph.
    pub fn in_whole(&self, path: PathIdx) -> PathIdx {
        self.in_whole[path]
    }

    /// Converts layers of the part: each path gets its number in the whole graph.
    pub fn layers_in_whole(&self, layers: Vec<Vec<PathIdx>>) -> impl Iterator<Item = Vec<PathIdx>> {
        layers.into_iter().map(|layer| layer.into_iter().map(|path| self.in_whole(path)).collect())
    }
}

impl<'c> Graph<'c> {
    pub fn new(closure: &'c Closure) -> Self {
        let graph = closure.graph();
        let mut order = graph.topological().to_vec();
        order.sort_by(|a, b| {
            let key = |info: &'c ClosureMember| {
                (info.path.name(), info.nar_size, info.nar_hash, &info.path)
            };
            key(closure.info(*a)).cmp(&key(closure.info(*b)))
        });
        let mut number = vec![PathIdx::new(0); order.len()];
        for (path, node) in order.iter().enumerate() {
            number[node.index()] = PathIdx::new(path);
        }
        let mut references = Rows::default();
        for node in &order {
            references.push(indices(graph.references(*node).map(|node| number[node.index()])));
            references.sort_last();
        }
        Self::of(
            order.iter().map(|node| closure.info(*node)).collect(),
            references,
            graph.topological().iter().map(|node| number[node.index()]).collect(),
        )
    }

    fn of(infos: PerPath<&'c ClosureMember>, references: Rows, topological: Vec<PathIdx>) -> Self {
        Self { infos, references, referrers: OnceCell::new(), topological, copies: None }
    }

    /// Marks the paths whose files are copied to `/`, or only linked from there.
    pub fn with_copies(self, copies: &'c BTreeSet<StorePath>) -> Self {
        Self { copies: Some(copies), ..self }
    }

    /// Returns whether the files of a path are copied to `/`, or only linked from there.
    pub fn is_copied(&self, path: PathIdx) -> bool {
        self.copies.is_some_and(|copies| copies.contains(&self.infos[path].path))
    }

    /// Returns the part that is left without some paths.
    ///
    /// A reference through a removed path becomes a direct one, so that reachability is unchanged.
    pub fn without(&self, paths: &[PathIdx]) -> GraphPart<'_, 'c> {
        if paths.is_empty() {
            let in_whole = self.paths().collect();
            return GraphPart { graph: Cow::Borrowed(self), in_whole };
        }
        let mut is_kept = self.per_path(true);
        for path in paths {
            is_kept[*path] = false;
        }
        let kept: PerPath<_> = self.paths().filter(|path| is_kept[*path]).collect();
        // The numbers of the kept paths in the part.
        let mut number = self.per_path(None);
        for (new, old) in kept.iter() {
            number[*old] = Some(new);
        }
        let mut references = self.per_path(Vec::new());
        for path in &self.topological {
            let mut through = Vec::new();
            for reference in self.references(*path) {
                match number[reference] {
                    None => through.extend_from_slice(&references[reference]),
                    Some(kept) => through.push(kept),
                }
            }
            through.sort_unstable();
            through.dedup();
            references[*path] = through;
        }
        let graph = Self::of(
            kept.iter().map(|(_, old)| self.infos[*old]).collect(),
            kept.iter().map(|(_, old)| indices(std::mem::take(&mut references[*old]))).collect(),
            self.topological.iter().filter_map(|old| number[*old]).collect(),
        );
        let graph = Cow::Owned(Self { copies: self.copies, ..graph });
        GraphPart { graph, in_whole: kept }
    }

    /// Returns the part of some paths with some of their references, which lead to no other path.
    pub fn part<'p>(
        &self,
        paths: &[PathIdx],
        references: impl Fn(PathIdx) -> &'p [PathIdx],
    ) -> GraphPart<'_, 'c> {
        let mut kept = paths.to_vec();
        kept.sort_unstable();
        let number = |old: &PathIdx| kept.binary_search(old).ok().map(PathIdx::new);
        let renumbered = |old: &PathIdx| indices(references(*old).iter().filter_map(number));
        let graph = Self::of(
            kept.iter().map(|old| self.infos[*old]).collect(),
            kept.iter().map(renumbered).collect(),
            self.topological.iter().filter_map(number).collect(),
        );
        let graph = Cow::Owned(Self { copies: self.copies, ..graph });
        GraphPart { graph, in_whole: kept.into_iter().collect() }
    }

    /// Returns the same value for each path.
    pub fn per_path<T: Clone>(&self, value: T) -> PerPath<T> {
        PerPath::filled(value, self.len())
    }

    pub fn len(&self) -> usize {
        self.infos.len()
    }

    /// Returns every path, in the order of names.
    pub fn paths(&self) -> impl DoubleEndedIterator<Item = PathIdx> + Clone + use<> {
        (0..self.len()).map(PathIdx::new)
    }

    pub fn info(&self, path: PathIdx) -> &'c ClosureMember {
        self.infos[path]
    }

    /// Returns the name of a path without the hash.
    pub fn name(&self, path: PathIdx) -> &'c str {
        self.infos[path].path.name()
    }

    /// Returns the number of bytes of a path's NAR serialisation.
    pub fn size(&self, path: PathIdx) -> u64 {
        self.infos[path].nar_size
    }

    /// Returns the other paths that a path refers to, by name.
    pub fn references(
        &self,
        path: PathIdx,
    ) -> impl ExactSizeIterator<Item = PathIdx> + Clone + use<'_> {
        self.references.of(path.index()).map(PathIdx::new)
    }

    /// Returns the other paths that refer to a path, by name.
    pub fn referrers(
        &self,
        path: PathIdx,
    ) -> impl ExactSizeIterator<Item = PathIdx> + Clone + use<'_> {
        self.referrers.get_or_init(|| self.references.reversed()).of(path.index()).map(PathIdx::new)
    }

    /// Returns, for each path, the number of other paths that refer to it.
    pub fn referrer_counts(&self) -> PerPath<u32> {
        self.references.counts().into_iter().collect()
    }

    /// Returns every path, each after the paths that it refers to.
    pub fn topological(&self) -> &[PathIdx] {
        &self.topological
    }

    /// Returns the paths that nothing refers to, by name.
    pub fn roots(&self) -> impl Iterator<Item = PathIdx> + use<> {
        let counts = self.referrer_counts();
        self.paths().filter(move |path| counts[*path] == 0)
    }

    /// Returns, for each path, the number of references in the longest chain below it.
    pub fn depths(&self) -> PerPath<usize> {
        let mut depths = self.per_path(0);
        for path in &self.topological {
            let below = self.references(*path).map(|reference| depths[reference] + 1);
            depths[*path] = below.max().unwrap_or(0);
        }
        depths
    }

    /// Returns every path, largest first.
    pub fn by_size(&self) -> Vec<PathIdx> {
        let mut paths: Vec<_> = self.paths().collect();
        paths.sort_by_key(|path| std::cmp::Reverse(self.size(*path))); // stable: then by name
        paths
    }
}

/// Returns the numbers of paths as [`Rows`] takes them.
fn indices(paths: impl IntoIterator<Item = PathIdx>) -> impl Iterator<Item = usize> {
    paths.into_iter().map(PathIdx::index)
}
