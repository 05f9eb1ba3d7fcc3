//! Answers with a page that shows the contents of an image.
//! Stage: registry. Input: a request. Output: a response.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Method;
use axum::http::request::Parts as Head;
use axum::response::Response;

use super::answer;
use super::route::{MAP, NoRoute, Route};
use super::shared::Shared;
use crate::oci::{Architecture, ArtifactFile, Image, ImageSpec};
use crate::registry::catalog::PreparedArtifact;
use crate::store::Store;

/// Answers a request for the map of an image; `?ARCHITECTURE` chooses one of several images. Returns
/// `None` for other requests, and if this server has no maps.
pub async fn answer(
    shared: &Arc<Shared>,
    request: &Head,
    found: &Result<Route, NoRoute>,
) -> Option<(&'static str, Response)> {
    let explain = shared.explain?;
    let Ok(Route::Map(name, tag)) = found else { return None };
    if !answer::reads(&request.method) {
        return None;
    }
    let catalog = shared.catalog.load_full();
    let artifact = catalog.repository(name).and_then(|found| found.artifact(tag)).cloned();
    let Some(artifact) = artifact.filter(|artifact| artifact.file().is_some()) else {
        return Some(("map", answer::of_registry(answer::no_manifest(&tag.clone().into()))));
    };
    let architecture = request.uri.query().and_then(|query| query.split('/').next()?.parse().ok());
    let architecture = architecture.unwrap_or_else(Architecture::of_this_machine);
    let shown = request.uri.path().trim_start_matches(MAP).to_owned();
    // To read a file and to write the page takes a processor for a while, like a layer.
    let place = shared.makers.place().await;
    let store = shared.store.clone();
    let made = tokio::task::spawn_blocking(move || {
        let _place = place;
        let spec = read(&store, &artifact, &architecture)?;
        Some(explain(&spec, &shown))
    });
    let mut response = match made.await {
        Ok(Some(page)) => answer::html(page),
        Ok(None) => answer::no_map(),
        Err(_) => answer::panicked(),
    };
    if request.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    Some(("map", answer::of_registry(response)))
}

/// Reads the file of an artifact again, with all that is known of its store paths: the catalog keeps
/// only what layers are made of. Returns `None` if the file has another image by now.
fn read(
    store: &Store,
    artifact: &PreparedArtifact,
    architecture: &Architecture,
) -> Option<ImageSpec> {
    let mut file = ArtifactFile::open(store, artifact.file()?).ok()?;
    let spec = file.parse_whole(store, architecture).ok()?;
    let digest = Image::new(&spec).manifest.digest;
    let is_same = artifact.manifests().iter().any(|manifest| manifest.blob.digest == digest);
    is_same.then_some(spec)
}
