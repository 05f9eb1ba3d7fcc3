//! Estimates how likely a layer is to change.
//! Stage: layer (pure). Input: [`Graph`]. Output: [`Heat`] and the [`PathReach`] of each path.

use std::cmp::Ordering;

use super::graph::Graph;
use super::path_idx::{PathIdx, PerPath};
use super::sketch::{Hashes, Sketch, hashes};

/// The paths whose change changes a given set of paths: the set and everything that it refers to,
/// directly or not. A store path's hash covers its references, so a change of any of these can
/// change the set.
#[derive(Clone, Debug)]
pub(super) enum PathReach {
    /// A set of bits, one for each path of the graph, in an order in which references come before
    /// their referrers. Trailing zeros are left out.
    Exact(Box<[u64]>),
    /// A sample, for graphs where bits for each path would be too many.
    Sketch(Sketch),
}

/// Counts the kinds of update that hit a layer: one for each path in the layer or below it. The
/// paths on top of the image, which nothing refers to, are the author's own and change with every
/// build: each counts half as much as all other paths together. A path that only one of these
/// refers to is often the author's own too (an application below its environment), and counts an
/// eighth.
#[derive(Debug)]
pub(super) struct Heat {
    paths: usize,
    /// The number of paths that nothing refers to.
    tops: usize,
    /// The number of paths with exactly one referrer, which is itself a path that nothing refers
    /// to.
    seconds: usize,
    /// The masks of these bits; empty if sketches are used.
    masks: Vec<(u64, u64)>,
    /// The hashes of the paths; empty if bits are used.
    hashes: Hashes,
}

/// The largest number of paths for which bitsets are used: up to here they are as fast as sketches,
/// and take at most 25 MB.
const EXACT: usize = 20_000;

impl Heat {
    /// Returns the measure for a graph, and the weight of each path as a layer.
    pub fn new(graph: &Graph) -> (Self, PerPath<LayerWeight>) {
        Self::with_exact_up_to(graph, EXACT)
    }

    pub fn with_exact_up_to(graph: &Graph, exact: usize) -> (Self, PerPath<LayerWeight>) {
        let referrers = graph.referrer_counts();
        // A path that is copied or linked to `/` has no referrer either, but seldom changes with every
        // build.
        let is_copy = |path: PathIdx| referrers[path] == 0 && graph.is_copied(path);
        let is_top = |path: PathIdx| referrers[path] == 0 && !graph.is_copied(path);
        let mut is_second: PerPath<_> = graph.paths().map(is_copy).collect();
        for reference in
            graph.paths().filter(|path| is_top(*path)).flat_map(|top| graph.references(top))
        {
            is_second[reference] = referrers[reference] == 1;
        }
        let kind = |path: PathIdx| (is_top(path), is_second[path]);
        let count = |kinds: &dyn Fn(&PathIdx) -> bool| graph.paths().filter(kinds).count();
        let tops = count(&|path| is_top(*path));
        let seconds = count(&|path| is_second[*path]);
        let mut heat = Self {
            paths: graph.len(),
            tops,
            seconds,
            masks: Vec::new(),
            hashes: Hashes::default(),
        };
        if graph.len() <= exact {
            let weights = heat.exact_weights(graph, kind);
            return (heat, weights);
        }
        let hashes = hashes(graph);
        heat.hashes = Hashes::new(hashes.clone().into_values());
        let weights = heat.weights(graph, |path, references| {
            let sketches = references.map(|reach| match reach {
                PathReach::Sketch(sketch) => sketch,
                PathReach::Exact(_) => unreachable!("{ONE_KIND}"),
            });
            PathReach::Sketch(Sketch::new(heat.hashes.rank(hashes[path]), kind(path), sketches))
        });
        (heat, weights)
    }

    /// Computes the weights by bits. A path reaches no path that comes after it: half of all bits
    /// need not be stored.
    fn exact_weights(
        &mut self,
        graph: &Graph,
        kind: impl Fn(PathIdx) -> (bool, bool),
    ) -> PerPath<LayerWeight> {
        let mut bit = graph.per_path(0);
        self.masks = vec![(0, 0); graph.len().div_ceil(64)];
        for (place, path) in graph.topological().iter().enumerate() {
            bit[*path] = place;
            let (is_top, is_second) = kind(*path);
            let (tops, seconds) = &mut self.masks[place / 64];
            *tops |= u64::from(is_top) << (place % 64);
            *seconds |= u64::from(is_second) << (place % 64);
        }
        self.weights(graph, |path, references| {
            let mut bits = vec![0; bit[path] / 64 + 1].into_boxed_slice();
            bits[bit[path] / 64] |= 1 << (bit[path] % 64);
            let mut reach = PathReach::Exact(bits);
            references.for_each(|reference| reach.unite(reference));
            reach
        })
    }

    /// Returns the weight of each path, from the reach of the path: itself and the reach of its
    /// references.
    fn weights(
        &self,
        graph: &Graph,
        reach: impl Fn(PathIdx, &mut dyn Iterator<Item = &PathReach>) -> PathReach,
    ) -> PerPath<LayerWeight> {
        let mut weights = graph.per_path(LayerWeight::default());
        for path in graph.topological() {
            let references = graph.references(*path);
            let reach = reach(*path, &mut references.map(|path| &weights[path].reach));
            weights[*path] = LayerWeight { size: graph.size(*path), heat: self.of(&reach), reach };
        }
        weights
    }

    /// Returns the heat of the whole graph.
    pub fn of_all(&self) -> u64 {
        self.weigh([self.paths, self.tops, self.seconds])
    }

    /// Returns the heat of a layer with this reach.
    pub fn of(&self, reach: &PathReach) -> u64 {
        self.weigh(self.counts(reach))
    }

    /// Returns the three counts of [`weigh`](Self::weigh).
    fn counts(&self, reach: &PathReach) -> [usize; 3] {
        match reach {
            PathReach::Exact(bits) => self.counts_of_bits(bits.iter().copied()),
            PathReach::Sketch(sketch) => sketch.counts(&self.hashes),
        }
    }

    /// Returns the heat of two layers joined into one. They must have no path in common.
    pub fn of_union(&self, a: &PathReach, b: &PathReach) -> u64 {
        match (a, b) {
            (PathReach::Exact(a), PathReach::Exact(b)) => {
                let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
                let (common, rest) = long.split_at(short.len());
                let common = common.iter().zip(short).map(|(a, b)| a | b);
                self.weigh(self.counts_of_bits(common.chain(rest.iter().copied())))
            }
            (PathReach::Sketch(a), PathReach::Sketch(b)) => {
                self.weigh(a.union_counts(b, &self.hashes))
            }
            _ => unreachable!("{ONE_KIND}"),
        }
    }

    fn counts_of_bits(&self, bits: impl Iterator<Item = u64>) -> [usize; 3] {
        let mut counts = [0; 3];
        for (word, (tops, seconds)) in bits.zip(&self.masks) {
            for (count, bits) in counts.iter_mut().zip([word, word & tops, word & seconds]) {
                *count += bits.count_ones() as usize;
            }
        }
        counts
    }

    /// Returns the weight of files that are copied to `/`, from those of the paths that they refer
    /// to, and the number of other store paths that the files are from.
    ///
    /// Files that refer to none of the author's own paths are less likely to change than one of
    /// these, however many tools they refer to: an update of the tools changes many at once.
    pub fn of_root(&self, size: u64, reached: Option<&LayerWeight>, others: usize) -> LayerWeight {
        let counts = reached.map(|reached| self.counts(&reached.reach)).unwrap_or_default();
        let [_, tops, _] = counts;
        let mut heat = self.weigh(counts) + self.weigh([1, 0, 1]) * others as u64;
        if tops == 0 && self.tops > 0 {
            heat = heat.min(self.weigh([1, 1, 0]));
        }
        LayerWeight { size, heat, reach: PathReach::default() }
    }

    /// Weighs a reach by three counts: of its paths, of those that nothing refers to, and of those
    /// right below these.
    fn weigh(&self, counts: [usize; 3]) -> u64 {
        let all = self.paths as u64;
        let [paths, tops, seconds] = counts.map(|count| count as u64);
        paths + all / 2 * tops + all / 8 * seconds
    }
}

const ONE_KIND: &str = "reaches of one graph are of one kind";

/// The reach of no paths.
impl Default for PathReach {
    fn default() -> Self {
        Self::Exact(Box::default())
    }
}

impl PathReach {
    /// Adds what another reach has. The layers must not have a path in common.
    pub fn unite(&mut self, other: &PathReach) {
        match (self, other) {
            (PathReach::Exact(bits), PathReach::Exact(others)) => {
                if bits.len() < others.len() {
                    let mut longer = std::mem::take(bits).into_vec();
                    longer.resize(others.len(), 0);
                    *bits = longer.into_boxed_slice();
                }
                for (word, other) in bits.iter_mut().zip(others) {
                    *word |= other;
                }
            }
            (PathReach::Sketch(sketch), PathReach::Sketch(other)) => sketch.unite(other),
            _ => unreachable!("{ONE_KIND}"),
        }
    }
}

/// A layer while it is planned.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The paths of the layer, at least one, in no particular order.
    pub members: Vec<PathIdx>,
    pub weight: LayerWeight,
}

/// Describes a layer without its members: its size and its reach.
#[derive(Clone, Debug, Default)]
pub(super) struct LayerWeight {
    /// Bytes of their NAR serialisations.
    pub size: u64,
    pub heat: u64,
    reach: PathReach,
}

impl Group {
    /// Returns the group of several paths, or `None` if there is no path.
    pub fn of(heat: &Heat, paths: &[PathIdx], weights: &PerPath<LayerWeight>) -> Option<Self> {
        let (first, others) = paths.split_first()?;
        let mut weight = weights[*first].clone();
        others.iter().for_each(|path| weight.join(heat, &weights[*path]));
        Some(Self { members: paths.to_vec(), weight })
    }

    pub fn join(&mut self, heat: &Heat, other: Group) {
        self.members.extend(other.members);
        self.weight.join(heat, &other.weight);
    }
}

impl LayerWeight {
    pub fn join(&mut self, heat: &Heat, other: &Self) {
        self.size = self.size.saturating_add(other.size);
        self.reach.unite(&other.reach);
        self.heat = heat.of(&self.reach);
    }

    /// Returns the measure of [`coolest_first`] as a fraction.
    fn measure(&self) -> (u128, u128) {
        let heat = u128::from(self.heat);
        (heat.saturating_mul(heat), u128::from(self.size.max(1)))
    }

    /// Returns the expected number of bytes that are sent unnecessarily once the two are one layer.
    pub fn cost_of_joining(&self, heat: &Heat, other: &Self) -> u128 {
        let joined = heat.of_union(&self.reach, &other.reach);
        let more = |weight: &Self| {
            // A sketch's estimate may be off by a few.
            u128::from(weight.size) * u128::from(joined.saturating_sub(weight.heat))
        };
        more(self).saturating_add(more(other))
    }
}

/// Orders layers from the bottom up: first the layers that are least likely to change for their
/// size.
///
/// A client that keys a layer by all layers below it, as Docker does, takes everything above the
/// first change again. The measure is heat² / size, compared exactly: big layers that seldom change
/// sink, small layers that often change rise.
pub(super) fn coolest_first(mut groups: Vec<Group>) -> Vec<Vec<PathIdx>> {
    for group in &mut groups {
        group.members.sort_unstable();
    }
    groups.sort_by(|a, b| {
        compare_fractions(a.weight.measure(), b.weight.measure())
            .then_with(|| a.members[0].cmp(&b.members[0]))
    });
    groups.into_iter().map(|group| group.members).collect()
}

/// Returns whether one layer goes below another by the measure of [`coolest_first`].
pub(super) fn cooler(one: &LayerWeight, other: &LayerWeight) -> bool {
    compare_fractions(one.measure(), other.measure()).is_lt()
}

/// Compares a/b with c/d, which are not 0, by their continued fractions: exact for all numbers,
/// even if the products would overflow.
fn compare_fractions((a, b): (u128, u128), (c, d): (u128, u128)) -> Ordering {
    let by_whole = (a / b).cmp(&(c / d));
    by_whole.then_with(|| match (a % b, c % d) {
        (0, 0) => Ordering::Equal,
        (0, _) => Ordering::Less,
        (_, 0) => Ordering::Greater,
        (rest, other) => compare_fractions((d, other), (b, rest)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fractions_compare_as_products_do(a in any::<u64>(), b in 1u64.., c in any::<u64>(), d in 1u64..) {
            let [a, b, c, d] = [a, b, c, d].map(u128::from);
            prop_assert_eq!(compare_fractions((a, b), (c, d)), (a * d).cmp(&(c * b)));
        }
    }

    #[test]
    fn fractions_of_any_size_compare() {
        const MAX: u128 = u128::MAX;
        for (a, b, expected) in [
            ((1, 2), (2, 4), Ordering::Equal),
            ((1, 3), (2, 5), Ordering::Less),
            ((0, 1), (0, 9), Ordering::Equal),
            ((MAX, MAX - 1), (MAX - 1, MAX - 2), Ordering::Less),
            ((MAX, 1), (MAX - 1, 1), Ordering::Greater),
        ] {
            assert_eq!(compare_fractions(a, b), expected, "{a:?} {b:?}");
        }
    }
}
