//! Collects records one after the other and makes a closure of them.
//! Stage: closure (pure). Input: records in any order. Output: [`Closure`].

use std::collections::HashMap;
use std::ops::Range;

use super::graph::ReferencesGraph;
use super::{Closure, ClosureMember, Error, NarHash, NodeIdx};
use crate::store::{Store, StorePath};

/// The most bytes that the paths of a closure may have together: sums of their sizes can't wrap.
const MOST_BYTES: u64 = 1 << 56;

/// Takes in records as they are read, and keeps each store path once, however many records refer to
/// it. In a closure of 100,000 paths with ten references each, repeated paths would take most of
/// the memory.
#[derive(Debug, Default)]
pub struct Builder {
    /// The paths that were named, in the order of first mention. The other fields refer to a path
    /// by its index in this list.
    paths: Vec<StorePath>,
    /// The index of each path, for lookups only: the order of the map is never used.
    places: HashMap<StorePath, u32>,
    records: Vec<Record>,
    /// The references of all records, one record after the other.
    references: Vec<u32>,
}

/// A store path as it is registered.
#[derive(Debug)]
struct Record {
    path: u32,
    nar_hash: NarHash,
    nar_size: u64,
    /// The record's part of [`Builder::references`], sorted, each reference once.
    references: Range<usize>,
}

/// A store path's place in a [`Builder`].
#[derive(Clone, Copy, Debug)]
pub(super) struct NodePlace(u32);

impl Builder {
    /// Returns the place of a store path, and gives it one if it has none.
    pub(super) fn place(&mut self, path: StorePath) -> NodePlace {
        if let Some(place) = self.places.get(&path) {
            return NodePlace(*place);
        }
        let place = index(self.paths.len());
        self.paths.push(path.clone());
        self.places.insert(path, place);
        NodePlace(place)
    }

    /// Returns the place of a whole path in `store`, or `None` if the text is not a store path.
    pub(super) fn place_of(&mut self, store: &Store, text: &str) -> Option<NodePlace> {
        // Most paths were named before, and were parsed then.
        let known = store.base_of(text).and_then(|base| self.places.get(base));
        match known {
            Some(place) => Some(NodePlace(*place)),
            None => store.parse(text).ok().map(|path| self.place(path)),
        }
    }

    /// Takes in a record. The references may be in any order, and may repeat.
    pub(super) fn record(
        &mut self,
        path: NodePlace,
        nar_hash: NarHash,
        nar_size: u64,
        references: impl IntoIterator<Item = NodePlace>,
    ) {
        let start = self.references.len();
        self.references.extend(references.into_iter().map(|place| place.0));
        self.references[start..].sort_unstable();
        let end = dedup(&mut self.references, start);
        self.records.push(Record { path: path.0, nar_hash, nar_size, references: start..end });
    }

    /// Takes in a record, as [`Builder::record`] does, of store paths that have no places yet.
    pub(super) fn add(
        &mut self,
        path: StorePath,
        nar_hash: NarHash,
        nar_size: u64,
        references: impl IntoIterator<Item = StorePath>,
    ) {
        let path = self.place(path);
        let references: Vec<_> = references.into_iter().map(|path| self.place(path)).collect();
        self.record(path, nar_hash, nar_size, references);
    }

    /// Checks that the records form a closure.
    ///
    /// # Errors
    /// Returns the errors of [`Closure::new`].
    pub fn finish(self) -> Result<Closure, Error> {
        let Self { paths, places, mut records, mut references } = self;
        drop(places);
        let paths = sort(paths, &mut records, &mut references);
        let print = |path: u32| Store::default().print(&paths[path as usize]);
        let of = |record: &Record| &references[record.references.clone()];

        records.sort_by_key(|record| record.path);
        records.dedup_by(|a, b| {
            let alike = (a.path, a.nar_hash, a.nar_size) == (b.path, b.nar_hash, b.nar_size);
            alike && of(a) == of(b)
        });
        let total =
            records.iter().try_fold(0_u64, |total, record| total.checked_add(record.nar_size));
        if total.is_none_or(|total| total > MOST_BYTES) {
            return Err(Error::TooLarge);
        }
        if let Some(pair) = records.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(Error::Contradiction(print(pair[0].path)));
        }
        if records.len() < paths.len() {
            let mut missing = vec![true; paths.len()];
            records.iter().for_each(|record| missing[record.path as usize] = false);
            let from = |record| of(record).iter().map(move |reference| (record.path, *reference));
            let missing = records.iter().flat_map(from).filter(|(_, to)| missing[*to as usize]);
            return Err(Error::Incomplete(
                missing.map(|(from, to)| (print(from), print(to))).collect(),
            ));
        }
        // Every path has a record, and all are sorted: a path's place is now the index of its node.
        let node = |place: &u32| NodeIdx::new(*place as usize);
        let graph = ReferencesGraph::new(records.iter().map(|record| of(record).iter().map(node)))
            .map_err(|cycle| {
                Error::Cycle(cycle.iter().map(|node| print(index(node.index()))).collect())
            })?;
        drop(references);
        let members = records.into_iter().zip(paths).map(|(record, path)| {
            let Record { nar_hash, nar_size, .. } = record;
            ClosureMember { path, nar_hash, nar_size }
        });
        Ok(Closure { infos: members.collect(), graph: graph.into() })
    }
}

/// Sorts the paths, and renumbers the places in records and references accordingly.
fn sort(paths: Vec<StorePath>, records: &mut [Record], references: &mut [u32]) -> Vec<StorePath> {
    let mut order: Vec<_> = (0..index(paths.len())).collect();
    order.sort_unstable_by_key(|place| &paths[*place as usize]);
    let mut renumbered = vec![0; paths.len()];
    for (new, old) in order.iter().enumerate() {
        renumbered[*old as usize] = index(new);
    }
    for reference in references.iter_mut() {
        *reference = renumbered[*reference as usize];
    }
    for record in records {
        record.path = renumbered[record.path as usize];
        references[record.references.clone()].sort_unstable();
    }
    order.into_iter().map(|place| paths[place as usize].clone()).collect()
}

/// Removes all but the first of equal neighbours from `start` on. Returns the new length.
fn dedup(items: &mut Vec<u32>, start: usize) -> usize {
    let mut end = start;
    for place in start..items.len() {
        if end == start || items[end - 1] != items[place] {
            items[end] = items[place];
            end += 1;
        }
    }
    items.truncate(end);
    end
}

fn index(place: usize) -> u32 {
    u32::try_from(place).expect("a closure has fewer than 2^32 paths")
}
