//! Computes the `Authorization` header: Basic, or a bearer token that is fetched when the registry
//! asks for one.
//! Stage: registry. Input: an answer with challenges. Output: [`Said`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::answer::Answer;
use super::challenge::Challenge;
use super::credentials::{Credentials, Login};
use super::error::{ClientError, Missing};
use super::exchange::{Exchange, Outcome, Payload, Proof, Request};
use super::no_answer::NoAnswer;
use super::scopes::Scopes;
use super::token::{TokenService, basic};
use crate::foreign::PublicUrl;

/// The credentials that the registry received, shared by requests that are under way at the same
/// time.
///
/// A challenge is answered once for all of them: a request that meets the challenge later finds the
/// answer, or that there is none. So a wrong password is tried once, however many requests were
/// refused.
pub struct Authorization {
    login: Login,
    state: Mutex<State>,
}

struct State {
    scopes: Scopes,
    /// True if the scopes of mounts are left out, since not all scopes were granted.
    is_narrow: bool,
    said: Said,
    /// True if the credentials were refused.
    is_rejected: bool,
    /// True if there was no token, or there are no credentials: no other request tries again.
    is_over: bool,
    /// The ways to authenticate that the registry offers, if these credentials fit none of them.
    unanswered: Option<Vec<String>>,
    /// True if the registry was already asked to send a challenge.
    was_sounded: bool,
}

/// The authorization that a request carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The value of the `Authorization` header.
    pub header: Option<String>,
    /// The number of the header, which tells an old one from the current one.
    number: u64,
}

impl Authorization {
    /// Starts without a header: nothing is sent before the registry asks.
    pub fn new(login: Login, scopes: Scopes) -> Self {
        let state = State {
            scopes,
            is_narrow: false,
            said: Said::default(),
            is_rejected: false,
            is_over: false,
            unanswered: None,
            was_sounded: false,
        };
        Self { login, state: Mutex::new(state) }
    }

    /// Returns the current header, if there is one.
    pub fn said(&self) -> Said {
        self.state().said.clone()
    }

    /// Answers a challenge of the registry, after it refused a request with the authorization
    /// `said`. Returns the new authorization, or none if there is no other. With `again`, the
    /// request was refused although it had an authorization that this function returned: the scopes
    /// of mounts are then left out, since a service may grant only one scope.
    ///
    /// # Errors
    /// Fails with [`ClientError`] if no token can be fetched.
    pub fn challenged(
        &self,
        exchange: &Exchange,
        answer: &Answer,
        said: &Said,
        again: bool,
    ) -> Result<Option<Said>, ClientError> {
        // After a redirection, a challenge of another origin is not answered.
        if !exchange.origin().is_ours(&answer.url) {
            return Ok(None);
        }
        let mut state = self.state();
        if state.is_over {
            return Ok(None);
        }
        // Another request was refused at the same time, and a newer header is known by now.
        if state.said.number != said.number {
            return Ok(Some(state.said.clone()));
        }
        if again {
            if state.is_narrow || !state.scopes.is_wide() {
                return Ok(None);
            }
            state.is_narrow = true;
        }
        let header = self.answer_to(&mut state, exchange, answer)?;
        Ok(header.map(|header| state.say(header)))
    }

    /// Asks the registry for a challenge, after it answered without one that something does not
    /// exist or is not allowed: some registries hide everything from anonymous clients. Returns the
    /// authorization that answers the challenge, if there is one.
    ///
    /// # Errors
    /// Returns the errors of [`challenged`](Self::challenged).
    pub fn sound(&self, exchange: &Exchange, said: &Said) -> Result<Option<Said>, ClientError> {
        if self.login.credentials.is_none() {
            return Ok(None);
        }
        let mut state = self.state();
        if state.said.number != said.number {
            return Ok(Some(state.said.clone()));
        }
        if state.is_over || state.was_sounded || state.said.header.is_some() {
            return Ok(None);
        }
        state.was_sounded = true;
        let url = format!("{}/v2/", exchange.origin().base());
        let answer = exchange.ask(&Request::new("GET", &url), || Payload::None)?;
        let header = match (answer.status, &self.login.credentials) {
            _ if answer.asks_for_authorization() => {
                self.answer_to(&mut state, exchange, &answer)?
            }
            // The registry refuses everything without a challenge: sending the password is the only
            // way left.
            (403 | 404, Some(Credentials::Password(user, password))) => Some(basic(user, password)),
            _ => None,
        };
        Ok(header.map(|header| state.say(header)))
    }

    /// Returns whether a mount may still succeed: without its scope, asking for it is of no use.
    pub fn may_mount(&self) -> bool {
        !self.state().is_narrow
    }

    /// Says why a request with all known authorization was refused: the credentials that are
    /// missing or wrong.
    pub fn missing(&self, status: u16) -> Missing {
        match (&self.login.credentials, status) {
            (None, 401 | 403) => Missing::none_in(&self.login),
            (Some(credentials), 401) => {
                let state = self.state();
                match &state.unanswered {
                    _ if state.is_rejected => Missing::of(credentials),
                    Some(offered) => Missing::Way { offered: offered.clone() },
                    None => Missing::Nothing,
                }
            }
            _ => Missing::Nothing,
        }
    }

    /// Returns the first header that answers one of an answer's challenges.
    fn answer_to(
        &self,
        state: &mut State,
        exchange: &Exchange,
        answer: &Answer,
    ) -> Result<Option<String>, ClientError> {
        let mut failed = None;
        for challenge in answer.challenges() {
            match self.header(state, exchange, &answer.url, &challenge) {
                Ok(Some(header)) => return Ok(Some(header)),
                Ok(None) => {}
                // The next challenge may still be answered.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        state.is_over = state.is_rejected || failed.is_some();
        if !state.is_over {
            state.unanswered = Some(answer.schemes());
        }
        failed.map_or(Ok(None), Err)
    }

    fn header(
        &self,
        state: &mut State,
        exchange: &Exchange,
        asked: &str,
        challenge: &Challenge,
    ) -> Result<Option<String>, ClientError> {
        match (challenge, &self.login.credentials) {
            (Challenge::Bearer { .. }, Some(Credentials::Registry(token))) => {
                Ok(Some(format!("Bearer {token}")))
            }
            (Challenge::Bearer { realm, service, scope }, credentials) => {
                // A registry behind a proxy may not know its own outside address.
                let realm = exchange.origin().resolve(asked, realm);
                let service = TokenService { exchange, realm: &realm, service: service.as_deref() };
                state.scopes.add(scope.as_deref().unwrap_or_default());
                match token(&service, credentials.as_ref(), state)? {
                    Outcome::Done(token) => Ok(Some(format!("Bearer {token}"))),
                    Outcome::Answered(answer) => Err(self.no_token(state, &realm, &answer)),
                }
            }
            (Challenge::Basic, Some(Credentials::Password(user, password))) => {
                let header = basic(user, password);
                let is_known = is_known(exchange, &header)?;
                state.is_rejected = !is_known;
                Ok(is_known.then_some(header))
            }
            (Challenge::Basic, _) => Ok(None),
        }
    }

    fn no_token(&self, state: &mut State, realm: &str, answer: &Answer) -> ClientError {
        if answer.is_success() {
            // The body is not quoted: there may be a token in it, in a place of its own.
            let url = PublicUrl::of(realm);
            return ClientError::Unreachable { url, reason: NoAnswer::NoToken };
        }
        state.is_rejected = answer.status == 401;
        let missing = match (&self.login.credentials, answer.status) {
            (None, 401 | 403) => Missing::none_in(&self.login),
            (Some(credentials), 401) => Missing::of(credentials),
            _ => Missing::Nothing,
        };
        ClientError::Refused {
            registry: PublicUrl::of(realm).to_string(),
            what: "a token".to_owned(),
            status: answer.status,
            message: answer.message(),
            missing: Box::new(missing),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn say(&mut self, header: String) -> Said {
        self.said = Said { header: Some(header), number: self.said.number + 1 };
        self.said.clone()
    }
}

/// Asks for a token with all scopes, and if the service refuses that, without those of mounts.
fn token(
    service: &TokenService,
    credentials: Option<&Credentials>,
    state: &mut State,
) -> Result<Outcome<String>, ClientError> {
    if !state.is_narrow {
        let wide = service.token(credentials, &state.scopes.wide())?;
        if matches!(wide, Outcome::Done(_)) || !state.scopes.is_wide() {
            return Ok(wide);
        }
        state.is_narrow = true;
    }
    service.token(credentials, &state.scopes.narrow())
}

/// Returns whether the registry accepts a header, by the request that `docker login` makes for it
/// (distribution-spec, "Determining Support").
fn is_known(exchange: &Exchange, header: &str) -> Result<bool, ClientError> {
    let url = format!("{}/v2/", exchange.origin().base());
    let proof = Some(Proof { header, at: &url });
    let answer = exchange.ask(&Request { proof, ..Request::new("GET", &url) }, || Payload::None)?;
    Ok(answer.status != 401)
}
