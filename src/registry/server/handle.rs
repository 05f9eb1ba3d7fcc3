//! Handles a request: checks the user, builds the image if necessary, and asks the storage or the
//! catalog.
//! Stage: registry. Input: a request. Output: a response, which is counted and logged.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{Version, header};
use axum::response::Response;
use tokio::time::timeout;

use super::answer::{self, answer};
use super::connection::{Connection, Role};
use super::map;
use super::permissions::Asker;
use super::referrers::asks_for;
use super::route::{NoRoute, Route, route};
use super::shared::Shared;
use super::stored;
use super::users::Admission;
use super::watched_body::{ServedExchange, WatchedBody};
use crate::digest::BlobDigest;
use crate::outgoing::{RepositoryName, TagOrDigest, TaggedName};
use crate::registry::client_address;
use crate::registry::on_demand::LIST_TYPE;

/// The longest time for which a request waits for its turn.
const TURN: Duration = Duration::from_secs(30);

/// Answers a request, if the client is allowed to make it.
pub async fn handle(
    shared: &Arc<Shared>,
    connection: &Connection,
    request: Request,
) -> Response<WatchedBody> {
    let client = client_address::client(connection.peer, request.headers(), &shared.trusted);
    let busy = connection.guest.busy();
    let mut exchange = ServedExchange::new(&shared.metrics, &request, client, busy);
    let answering = answered(shared, connection.role, client, &mut exchange, request);
    let (route, response) = match caught(answering).await {
        Some(answered) => answered,
        None => {
            tracing::error!("a request has made the server panic");
            ("panic", answer::panicked())
        }
    };
    exchange.watch(route, response)
}

/// Runs a future. Returns `None` if it panics.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
            Ok(Poll::Pending) => Poll::Pending,
            // The future is not polled again.
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

async fn answered(
    shared: &Arc<Shared>,
    role: Role,
    client: IpAddr,
    exchange: &mut ServedExchange,
    request: Request,
) -> (&'static str, Response) {
    if let Some(problem) = wrong_host(&request) {
        return ("none", answer::bad_request(problem));
    }
    if has_other_coding(&request) {
        return ("none", answer::unknown_coding());
    }
    let path = request.uri().path();
    let found = route(path);
    // Health checks have no password, and metrics matter most under load: neither needs a turn.
    let is_health = path == answer::HEALTH;
    let is_own = is_health || path == answer::METRICS;
    match role {
        Role::Admin if is_own => return answer(shared, &Asker::Anybody, &request, &found),
        Role::Admin => return ("none", answer::nothing_here()),
        Role::Registry => {}
    }
    let client = client_address::shared(client);
    if !is_own {
        match timeout(TURN, shared.places.acquire(&client)).await {
            Ok(Ok(place)) => exchange.hold(place),
            _ => return ("crowded", answer::crowded()),
        }
    }
    let permissions = shared.permissions.load_full();
    let asker = if is_health {
        Asker::Anybody
    } else {
        // With permissions, some repositories may need no password: the rules decide below.
        let may_be_open = permissions.is_some() && may_be_open(&found);
        let given = authorization(&request);
        match admitted(shared, client, exchange, given, may_be_open).await {
            Ok(asker) => asker,
            Err(refusal) => return ("unauthorized", refusal),
        }
    };
    if let Some(permissions) = &permissions
        && let Ok(found) = &found
        && let Some(name) = found.repository()
        && !permissions.allow(&asker, name)
    {
        return match asker {
            Asker::Anybody if shared.users.load().is_some() => {
                ("unauthorized", answer::unauthorized())
            }
            _ => ("denied", answer::denied(name)),
        };
    }
    if let Some(on_demand) = &shared.on_demand
        && let Some(wanted) = wanted(shared, &request, &found)
    {
        let client = match &asker {
            Asker::User(user) => format!("user {user}"),
            Asker::Anybody => client.to_string(),
        };
        let (kind, outcome) = match &wanted {
            Wanted::Image(name) => ("manifest", on_demand.want(name, &client).await),
            Wanted::List(name, image) => {
                ("referrers", on_demand.want_list(name, image, &client).await)
            }
        };
        if let Err(error) = outcome {
            return (kind, answer::not_built(&error, request.method()));
        }
    }
    let (head, body) = request.into_parts();
    if let Some(answered) = map::answer(shared, &head, &found).await {
        return answered;
    }
    match stored::answer(shared, &head, &found).await {
        Some(answered) => answered,
        None => answer(shared, &asker, &Request::from_parts(head, body), &found),
    }
}

/// Checks the `Authorization` header that a client has given, if the server has users. With
/// `may_be_open`, the header may be missing. Returns the sender, or the answer that refuses the request.
async fn admitted(
    shared: &Shared,
    client: IpAddr,
    exchange: &mut ServedExchange,
    given: Option<&str>,
    may_be_open: bool,
) -> Result<Asker, Response> {
    let Some(users) = shared.users.load_full() else { return Ok(Asker::Anybody) };
    if given.is_none() && may_be_open {
        return Ok(Asker::Anybody);
    }
    match users.admits(given, client).await {
        Admission::Admitted(user) => {
            exchange.by(&user);
            Ok(Asker::User(user))
        }
        refused => {
            exchange.by(refused.user());
            shared.metrics.logins_failed.inc_by(u64::from(given.is_some()));
            Err(match refused {
                Admission::TooMany(_) => answer::too_many_passwords(),
                _ => answer::unauthorized(),
            })
        }
    }
}

/// Returns a message if the `Host` header is missing, is not valid or there are several: HTTP/1.1
/// needs exactly one (RFC 9112, 3.2).
fn wrong_host(request: &Request) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() >= Version::HTTP_11 => Some("a request has a `Host` header"),
        (Some(_), Some(_)) => Some("a request has one `Host` header"),
        // Neither a list nor other text is a host with a port (RFC 9110, 7.2).
        (Some(host), None) if !host.as_bytes().iter().all(|byte| is_of_host(*byte)) => {
            Some("`Host` has one host, with a port or without")
        }
        _ => None,
    }
}

/// Returns whether the body has a transfer coding other than `chunked`. The answer is 501 then (RFC 9112,
/// 6.1): a proxy on the way that knows the coding could find other requests in these bytes.
fn has_other_coding(request: &Request) -> bool {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Returns whether a byte may be part of a host and a port (RFC 3986, 3.2.2), except for a comma,
/// which proxies write between two values of a header.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

/// Returns whether a route belongs to a repository: repositories may be open to clients without a
/// password. The path `/v2/` does not. Clients ask for it first to learn whether they need a
/// password, and never send one if the answer is no.
fn may_be_open(found: &Result<Route, NoRoute>) -> bool {
    found.as_ref().is_ok_and(|found| found.repository().is_some())
}

/// The thing that is built before a request is answered.
enum Wanted {
    Image(TaggedName),
    /// The list of packages of the image with this manifest.
    List(RepositoryName, BlobDigest),
}

/// Returns what is to be built for a request.
fn wanted(shared: &Shared, request: &Request, found: &Result<Route, NoRoute>) -> Option<Wanted> {
    let found = found.as_ref().ok()?;
    if !answer::reads(request.method())
        || shared.catalog.load().repository(found.repository()?).is_some()
    {
        return None;
    }
    match found {
        Route::Manifest(name, TagOrDigest::Tag(tag)) => {
            Some(Wanted::Image(TaggedName { repository: name.clone(), tag: tag.clone() }))
        }
        Route::Referrers(name, image) if asks_for(request.uri().query(), LIST_TYPE) => {
            Some(Wanted::List(name.clone(), *image))
        }
        _ => None,
    }
}

/// Returns the `Authorization` header. A request with two of them has none: another program on the way
/// may have looked at the other one.
fn authorization<B>(request: &Request<B>) -> Option<&str> {
    let mut all = request.headers().get_all(header::AUTHORIZATION).iter();
    let first = all.next()?;
    if all.next().is_some() {
        return None;
    }
    first.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_noticed() {
        assert_eq!(caught(async { 1 }).await, Some(1));
        let panics = async {
            tokio::task::yield_now().await;
            panic!("as a test has it");
        };
        assert_eq!(caught::<()>(panics).await, None);
    }
}
