//! Counts what a copy sent, and what the target had already.
//! Stage: outgoing (pure).

use serde::Serialize;

use crate::digest::{BlobDigest, Digest};
use crate::oci::Documents;

/// Counts of what a copy sent and did not have to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Layers that were sent.
    pub layers_sent: usize,
    /// Layers that the target had.
    pub layers_skipped: usize,
    /// Layers that the registry mounted from another of its repositories.
    pub layers_mounted: usize,
    /// Bytes that were sent: all bytes of an archive, or else those of blobs and documents.
    pub bytes_sent: u64,
    /// Bytes of the layers that were not sent.
    pub bytes_skipped: u64,
}

impl Tally {
    /// Counts a layer of `size` bytes that was sent.
    pub fn sent(&mut self, size: u64) {
        self.layers_sent += 1;
        self.bytes_sent += size;
    }

    /// Counts a layer of `size` bytes that the target had.
    pub fn skipped(&mut self, size: u64) {
        self.layers_skipped += 1;
        self.bytes_skipped += size;
    }

    /// Counts a layer that the registry mounted from another of its repositories.
    pub fn mounted(&mut self) {
        self.layers_mounted += 1;
    }
}

/// The result of a copy to any target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// Digest of the manifest or index that was written.
    pub manifest_digest: BlobDigest,
    /// Digest of the image's configuration; for several images, the digest of their index.
    pub image_id: Digest,
    /// Counts of what was sent and skipped.
    #[serde(flatten)]
    pub tally: Tally,
    /// True if the daemon lacked a layer that it was expected to have, so that the whole image was
    /// sent.
    pub fell_back: bool,
}

impl Copied {
    /// Describes the result of copying these documents and their layers.
    pub fn new(documents: &Documents, tally: Tally) -> Self {
        Self {
            manifest_digest: documents.top().digest,
            image_id: documents.id(),
            tally,
            fell_back: false,
        }
    }
}
