//! Makes the layers of a plan in parallel, and computes their digests and checksums.
//! Stage: layer. Input: [`LayerContents`] of each. Output: [`Layer`] of each.

use std::io;

use super::Error;
use super::archive::write_layer;
use super::contents::LayerContents;
use crate::digest::{
    Checksum, ChecksumWriter, DiffId, DigestWriter, MessageHasher, Place, in_lanes,
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

/// Makes one layer's bytes and hashes them together with those of other layers. Keeps only their
/// digest and checksum.
///
/// # Errors
/// Fails if the sources can't be read.
pub fn layer_at(
    place: &Place<'_>,
    store: &Store,
    contents: &LayerContents,
) -> Result<Layer, Error> {
    hashed(store, contents, DigestWriter::at(place, io::sink()))
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
    let total = contents.iter().map(|contents| weight(contents)).fold(0, u64::saturating_add);
    // This layer takes longer than all others: hash it on a thread beside the one that reads it.
    let outlasts =
        |contents: &LayerContents| jobs > 1 && weight(contents).saturating_mul(jobs as u64) > total;
    let make = |place: &Place<'_>, contents: &LayerContents| {
        if !outlasts(contents) {
            return layer_at(place, store, contents);
        }
        hashed(store, contents, DigestWriter::with_thread(io::sink()))
    };
    let layers = in_lanes(
        contents,
        |contents| weight(contents),
        jobs,
        |place, contents| {
            let layer = make(place, contents);
            layer.as_ref().ok().inspect(|layer| done(layer));
            layer
        },
    );
    layers.into_iter().collect()
}
