//! Requests to one repository of a registry.
//! Stage: registry. Input: requests. Output: [`Answer`]s.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Read;
use std::sync::Arc;

use ureq::http::Response;
use ureq::{Body, SendBody};

use super::address;
use super::answer::Answer;
use super::authorization::Authorization;
use super::connect::{Certificates, Network, Proxies, TlsProblem};
use super::credentials::{self, AuthSource, Credentials, Login};
use super::error::ClientError;
use super::exchange::Exchange;
use crate::digest::BlobDigest;
use crate::outgoing::{Reference, RepositoryName, Watch};

/// From so many bytes on, the registry is asked whether it wants them (RFC 9110, 10.1.1): who is
/// refused while he sends learns only that the connection broke.
const EXPECT: u64 = 1 << 20;

/// How to push.
#[derive(Clone, Default)]
pub struct ClientOptions {
    /// Whether the registry must have a certificate; false for plain HTTP as well. On this
    /// machine itself it needs none unless this is true.
    pub tls_verify: Option<bool>,
    /// Certificates that are trusted, and those that are shown.
    pub certificates: Certificates,
    /// Proxies that requests go through.
    pub proxies: Arc<Proxies>,
    /// Who we are, if it was said.
    pub credentials: Option<Credentials>,
    /// Places with credentials, as Docker and podman have them: the first that knows the
    /// registry counts.
    pub auth_sources: Vec<AuthSource>,
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

/// A repository of a registry.
pub struct Client<'a> {
    exchange: Exchange<'a>,
    /// `https://host:port`
    base: String,
    host: String,
    repository: RepositoryName,
    authorization: Authorization,
    login: Login,
}

impl<'a> Client<'a> {
    /// Finds out how to talk to a registry.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(
        reference: &Reference,
        access: Access,
        options: &ClientOptions,
        watch: &'a dyn Watch,
    ) -> Result<Self, ClientError> {
        let host = reference.registry().host_and_port().to_owned();
        let may_be_plain_http =
            options.tls_verify.map_or_else(|| reference.registry().is_loopback(), |verify| !verify);
        let network = Network::new(
            &options.certificates,
            reference.registry(),
            options.tls_verify != Some(false),
            &options.proxies,
        )?;
        let login = match &options.credentials {
            Some(given) => Login::given(given.clone(), reference),
            None => credentials::look_up(&options.auth_sources, reference)?,
        };
        let scopes = scopes(reference.repository(), access, &options.mount_from);
        let mut client = Self {
            exchange: Exchange::new(&network, watch),
            base: format!("https://{host}"),
            host: host.clone(),
            repository: reference.repository().clone(),
            authorization: Authorization::new(login.credentials.clone(), scopes),
            login,
        };
        if may_be_plain_http {
            let url = format!("{}/v2/", client.base);
            if let Err(error) = client.attempt("GET", &url, Payload::None) {
                // What speaks TLS is not asked in the clear, whatever is wrong with it.
                if let Some(problem) = TlsProblem::of(&error)
                    && !problem.may_be_plain_http()
                {
                    return Err(ClientError::Tls { url, problem });
                }
                client.base = format!("http://{host}");
            }
        }
        Ok(client)
    }

    /// The address of something in the repository.
    pub fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.repository)
    }

    /// Where an answer says to go on, if it does (RFC 9110, 10.2.2).
    pub fn location(&self, answer: &Answer) -> Option<String> {
        let location = answer.header("location")?;
        Some(address::resolve(&self.base, &answer.url, location))
    }

    /// A document, if there is one.
    pub fn get(&self, path: &str, accept: &str) -> Result<Option<Vec<u8>>, ClientError> {
        let answer = self.request_accepting("GET", &self.url(path), Payload::None, accept)?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            // Some say so of a repository that isn't there yet.
            404 => Ok(None),
            _ => Err(self.refused("to be read", &answer)),
        }
    }

    /// A blob from `offset` on, as it comes, if it is there. A registry may begin at its first
    /// byte all the same: where, is returned as well.
    pub fn open(
        &self,
        digest: &BlobDigest,
        offset: u64,
    ) -> Result<Option<(u64, BodyReader)>, ClientError> {
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
            Err(answer) => return Err(self.refused("to send a blob", &answer)),
        };
        let (parts, body) = response.into_parts();
        let begins = if parts.status.as_u16() == 200 {
            0
        } else {
            let range = parts.headers.get("content-range").and_then(|range| range.to_str().ok());
            let begin = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
            let begin = begin.and_then(|(begin, _)| begin.parse().ok());
            begin.ok_or_else(|| ClientError::Unreachable {
                url: url.clone(),
                reason: "a part of it was sent, but not which".to_owned(),
            })?
        };
        Ok(Some((begins, body.into_with_config().limit(u64::MAX).reader())))
    }

    /// Whether the repository has a blob.
    pub fn has_blob(&self, digest: &BlobDigest) -> Result<bool, ClientError> {
        let answer = self.request("HEAD", &self.url(&format!("blobs/{digest}")), Payload::None)?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused("to be asked for a blob", &answer)),
        }
    }

    /// Asks until there is an answer that stays the same, as often as makes sense.
    pub fn request(
        &self,
        method: &str,
        url: &str,
        payload: Payload,
    ) -> Result<Answer, ClientError> {
        self.request_accepting(method, url, payload, "*/*")
    }

    fn request_accepting(
        &self,
        method: &str,
        url: &str,
        payload: Payload,
        accept: &str,
    ) -> Result<Answer, ClientError> {
        let again = || match &payload {
            Payload::Bytes { bytes, media_type } => Payload::Bytes { bytes, media_type },
            Payload::None | Payload::Stream { .. } => Payload::None,
        };
        // An answer is all there is to wait for.
        let attempt = || self.attempt_accepting(method, url, again(), accept).map(Err);
        let Err(answer) = self.repeat::<Infallible>(url, attempt)?;
        Ok(answer)
    }

    /// Tries something until it comes to its end (`Ok`), or to an answer (`Err`) that stays the
    /// same though we said who we are.
    fn repeat<T>(
        &self,
        url: &str,
        mut attempts: impl FnMut() -> Result<Result<T, Answer>, ureq::Error>,
    ) -> Result<Result<T, Answer>, ClientError> {
        match self.exchange.persist(url, &mut attempts)? {
            Err(answer) if answer.status == 401 => {
                self.authenticate(&answer)?;
                self.exchange.persist(url, attempts)
            }
            end => Ok(end),
        }
    }

    /// Waits before the next attempt, and says so.
    ///
    /// # Errors
    /// [`Write`](crate::outgoing::Error::Write) if who watches wants no more.
    pub fn pause(&self, attempt: u32, reason: &str) -> Result<(), ClientError> {
        self.exchange.pause(attempt, None, reason)
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
        // What is for the registry is for nobody else, wherever it sends us.
        let ours = address::is_at(&self.base, url);
        if let Some(authorization) = self.authorization.header().filter(|_| ours) {
            request = request.header("authorization", authorization);
        }
        let agent = &self.exchange.agent;
        match payload {
            Payload::None if matches!(method, "POST" | "PUT" | "PATCH") => {
                agent.run(request.header("content-length", "0").body(SendBody::none())?)
            }
            Payload::None => agent.run(request.body(SendBody::none())?),
            Payload::Bytes { mut bytes, media_type } => {
                let request = request.header("content-type", media_type);
                let request = request.header("content-length", bytes.len());
                agent.run(request.body(SendBody::from_reader(&mut bytes))?)
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
                agent.run(request.body(SendBody::from_reader(reader))?)
            }
        }
    }

    /// Finds out what to say to be let in.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is nothing to say.
    pub fn authenticate(&self, answer: &Answer) -> Result<(), ClientError> {
        if self.authorization.challenged(&self.exchange, &self.base, answer)? {
            return Ok(());
        }
        let Login { credentials: None, host, looked_in } = &self.login else {
            return Err(self.refused("this user", answer));
        };
        let (host, looked_in) = (host.clone(), looked_in.clone());
        Err(ClientError::NoCredentials { host, looked_in, message: answer.message() })
    }

    /// The error that an answer stands for.
    pub fn refused(&self, what: &str, answer: &Answer) -> ClientError {
        ClientError::Refused {
            registry: format!("{}/{}", self.host, self.repository),
            what: what.to_owned(),
            status: answer.status,
            message: answer.message(),
        }
    }
}

/// What is asked of who gives tokens: all at once, so that one will do.
fn scopes(repository: &RepositoryName, access: Access, mount_from: &[String]) -> BTreeSet<String> {
    let actions = match access {
        Access::Pull => "pull",
        Access::Push => "pull,push",
    };
    let ours = format!("repository:{repository}:{actions}");
    let others = mount_from.iter().map(|from| format!("repository:{from}:pull"));
    others.chain([ours]).collect()
}
