//! Sends requests to one repository of a registry.
//! Stage: registry. Input: requests. Output: [`Answer`]s.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::answer::{Answer, is_of};
use super::authorization::{Authorization, Said};
use super::connect::{Certificates, Network, Proxies};
use super::credentials::{self, AuthSource, Credentials, Login};
use super::error::{ClientError, Missing};
use super::exchange::{Exchange, Outcome, Payload, Proof, Request};
use super::no_answer::NoAnswer;
use super::origin::Origin;
use super::registries_conf::{Location, RegistriesConf};
use super::retry::is_transient;
use super::scopes::Scopes;
use crate::digest::BlobDigest;
use crate::foreign::PublicUrl;
use crate::outgoing::{Reference, RepositoryName, TagOrDigest, Watch};
use crate::proof::Predicate;

/// The media types of manifests that are accepted.
pub const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// The options of a client.
#[derive(Clone, Default)]
pub struct ClientOptions {
    /// True if the registry must have a valid certificate; false allows plain HTTP as well. If
    /// unset, a registry on this machine needs none.
    pub tls_verify: Option<bool>,
    /// The certificates that are trusted and presented.
    pub certificates: Certificates,
    /// The proxies for requests.
    pub proxies: Arc<Proxies>,
    /// The settings for registries: mirrors, locations and aliases.
    pub registries: Arc<RegistriesConf>,
    /// The credentials that the user gave, if any.
    pub credentials: Option<Credentials>,
    /// The places with credentials of Docker and podman. The first that has the registry counts.
    pub auth_sources: Vec<AuthSource>,
    /// Repositories of the registry that may have layers already.
    pub mount_from: Vec<RepositoryName>,
    /// True to reuse layers of the tag's present image that are compressed, by any tool. The
    /// image's digest then depends on that image.
    pub reuse_compressed: bool,
    /// Statements to push beside a single image, in an index.
    pub attestations: Vec<Predicate>,
}

impl ClientOptions {
    /// Returns the options for a place that has an image. Credentials that the user gave are for
    /// the registry that was named, and not for others.
    pub fn at(&self, reference: &Reference, location: &Location) -> Self {
        let is_named = location.reference.registry() == reference.registry();
        Self {
            tls_verify: self.tls_verify.or(location.insecure.then_some(false)),
            credentials: self.credentials.clone().filter(|_| is_named),
            ..self.clone()
        }
    }
}

/// A reader of a blob's bytes.
pub type BodyReader = ureq::BodyReader<'static>;

/// The access to a repository that is needed: a user may be allowed to read and not to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read images.
    Pull,
    /// Read and write images.
    Push,
}

/// The answer whether a repository has a blob or a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The repository has it, with the expected size.
    There,
    /// The repository does not have it.
    Missing,
    /// The registry does not say whether it has it, or does not tell this user.
    Unknown,
}

/// A repository of a registry.
pub struct Client<'a> {
    exchange: Exchange<'a>,
    host: String,
    repository: RepositoryName,
    authorization: Authorization,
    /// Repositories from which blobs can't be mounted.
    closed: Mutex<BTreeSet<RepositoryName>>,
    /// True if the registry has refused `PATCH`.
    no_patch: AtomicBool,
}

impl<'a> Client<'a> {
    /// Finds out the protocol and the credentials for a registry.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if the certificates or credentials can't be read, or there is no
    /// TLS connection.
    pub fn connect(
        reference: &Reference,
        access: Access,
        options: &ClientOptions,
        watch: &'a dyn Watch,
    ) -> Result<Self, ClientError> {
        let host = reference.registry().host_and_port().to_owned();
        let may_be_plain_http =
            options.tls_verify.map_or_else(|| reference.registry().is_loopback(), |verify| !verify);
        let verify = options.tls_verify != Some(false);
        let network =
            Network::new(&options.certificates, reference.registry(), verify, &options.proxies)?;
        let login = match &options.credentials {
            Some(given) => Login::given(given.clone(), reference),
            None => credentials::look_up(&options.auth_sources, reference)?,
        };
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let repository = reference.repository().clone();
        let scopes = Scopes::new(&repository, actions, &options.mount_from);
        let origin = Origin::new(format!("https://{host}"), verify);
        let mut exchange = Exchange::new(&network, origin, watch);
        if may_be_plain_http && !speaks_tls(&exchange)? {
            exchange.set_origin(Origin::new(format!("http://{host}"), verify));
        }
        let authorization = Authorization::new(login, scopes);
        let (closed, no_patch) = (Mutex::default(), AtomicBool::default());
        Ok(Self { exchange, host, repository, authorization, closed, no_patch })
    }

    /// Returns the address of a path in the repository.
    pub fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.exchange.origin().base(), self.repository)
    }

    /// Returns the address that an answer names.
    pub fn resolve(&self, answer: &Answer, named: &str) -> String {
        self.exchange.origin().resolve(&answer.url, named)
    }

    /// Returns the address in an answer's `Location`, if there is one (RFC 9110, section 10.2.2).
    pub fn location(&self, answer: &Answer) -> Option<String> {
        let location = answer.header("location").filter(|location| !location.trim().is_empty())?;
        Some(self.exchange.origin().resolve(&answer.url, location))
    }

    /// Reads a document, if there is one.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if the registry refuses or does not answer.
    pub fn get(&self, path: &str, accept: &str) -> Result<Option<Vec<u8>>, ClientError> {
        let url = self.url(path);
        let answer =
            self.ask(&Request { accept, ..Request::new("GET", &url) }, || Payload::None)?;
        match answer.status {
            _ if answer.is_success() => Ok(Some(answer.body)),
            // Some registries answer this for a repository that does not exist yet.
            404 => Ok(None),
            _ => Err(self.refused("to be read", &answer)),
        }
    }

    /// Reads the manifest that is to be replaced, if there is one. A refusal is not an error: a
    /// user may be allowed to write and not to read.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if the registry can't answer at present.
    pub fn manifest(&self, name: &TagOrDigest) -> Result<Option<Vec<u8>>, ClientError> {
        let url = self.url(&format!("manifests/{name}"));
        let request = Request { accept: MANIFESTS, ..Request::new("GET", &url) };
        let answer = self.ask(&request, || Payload::None)?;
        match answer.status {
            _ if answer.is_success() => Ok(Some(answer.body)),
            status if is_transient(status) => Err(self.refused("to be read", &answer)),
            _ => Ok(None),
        }
    }

    /// Opens a blob from `offset` on, if there is one. Also returns the offset of the first byte,
    /// since a registry may begin at 0 nevertheless.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if the registry refuses or does not answer.
    pub fn open(
        &self,
        digest: &BlobDigest,
        offset: u64,
    ) -> Result<Option<(u64, BodyReader)>, ClientError> {
        let url = self.url(&format!("blobs/{digest}"));
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let request = Request { range: range.as_deref(), ..Request::new("GET", &url) };
        let answered = self.repeat(&request, |request| {
            let sent = self.exchange.send(request, Payload::None)?;
            if matches!(sent.status().as_u16(), 200 | 206) {
                return Ok(Outcome::Done(sent));
            }
            Answer::read(sent).map(Outcome::Answered)
        })?;
        let response = match answered {
            Outcome::Done(response) => response,
            Outcome::Answered(answer) if answer.status == 404 => return Ok(None),
            Outcome::Answered(answer) => return Err(self.refused("to send a blob", &answer)),
        };
        let (parts, body) = response.into_parts();
        let begins = if parts.status.as_u16() == 200 {
            0
        } else {
            let range = parts.headers.get("content-range").and_then(|range| range.to_str().ok());
            let begin = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
            let begin = begin.and_then(|(begin, _)| begin.parse().ok());
            begin.ok_or_else(|| ClientError::Unreachable {
                url: PublicUrl::of(&url),
                reason: NoAnswer::Broken("a part of it was sent, but not which".to_owned()),
            })?
        };
        Ok(Some((begins, body.into_with_config().limit(u64::MAX).reader())))
    }

    /// Asks whether the repository has a blob of this size.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if the registry can't answer at present.
    pub fn has_blob(&self, digest: &BlobDigest, size: u64) -> Result<Presence, ClientError> {
        let url = self.url(&format!("blobs/{digest}"));
        let answer = self.ask(&Request::new("HEAD", &url), || Payload::None)?;
        match answer.status {
            _ if answer.proves(digest, size) => Ok(Presence::There),
            _ if answer.is_success() && answer.contradicts(digest).is_some() => {
                Ok(Presence::Missing)
            }
            // Some registries answer a length of 0 for every blob, and a success alone proves
            // nothing: portals answer it to every request.
            _ if answer.is_success() => self.has_blob_by_get(&url, digest, size),
            404 | 410 => Ok(Presence::Missing),
            // An address that a storage has signed for GET is not valid for HEAD.
            _ if !self.exchange.origin().is_ours(&answer.url) => {
                self.has_blob_by_get(&url, digest, size)
            }
            405 | 501 => self.has_blob_by_get(&url, digest, size),
            status if is_transient(status) => Err(self.refused("to be asked for a blob", &answer)),
            _ => Ok(Presence::Unknown),
        }
    }

    /// Asks for a blob's first byte, for registries that don't answer `HEAD`.
    fn has_blob_by_get(
        &self,
        url: &str,
        digest: &BlobDigest,
        size: u64,
    ) -> Result<Presence, ClientError> {
        let request = Request { range: Some("bytes=0-0"), ..Request::new("GET", url) };
        let answered = self.repeat(&request, |request| {
            let sent = self.exchange.send(request, Payload::None)?;
            let header = |name: &str| sent.headers().get(name)?.to_str().ok().map(str::to_owned);
            let length = match sent.status().as_u16() {
                200 => header("content-length"),
                206 => header("content-range")
                    .and_then(|range| Some(range.rsplit_once('/')?.1.to_owned())),
                _ => return Answer::read(sent).map(Outcome::Answered),
            };
            let length = length.and_then(|text| text.parse::<u64>().ok());
            // The rest of the body is not read: dropping it closes the connection.
            Ok(Outcome::Done((length, is_of(sent.headers(), length, digest, size))))
        })?;
        Ok(match answered {
            Outcome::Done((_, true)) => Presence::There,
            Outcome::Done((Some(_), false)) => Presence::Missing,
            Outcome::Done((None, false)) => Presence::Unknown,
            Outcome::Answered(answer) if matches!(answer.status, 404 | 410) => Presence::Missing,
            Outcome::Answered(_) => Presence::Unknown,
        })
    }

    /// Asks whether the repository has a manifest of this size.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if the registry can't answer at present.
    pub fn has_manifest(&self, digest: &BlobDigest, size: u64) -> Result<Presence, ClientError> {
        let url = self.url(&format!("manifests/{digest}"));
        let request = Request { accept: MANIFESTS, ..Request::new("HEAD", &url) };
        let answer = self.ask(&request, || Payload::None)?;
        match answer.status {
            _ if answer.proves(digest, size) => Ok(Presence::There),
            404 | 410 => Ok(Presence::Missing),
            status if is_transient(status) => {
                Err(self.refused("to be asked for a manifest", &answer))
            }
            _ => Ok(Presence::Unknown),
        }
    }

    /// Sends a manifest to be stored under a tag or a digest.
    ///
    /// # Errors
    /// Fails with [`ClientError::Unreachable`] if there is no answer.
    pub fn put_manifest(
        &self,
        name: &TagOrDigest,
        bytes: &[u8],
        media_type: &str,
    ) -> Result<Answer, ClientError> {
        let url = self.url(&format!("manifests/{name}"));
        self.ask(&Request::new("PUT", &url), || Payload::Bytes { bytes, media_type })
    }

    /// Sends a manifest that must be stored. `what` describes the manifest in the error.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if there is no answer, or the registry refuses the manifest.
    pub fn store_manifest(
        &self,
        name: &TagOrDigest,
        bytes: &[u8],
        media_type: &str,
        what: &str,
    ) -> Result<Answer, ClientError> {
        let answer = self.put_manifest(name, bytes, media_type)?;
        if answer.is_success() { Ok(answer) } else { Err(self.refused(what, &answer)) }
    }

    /// Sends a request without a body, until there is an answer that further attempts would not
    /// change.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if there is no answer, or no token can be fetched.
    pub fn request(&self, method: &'static str, url: &str) -> Result<Answer, ClientError> {
        self.ask(&Request::new(method, url), || Payload::None)
    }

    /// Asks to mount a blob of another repository of the registry. Returns `None` if that
    /// repository was refused before.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if there is no answer, or no token can be fetched.
    pub fn mount(
        &self,
        digest: &BlobDigest,
        repository: &RepositoryName,
    ) -> Result<Option<Answer>, ClientError> {
        let closed = || self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if closed().contains(repository) || !self.authorization.may_mount() {
            return Ok(None);
        }
        let url = self.url(&format!("blobs/uploads/?mount={digest}&from={repository}"));
        let request = Request::new("POST", &url);
        let mut said = self.authorization.said();
        let mut answer = self.ask_once_known(&request, &said)?;
        if answer.asks_for_authorization()
            && let Some(next) =
                self.authorization.challenged(&self.exchange, &answer, &said, false)?
        {
            said = next;
            answer = self.ask_once_known(&request, &said)?;
        }
        if matches!(answer.status, 401 | 403) {
            closed().insert(repository.clone());
        }
        Ok(Some(answer))
    }

    fn ask_once_known(&self, request: &Request, said: &Said) -> Result<Answer, ClientError> {
        self.exchange.ask(&self.proved(request, said), || Payload::None)
    }

    fn ask<'p>(
        &self,
        request: &Request,
        payload: impl Fn() -> Payload<'p>,
    ) -> Result<Answer, ClientError> {
        let Outcome::Answered(answer) = self.repeat::<Infallible>(request, |request| {
            Answer::read(self.exchange.send(request, payload())?).map(Outcome::Answered)
        })?;
        Ok(answer)
    }

    /// Runs `attempts` with retries, and again with authorization if the registry asks for it.
    /// Returns the result, or the registry's final answer.
    fn repeat<T>(
        &self,
        request: &Request,
        mut attempts: impl FnMut(&Request) -> Result<Outcome<T>, NoAnswer>,
    ) -> Result<Outcome<T>, ClientError> {
        let reads = matches!(request.method, "GET" | "HEAD");
        let mut said = self.authorization.said();
        let (mut refused, mut tried) = (false, 0);
        loop {
            let proved = self.proved(request, &said);
            let end = self.exchange.persist(request.url, || attempts(&proved))?;
            let Outcome::Answered(answer) = &end else { return Ok(end) };
            let next = match answer.status {
                _ if answer.asks_for_authorization() => {
                    let again = std::mem::replace(&mut refused, true);
                    self.authorization.challenged(&self.exchange, answer, &said, again)?
                }
                403 | 404 if reads => self.authorization.sound(&self.exchange, &said)?,
                _ => None,
            };
            tried += 1;
            match next {
                Some(next) if tried < 4 => said = next,
                _ => return Ok(end),
            }
        }
    }

    /// Returns the request with its authorization.
    fn proved<'r>(&'r self, request: &Request<'r>, said: &'r Said) -> Request<'r> {
        let at = self.exchange.origin().base();
        let proof = said.header.as_deref().map(|header| Proof { header, at });
        Request { proof, ..*request }
    }

    /// Returns whether the registry has proved its identity by a certificate.
    pub fn is_verified(&self) -> bool {
        self.exchange.origin().is_verified()
    }

    /// Waits before the next attempt at a blob, and reports the wait to the watcher.
    ///
    /// # Errors
    /// Fails with [`Write`](crate::outgoing::Error::Write) if the watcher ended the copy.
    pub fn pause(&self, attempt: u32, blob: &dyn Display, reason: &str) -> Result<(), ClientError> {
        self.exchange.pause(attempt, None, blob, reason)
    }

    /// Notes that a blob was moved completely.
    pub fn blob_moved(&self) {
        self.exchange.blob_moved();
    }

    /// Sends a request once, with the given authorization.
    ///
    /// # Errors
    /// Fails with [`NoAnswer`] if there is no answer.
    pub fn attempt(
        &self,
        method: &'static str,
        url: &str,
        payload: Payload,
        said: &Said,
    ) -> Result<Answer, NoAnswer> {
        let request = Request::new(method, url);
        Answer::read(self.exchange.send(&self.proved(&request, said), payload)?)
    }

    /// Returns the current authorization.
    pub fn said(&self) -> Said {
        self.authorization.said()
    }

    /// Sends bodies without `Expect` from now on.
    pub fn expect_nothing(&self) {
        self.exchange.expect_nothing();
    }

    /// Returns whether the registry took a blob in a `PUT`, and had refused it in a `PATCH`.
    pub fn takes_no_patch(&self) -> bool {
        self.no_patch.load(Ordering::Relaxed)
    }

    /// Sends blobs without `PATCH` from now on.
    pub fn patch_nothing(&self) {
        self.no_patch.store(true, Ordering::Relaxed);
    }

    /// Finds another authorization, after a request with `said` was refused.
    ///
    /// # Errors
    /// Fails with [`ClientError::Refused`] if there is no other.
    pub fn authenticate(&self, answer: &Answer, said: &Said) -> Result<(), ClientError> {
        match self.authorization.challenged(&self.exchange, answer, said, false)? {
            Some(_) => Ok(()),
            None => Err(self.refused("a blob", answer)),
        }
    }

    /// Returns the error that an answer stands for.
    pub fn refused(&self, what: &str, answer: &Answer) -> ClientError {
        let is_ours = self.exchange.origin().is_ours(&answer.url);
        let missing =
            if is_ours { self.authorization.missing(answer.status) } else { Missing::Nothing };
        // Without credentials the registry refuses everything, not only this.
        let is_closed = missing != Missing::Nothing && answer.status == 401;
        ClientError::Refused {
            registry: if is_ours { self.name() } else { PublicUrl::of(&answer.url).to_string() },
            what: if is_closed { "access" } else { what }.to_owned(),
            status: answer.status,
            message: answer.message(),
            missing: Box::new(missing),
        }
    }

    /// Returns the registry and the repository, for messages.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

/// Returns whether the server at the registry's address speaks TLS. If it does, it is not asked in
/// the clear, even if its certificate is not accepted.
///
/// # Errors
/// Fails with [`ClientError::Unreachable`] if the server speaks TLS, but there is no TLS
/// connection.
fn speaks_tls(exchange: &Exchange) -> Result<bool, ClientError> {
    let url = format!("{}/v2/", exchange.origin().base());
    match exchange.send_once(&Request::new("GET", &url), &mut Payload::None) {
        Ok(answer) => {
            // The connection of an answer that was read to its end serves the next request.
            let _ = Answer::read(answer);
            Ok(true)
        }
        Err(NoAnswer::Tls(problem)) if !problem.may_be_plain_http() => {
            let reason = NoAnswer::Tls(problem);
            Err(ClientError::Unreachable { url: PublicUrl::of(&url), reason })
        }
        Err(_) => Ok(false),
    }
}
