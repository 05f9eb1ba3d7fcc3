//! Builds images on demand, of the packages that an image's name lists:
//! `/v2/shell/git/manifests/latest`.
//! Stage: registry. Input: names and tags. Output: [`Catalog`] with what was built.
//!
//! Requests for the same image share one build. When the last client that waits for the build has
//! left, the build ends after a while. Builds begin in turn, with a fair share for each client. The
//! result is remembered for a while, also if there is no such image; the result for a commit is
//! remembered as long as there is room. With an object storage, images are kept there as well, and
//! other servers find them there without a build.

mod error;
mod found;
mod git_source;
mod nix_build;
mod nix_result;
mod package_lists;
mod processes;
mod request;
mod served_tags;
mod signatures;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::digest::{BlobDigest, Digest};
use crate::error::with_causes;
use crate::oci::ImageSpec;
use crate::outgoing::{RepositoryName, TaggedName};
use crate::registry::catalog::Catalog;
use crate::registry::fair::{FairPlaces, Shares};
use crate::registry::metrics::Metrics;
use crate::registry::storage::{ImageKey, ObjectStorage, StorageKeys, Stored};
use crate::store::Store;
use found::FoundImage;
use package_lists::PackageLists;

pub use error::OnDemandError;
pub use nix_build::{NixAccess, NixBuild, NixLimits, PopularityFile};
pub use package_lists::LIST_TYPE;
pub use request::{PackageRequest, PackageSource, ParseSourceError};
pub use served_tags::ServedTags;
pub use signatures::{RequiredSignatures, TrustedKey};

/// The time for which a failed build is remembered: clients ask several times.
const FAILED_FOR: Duration = Duration::from_secs(30);
/// The time for which an image that lost its tag is still found by its digest.
const KEPT: Duration = Duration::from_secs(600);

/// The options: the images that may be built, and their number at a time.
#[derive(Clone, Debug)]
pub struct OnDemandOptions {
    /// The source of the packages.
    pub source: PackageSource,
    /// The tags that clients may ask for.
    pub tags: ServedTags,
    /// The settings for Nix.
    pub nix: NixBuild,
    /// The directory for links to the images that are served, which Nix must not collect.
    pub roots: PathBuf,
    /// The storage that other servers share, as [`ObjectStorage::open`] takes it.
    pub storage: Option<String>,
    /// The keys for the signatures of pointers in the storage, if there are any.
    pub storage_keys: StorageKeys,
    /// The number of builds at a time.
    pub builds: usize,
    /// The number of builds that may wait.
    pub queue: usize,
    /// The time for which a build continues after the last client that waits for it has left.
    pub grace: Duration,
    /// The largest number of packages of an image.
    pub most_packages: usize,
    /// The largest size of an image's layers, in bytes.
    pub most_bytes: u64,
    /// The number of images that are remembered.
    pub most_images: usize,
    /// The time for which images are remembered if their packages may change.
    pub remember: Duration,
}

type Outcome = Result<(), Arc<OnDemandError>>;

/// The state of the image of a name and a tag.
enum Slot {
    Building(Build),
    Built { found: FoundImage, fixed: bool, since: Instant, used: Instant },
    Failed { error: Arc<OnDemandError>, since: Instant },
}

/// A build that runs or waits for its turn.
#[derive(Clone)]
struct Build {
    outcome: watch::Receiver<Option<Outcome>>,
    /// The number of requests that wait for the build.
    audience: watch::Sender<usize>,
}

/// A request that waits for a build, until it is dropped.
struct Waiting {
    build: Build,
}

impl Waiting {
    fn new(build: Build) -> Self {
        build.audience.send_modify(|waiting| *waiting += 1);
        Self { build }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.build.audience.send_modify(|waiting| *waiting -= 1);
    }
}

/// Returns when no request has waited for a build for the time `grace`.
async fn abandoned(mut audience: watch::Receiver<usize>, grace: Duration) {
    loop {
        // The sender lives as long as the build.
        let _ = audience.wait_for(|waiting| *waiting == 0).await;
        if !matches!(timeout(grace, audience.wait_for(|waiting| *waiting > 0)).await, Ok(Ok(_))) {
            return;
        }
    }
}

#[derive(Default)]
struct State {
    slots: BTreeMap<TaggedName, Slot>,
    /// The images that were replaced, with their repositories.
    kept: Vec<(RepositoryName, FoundImage, Instant)>,
}

/// Builds images by the names of their packages, and remembers them.
pub struct OnDemand {
    options: OnDemandOptions,
    store: Store,
    storage: Option<ObjectStorage>,
    metrics: Arc<Metrics>,
    places: FairPlaces<String>,
    state: Mutex<State>,
    lists: PackageLists,
    catalog: ArcSwap<Catalog>,
}

impl OnDemand {
    /// Starts without any images.
    pub fn new(
        options: OnDemandOptions,
        store: Store,
        storage: Option<ObjectStorage>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let places = FairPlaces::new(Shares {
            places: options.builds,
            // Keep one place for other clients.
            client_places: options.builds.saturating_sub(1).max(1),
            queue: options.queue,
            client_queue: options.queue,
        });
        let (state, lists, catalog) = Default::default();
        Self { options, store, storage, metrics, places, state, lists, catalog }
    }

    /// Returns the storage that has the blobs, if there is one.
    pub fn storage(&self) -> Option<&ObjectStorage> {
        self.storage.as_ref()
    }

    /// Returns the catalog of the images that were built.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Finds or builds an image, and adds it to the catalog. `client` is the key of the client that shares the places for builds.
    ///
    /// # Errors
    /// Fails with [`OnDemandError`] if there is no such image, or it can't be built or stored.
    pub async fn want(self: &Arc<Self>, name: &TaggedName, client: &str) -> Outcome {
        loop {
            let Some(mut waiting) = self.begin(name, client)? else { return Ok(()) };
            let outcome = waiting.build.outcome.wait_for(Option::is_some).await;
            let lost =
                || Err(Arc::new(OnDemandError::Internal(std::io::Error::other("it is lost"))));
            let outcome =
                outcome.map_or_else(|_| lost(), |outcome| outcome.clone().unwrap_or_else(lost));
            match outcome {
                // The build was ended just when this request began to wait for it: begin again.
                Err(error) if matches!(*error, OnDemandError::Abandoned) => {}
                outcome => return outcome,
            }
        }
    }

    /// Begins a build if the image is not there. Returns a receiver for the outcome, or `None` if
    /// the image is there.
    fn begin(
        self: &Arc<Self>,
        name: &TaggedName,
        client: &str,
    ) -> Result<Option<Waiting>, Arc<OnDemandError>> {
        let options = &self.options;
        let mut state = self.lock();
        match state.slots.get_mut(name) {
            // If the sender was dropped without an outcome, build again.
            Some(Slot::Building(build)) if build.outcome.has_changed().is_ok() => {
                self.metrics.build_joins.inc();
                return Ok(Some(Waiting::new(build.clone())));
            }
            Some(Slot::Built { found, fixed, since, used })
                if (*fixed || since.elapsed() < options.remember) && !self.has_lost_of(found) =>
            {
                *used = Instant::now();
                return Ok(None);
            }
            Some(Slot::Failed { error, since }) if since.elapsed() < FAILED_FOR => {
                return Err(Arc::clone(error));
            }
            _ => {}
        }
        let request =
            PackageRequest::new(name, &options.source, options.tags, options.most_packages)?;
        let (sender, outcome) = watch::channel(None);
        let build = Build { outcome, audience: watch::Sender::new(0) };
        let waiting = Waiting::new(build.clone());
        let audience = build.audience.subscribe();
        let before = state.slots.insert(name.clone(), Slot::Building(build));
        if let Some(Slot::Built { found, .. }) = before {
            state.kept.push((name.repository.clone(), found, Instant::now()));
        }
        let this = Arc::clone(self);
        // The build runs in a task of its own: the request's task may end before.
        let client = client.to_owned();
        tokio::spawn(async move {
            let found = tokio::select! {
                found = this.find(&request, &client) => found,
                () = abandoned(audience, this.options.grace) => Err(OnDemandError::Abandoned),
            };
            sender.send_replace(Some(this.remember(request, found)));
        });
        Ok(Some(waiting))
    }

    /// Returns whether a client found a blob of an image missing or damaged in the storage.
    fn has_lost_of(&self, found: &FoundImage) -> bool {
        match (found, &self.storage) {
            (FoundImage::Stored(manifest), Some(storage)) => {
                storage.has_lost_of(&manifest.blob.bytes)
            }
            _ => false,
        }
    }

    /// Notes that a blob which a client asked for by `name` is not in the storage.
    pub fn note_missing(&self, name: &RepositoryName, digest: &BlobDigest) {
        let Some(storage) = &self.storage else { return };
        let state = self.lock();
        let slots = state.slots.iter().filter(|(slot, _)| slot.repository == *name);
        let manifests = slots.filter_map(|(_, slot)| match slot {
            Slot::Built { found: FoundImage::Stored(manifest), .. } => Some(&*manifest.blob.bytes),
            _ => None,
        });
        storage.note_missing(digest, manifests);
    }

    /// Finds an image in the storage, or builds it.
    async fn find(
        &self,
        request: &PackageRequest,
        client: &str,
    ) -> Result<FoundImage, OnDemandError> {
        match self.stored(request).await {
            Some(found) => Ok(found),
            None => self.build(request, client).await,
        }
    }

    /// Remembers the result of a request. A result that says only that there was no turn, or that
    /// the build was ended, is not remembered.
    fn remember(
        &self,
        request: PackageRequest,
        found: Result<FoundImage, OnDemandError>,
    ) -> Outcome {
        let fixed = request.source.is_fixed();
        let now = Instant::now();
        let (slot, outcome) = match found {
            Ok(found) => (Some(Slot::Built { found, fixed, since: now, used: now }), Ok(())),
            Err(error) => {
                let error = Arc::new(error);
                let passing = matches!(*error, OnDemandError::Busy(_) | OnDemandError::Abandoned);
                let slot =
                    (!passing).then(|| Slot::Failed { error: Arc::clone(&error), since: now });
                (slot, Err(error))
            }
        };
        if let Err(error) = &outcome
            && matches!(**error, OnDemandError::Abandoned)
        {
            let (name, tag) = for_log(&request.name);
            tracing::info!(name, tag, "the build was ended, since no client waits for it");
            self.metrics.builds_abandoned.inc();
        }
        let mut state = self.lock();
        match slot {
            Some(slot) => drop(state.slots.insert(request.name, slot)),
            None => drop(state.slots.remove(&request.name)),
        }
        for name in state.forget(self.options.most_images) {
            // The link may have been removed already.
            let _ = std::fs::remove_file(self.link(&name));
        }
        self.publish(&state);
        outcome
    }

    /// Replaces the catalog.
    fn publish(&self, state: &State) {
        let mut catalog = state.catalog();
        self.lists.add_to(&mut catalog);
        self.catalog.store(Arc::new(catalog));
    }

    /// Returns the image if another server, or an earlier run of this one, has stored it.
    async fn stored(&self, request: &PackageRequest) -> Option<FoundImage> {
        let storage = self.storage.as_ref()?;
        let (name, tag) = for_log(&request.name);
        match storage.image(&request.name.repository, &self.key(request)).await {
            Ok(stored) => {
                let is_fresh = |stored: OffsetDateTime| {
                    let age = OffsetDateTime::now_utc() - stored;
                    request.source.is_fixed() || age < self.options.remember
                };
                let stored = stored.filter(|manifest| is_fresh(manifest.stored))?;
                tracing::info!(name, tag, "found in the storage");
                self.metrics.images_found.inc();
                Some(FoundImage::of(stored))
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(name, tag, error, "cannot look into the storage");
                None
            }
        }
    }

    async fn build(
        &self,
        request: &PackageRequest,
        client: &str,
    ) -> Result<FoundImage, OnDemandError> {
        let Ok(_place) = self.places.acquire(&client.to_owned()).await else {
            self.metrics.builds_refused.inc();
            return Err(OnDemandError::Busy(self.places.waiting()));
        };
        let (begin, (name, tag)) = (Instant::now(), for_log(&request.name));
        tracing::info!(name, tag, source = request.source.for_messages(), "building");
        let link = self.link(&request.name);
        let built = self.options.nix.run(request, &link).await.and_then(|spec| self.check(spec));
        let ms = || u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.metrics.builds.inc();
        self.metrics.built_in(begin.elapsed());
        let kept = match built {
            Ok(spec) => {
                tracing::info!(name, tag, ms = ms(), layers = spec.layers.len(), "built");
                self.keep(request, spec).await
            }
            Err(error) => Err(error),
        };
        kept.inspect_err(|error| {
            self.metrics.builds_failed.inc();
            tracing::warn!(name, tag, ms = ms(), error = with_causes(error), "not built");
        })
    }

    /// Stores an image for other servers. If the storage has no room for it, the request fails:
    /// other servers could not send its layers.
    async fn keep(
        &self,
        request: &PackageRequest,
        spec: ImageSpec,
    ) -> Result<FoundImage, OnDemandError> {
        let Some(storage) = &self.storage else { return Ok(FoundImage::here(spec)) };
        let spec = Arc::new(spec);
        let (name, tag) = for_log(&request.name);
        let repository = &request.name.repository;
        let stored = storage.put_image(&self.store, &spec, repository, &self.key(request)).await;
        let stored = stored.map_err(OnDemandError::Storage)?;
        let Stored { layers_sent, layers_skipped, bytes_sent, .. } = stored;
        self.metrics.stored_bytes.inc_by(bytes_sent);
        tracing::info!(name, tag, layers_sent, layers_skipped, bytes_sent, "stored");
        Ok(FoundImage::of_spec(&spec))
    }

    /// Returns the key under which an image is stored. Servers with different settings, for which a
    /// tag stands for different images, have different keys.
    fn key(&self, request: &PackageRequest) -> ImageKey {
        let settings = format!("{}\n{}", request.source, self.options.nix.settings());
        ImageKey::new(&request.name.tag, &settings)
    }

    /// Ends the builds that are under way.
    pub fn end(&self) {
        self.options.nix.end();
    }

    fn check(&self, spec: ImageSpec) -> Result<ImageSpec, OnDemandError> {
        let (size, most) = (spec.size(), self.options.most_bytes);
        if size > most { Err(OnDemandError::TooLarge { size, most }) } else { Ok(spec) }
    }

    fn link(&self, name: &TaggedName) -> PathBuf {
        let hex = Digest::of(name.to_string().as_bytes()).hex();
        self.options.roots.join(&hex[..32])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets images that are too old, and the least recently used ones if there are too many.
    /// Returns the images whose links are no longer needed.
    fn forget(&mut self, most: usize) -> Vec<TaggedName> {
        self.kept.retain(|(_, _, since)| since.elapsed() < KEPT);
        let excess = self.kept.len().saturating_sub(most);
        self.kept.drain(..excess);
        self.slots.retain(
            |_, slot| !matches!(slot, Slot::Failed { since, .. } if since.elapsed() >= FAILED_FOR),
        );
        let built = self.slots.iter().filter_map(|(reference, slot)| match slot {
            Slot::Built { used, .. } => Some((*used, reference.clone())),
            Slot::Building(_) | Slot::Failed { .. } => None,
        });
        let mut built: Vec<_> = built.collect();
        built.sort();
        let excess = built.len().saturating_sub(most);
        let forgotten: Vec<_> = built.into_iter().take(excess).map(|(_, found)| found).collect();
        for reference in &forgotten {
            self.slots.remove(reference);
        }
        forgotten
    }

    fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, found, _) in &self.kept {
            found.add_to(&mut catalog, name, None);
        }
        for (TaggedName { repository, tag }, slot) in &self.slots {
            if let Slot::Built { found, .. } = slot {
                found.add_to(&mut catalog, repository, Some(tag));
            }
        }
        catalog
    }
}

/// Returns the repository and the tag of a name, as fields of a line of the log.
fn for_log(name: &TaggedName) -> (&str, &str) {
    (name.repository.as_str(), name.tag.as_str())
}
