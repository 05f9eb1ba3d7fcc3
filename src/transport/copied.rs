//! What a copy took.
//! Stage: transport.

use serde::Serialize;

use crate::digest::BlobDigest;

/// What a copy took, whichever the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// The image's name where it is now: in the daemon, or else the target.
    pub reference: String,
    /// Digest of the manifest that was written.
    pub manifest_digest: BlobDigest,
    /// Digest of the image's configuration.
    pub image_id: String,
    /// Layers that were sent.
    pub layers_sent: usize,
    /// Layers that were there.
    pub layers_skipped: usize,
    /// Layers that the registry took from another of its repositories.
    pub layers_mounted: usize,
    /// Bytes that were sent: of an archive all, and else of blobs.
    pub bytes_sent: u64,
    /// Bytes of the layers that were not.
    pub bytes_skipped: u64,
    /// Whether the daemon refused to do without the layers it was thought to have,
    /// and was sent the whole image.
    pub fell_back: bool,
}
