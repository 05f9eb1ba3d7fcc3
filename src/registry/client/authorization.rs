//! What a registry is told of who asks (distribution, "Token Authentication Specification").
//! Stage: registry. Input: an answer with a challenge. Output: the `Authorization` header.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::address;
use super::answer::Answer;
use super::challenge::Challenge;
use super::credentials::Credentials;
use super::error::ClientError;
use super::exchange::Exchange;

/// Who asks, and for what.
pub struct Authorization {
    credentials: Option<Credentials>,
    scopes: BTreeSet<String>,
    /// The header that says who we are, once it is known what is wanted.
    header: Mutex<Option<String>>,
}

impl Authorization {
    /// Nothing is said before somebody wants to know.
    pub fn new(credentials: Option<Credentials>, scopes: BTreeSet<String>) -> Self {
        Self { credentials, scopes, header: Mutex::default() }
    }

    /// The header, if one is wanted as far as we know.
    pub fn header(&self) -> Option<String> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds out what to say to be let in, if there is anything to say.
    ///
    /// # Errors
    /// [`ClientError`] if there is no token to be had.
    pub fn challenged(
        &self,
        exchange: &Exchange,
        registry: &str,
        answer: &Answer,
    ) -> Result<bool, ClientError> {
        // Whoever else wants to know, it is not his business.
        if !address::is_at(registry, &answer.url) {
            return Ok(false);
        }
        let challenges = answer.headers.get_all("www-authenticate").iter();
        let mut challenges = challenges.filter_map(|value| Challenge::parse(value.to_str().ok()?));
        let header = match (challenges.next(), &self.credentials) {
            (Some(Challenge::Basic), Some(Credentials::Password(user, password))) => {
                basic(user, password)
            }
            (Some(Challenge::Bearer { .. }), Some(Credentials::Registry(token))) => {
                format!("Bearer {token}")
            }
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                // What the registry says of itself need not be what it is called outside.
                let realm = address::resolve(registry, &answer.url, &realm);
                format!("Bearer {}", self.token(exchange, &realm, service.as_deref(), scope)?)
            }
            _ => return Ok(false),
        };
        *self.header.lock().unwrap_or_else(PoisonError::into_inner) = Some(header);
        Ok(true)
    }

    fn token(
        &self,
        exchange: &Exchange,
        realm: &str,
        service: Option<&str>,
        scope: Option<String>,
    ) -> Result<String, ClientError> {
        let mut scopes = self.scopes.clone();
        scopes.extend(scope);
        let attempt = || self.ask_for_token(exchange, realm, service, &scopes).map(Err);
        let Err(answer) = exchange.persist::<Infallible>(realm, attempt)?;
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match json["token"].as_str().or(json["access_token"].as_str()) {
            Some(token) if answer.status == 200 => Ok(token.to_owned()),
            _ => Err(ClientError::Refused {
                registry: realm.to_owned(),
                what: "a token".to_owned(),
                status: answer.status,
                message: answer.message(),
            }),
        }
    }

    fn ask_for_token(
        &self,
        exchange: &Exchange,
        realm: &str,
        service: Option<&str>,
        scopes: &BTreeSet<String>,
    ) -> Result<Answer, ureq::Error> {
        let response = match &self.credentials {
            Some(Credentials::Token(token)) => {
                let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
                let scope = scopes.join(" ");
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service.unwrap_or_default()),
                    ("client_id", "stowage"),
                    ("scope", &scope),
                    ("refresh_token", token),
                ];
                exchange.agent.post(realm).send_form(form)
            }
            other => {
                let mut request = exchange.agent.get(realm);
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
        Answer::read(response?)
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
