//! Requests to one repository of a registry: who asks, how often, and over what.
//! Stage: transport. Input: requests. Output: [`Answer`]s.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_spec::distribution::Reference;
use serde_json::Value;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::challenge::Challenge;
use super::error::PushError;
use super::retry::{ATTEMPTS, is_transient, wait};
use crate::digest::BlobDigest;
use crate::transport::Error;
use crate::transport::watch::Watch;

/// Longest manifest that is read (distribution-spec, "Pushing Manifests": 4 MiB), and answer.
const LONGEST_BODY: u64 = 8 << 20;
const CONNECT: Duration = Duration::from_secs(30);
/// For the registry to answer a whole request: it may have a large blob to look at.
const ANSWER: Duration = Duration::from_secs(300);
/// From so many bytes on, the registry is asked whether it wants them (RFC 9110, 10.1.1): who is
/// refused while he sends learns only that the connection broke.
const EXPECT: u64 = 1 << 20;

/// Name and password, or a token that stands for them.
#[derive(Clone)]
pub enum Credentials {
    /// For Basic, and to get a token.
    Password(String, String),
    /// A refresh token (OAuth 2).
    Token(String),
}

/// How to push.
#[derive(Clone, Default)]
pub struct PushOptions {
    /// Whether the registry must have a certificate; false for plain HTTP as well. On this
    /// machine itself it needs none unless this is true.
    pub tls_verify: Option<bool>,
    /// Directory whose `*.crt` are to be trusted, and no others.
    pub cert_dir: Option<PathBuf>,
    /// File of certificates to be trusted in place of those that are compiled in.
    pub ca_file: Option<PathBuf>,
    /// Who we are, if it was said.
    pub credentials: Option<Credentials>,
    /// Files with credentials, as Docker and podman have them: the first that knows the
    /// registry counts.
    pub auth_files: Vec<PathBuf>,
    /// Repositories of the registry that may have layers already.
    pub mount_from: Vec<String>,
    /// Whether layers that the tag's image has compressed, by whichever tool, are used as they
    /// are. The image's digest then depends on what was there.
    pub reuse_compressed: bool,
}

/// What is sent with a request.
pub enum Payload<'a> {
    /// Nothing.
    None,
    /// Bytes in memory.
    Bytes {
        /// The bytes.
        bytes: &'a [u8],
        /// What they are.
        media_type: &'a str,
    },
    /// Bytes that are made meanwhile; and where in the blob they begin, if not at its start.
    Stream {
        /// Where they come from.
        reader: &'a mut dyn Read,
        /// How many they are.
        length: u64,
        /// How many were sent before.
        offset: u64,
    },
}

/// A blob on its way.
pub type BodyReader = ureq::BodyReader<'static>;

/// What is to be done in a repository: who may read it need not be allowed to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Images are read.
    Pull,
    /// They are written as well.
    Push,
}

/// What a registry says.
pub struct Answer {
    /// HTTP's status code.
    pub status: u16,
    headers: HeaderMap,
    /// All of its body.
    pub body: Vec<u8>,
}

impl Answer {
    fn read(response: Response<Body>) -> Result<Self, ureq::Error> {
        let (parts, mut body) = response.into_parts();
        let body = read_body(&mut body)?;
        Ok(Self { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A repository of a registry.
pub struct Client<'a> {
    agent: Agent,
    /// `https://host:port`
    base: String,
    host: String,
    repository: String,
    credentials: Option<Credentials>,
    access: Access,
    mount_from: &'a [String],
    /// The header that says who we are, once it is known what is wanted.
    authorization: Mutex<Option<String>>,
    watch: &'a dyn Watch,
}

impl<'a> Client<'a> {
    /// Finds out how to talk to a registry.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn connect(
        reference: &Reference,
        access: Access,
        options: &'a PushOptions,
        watch: &'a dyn Watch,
    ) -> Result<Self, Error> {
        let host = reference.resolve_registry().to_owned();
        let insecure = options.tls_verify.map_or_else(|| is_loopback(&host), |verify| !verify);
        let mut tls = TlsConfig::builder().disable_verification(options.tls_verify == Some(false));
        match (&options.cert_dir, &options.ca_file) {
            (Some(directory), _) => tls = tls.root_certs(certificates_in(directory)?),
            (None, Some(file)) => tls = tls.root_certs(root_certs(file, certificates_of(file)?)?),
            (None, None) => {}
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .user_agent(concat!("stowage/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let credentials = match &options.credentials {
            Some(given) => Some(given.clone()),
            None => stored_credentials(&options.auth_files, reference.registry())?,
        };
        let mut client = Self {
            agent,
            base: format!("https://{host}"),
            host: host.clone(),
            repository: reference.repository().to_owned(),
            credentials,
            access,
            mount_from: &options.mount_from,
            authorization: Mutex::default(),
            watch,
        };
        if insecure
            && client.attempt("GET", &format!("{}/v2/", client.base), Payload::None).is_err()
        {
            client.base = format!("http://{host}");
        }
        Ok(client)
    }

    /// The address of something in the repository.
    pub fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.repository)
    }

    /// The address that a `Location` header stands for (RFC 9110, 10.2.2).
    pub fn resolve(&self, location: &str) -> String {
        if location.starts_with('/') {
            format!("{}{location}", self.base)
        } else {
            location.to_owned()
        }
    }

    /// A document, if there is one.
    pub fn get(&self, path: &str, accept: &str) -> Result<Option<Vec<u8>>, Error> {
        let answer = self.request_accepting("GET", &self.url(path), Payload::None, accept)?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            // Some say so of a repository that isn't there yet.
            404 => Ok(None),
            _ => Err(self.refused("to be read", &answer).into()),
        }
    }

    /// A blob from `offset` on, as it comes, if it is there. A registry may begin at its first
    /// byte all the same: where, is returned as well.
    pub fn open(
        &self,
        digest: &BlobDigest,
        offset: u64,
    ) -> Result<Option<(u64, BodyReader)>, Error> {
        let url = self.url(&format!("blobs/{digest}"));
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let answered = self.repeat(&url, || {
            let sent = self.send("GET", &url, Payload::None, "*/*", range.as_deref())?;
            if matches!(sent.status().as_u16(), 200 | 206) {
                return Ok(Ok(sent));
            }
            Answer::read(sent).map(Err)
        })?;
        let response = match answered {
            Ok(response) => response,
            Err(answer) if answer.status == 404 => return Ok(None),
            Err(answer) => return Err(self.refused("to send a blob", &answer).into()),
        };
        let (parts, body) = response.into_parts();
        let begins = if parts.status.as_u16() == 200 {
            0
        } else {
            let range = parts.headers.get("content-range").and_then(|range| range.to_str().ok());
            let begin = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
            let begin = begin.and_then(|(begin, _)| begin.parse().ok());
            begin.ok_or_else(|| PushError::Unreachable {
                url: url.clone(),
                reason: "a part of it was sent, but not which".to_owned(),
            })?
        };
        Ok(Some((begins, body.into_with_config().limit(u64::MAX).reader())))
    }

    /// Whether the repository has a blob.
    pub fn has_blob(&self, digest: &BlobDigest) -> Result<bool, Error> {
        let answer = self.request("HEAD", &self.url(&format!("blobs/{digest}")), Payload::None)?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused("to be asked for a blob", &answer).into()),
        }
    }

    /// Asks until there is an answer that stays the same, as often as makes sense.
    pub fn request(&self, method: &str, url: &str, payload: Payload) -> Result<Answer, Error> {
        self.request_accepting(method, url, payload, "*/*")
    }

    fn request_accepting(
        &self,
        method: &str,
        url: &str,
        payload: Payload,
        accept: &str,
    ) -> Result<Answer, Error> {
        let again = || match &payload {
            Payload::Bytes { bytes, media_type } => Payload::Bytes { bytes, media_type },
            Payload::None | Payload::Stream { .. } => Payload::None,
        };
        let attempt = || self.attempt_accepting(method, url, again(), accept).map(Err);
        // A whole answer is all there is to wait for.
        self.repeat::<Answer>(url, attempt).map(|answer| match answer {
            Ok(answer) | Err(answer) => answer,
        })
    }

    /// Tries something until it comes to its end (`Ok`), or to an answer (`Err`) that stays the
    /// same.
    fn repeat<T>(
        &self,
        url: &str,
        mut attempts: impl FnMut() -> Result<Result<T, Answer>, ureq::Error>,
    ) -> Result<Result<T, Answer>, Error> {
        let mut authenticated = false;
        let mut attempt = 0;
        loop {
            let (reason, after) = match attempts() {
                Ok(Err(answer)) if answer.status == 401 && !authenticated => {
                    authenticated = true;
                    self.authenticate(&answer)?;
                    continue;
                }
                Ok(Err(answer)) if is_transient(answer.status) && attempt + 1 < ATTEMPTS => (
                    format!("status {}", answer.status),
                    answer.header("retry-after").map(str::to_owned),
                ),
                Ok(end) => return Ok(end),
                Err(error) if attempt + 1 < ATTEMPTS => (error.to_string(), None),
                Err(error) => {
                    return Err(PushError::Unreachable {
                        url: url.to_owned(),
                        reason: error.to_string(),
                    }
                    .into());
                }
            };
            self.pause(attempt, after.as_deref(), &format!("{url}: {reason}"))?;
            attempt += 1;
        }
    }

    /// Waits before the next attempt, and says so.
    pub fn pause(
        &self,
        attempt: u32,
        retry_after: Option<&str>,
        reason: &str,
    ) -> Result<(), Error> {
        let wait = wait(attempt, retry_after);
        self.watch.retry(reason, wait);
        std::thread::sleep(wait);
        self.watch.advance(0).map_err(Error::Write)
    }

    /// Asks once.
    pub fn attempt(
        &self,
        method: &str,
        url: &str,
        payload: Payload,
    ) -> Result<Answer, ureq::Error> {
        self.attempt_accepting(method, url, payload, "*/*")
    }

    fn attempt_accepting(
        &self,
        method: &str,
        url: &str,
        payload: Payload,
        accept: &str,
    ) -> Result<Answer, ureq::Error> {
        Answer::read(self.send(method, url, payload, accept, None)?)
    }

    fn send(
        &self,
        method: &str,
        url: &str,
        payload: Payload,
        accept: &str,
        range: Option<&str>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request =
            ureq::http::Request::builder().method(method).uri(url).header("accept", accept);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let authorization =
            self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What is for the registry is for nobody else, wherever it sends us.
        if let Some(authorization) = authorization.filter(|_| self.is_ours(url)) {
            request = request.header("authorization", authorization);
        }
        match payload {
            Payload::None if matches!(method, "POST" | "PUT" | "PATCH") => {
                self.agent.run(request.header("content-length", "0").body(SendBody::none())?)
            }
            Payload::None => self.agent.run(request.body(SendBody::none())?),
            Payload::Bytes { mut bytes, media_type } => {
                let request = request.header("content-type", media_type);
                let request = request.header("content-length", bytes.len());
                self.agent.run(request.body(SendBody::from_reader(&mut bytes))?)
            }
            Payload::Stream { reader, length, offset } => {
                let mut request = request.header("content-type", "application/octet-stream");
                request = request.header("content-length", length);
                if length >= EXPECT {
                    request = request.header("expect", "100-continue");
                }
                if offset > 0 && length > 0 {
                    request = request
                        .header("content-range", format!("{offset}-{}", offset + length - 1));
                }
                self.agent.run(request.body(SendBody::from_reader(reader))?)
            }
        }
    }

    fn is_ours(&self, url: &str) -> bool {
        url.parse::<Uri>().is_ok_and(|url| {
            url.authority().is_some_and(|authority| authority.as_str() == self.host)
                && self.base.starts_with(url.scheme_str().unwrap_or_default())
        })
    }

    /// Finds out what to say to be let in.
    ///
    /// # Errors
    /// [`PushError::Refused`] if there is nothing to say.
    pub fn authenticate(&self, answer: &Answer) -> Result<(), Error> {
        let challenges = answer.headers.get_all("www-authenticate").iter();
        let mut challenges = challenges.filter_map(|value| Challenge::parse(value.to_str().ok()?));
        let refused = || Err(self.refused("this user", answer).into());
        let authorization = match (challenges.next(), &self.credentials) {
            (Some(Challenge::Basic), Some(Credentials::Password(user, password))) => {
                basic(user, password)
            }
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                format!("Bearer {}", self.token(&realm, service.as_deref(), scope.as_deref())?)
            }
            _ => return refused(),
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        Ok(())
    }

    /// Gets a token (distribution, "Token Authentication Specification").
    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<String, Error> {
        let failed = |reason: String| PushError::Unreachable { url: realm.to_owned(), reason };
        let mut scopes: BTreeSet<String> = scope.map(str::to_owned).into_iter().collect();
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        scopes.insert(format!("repository:{}:{actions}", self.repository));
        scopes.extend(self.mount_from.iter().map(|from| format!("repository:{from}:pull")));
        let result = match &self.credentials {
            Some(Credentials::Token(token)) => {
                let scopes: Vec<_> = scopes.into_iter().collect();
                let scope = scopes.join(" ");
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service.unwrap_or_default()),
                    ("client_id", "stowage"),
                    ("scope", &scope),
                    ("refresh_token", token),
                ];
                self.agent.post(realm).send_form(form)
            }
            other => {
                let mut request = self.agent.get(realm);
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                for scope in scopes {
                    request = request.query("scope", scope);
                }
                if let Some(Credentials::Password(user, password)) = other {
                    request = request.header("authorization", basic(user, password));
                }
                request.call()
            }
        };
        let mut response = result.map_err(|error| failed(error.to_string()))?;
        let status = response.status().as_u16();
        let body = read_body(response.body_mut()).map_err(|error| failed(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = answer["token"].as_str().or(answer["access_token"].as_str());
        match token {
            Some(token) if status == 200 => Ok(token.to_owned()),
            _ => Err(PushError::Refused {
                registry: realm.to_owned(),
                what: "a token".to_owned(),
                status,
                message: message(&body),
            }
            .into()),
        }
    }

    /// The error that an answer stands for.
    pub fn refused(&self, what: &str, answer: &Answer) -> PushError {
        PushError::Refused {
            registry: format!("{}/{}", self.host, self.repository),
            what: what.to_owned(),
            status: answer.status,
            message: message(&answer.body),
        }
    }
}

fn read_body(body: &mut Body) -> Result<Vec<u8>, ureq::Error> {
    body.with_config().limit(LONGEST_BODY).read_to_vec()
}

/// A registry's own words (distribution-spec, "Error Codes"), or the first of whatever it said.
fn message(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = json["errors"].as_array().into_iter().flatten();
    let texts = errors.filter_map(|error| error["message"].as_str().or(error["code"].as_str()));
    let texts: Vec<_> = texts.collect();
    if !texts.is_empty() {
        return texts.join("; ");
    }
    let text = String::from_utf8_lossy(body);
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("without a word")
        .trim()
        .chars()
        .take(200)
        .collect()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Whether a host is this machine, where nobody listens in.
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Those of all `*.crt` and `*.pem` in a directory.
fn certificates_in(directory: &Path) -> Result<RootCerts, PushError> {
    let entries = fs::read_dir(directory);
    let entries = entries.map_err(|source| certificate_error(directory, source.to_string()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        if file.extension().is_some_and(|extension| extension == "crt" || extension == "pem") {
            found.extend(certificates_of(&file)?);
        }
    }
    root_certs(directory, found)
}

fn certificates_of(file: &Path) -> Result<Vec<Certificate<'static>>, PushError> {
    let error = |reason: String| certificate_error(file, reason);
    let bytes = fs::read(file).map_err(|source| error(source.to_string()))?;
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|source| error(source.to_string()))?
        {
            found.push(certificate);
        }
    }
    Ok(found)
}

fn root_certs(place: &Path, found: Vec<Certificate<'static>>) -> Result<RootCerts, PushError> {
    if found.is_empty() {
        return Err(certificate_error(place, "there is no certificate in it".to_owned()));
    }
    Ok(RootCerts::Specific(Arc::new(found)))
}

fn certificate_error(place: &Path, reason: String) -> PushError {
    PushError::Certificate { file: place.display().to_string(), reason }
}

/// What the first file that knows the registry says.
fn stored_credentials(files: &[PathBuf], registry: &str) -> Result<Option<Credentials>, PushError> {
    use docker_credential::{CredentialRetrievalError, DockerCredential};
    // Docker's own name for its hub.
    let servers: &[&str] = match registry {
        "docker.io" => &["https://index.docker.io/v1/", "docker.io"],
        other => &[other],
    };
    for file in files {
        for server in servers {
            let Ok(opened) = fs::File::open(file) else { continue };
            match docker_credential::get_credential_from_reader(opened, server) {
                Ok(DockerCredential::UsernamePassword(user, password)) => {
                    return Ok(Some(Credentials::Password(user, password)));
                }
                Ok(DockerCredential::IdentityToken(token)) => {
                    return Ok(Some(Credentials::Token(token)));
                }
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                Err(error) => {
                    return Err(PushError::Credentials(format!("{}: {error}", file.display())));
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("ghcr.io", false),
            ("10.0.0.1:5000", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }

    #[test]
    fn certificates_are_found_and_missed() {
        let directory = tempfile::tempdir().unwrap();
        let missing = |result: Result<RootCerts, PushError>| result.err().unwrap().to_string();
        assert!(
            missing(certificates_in(directory.path())).ends_with("there is no certificate in it")
        );
        let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(directory.path().join("ca.crt"), generated.cert.pem()).unwrap();
        fs::write(directory.path().join("notes.txt"), "-----BEGIN CERTIFICATE-----").unwrap();
        assert!(certificates_in(directory.path()).is_ok());
        fs::write(
            directory.path().join("bad.pem"),
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        assert!(missing(certificates_in(directory.path())).contains("bad.pem: "));
        assert!(missing(certificates_in(Path::new("/nonexistent"))).contains("/nonexistent: "));
    }

    #[test]
    fn a_registrys_words_are_found() {
        for (body, expected) in [
            (&br#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X"}]}"#[..], "no; X"),
            (b"\n <html>\n", "<html>"),
            (b"", "without a word"),
        ] {
            assert_eq!(message(body), expected);
        }
    }
}
