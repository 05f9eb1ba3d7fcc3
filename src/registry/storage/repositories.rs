//! Remembers which blobs repositories have, as far as this server knows.
//! Stage: registry (pure). Input: manifests. Output: yes or no.

use std::collections::{BTreeMap, BTreeSet};

use super::blobs_of;
use crate::digest::{BlobDigest, Digest};
use crate::outgoing::RepositoryName;

/// The largest number of blobs that are remembered for all repositories. Beyond it, all are
/// forgotten.
const MOST: usize = 200_000;

/// Repositories by name, with their manifests and other blobs.
#[derive(Debug, Default)]
pub struct Repositories {
    names: BTreeMap<RepositoryName, Blobs>,
    count: usize,
}

#[derive(Debug, Default)]
struct Blobs {
    manifests: BTreeSet<BlobDigest>,
    others: BTreeSet<BlobDigest>,
}

impl Repositories {
    /// Records that a repository has a manifest, and the blobs that the manifest names.
    pub fn add(&mut self, name: &RepositoryName, manifest: &[u8]) {
        if self.count >= MOST {
            *self = Self::default();
        }
        let blobs = self.names.entry(name.clone()).or_default();
        if blobs.manifests.insert(BlobDigest::new(Digest::of(manifest))) {
            let before = blobs.others.len();
            blobs.others.extend(blobs_of(manifest));
            self.count += 1 + blobs.others.len() - before;
        }
    }

    /// Returns whether a repository is known to have a blob, which may be a manifest.
    pub fn has(&self, name: &RepositoryName, digest: &BlobDigest) -> bool {
        self.names
            .get(name)
            .is_some_and(|blobs| blobs.manifests.contains(digest) || blobs.others.contains(digest))
    }

    /// Returns whether a repository is known to have a manifest.
    pub fn has_manifest(&self, name: &RepositoryName, digest: &BlobDigest) -> bool {
        self.names.get(name).is_some_and(|blobs| blobs.manifests.contains(digest))
    }
}
