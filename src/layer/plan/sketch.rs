//! Estimates the size of a set of paths by a sample.
//! Stage: layer (pure). Vocabulary of the plan.

use std::cmp::Ordering;

use super::graph::Graph;
use super::path_idx::PerPath;

/// The smallest hashes of a set's members (Bar-Yossef et al., "Counting distinct
/// elements in a data stream", 2002; "bottom-k"). Sketches of two sets are merged into
/// that of their union, in constant time and space, and tell its size within about
/// 1/√64 of it; up to 63 members it is exact.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    all: Sample,
    /// The counts of special paths; absent for most sets, which hold no path that counts for more
    /// than others.
    special: Option<Box<Special>>,
}

/// Counts the paths of a set that weigh more than others.
#[derive(Clone, Debug)]
struct Special {
    /// The number of paths that nothing refers to. It is exact, since such a path is in the set of
    /// one layer only.
    tops: u32,
    /// The number of paths that have one referrer, which nothing refers to.
    seconds: Sample,
}

const KEPT: usize = 64;

impl Sketch {
    /// Makes the sketch of one path, from the rank of its hash and from the sketches of its
    /// references.
    pub fn new<'s>(
        rank: u32,
        (is_top, is_second): (bool, bool),
        references: impl Iterator<Item = &'s Self>,
    ) -> Self {
        let mut all = Ranks::one(rank);
        let mut seconds = if is_second { Ranks::one(rank) } else { Ranks::default() };
        let mut tops = u32::from(is_top);
        for reference in references {
            all.unite(&reference.all.ranks());
            seconds.unite(&reference.seconds());
            tops += reference.tops();
        }
        Self { all: all.packed(), special: Special::of(tops, &seconds) }
    }

    fn tops(&self) -> u32 {
        self.special.as_ref().map_or(0, |special| special.tops)
    }

    fn seconds(&self) -> Ranks {
        self.special.as_ref().map_or_else(Ranks::default, |special| special.seconds.ranks())
    }

    /// Returns about how many paths there are, exactly how many of them nothing refers to, and
    /// about how many have one referrer, which nothing refers to.
    pub fn counts(&self, hashes: &Hashes) -> [usize; 3] {
        let seconds = hashes.size(&self.seconds());
        [hashes.size(&self.all.ranks()), self.tops() as usize, seconds]
    }

    /// Returns the [`Sketch::counts`] of the union, without making it.
    pub fn union_counts(&self, other: &Self, hashes: &Hashes) -> [usize; 3] {
        let (all, tops, seconds) = self.union(other);
        [hashes.size(&all), tops as usize, hashes.size(&seconds)]
    }

    /// Adds the members of the other set.
    pub fn unite(&mut self, other: &Self) {
        let (all, tops, seconds) = self.union(other);
        *self = Self { all: all.packed(), special: Special::of(tops, &seconds) };
    }

    fn union(&self, other: &Self) -> (Ranks, u32, Ranks) {
        let (mut all, mut seconds) = (self.all.ranks(), self.seconds());
        all.unite(&other.all.ranks());
        seconds.unite(&other.seconds());
        (all, self.tops() + other.tops(), seconds)
    }
}

impl Special {
    /// Returns the counts, or `None` if both are 0.
    fn of(tops: u32, seconds: &Ranks) -> Option<Box<Self>> {
        let some = tops > 0 || seconds.count > 0;
        some.then(|| Box::new(Self { tops, seconds: seconds.packed() }))
    }
}

/// The hashes of a graph's paths, ascending. Samples refer to them by their ranks in this list.
#[derive(Debug, Default)]
pub(super) struct Hashes(Vec<u64>);

impl Hashes {
    pub fn new(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }

    pub fn rank(&self, hash: u64) -> u32 {
        let rank = self.0.partition_point(|other| *other < hash);
        u32::try_from(rank).expect("a closure has fewer than 2^32 paths")
    }

    /// Estimates the size of a set: below the largest hash in the sample there are `KEPT - 1`
    /// others, evenly spread.
    fn size(&self, kept: &Ranks) -> usize {
        match kept.as_slice() {
            full if full.len() == KEPT => {
                let largest = self.0[full[KEPT - 1] as usize];
                let size = ((KEPT as u128 - 1) << 64) / u128::from(largest.max(1));
                // The estimate is not below what was seen: sets that grow must not seem to shrink.
                usize::try_from(size).unwrap_or(usize::MAX).max(KEPT)
            }
            few => few.len(),
        }
    }
}

/// The ranks of at most [`KEPT`] hashes, ascending, as the gaps between them: gaps are small, and
/// there is a sample for each path. Each byte has seven bits of a gap, the lowest first.
#[derive(Clone, Debug)]
struct Sample(Box<[u8]>);

/// The bit that is set in each byte of a gap except the last.
const MORE: u8 = 1 << 7;

impl Sample {
    fn ranks(&self) -> Ranks {
        let mut ranks = Ranks::default();
        let (mut rank, mut gap, mut shift) = (0, 0, 0);
        for byte in &self.0 {
            gap |= u32::from(byte & !MORE) << shift;
            shift += 7;
            if byte & MORE == 0 {
                rank += gap;
                (gap, shift) = (0, 0);
                ranks.kept[ranks.count] = rank;
                ranks.count += 1;
            }
        }
        ranks
    }
}

/// A sample in a form to work with.
struct Ranks {
    kept: [u32; KEPT],
    count: usize,
}

impl Default for Ranks {
    fn default() -> Self {
        Self { kept: [0; KEPT], count: 0 }
    }
}

impl Ranks {
    fn one(rank: u32) -> Self {
        let mut ranks = Self::default();
        (ranks.kept[0], ranks.count) = (rank, 1);
        ranks
    }

    fn as_slice(&self) -> &[u32] {
        &self.kept[..self.count]
    }

    fn unite(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let mut united = Self::default();
        for rank in union(self.as_slice(), other.as_slice()) {
            united.kept[united.count] = rank;
            united.count += 1;
        }
        *self = united;
    }

    fn packed(&self) -> Sample {
        let mut bytes = [0; KEPT * (u32::BITS as usize).div_ceil(7)];
        let (mut end, mut before) = (0, 0);
        for rank in self.as_slice() {
            let mut gap = rank - std::mem::replace(&mut before, *rank);
            while gap >= u32::from(MORE) {
                bytes[end] = gap as u8 | MORE;
                end += 1;
                gap >>= 7;
            }
            bytes[end] = gap as u8;
            end += 1;
        }
        Sample(bytes[..end].into())
    }
}

/// Returns the smallest ranks of both samples, each once, ascending.
fn union<'s>(mut a: &'s [u32], mut b: &'s [u32]) -> impl Iterator<Item = u32> + 's {
    let next = move || {
        let (rank, from_a, from_b) = match (a.first(), b.first()) {
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
        Some(rank)
    };
    std::iter::from_fn(next).take(KEPT)
}

/// Returns a hash for each path, from its name: neither a rebuild nor other paths in the graph
/// change it. Paths of the same name are numbered.
pub(super) fn hashes(graph: &Graph) -> PerPath<u64> {
    let (mut before, mut count) = ("", 0);
    let hash = |path| {
        let name = graph.name(path);
        count = if name == before { count + 1 } else { 0 };
        before = name;
        // FNV-1a, followed by SplitMix64's mixing, since FNV alone spreads its highest bits badly.
        let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ count, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        mix(fnv)
    };
    graph.paths().map(hash).collect()
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

    fn hashes() -> Hashes {
        Hashes::new((1..=200_000).map(mix).collect())
    }

    fn sketch(hashes: &Hashes, mut members: std::ops::Range<u64>) -> Sketch {
        let one = |member| Sketch::new(hashes.rank(mix(member + 1)), (false, false), [].iter());
        let mut sketch = one(members.next().unwrap());
        for member in members {
            sketch.unite(&one(member));
        }
        sketch
    }

    fn size(hashes: &Hashes, members: std::ops::Range<u64>) -> u64 {
        sketch(hashes, members).counts(hashes)[0] as u64
    }

    #[test]
    fn small_sets_are_exact() {
        let hashes = hashes();
        for expected in [1, 2, 63] {
            assert_eq!(size(&hashes, 0..expected), expected);
        }
    }

    #[test]
    fn large_sets_are_within_a_third() {
        let hashes = hashes();
        for expected in [64, 200, 5_000, 50_000] {
            let found = size(&hashes, 0..expected);
            assert!(found.abs_diff(expected) * 3 < expected, "{found} for {expected}");
        }
    }

    #[test]
    fn unions_count_what_is_in_both_once() {
        let hashes = hashes();
        let (mut a, b) = (sketch(&hashes, 0..3_000), sketch(&hashes, 1_000..4_000));
        let expected = a.union_counts(&b, &hashes);
        a.unite(&b);
        assert_eq!(a.counts(&hashes), expected);
        assert_eq!(expected[0] as u64, size(&hashes, 0..4_000));
    }

    #[test]
    fn samples_are_unpacked_as_they_were_packed() {
        for ranks in
            [&[][..], &[0], &[127, 128, 256], &[16_384, u32::MAX - 1], &[7, 300_000, u32::MAX]]
        {
            let mut given = Ranks::default();
            given.kept[..ranks.len()].copy_from_slice(ranks);
            given.count = ranks.len();
            assert_eq!(given.packed().ranks().as_slice(), ranks);
        }
    }
}
