//! Makes the layers of a plan in parallel, and computes their digests and checksums.
//! Stage: layer. Input: [`LayerContents`] of each. Output: [`Layer`] of each.

use std::io;

use super::Error;
use super::archive::write_layer;
use super::contents::LayerContents;
use crate::digest::{
    Checksum, ChecksumWriter, DiffId, DigestWriter, LanePlace, MessageHasher, in_lanes,
};
use crate::store::Store;

/// The digest, size and checksum of a layer's *uncompressed* tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The number of bytes of the uncompressed tar.
    pub size: u64,
    /// The checksum of the uncompressed tar. Comparing it when the layer is made again is faster
    /// than comparing SHA-256.
    pub checksum: Checksum,
}

fn hashed(
    store: &Store,
    contents: &LayerContents,
    mut digest: DigestWriter<io::Sink, impl MessageHasher>,
) -> Result<Layer, Error> {
    let mut checksum = ChecksumWriter::new(&mut digest);
    write_layer(store, contents, &mut checksum)?;
    let checksum = checksum.finish();
    let (digest, size) = digest.finish();
    Ok(Layer { diff_id: DiffId::new(digest), size, checksum })
}

/// Makes layers beside each other, each for its digest and checksum alone.
#[derive(Clone, Copy)]
pub struct LayerMaker<'s> {
    store: &'s Store,
    /// The number of threads.
    jobs: u64,
    /// The weight of all layers together.
    total: u64,
}

impl<'s> LayerMaker<'s> {
    /// Prepares to make layers of these weights on `jobs` threads. A weight is a guess at a
    /// layer's number of bytes, and affects nothing but the time.
    pub fn new(store: &'s Store, weights: impl IntoIterator<Item = u64>, jobs: usize) -> Self {
        let total = weights.into_iter().fold(0, u64::saturating_add);
        Self { store, jobs: jobs as u64, total }
    }

    /// Makes a layer's bytes, and hashes them together with those of other layers.
    ///
    /// # Errors
    /// Fails if the sources can't be read.
    pub fn make(
        &self,
        place: &LanePlace<'_>,
        contents: &LayerContents,
        weight: u64,
    ) -> Result<Layer, Error> {
        if self.outlasts(weight) {
            hashed(self.store, contents, DigestWriter::with_thread(io::sink()))
        } else {
            hashed(self.store, contents, DigestWriter::at(place, io::sink()))
        }
    }

    /// Returns whether a layer is more than a thread's share of the work. Such a layer ends last,
    /// and is hashed on a thread beside the one that reads it.
    fn outlasts(&self, weight: u64) -> bool {
        self.jobs > 1 && weight.saturating_mul(self.jobs) > self.total
    }
}

/// Makes every layer, on as many threads as rayon has, and several at once on each thread where
/// they are hashed together.
///
/// The heaviest layer begins first: if it began last, it would keep one thread busy after all
/// others are finished. `weight` guesses the number of bytes, and affects nothing but the time.
/// `done` is called for each layer when it is made, in any order.
///
/// # Errors
/// Returns the error of the lowest layer that could not be made, whichever failed first.
pub fn build_layers(
    store: &Store,
    contents: &[&LayerContents],
    weight: impl Fn(&LayerContents) -> u64 + Sync,
    done: impl Fn(&Layer) + Sync,
) -> Result<Vec<Layer>, Error> {
    let jobs = rayon::current_num_threads();
    let weights = contents.iter().map(|contents| weight(contents));
    let maker = LayerMaker::new(store, weights, jobs);
    let layers = in_lanes(
        contents,
        |contents| weight(contents),
        jobs,
        |place, contents| {
            let layer = maker.make(place, contents, weight(contents));
            layer.as_ref().ok().inspect(|layer| done(layer));
            layer
        },
    );
    layers.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_outlasts_the_others_is_hashed_on_a_thread() {
        let store = Store::default();
        for (weights, jobs, expected) in [
            (&[1][..], 1, &[false][..]),
            (&[1], 2, &[true]),
            (&[5, 5], 2, &[false, false]),
            (&[5, 6], 2, &[false, true]),
            (&[5, 6, 1], 4, &[true, true, false]),
            (&[u64::MAX / 2, 1], 2, &[true, false]),
            (&[0], 2, &[false]),
        ] {
            let maker = LayerMaker::new(&store, weights.iter().copied(), jobs);
            let found: Vec<_> = weights.iter().map(|weight| maker.outlasts(*weight)).collect();
            assert_eq!(found, expected, "{weights:?} on {jobs}");
        }
    }
}
