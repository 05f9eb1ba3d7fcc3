//! Lists the packages of images that were built, for clients that ask which documents refer to an image.
//! Stage: registry. Input: the digest of an image. Output: [`Attachment`], as a part of the catalog.
//!
//! A list is made when the first client asks for it: most clients only pull. It has the limits of a build.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::error::OnDemandError;
use super::request::PackageRequest;
use super::{FAILED_FOR, OnDemand, Outcome, Slot, for_log};
use crate::digest::BlobDigest;
use crate::error::with_causes;
use crate::oci::Blob;
use crate::outgoing::{RepositoryName, TaggedName};
use crate::proof::{AttachedDocument, Attachment, Subject};
use crate::registry::catalog::Catalog;
use crate::registry::on_demand::found::FoundImage;
use crate::registry::storage::{ImageKey, ObjectStorage};

/// The media type of a list: clients may ask for documents of one type.
pub const LIST_TYPE: &str = "application/spdx+json";
/// The largest number of bytes of all lists in memory. The newest list stays even if it is larger.
const MOST_BYTES: usize = 64 << 20;
/// The largest number of lists in memory.
const MOST_LISTS: usize = 1024;

/// The lists of packages that are remembered. The most recently used one is the last.
#[derive(Default)]
pub struct PackageLists(Mutex<Vec<Arc<PackageList>>>);

/// The list of the packages of one image.
struct PackageList {
    name: RepositoryName,
    image: BlobDigest,
    /// The lock of the client that makes the list. Others wait for it.
    turn: tokio::sync::Mutex<()>,
    made: Mutex<Option<Made>>,
}

/// The end of an attempt to make a list.
#[derive(Clone)]
enum Made {
    /// The list, if the image can still be built.
    Listed(Option<Arc<Attachment>>),
    /// There was an error at that time.
    Failed(Arc<OnDemandError>, Instant),
}

impl PackageList {
    fn lock(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the outcome for a client. An error holds only for a while.
    fn outcome(&self) -> Option<Outcome> {
        match &*self.lock() {
            Some(Made::Listed(_)) => Some(Ok(())),
            Some(Made::Failed(error, since)) if since.elapsed() < FAILED_FOR => {
                Some(Err(Arc::clone(error)))
            }
            _ => None,
        }
    }

    fn attachment(&self) -> Option<Arc<Attachment>> {
        match &*self.lock() {
            Some(Made::Listed(list)) => list.clone(),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        let list = self.attachment();
        list.map_or(0, |list| list.blobs.iter().map(|blob| blob.bytes.len()).sum())
    }
}

impl PackageLists {
    /// Returns the list of an image, which may not be made yet.
    fn of(&self, name: &RepositoryName, image: &BlobDigest) -> Arc<PackageList> {
        let found = self.lock().iter().find(|it| it.name == *name && it.image == *image).cloned();
        let list = found.unwrap_or_else(|| {
            let (turn, made) = Default::default();
            Arc::new(PackageList { name: name.clone(), image: *image, turn, made })
        });
        self.use_again(&list);
        list
    }

    /// Makes a list the most recently used one, and forgets the least recently used lists if there are too many.
    fn use_again(&self, list: &Arc<PackageList>) {
        let mut kept = self.lock();
        kept.retain(|it| it.name != list.name || it.image != list.image);
        kept.push(Arc::clone(list));
        let mut bytes = 0;
        let stays = kept.iter().rev().take(MOST_LISTS).take_while(|it| {
            let is_newest = bytes == 0;
            bytes += it.size();
            is_newest || bytes <= MOST_BYTES
        });
        let excess = kept.len() - stays.count();
        kept.drain(..excess);
    }

    /// Adds the lists to a catalog.
    pub fn add_to(&self, catalog: &mut Catalog) {
        for list in self.lock().iter() {
            if let Some(found) = list.attachment() {
                catalog.attach(&list.name, &found);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<PackageList>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OnDemand {
    /// Finds or makes the list of an image's packages, and adds it to the catalog. Does nothing for an image that was
    /// neither built nor found.
    ///
    /// # Errors
    /// Fails with [`OnDemandError`] if the list can't be made or stored.
    pub async fn want_list(
        &self,
        name: &RepositoryName,
        image: &BlobDigest,
        client: &str,
    ) -> Outcome {
        let built = self.built(name, image);
        if built.is_none() && self.storage.is_none() {
            return Ok(());
        }
        let list = self.lists.of(name, image);
        let turn = list.turn.lock().await;
        if let Some(outcome) = list.outcome() {
            return outcome;
        }
        let is_built = built.is_some();
        let (made, outcome) = match self.find_list(name, image, built, client).await {
            // A client may ask for the tag later, which leads to the list.
            Ok(None) if !is_built => (None, Ok(())),
            Ok(found) => (Some(Made::Listed(found.map(Arc::new))), Ok(())),
            Err(error) => {
                let error = Arc::new(error);
                let is_passing = matches!(*error, OnDemandError::Busy(_));
                let failed = Made::Failed(Arc::clone(&error), Instant::now());
                ((!is_passing).then_some(failed), Err(error))
            }
        };
        *list.lock() = made;
        drop(turn);
        self.lists.use_again(&list);
        self.publish(&self.lock());
        outcome
    }

    /// Returns the name and the subject of an image that this server has built or found by its tag.
    fn built(&self, name: &RepositoryName, image: &BlobDigest) -> Option<(TaggedName, Subject)> {
        self.lock().slots.iter().find_map(|(tagged, slot)| match slot {
            Slot::Built { found, .. } if tagged.repository == *name => {
                let subject = found.subject();
                (subject.digest == *image).then(|| (tagged.clone(), subject))
            }
            _ => None,
        })
    }

    async fn find_list(
        &self,
        name: &RepositoryName,
        image: &BlobDigest,
        built: Option<(TaggedName, Subject)>,
        client: &str,
    ) -> Result<Option<Attachment>, OnDemandError> {
        let key = ImageKey::of_list(image, &self.options.nix.settings());
        if let Some(storage) = &self.storage {
            let stored = stored_list(storage, name, image, &key).await;
            if let Some(found) = stored.map_err(OnDemandError::Storage)? {
                return Ok(Some(found));
            }
        }
        let Some((tagged, subject)) = built else { return Ok(None) };
        let Some(list) = self.make_list(&tagged, subject, client).await? else { return Ok(None) };
        let Some(storage) = &self.storage else { return Ok(Some(list)) };
        let sent = storage.put_list(name, &key, &list).await.map_err(OnDemandError::Storage)?;
        self.metrics.stored_bytes.inc_by(sent);
        Ok(Some(list.without_blobs()))
    }

    /// Makes the list of an image's packages. Returns `None` if another image has the name by now.
    async fn make_list(
        &self,
        name: &TaggedName,
        subject: Subject,
        client: &str,
    ) -> Result<Option<Attachment>, OnDemandError> {
        let options = &self.options;
        let request =
            PackageRequest::new(name, &options.source, options.tags, options.most_packages)?;
        let Ok(_place) = self.places.acquire(&client.to_owned()).await else {
            self.metrics.builds_refused.inc();
            return Err(OnDemandError::Busy(self.places.waiting()));
        };
        let (repository, tag) = for_log(name);
        let begin = Instant::now();
        let listed = options.nix.list_packages(&request).await;
        let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (spec, list) = listed.inspect_err(|error| {
            let error = with_causes(error);
            tracing::warn!(name = repository, tag, ms, error, "the packages are not listed");
        })?;
        if FoundImage::of_spec(&spec).subject().digest != subject.digest {
            tracing::warn!(
                name = repository,
                tag,
                ms,
                "the packages are not listed: the name has another image by now"
            );
            return Ok(None);
        }
        tracing::info!(name = repository, tag, ms, bytes = list.len(), "listed the packages");
        let last = repository.rsplit('/').next().unwrap_or_default();
        let title = Some(format!("{last}.spdx.json"));
        let document = AttachedDocument { media_type: LIST_TYPE.to_owned(), title, bytes: list };
        Ok(Some(Attachment::of(subject, document)))
    }
}

/// Finds the list that another server has stored for one of a repository's images.
async fn stored_list(
    storage: &ObjectStorage,
    name: &RepositoryName,
    image: &BlobDigest,
    key: &ImageKey,
) -> Result<Option<Attachment>, crate::registry::storage::StorageError> {
    let Some(list) = storage.image(name, key).await? else { return Ok(None) };
    let manifest = Blob { digest: list.digest, bytes: list.bytes.into() };
    Ok(Attachment::of_manifest(*image, LIST_TYPE, manifest))
}
