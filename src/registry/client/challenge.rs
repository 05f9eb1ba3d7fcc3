//! What a registry wants to know before it answers (RFC 9110, 11.6.1, and distribution's
//! "Token Authentication Specification").
//! Stage: registry (pure). Input: a `WWW-Authenticate` header. Output: [`Challenge`].

/// How to say who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// By name and password.
    Basic,
    /// By a token from somewhere else.
    Bearer {
        /// Where.
        realm: String,
        /// For which service.
        service: Option<String>,
        /// To do what.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads the header; none for what nobody here can answer.
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameter = |name: &str| {
            let found =
                parameters(rest).into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value)
        };
        Some(Self::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        })
    }
}

/// `key="value",key=value`, where a quoted value may have commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((key.trim().to_owned(), value.trim().to_owned()));
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let owned = |text: &str| text.to_owned();
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(owned),
                scope: scope.map(owned),
            })
        };
        for (header, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a/b:pull,push\"",
                bearer(
                    "https://auth.example/token",
                    Some("registry"),
                    Some("repository:a/b:pull,push"),
                ),
            ),
            ("bearer Realm=https://a , service=b", bearer("https://a", Some("b"), None)),
            ("Bearer service=\"b\"", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(header), expected, "{header}");
        }
    }
}
