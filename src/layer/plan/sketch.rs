//! The size of a set of paths by a sample of it.
//! Stage: layer (pure). Vocabulary of the plan.

use std::cmp::Ordering;

use super::graph::Graph;

/// The smallest hashes of a set's members (Bar-Yossef et al., "Counting distinct
/// elements in a data stream", 2002; "bottom-k"). Sketches of two sets are merged into
/// that of their union, in constant time and space, and tell its size within about
/// 1/√64 of it; up to 63 members it is exact.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    all: Vec<u64>,
    /// How many of the paths nothing refers to. Exact: each is in one layer's set alone.
    pub tops: usize,
    /// Of the paths with one referrer, which is such a path.
    seconds: Vec<u64>,
}

const KEPT: usize = 64;

impl Sketch {
    /// Of one path.
    pub fn new(hash: u64, is_top: bool, is_second: bool) -> Self {
        Self {
            all: vec![hash],
            tops: usize::from(is_top),
            seconds: if is_second { vec![hash] } else { Vec::new() },
        }
    }

    /// How many paths there are, about.
    pub fn paths(&self) -> usize {
        size(self.all.len(), self.all.last().copied())
    }

    /// How many paths have one referrer, which nothing refers to, about.
    pub fn seconds(&self) -> usize {
        size(self.seconds.len(), self.seconds.last().copied())
    }

    /// [`Sketch::paths`] and [`Sketch::seconds`] of the union, without making it.
    pub fn union_counts(&self, other: &Self) -> (usize, usize) {
        let count = |a, b| {
            let (mut kept, mut last) = (0, None);
            for hash in union(a, b) {
                (kept, last) = (kept + 1, Some(hash));
            }
            size(kept, last)
        };
        (count(&self.all, &other.all), count(&self.seconds, &other.seconds))
    }

    /// Takes in the other set.
    pub fn unite(&mut self, other: &Self) {
        merge(&mut self.all, &other.all);
        merge(&mut self.seconds, &other.seconds);
        self.tops += other.tops;
    }
}

fn merge(hashes: &mut Vec<u64>, others: &[u64]) {
    if others.is_empty() {
        return;
    }
    // On the stack first: this is most of what planning a large closure does.
    let (mut merged, mut count) = ([0; KEPT], 0);
    for (slot, hash) in merged.iter_mut().zip(union(hashes, others)) {
        (*slot, count) = (hash, count + 1);
    }
    hashes.clear();
    hashes.extend_from_slice(&merged[..count]);
}

/// Of the hashes below the largest that is kept there are `KEPT - 1`, evenly spread.
fn size(kept: usize, largest: Option<u64>) -> usize {
    match largest {
        Some(largest) if kept == KEPT => {
            let size = ((KEPT as u128 - 1) << 64) / u128::from(largest.max(1));
            // Not below what was seen: sets that grow must not seem to shrink.
            usize::try_from(size).unwrap_or(usize::MAX).max(KEPT)
        }
        _ => kept,
    }
}

/// The smallest hashes of both, each once, ascending.
fn union<'s>(mut a: &'s [u64], mut b: &'s [u64]) -> impl Iterator<Item = u64> + 's {
    let next = move || {
        let (hash, from_a, from_b) = match (a.first(), b.first()) {
            (Some(first), Some(other)) => match first.cmp(other) {
                Ordering::Less => (*first, 1, 0),
                Ordering::Equal => (*first, 1, 1),
                Ordering::Greater => (*other, 0, 1),
            },
            (Some(first), None) => (*first, 1, 0),
            (None, Some(other)) => (*other, 0, 1),
            (None, None) => return None,
        };
        (a, b) = (&a[from_a..], &b[from_b..]);
        Some(hash)
    };
    std::iter::from_fn(next).take(KEPT)
}

/// A hash for each path, from its name: neither a rebuild nor another path in the graph
/// changes it. Paths of the same name are counted off.
pub(super) fn hashes(graph: &Graph) -> Vec<u64> {
    let mut hashes = Vec::with_capacity(graph.len());
    let (mut before, mut count) = ("", 0);
    for path in graph.paths() {
        let name = graph.name(path);
        count = if name == before { count + 1 } else { 0 };
        before = name;
        // FNV-1a, mixed as SplitMix64 does it, for FNV alone spreads its highest bits badly.
        let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ count, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hashes.push(mix(fnv));
    }
    hashes
}

fn mix(hash: u64) -> u64 {
    let mut hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(members: std::ops::Range<u64>) -> Sketch {
        let mut sketch = Sketch::new(mix(members.start + 1), false, false);
        for member in members.skip(1) {
            sketch.unite(&Sketch::new(mix(member + 1), false, false));
        }
        sketch
    }

    #[test]
    fn small_sets_are_exact() {
        for size in [1, 2, 63] {
            assert_eq!(sketch(0..size).paths() as u64, size);
        }
    }

    #[test]
    fn large_sets_are_within_a_third() {
        for size in [64, 200, 5_000, 50_000] {
            let found = sketch(0..size).paths() as u64;
            assert!(found.abs_diff(size) * 3 < size, "{found} for {size}");
        }
    }

    #[test]
    fn unions_count_what_is_in_both_once() {
        let (mut a, b) = (sketch(0..3_000), sketch(1_000..4_000));
        let expected = a.union_counts(&b);
        a.unite(&b);
        assert_eq!((a.paths(), a.seconds()), expected);
        assert_eq!(a.paths(), sketch(0..4_000).paths());
    }
}
