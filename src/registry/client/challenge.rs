//! Parses `WWW-Authenticate` (RFC 9110, section 11.6.1; distribution's "Token Authentication
//! Specification").
//! Stage: registry (pure). Input: the values of the header. Output: [`Challenge`]s.
//!
//! More is accepted than the grammar allows, since registries send it: values with `:` and `/`
//! without quotes, parameters without commas, unknown schemes.

/// A way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A user name and a password.
    Basic,
    /// A token, which another service gives.
    Bearer {
        /// The address of that service; may be relative.
        realm: String,
        /// The registry's name, for that service.
        service: Option<String>,
        /// The scopes that the token must have.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Returns the challenges of all values of the header that this program can answer, the
    /// strongest first. A token is stronger than a password, since a stolen token is worth less.
    pub fn parse_all<'h>(headers: impl IntoIterator<Item = &'h str>) -> Vec<Self> {
        let mut found: Vec<_> = headers
            .into_iter()
            .flat_map(schemes)
            .filter_map(|(scheme, parameters)| Self::of(scheme, &parameters))
            .collect();
        found.sort_by_key(|challenge| *challenge == Self::Basic);
        found.dedup();
        found
    }

    /// Returns the names of all schemes in the values of the header, each once.
    pub fn schemes<'h>(headers: impl IntoIterator<Item = &'h str>) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (scheme, _) in headers.into_iter().flat_map(schemes) {
            if !names.iter().any(|name| name.eq_ignore_ascii_case(scheme)) {
                names.push(scheme.to_owned());
            }
        }
        names
    }

    fn of(scheme: &str, parameters: &[(&str, String)]) -> Option<Self> {
        let parameter = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        match scheme {
            _ if scheme.eq_ignore_ascii_case("basic") => Some(Self::Basic),
            _ if scheme.eq_ignore_ascii_case("bearer") => Some(Self::Bearer {
                realm: parameter("realm")?,
                service: parameter("service"),
                scope: parameter("scope"),
            }),
            _ => None,
        }
    }
}

type Scheme<'h> = (&'h str, Vec<(&'h str, String)>);

/// Splits a header into schemes, each with its parameters.
fn schemes(header: &str) -> Vec<Scheme<'_>> {
    let is_between = |c: char| c.is_whitespace() || c == ',';
    let mut found: Vec<Scheme> = Vec::new();
    let mut rest = header.trim_start_matches(is_between);
    while !rest.is_empty() {
        let end = rest.find(|c| is_between(c) || c == '=').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match after.trim_start().strip_prefix('=') {
            Some(after) => {
                let (value, after) = value(after.trim_start());
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word, value));
                }
                rest = after;
            }
            None => {
                found.push((word, Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches(is_between);
    }
    found
}

/// Reads a value, in quotes or not. Returns the value and the text after it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[place + 1..]),
            // A backslash begins a quoted pair (RFC 9110, section 5.6.4).
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: &str| text.to_owned();
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(owned),
            scope: scope.map(owned),
        }
    }

    #[test]
    fn challenges_are_read() {
        let whole = "Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a/b:pull,push\"";
        let parsed = bearer(
            "https://auth.example/token",
            Some("registry"),
            Some("repository:a/b:pull,push"),
        );
        let joined = format!("Basic realm=\"x, \\\"y\\\"\", {whole}");
        let behind = format!("{whole}, Basic realm=\"x\"");
        for (headers, expected) in [
            (&["Basic realm=\"x\""][..], vec![Challenge::Basic]),
            (&["basic"], vec![Challenge::Basic]),
            (&["BASIC Realm = x ,charset=\"UTF-8\""], vec![Challenge::Basic]),
            (&[whole], vec![parsed.clone()]),
            (&["Basic realm=\"x\"", whole], vec![parsed.clone(), Challenge::Basic]),
            (&[whole, "Basic realm=\"x\""], vec![parsed.clone(), Challenge::Basic]),
            (&[&joined], vec![parsed.clone(), Challenge::Basic]),
            (&[&behind], vec![parsed, Challenge::Basic]),
            (&["bearer Realm=https://a , service=b"], vec![bearer("https://a", Some("b"), None)]),
            (&["Bearer realm=\"a\" service=\"b\""], vec![bearer("a", Some("b"), None)]),
            (&["Bearer realm=\"a\",service=\"\",scope=\" \""], vec![bearer("a", None, None)]),
            (&["Bearer realm=\"a\\\"b\\\\c\""], vec![bearer("a\"b\\c", None, None)]),
            (&["Bearer realm=\"never ends"], vec![bearer("never ends", None, None)]),
            (&["Negotiate abc==, Basic realm=x"], vec![Challenge::Basic]),
            (&["NTLM, , Basic"], vec![Challenge::Basic]),
            (
                &["Digest realm=\"a\", qop=\"auth,auth-int\", algorithm=MD5", "Basic"],
                vec![Challenge::Basic],
            ),
            (&["Bearer service=\"b\""], vec![]),
            (&["Bearer realm=\"\""], vec![]),
            (&["realm=\"x\""], vec![]),
            (&["Negotiate"], vec![]),
            (&["", " , "], vec![]),
        ] {
            assert_eq!(Challenge::parse_all(headers.iter().copied()), expected, "{headers:?}");
        }
    }
}
