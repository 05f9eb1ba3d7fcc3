//! Rules for the access to a registry, and the ways to refuse it.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::registry::{answer, error};

type Answer = axum::response::Response<axum::body::Body>;

/// The rules for access.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Clients need no credentials.
    #[default]
    Open,
    /// A single user has access, by `name:password`.
    Basic(&'static str),
    /// A single user has access, as with `Basic`; others get this status, as if nothing existed.
    Hidden(&'static str, u16),
    /// A single user may write, as with `Basic`; anonymous clients may read.
    WriteBasic(&'static str),
    /// Clients with a token have access.
    Token(Token),
    /// Clients need this `Authorization`; others are refused with these challenges.
    Challenges(Vec<String>, String),
}

/// A token service.
#[derive(Clone, Debug, Default)]
pub struct Token {
    /// The `name:password` of the user who gets tokens; none if all clients do.
    pub user: Option<&'static str>,
    /// The refresh token that is accepted.
    pub refresh: Option<&'static str>,
    /// The token's key in the answer.
    pub named: Named,
    /// The `scope` of the challenge, in place of the one that is needed.
    pub scope: Option<&'static str>,
    /// The only scope of several that counts, the first or the last.
    pub one_scope: Option<Place>,
    /// Repositories that may not be read.
    pub denied: Vec<&'static str>,
    /// True if a request for one of the denied repositories gets no token at all.
    pub deny_all: bool,
    /// True if nothing may be read.
    pub write_only: bool,
    /// The status with which `POST` is answered.
    pub post: Option<u16>,
    /// A further challenge, and its place.
    pub beside: Option<Beside>,
    /// The address of the token service, if it is not this server.
    pub realm: Option<String>,
    /// True if requests are refused with 403 in place of 401.
    pub forbids: bool,
    /// A token from elsewhere that allows everything.
    pub given: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    Last,
}

#[derive(Clone, Copy, Debug, Default)]
pub enum Named {
    #[default]
    Both,
    /// `access_token`, beside an empty `token`.
    EmptyToken,
    /// `access_token` alone.
    AccessToken,
    /// `token` alone, beside `null`.
    Token,
    /// Under a name that no client knows.
    Elsewhere,
    /// `token`, with a line break in it.
    Broken,
}

/// The place of a challenge for a password.
#[derive(Clone, Copy, Debug)]
pub enum Beside {
    /// A header before the one with the challenge for a token.
    Before,
    /// A header after the one with the challenge for a token.
    Behind,
    /// The same header, before the challenge for a token.
    SameBefore,
    /// The same header, after the challenge for a token.
    SameBehind,
}

pub fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(user))
}

const BASIC: &str = r#"Basic realm="a \"quoted\", name""#;

fn unauthorized(status: u16, challenges: &[String]) -> Answer {
    let headers: Vec<_> =
        challenges.iter().map(|challenge| ("www-authenticate", &**challenge)).collect();
    let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
    answer(status, &headers, body.to_string())
}

impl Access {
    /// Returns the refusal of a request, or `None` if it is allowed.
    pub fn refusal(
        &self,
        base: &str,
        authorization: Option<&str>,
        repository: &str,
        reads: bool,
        needed: &BTreeSet<(String, String)>,
        tokens: &BTreeMap<String, BTreeSet<(String, String)>>,
    ) -> Option<Answer> {
        match self {
            Self::Open => None,
            Self::Basic(user) | Self::Hidden(user, _) | Self::WriteBasic(user)
                if authorization == Some(&*basic(user)) =>
            {
                None
            }
            Self::Hidden(_, status)
                if reads && !repository.is_empty() && authorization.is_none() =>
            {
                Some(error(*status, "NAME_UNKNOWN"))
            }
            Self::WriteBasic(_) if reads => None,
            Self::Basic(_) | Self::Hidden(..) | Self::WriteBasic(_) => {
                Some(unauthorized(401, &[BASIC.to_owned()]))
            }
            Self::Challenges(challenges, expected) => {
                (authorization != Some(expected)).then(|| unauthorized(401, challenges))
            }
            Self::Token(token) => {
                let bearer = authorization.and_then(|text| text.strip_prefix("Bearer "));
                let known = bearer.is_some() && bearer == token.given;
                let granted = bearer.and_then(|bearer| tokens.get(bearer));
                if known || granted.is_some_and(|granted| needed.is_subset(granted)) {
                    return None;
                }
                let status = if token.forbids { 403 } else { 401 };
                Some(unauthorized(status, &token.challenges(base, repository, reads)))
            }
        }
    }
}

impl Token {
    fn challenges(&self, base: &str, repository: &str, reads: bool) -> Vec<String> {
        let realm = self.realm.clone().unwrap_or_else(|| format!("{base}/token"));
        let usual = format!("repository:{repository}:{}", if reads { "pull" } else { "pull,push" });
        let scope = self.scope.unwrap_or(&usual);
        let bearer = format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"{scope}\"");
        match self.beside {
            None => vec![bearer],
            Some(Beside::Before) => vec![BASIC.to_owned(), bearer],
            Some(Beside::Behind) => vec![bearer, BASIC.to_owned()],
            Some(Beside::SameBefore) => vec![format!("{BASIC}, {bearer}")],
            Some(Beside::SameBehind) => vec![format!("{bearer}, {BASIC}")],
        }
    }

    /// Returns the actions that a token allows, or the refusal.
    pub fn grant(
        &self,
        is_form: bool,
        authorization: Option<&str>,
        fields: &[(String, String)],
    ) -> Result<BTreeSet<(String, String)>, Box<Answer>> {
        let field = |name: &str| {
            fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        if let Some(status) = self.post.filter(|_| is_form) {
            return Err(answer(status, &[], "no such page").into());
        }
        let known = match (is_form, self.user, self.refresh) {
            (true, _, Some(refresh)) => field("refresh_token") == Some(refresh),
            (false, Some(user), _) => authorization == Some(&*basic(user)),
            (true, _, None) => false,
            (false, None, _) => true,
        };
        if !known {
            return Err(error(401, "UNAUTHORIZED").into());
        }
        let mut scopes = Vec::new();
        for (key, value) in fields.iter().filter(|(key, _)| key == "scope") {
            if value.is_empty() {
                return Err(error(400, "EMPTY_SCOPE").into());
            }
            assert_eq!(key, "scope");
            scopes.extend(value.split(' '));
        }
        match self.one_scope {
            Some(Place::First) => scopes.truncate(1),
            Some(Place::Last) => scopes = scopes.split_off(scopes.len().saturating_sub(1)),
            None => {}
        }
        let mut granted = BTreeSet::new();
        for scope in scopes {
            let (rest, actions) = scope.rsplit_once(':').unwrap();
            let repository = rest.strip_prefix("repository:").unwrap();
            if self.denied.contains(&repository) {
                if self.deny_all {
                    return Err(error(403, "DENIED").into());
                }
                continue;
            }
            for action in actions.split(',').filter(|action| !self.write_only || *action != "pull")
            {
                granted.insert((repository.to_owned(), action.to_owned()));
            }
        }
        Ok(granted)
    }

    pub fn answer(&self, token: &str) -> Value {
        match self.named {
            Named::Both => json!({"token": token, "access_token": token, "expires_in": 300}),
            Named::EmptyToken => json!({"token": "", "access_token": token}),
            Named::AccessToken => json!({"access_token": token}),
            Named::Token => json!({"token": token, "access_token": null}),
            Named::Elsewhere => json!({"accessToken": format!("HUNTER2{token}")}),
            Named::Broken => json!({"token": format!("HUNTER2\n{token}")}),
        }
    }
}
