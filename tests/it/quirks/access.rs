//! Who may do what in a registry, and how it says so.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::registry::{answer, error};

type Answer = axum::response::Response<axum::body::Body>;

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Everybody everything.
    #[default]
    Open,
    /// One user, by `name:password`.
    Basic(&'static str),
    /// As `Basic`; anybody else is told by this status that there is nothing to read.
    Hidden(&'static str, u16),
    /// As `Basic`; anybody may read.
    WriteBasic(&'static str),
    /// Whoever has a token.
    Token(Token),
    /// Anybody else is refused with these challenges, and needs this `Authorization`.
    Challenges(Vec<String>, String),
}

/// A service that gives tokens.
#[derive(Clone, Debug, Default)]
pub struct Token {
    /// `name:password` of who gets any; of anybody, if there is none.
    pub user: Option<&'static str>,
    /// The refresh token that gets any.
    pub refresh: Option<&'static str>,
    /// How the token is called in the answer.
    pub named: Named,
    /// `scope` of the challenge, in place of what is needed.
    pub scope: Option<&'static str>,
    /// Of several scopes, only the first or the last counts.
    pub one_scope: Option<Place>,
    /// Repositories that may not be read.
    pub denied: Vec<&'static str>,
    /// Who asks for one of these is refused the token.
    pub deny_all: bool,
    /// Nothing may be read.
    pub write_only: bool,
    /// `POST` is answered by this.
    pub post: Option<u16>,
    /// Challenges beside the one for a token, and where.
    pub beside: Option<Beside>,
    /// Where tokens are, if not here.
    pub realm: Option<String>,
    /// A token that may do everything, and was not made here.
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
}

/// A challenge for a password, too.
#[derive(Clone, Copy, Debug)]
pub enum Beside {
    /// In a header before.
    Before,
    /// In a header behind.
    Behind,
    /// In the same header, before.
    SameBefore,
    /// In the same header, behind.
    SameBehind,
}

pub fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(user))
}

const BASIC: &str = r#"Basic realm="a \"quoted\", name""#;

fn unauthorized(challenges: &[String]) -> Answer {
    let headers: Vec<_> =
        challenges.iter().map(|challenge| ("www-authenticate", &**challenge)).collect();
    let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
    answer(401, &headers, body.to_string())
}

impl Access {
    /// How a request is refused, if it is.
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
                Some(unauthorized(&[BASIC.to_owned()]))
            }
            Self::Challenges(challenges, expected) => {
                (authorization != Some(expected)).then(|| unauthorized(challenges))
            }
            Self::Token(token) => {
                let bearer = authorization.and_then(|text| text.strip_prefix("Bearer "));
                let known = bearer.is_some() && bearer == token.given;
                let granted = bearer.and_then(|bearer| tokens.get(bearer));
                if known || granted.is_some_and(|granted| needed.is_subset(granted)) {
                    return None;
                }
                Some(unauthorized(&token.challenges(base, repository, reads)))
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

    /// What a token may do, or the refusal.
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
        }
    }
}
