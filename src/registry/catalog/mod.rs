//! Holds the contents of a registry: repositories, their tags, and the blob for each digest.
//! Stage: registry (pure). Input: image specs. Output: [`Catalog`].

mod attached;
mod look;
mod prepared;
mod reach;
mod reports;
mod source;
mod sources;
mod spec_files;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use prepared::PreparedArtifact;
pub use reach::Reach;
pub use source::Source;
pub use sources::{Reload, Sources};
pub use watches::Watches;

use crate::digest::BlobDigest;
use crate::oci::{Artifact, Blob, Form, IMAGE_MANIFEST, LayerBlob};
use crate::outgoing::{RepositoryName, SharedLayer, Tag, TagOrDigest, TaggedName};
use crate::proof::Attachment;

/// Repositories by name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    repositories: BTreeMap<RepositoryName, Repository>,
}

/// The contents of one repository.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    tags: BTreeMap<Tag, BlobDigest>,
    manifests: BTreeMap<BlobDigest, Manifest>,
    /// The artifacts that have blobs, each once.
    artifacts: Vec<Arc<PreparedArtifact>>,
    /// The beginning of each blob's digest, with the index of an artifact that has the blob: other
    /// repositories may have the same artifacts, so that only this is kept for each of them.
    blobs: BTreeSet<(u64, u32)>,
    /// The documents that refer to a manifest, by the digests of their manifests.
    referrers: BTreeMap<BlobDigest, BTreeMap<BlobDigest, Arc<Attachment>>>,
    /// The blobs of these documents.
    documents: BTreeMap<BlobDigest, Arc<Blob>>,
}

/// A manifest's bytes and their media type.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Digest and bytes.
    pub blob: Arc<Blob>,
    /// The media type of the bytes.
    pub media_type: String,
}

impl Manifest {
    /// Wraps a manifest.
    pub fn new(blob: Blob, media_type: String) -> Self {
        Self { blob: Arc::new(blob), media_type }
    }
}

/// The contents of a blob.
#[derive(Clone, Debug)]
pub enum Content {
    /// An image configuration, or another document.
    Config(Arc<Blob>),
    /// A layer.
    Layer {
        /// The layer of an image.
        layer: SharedLayer,
        /// Digest and size of the bytes.
        blob: LayerBlob,
    },
}

impl Content {
    /// Returns the size of the blob in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Config(blob) => blob.bytes.len() as u64,
            Self::Layer { blob, .. } => blob.size,
        }
    }
}

impl Catalog {
    /// Adds an image, or several with their index, under a name, and replaces what had the name
    /// before.
    pub fn add(&mut self, name: &TaggedName, artifact: &Artifact, form: Form) {
        let prepared = Arc::new(PreparedArtifact::new(artifact.clone(), form));
        self.add_prepared(&name.repository, Some(&name.tag), &prepared);
    }

    /// Adds an artifact to a repository under a tag, and replaces what had the tag before. Without
    /// a tag it is found by its digest alone: for clients that read its manifest by a tag which now
    /// stands for another image.
    pub fn add_prepared(
        &mut self,
        name: &RepositoryName,
        tag: Option<&Tag>,
        artifact: &Arc<PreparedArtifact>,
    ) {
        let repository = self.repository_mut(name);
        repository.add(artifact);
        if let Some(tag) = tag {
            repository.tags.insert(tag.clone(), artifact.digest());
        }
    }

    /// Returns the repository of a name, which is a new one if there is none.
    fn repository_mut(&mut self, name: &RepositoryName) -> &mut Repository {
        self.repositories.entry(name.clone()).or_default()
    }

    /// Adds a document that refers to a manifest of a repository.
    pub fn attach(&mut self, name: &RepositoryName, attachment: &Arc<Attachment>) {
        self.repository_mut(name).attach(attachment);
    }

    /// Adds a manifest whose blobs are elsewhere to a repository: under a tag, and replaces what had
    /// the tag before; or by its digest alone.
    pub fn add_manifest(&mut self, name: &RepositoryName, tag: Option<&Tag>, manifest: Manifest) {
        let repository = self.repository_mut(name);
        if let Some(tag) = tag {
            repository.tags.insert(tag.clone(), manifest.blob.digest);
        }
        repository.manifests.insert(manifest.blob.digest, manifest);
    }

    /// Returns the names of all repositories that have tags, in order.
    pub fn names(&self) -> impl Iterator<Item = &RepositoryName> {
        let tagged = self.repositories.iter().filter(|(_, found)| !found.tags.is_empty());
        tagged.map(|(name, _)| name)
    }

    /// Returns the repository of that name.
    pub fn repository(&self, name: &RepositoryName) -> Option<&Repository> {
        self.repositories.get(name)
    }
}

impl Repository {
    fn add(&mut self, artifact: &Arc<PreparedArtifact>) {
        let digest = artifact.digest();
        if self.manifests.contains_key(&digest) {
            // The new one has the same blobs, and may be better at making them.
            if let Some(old) = self.artifacts.iter_mut().find(|old| old.digest() == digest) {
                *old = Arc::clone(artifact);
                return;
            }
        }
        for manifest in artifact.manifests() {
            self.manifests.insert(manifest.blob.digest, manifest.clone());
        }
        let index = u32::try_from(self.artifacts.len()).expect("an image takes memory");
        for blob in artifact.blobs() {
            if self.in_artifacts(&blob).is_none() {
                self.blobs.insert((beginning(&blob), index));
            }
        }
        self.artifacts.push(Arc::clone(artifact));
    }

    fn attach(&mut self, attachment: &Arc<Attachment>) {
        let Attachment { manifest, blobs, subject, .. } = &**attachment;
        for blob in blobs {
            let kept = || Arc::new(blob.clone());
            self.documents.entry(blob.digest).or_insert_with(kept);
        }
        let found = Manifest::new(manifest.clone(), IMAGE_MANIFEST.to_owned());
        self.manifests.insert(manifest.digest, found);
        let referrers = self.referrers.entry(subject.digest).or_default();
        referrers.insert(manifest.digest, Arc::clone(attachment));
    }

    /// Returns the documents that refer to a manifest, in the order of their digests.
    pub fn referrers(&self, subject: &BlobDigest) -> impl Iterator<Item = &Attachment> {
        self.referrers.get(subject).into_iter().flat_map(BTreeMap::values).map(|it| &**it)
    }

    fn in_artifacts(&self, digest: &BlobDigest) -> Option<Content> {
        let beginning = beginning(digest);
        let mut found = self.blobs.range((beginning, 0)..=(beginning, u32::MAX));
        found.find_map(|(_, index)| self.artifacts.get(*index as usize)?.blob(digest))
    }

    /// Returns the tags, in order.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.tags.keys()
    }

    /// Returns the artifact that a tag stands for, if its layers are made here.
    pub fn artifact(&self, tag: &Tag) -> Option<&Arc<PreparedArtifact>> {
        let digest = self.tags.get(tag)?;
        self.artifacts.iter().find(|artifact| artifact.digest() == *digest)
    }

    /// Returns the manifest with that tag or digest.
    pub fn manifest(&self, name: &TagOrDigest) -> Option<&Manifest> {
        let digest = match name {
            TagOrDigest::Digest(digest) => digest,
            TagOrDigest::Tag(tag) => self.tags.get(tag)?,
        };
        self.manifests.get(digest)
    }

    /// Returns the blob with that digest. Manifests are blobs as well.
    pub fn blob(&self, digest: &BlobDigest) -> Option<Content> {
        let manifest =
            || self.manifests.get(digest).map(|found| Content::Config(Arc::clone(&found.blob)));
        let document = || self.documents.get(digest).cloned().map(Content::Config);
        self.in_artifacts(digest).or_else(document).or_else(manifest)
    }
}

/// Returns the first 64 bits of a digest.
fn beginning(digest: &BlobDigest) -> u64 {
    let bytes = digest.digest().bytes();
    u64::from_be_bytes(bytes[..8].try_into().expect("a digest has 32 bytes"))
}
