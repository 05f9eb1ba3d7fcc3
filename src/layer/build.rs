//! The layers of a plan with their digests and checksums, hashed in parallel.
//! Stage: layer. Input: [`LayerContents`] of each. Output: [`Layer`] of each.

use std::io;

use super::Error;
use super::archive::write_layer;
use super::contents::LayerContents;
use crate::digest::{
    Checksum, ChecksumWriter, DiffId, DigestWriter, MessageHasher, Place, in_lanes,
};
use crate::store::Store;

/// What a layer was when it was made: the digest, size and checksum of its *uncompressed* tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub size: u64,
    /// Checksum of the uncompressed tar: who makes it again compares it by this, and is done
    /// before SHA-256 would be.
    pub checksum: Checksum,
}

/// Makes one layer's bytes, hashed beside other layers', and keeps nothing but their digest and
/// checksum.
///
/// # Errors
/// Whatever keeps the sources from being read.
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

/// Makes every layer, on as many threads as rayon has, several on each where they are hashed
/// together.
///
/// The heaviest is begun first: begun last, it would keep one thread busy after all
/// others are done. `weight` is a guess of its bytes; it changes nothing but the time.
/// Each layer goes to `done` when it is made, in any order.
///
/// # Errors
/// Of the lowest layer that could not be made, whichever failed first.
pub fn build_layers(
    store: &Store,
    contents: &[&LayerContents],
    weight: impl Fn(&LayerContents) -> u64 + Sync,
    done: impl Fn(&Layer) + Sync,
) -> Result<Vec<Layer>, Error> {
    let jobs = rayon::current_num_threads();
    let total = contents.iter().map(|contents| weight(contents)).fold(0, u64::saturating_add);
    // It is at work when the others are done: hash it on another thread than it is read on.
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
