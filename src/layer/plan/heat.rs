//! How likely a layer is to change.
//! Stage: layer (pure). Input: [`Graph`]. Output: [`Heat`] and the [`Reach`] of each path.

use std::cmp::Ordering;

use super::graph::Graph;
use super::sketch::{Sketch, hashes};

/// What makes a set of paths change: they and all they refer to, directly or not. A
/// store path's hash covers its references, so each of these can change the set.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// One bit for each path of the graph.
    Exact(Box<[u64]>),
    /// A sample, for graphs where bits for each path would be too many.
    Sketch(Sketch),
}

/// Counts how many kinds of update there are that hit a layer: one for each path that
/// it is made of or refers to. The paths on top of the image, which nothing refers to,
/// are the author's own and change with every build: each counts half as much as all
/// others together. What only one of those refers to is often his own too (an
/// application below its environment) and counts an eighth.
#[derive(Debug)]
pub(super) struct Heat {
    paths: usize,
    /// How many paths nothing refers to. Theirs are the first bits.
    tops: usize,
    /// How many paths have one referrer, which is such a path. Theirs are the next bits.
    seconds: usize,
    /// Masks of these bits, as far as there are any.
    masks: Vec<(u64, u64)>,
}

/// Up to here bitsets are as fast and take at most 50 MB.
const EXACT: usize = 20_000;

impl Heat {
    /// The measure for a graph, and the reach of each of its paths.
    pub fn new(graph: &Graph) -> (Self, Vec<Reach>) {
        Self::with_exact_up_to(graph, EXACT)
    }

    pub fn with_exact_up_to(graph: &Graph, exact: usize) -> (Self, Vec<Reach>) {
        let is_top = |path: usize| graph.referrers(path).is_empty();
        let is_second =
            |path: usize| matches!(graph.referrers(path), [referrer] if is_top(*referrer));
        let rank = |path: &usize| (!is_top(*path), !is_second(*path));
        let mut order: Vec<_> = graph.paths().collect();
        order.sort_by_key(rank);
        let tops = order.partition_point(|path| is_top(*path));
        let seconds = order[tops..].partition_point(|path| is_second(*path));

        let mut masks = vec![(0, 0); (tops + seconds).div_ceil(64)];
        for bit in 0..tops {
            masks[bit / 64].0 |= 1 << (bit % 64);
        }
        for bit in tops..tops + seconds {
            masks[bit / 64].1 |= 1 << (bit % 64);
        }
        let heat = Self { paths: graph.len(), tops, seconds, masks };
        let reaches = if graph.len() <= exact {
            let mut bit = vec![0; graph.len()];
            for (place, path) in order.iter().enumerate() {
                bit[*path] = place;
            }
            exact_reaches(graph, &bit)
        } else {
            let hashes = hashes(graph);
            reaches(graph, |path| {
                Reach::Sketch(Sketch::new(hashes[path], is_top(path), is_second(path)))
            })
        };
        (heat, reaches)
    }

    /// Of the whole graph.
    pub fn of_all(&self) -> u64 {
        self.weigh(self.paths, self.tops, self.seconds)
    }

    /// Of a layer with this reach.
    pub fn of(&self, reach: &Reach) -> u64 {
        match reach {
            Reach::Exact(bits) => self.of_bits(bits.iter().copied()),
            Reach::Sketch(sketch) => self.weigh(sketch.paths(), sketch.tops, sketch.seconds()),
        }
    }

    /// Of two layers joined in one, which must not have a path in common.
    pub fn of_union(&self, a: &Reach, b: &Reach) -> u64 {
        match (a, b) {
            (Reach::Exact(a), Reach::Exact(b)) => self.of_bits(a.iter().zip(b).map(|(a, b)| a | b)),
            (Reach::Sketch(a), Reach::Sketch(b)) => {
                let (paths, seconds) = a.union_counts(b);
                self.weigh(paths, a.tops + b.tops, seconds)
            }
            _ => unreachable!("reaches of one graph are of one kind"),
        }
    }

    fn of_bits(&self, bits: impl Iterator<Item = u64>) -> u64 {
        let [mut paths, mut tops, mut seconds] = [0; 3];
        let mut masks = self.masks.iter();
        for word in bits {
            paths += word.count_ones() as usize;
            if let Some((top, second)) = masks.next() {
                tops += (word & top).count_ones() as usize;
                seconds += (word & second).count_ones() as usize;
            }
        }
        self.weigh(paths, tops, seconds)
    }

    fn weigh(&self, paths: usize, tops: usize, seconds: usize) -> u64 {
        let [all, paths, tops, seconds] = [self.paths, paths, tops, seconds].map(|n| n as u64);
        paths + all / 2 * tops + all / 8 * seconds
    }
}

impl Reach {
    /// Takes in what another reaches. The layers must not have a path in common.
    pub fn unite(&mut self, other: &Reach) {
        match (self, other) {
            (Reach::Exact(bits), Reach::Exact(others)) => {
                for (word, other) in bits.iter_mut().zip(others) {
                    *word |= other;
                }
            }
            (Reach::Sketch(sketch), Reach::Sketch(other)) => sketch.unite(other),
            _ => unreachable!("reaches of one graph are of one kind"),
        }
    }
}

fn exact_reaches(graph: &Graph, bit: &[usize]) -> Vec<Reach> {
    let words = graph.len().div_ceil(64);
    reaches(graph, |path| {
        let mut bits = vec![0; words].into_boxed_slice();
        bits[bit[path] / 64] |= 1 << (bit[path] % 64);
        Reach::Exact(bits)
    })
}

/// Of each path: itself, and what its references reach.
fn reaches(graph: &Graph, own: impl Fn(usize) -> Reach) -> Vec<Reach> {
    let mut reaches: Vec<_> = graph.paths().map(own).collect();
    for path in graph.topological() {
        // Taken out while it grows: it is never its own reference.
        let nothing = Reach::Exact(Box::default());
        let mut reach = std::mem::replace(&mut reaches[*path], nothing);
        for reference in graph.references(*path) {
            reach.unite(&reaches[*reference]);
        }
        reaches[*path] = reach;
    }
    reaches
}

/// A layer while it is planned.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Never empty, in no order.
    pub members: Vec<usize>,
    /// Bytes of their NAR serialisations.
    pub size: u64,
    pub reach: Reach,
    pub heat: u64,
}

impl Group {
    pub fn new(graph: &Graph, heat: &Heat, path: usize, reach: Reach) -> Self {
        let heat = heat.of(&reach);
        Self { members: vec![path], size: graph.size(path), reach, heat }
    }

    /// The group of several paths; none if there is no path.
    pub fn of(graph: &Graph, heat: &Heat, paths: &[usize], reaches: &[Reach]) -> Option<Self> {
        let mut groups =
            paths.iter().map(|path| Self::new(graph, heat, *path, reaches[*path].clone()));
        let mut first = groups.next()?;
        for group in groups {
            first.join(heat, group);
        }
        Some(first)
    }

    pub fn join(&mut self, heat: &Heat, other: Group) {
        self.members.extend(other.members);
        self.size = self.size.saturating_add(other.size);
        self.reach.unite(&other.reach);
        self.heat = heat.of(&self.reach);
    }

    /// Expected bytes that are sent again for nothing once the two are one layer.
    pub fn cost_of_joining(&self, heat: &Heat, other: &Group) -> u128 {
        let joined = heat.of_union(&self.reach, &other.reach);
        let more = |group: &Group| {
            // A sketch's estimate may be off by a few.
            u128::from(group.size) * u128::from(joined.saturating_sub(group.heat))
        };
        more(self).saturating_add(more(other))
    }
}

/// From the bottom up: the layers first that are least likely to change for their size.
///
/// A client that keys a layer by all those below it (Docker does) takes everything above
/// the first change anew. The measure is heat² / size, compared exactly: big layers that
/// seldom change sink, small ones that often do rise.
pub(super) fn coolest_first(mut groups: Vec<Group>) -> Vec<Vec<usize>> {
    for group in &mut groups {
        group.members.sort_unstable();
    }
    groups.sort_by(|a, b| {
        let measure = |group: &Group| {
            let heat = u128::from(group.heat);
            (heat.saturating_mul(heat), u128::from(group.size.max(1)))
        };
        compare_fractions(measure(a), measure(b)).then_with(|| a.members[0].cmp(&b.members[0]))
    });
    groups.into_iter().map(|group| group.members).collect()
}

/// Compares a/b with c/d, which are not 0, by their continued fractions: exact for every
/// number, where the products might not fit.
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
