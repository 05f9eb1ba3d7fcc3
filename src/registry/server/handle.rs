//! Handles a request: checks the user, builds the image if necessary, and asks the storage or the
//! catalog.
//! Stage: registry. Input: a request. Output: a response, which is counted and logged.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header;
use axum::response::Response;

use super::answer::{self, answer};
use super::route::{Route, route};
use super::shared::Shared;
use super::stored;
use super::watched_body::{Exchange, WatchedBody};

/// Answers a request, if its user is allowed.
pub async fn handle(shared: &Arc<Shared>, request: Request) -> Response<WatchedBody> {
    let path = request.uri().path().to_owned();
    let exchange = Exchange::new(&shared.metrics, request.method().clone(), path);
    // Monitoring asks for the health without a password.
    let open = request.uri().path() == answer::HEALTH;
    if let Some(users) = shared.users.load_full().filter(|_| !open) {
        let given = request.headers().get(header::AUTHORIZATION);
        if !users.admits(given.and_then(|value| value.to_str().ok())).await {
            return exchange.watch("unauthorized", answer::unauthorized());
        }
    }
    if let Some(on_demand) = &shared.on_demand
        && let Some((name, tag)) = wanted(shared, &request)
        && let Err(error) = on_demand.want(name, &tag).await
    {
        return exchange.watch("manifest", answer::not_built(&error, request.method()));
    }
    let (head, body) = request.into_parts();
    let (route, response) = match stored::answer(shared, &head).await {
        Some(answered) => answered,
        None => answer(shared, &Request::from_parts(head, body)),
    };
    exchange.watch(route, response)
}

/// Returns the image that a request asks for, if that image is to be built.
fn wanted<'r>(shared: &Shared, request: &'r Request) -> Option<(&'r str, Cow<'r, str>)> {
    match route(request.uri().path()) {
        Ok(Route::Manifest(name, tag))
            if answer::reads(request.method())
                && !tag.contains(':')
                && shared.catalog.load().repository(name).is_none() =>
        {
            Some((name, tag))
        }
        _ => None,
    }
}
