//! Fetches tokens for a registry (distribution's "Token Authentication Specification" and "OAuth2
//! Token Authentication").
//! Stage: registry. Input: a challenge and credentials. Output: a token.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use url::Url;

use super::answer::Answer;
use super::credentials::Credentials;
use super::error::ClientError;
use super::exchange::{Exchange, Outcome, Payload, Proof, Request};
use super::no_answer::NoAnswer;
use crate::foreign::PublicUrl;
use crate::oci::unpack::parse_json;

/// The user name that marks a password as a refresh token (docker-credential-helpers).
const TOKEN_USER: &str = "<token>";

/// A token service, as a challenge names it.
pub struct TokenService<'a> {
    /// Sends requests.
    pub exchange: &'a Exchange<'a>,
    /// The service's address.
    pub realm: &'a str,
    /// The registry's name for the service.
    pub service: Option<&'a str>,
}

impl TokenService<'_> {
    /// Asks for a token that allows `scopes`. Returns the service's answer if it has no token.
    ///
    /// # Errors
    /// Fails with [`ClientError::Unreachable`] if there is no answer.
    pub fn token(
        &self,
        credentials: Option<&Credentials>,
        scopes: &[String],
    ) -> Result<Outcome<String>, ClientError> {
        let answer = match credentials {
            Some(Credentials::Token(token)) => {
                let answer = self.post(token, scopes)?;
                // Some services have no POST (Google's, Artifactory's): send the token as a
                // password.
                if matches!(answer.status, 400 | 401 | 404 | 405 | 501) {
                    self.get(Some(&basic(TOKEN_USER, token)), scopes)?
                } else {
                    answer
                }
            }
            Some(Credentials::Password(user, password)) => {
                self.get(Some(&basic(user, password)), scopes)?
            }
            // A token for the registry itself is not valid for the service.
            Some(Credentials::Registry(_)) | None => self.get(None, scopes)?,
        };
        Ok(match token_in(&answer.body).filter(|_| answer.is_success()) {
            Some(token) => Outcome::Done(token),
            None => Outcome::Answered(answer),
        })
    }

    fn get(&self, authorization: Option<&str>, scopes: &[String]) -> Result<Answer, ClientError> {
        let Ok(mut url) = self.realm.parse::<Url>() else {
            return Err(ClientError::Unreachable {
                url: PublicUrl::of(self.realm),
                reason: NoAnswer::Address,
            });
        };
        let mut pairs = url.query_pairs_mut();
        if let Some(service) = self.service {
            pairs.append_pair("service", service);
        }
        for scope in scopes {
            pairs.append_pair("scope", scope);
        }
        drop(pairs);
        // The registry names the address of its token service, which may therefore receive the
        // password.
        let proof = authorization.map(|header| Proof { header, at: self.realm });
        self.exchange.ask(&Request { proof, ..Request::new("GET", url.as_str()) }, || Payload::None)
    }

    fn post(&self, token: &str, scopes: &[String]) -> Result<Answer, ClientError> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.unwrap_or_default())
            .append_pair("client_id", "stowage")
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", token)
            .finish();
        self.exchange.ask(&Request::new("POST", self.realm), || Payload::Form(&form))
    }
}

/// Returns the header's value for a user name and a password (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Returns the token in an answer; services use one of two names for it, or both.
fn token_in(body: &[u8]) -> Option<String> {
    let json: Value = parse_json(body).unwrap_or_default();
    let texts = ["token", "access_token"].map(|name| json[name].as_str());
    let token = texts.into_iter().flatten().find(|token| !token.is_empty());
    token.map(str::to_owned)
}
