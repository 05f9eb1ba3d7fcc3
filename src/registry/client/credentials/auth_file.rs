//! Parses files with credentials: Docker's `config.json` and podman's `auth.json`.
//! Stage: registry (pure). Input: a file's text and a repository. Output: [`AuthEntry`]s.

use crate::oci::unpack::parse_json;
use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Credentials;

/// The key of Docker Hub's entry in Docker's files.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name, in a helper's answer or an entry, that marks the password as an identity token.
const TOKEN_USER: &str = "<token>";

/// The contents of a file (docker, `config.json`; containers-auth.json(5)). Each field may be
/// missing or null.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthFile {
    #[serde(deserialize_with = "or_default")]
    auths: BTreeMap<String, Option<Login>>,
    #[serde(deserialize_with = "or_default")]
    cred_helpers: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "or_default")]
    creds_store: String,
}

/// The entry of a registry, or of a part of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    /// User and password with a colon between them, in base 64. Docker leaves it empty where it
    /// writes the two as separate fields.
    #[serde(deserialize_with = "or_default")]
    auth: String,
    #[serde(deserialize_with = "or_default")]
    username: String,
    #[serde(deserialize_with = "or_default")]
    password: String,
    #[serde(deserialize_with = "or_default")]
    identitytoken: String,
    #[serde(deserialize_with = "or_default")]
    registrytoken: String,
}

/// A place that has the credentials of a registry.
#[derive(Debug, PartialEq, Eq)]
pub enum AuthEntry<'f> {
    /// The file itself.
    Credentials(Credentials),
    /// The program `docker-credential-HELPER`, which is asked for each of the servers until it
    /// knows one.
    Helper {
        /// The part of the program's name after `docker-credential-`.
        helper: &'f str,
        /// The names of the registry.
        servers: Vec<String>,
    },
    /// An entry that can't be parsed.
    Broken {
        /// The entry's key.
        key: &'f str,
        /// The reason.
        reason: &'static str,
    },
}

/// Reads null as if the field were missing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl AuthFile {
    /// Parses a file. An empty one, such as `/dev/null`, has no entries.
    ///
    /// # Errors
    /// Fails if the text is not the JSON of such a file.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // Parse without a type first: serde would accept an array as well, and take its items for
        // the fields in order.
        match parse_json(text).map_err(serde::de::Error::custom)? {
            Value::Null => Ok(Self::default()),
            object @ Value::Object(_) => serde_json::from_value(object),
            _ => Err(serde::de::Error::custom("it is not an object")),
        }
    }

    /// Returns the places that may have the credentials of a repository, in the order in which to
    /// try them: a helper for this registry, an entry for the repository, for a namespace that
    /// contains it (podman's), for the registry, and the helper for all registries.
    pub fn entries(&self, registry: &str, repository: &str) -> Vec<AuthEntry<'_>> {
        let is_registry = |key: &str| same_host(&host_of_key(key), registry);
        let mut found = Vec::new();
        let helper = self.cred_helpers.iter().find(|(key, _)| is_registry(key));
        if let Some((_, Some(helper))) = helper.filter(|(_, helper)| !is_empty(helper)) {
            found.push(AuthEntry::Helper { helper, servers: servers(registry) });
        }
        let keys = keys(registry, repository);
        let exact = keys.iter().filter_map(|key| self.auths.get_key_value(key));
        // Over the years, `docker login` has written keys with a scheme and a path.
        let others = self.auths.iter().filter(|(key, _)| is_registry(key) && !keys.contains(key));
        for (key, login) in exact.chain(others) {
            match login.as_ref().map(Login::credentials) {
                Some(Ok(Some(credentials))) => found.push(AuthEntry::Credentials(credentials)),
                Some(Err(reason)) => found.push(AuthEntry::Broken { key, reason }),
                // An empty entry means that a helper has the credentials.
                Some(Ok(None)) | None => {}
            }
        }
        if !self.creds_store.is_empty() {
            found.push(AuthEntry::Helper { helper: &self.creds_store, servers: servers(registry) });
        }
        found
    }
}

fn is_empty(helper: &Option<String>) -> bool {
    helper.as_deref().is_none_or(str::is_empty)
}

/// Returns the keys that stand for a repository, the most specific first: the repository, the
/// namespaces that contain it, and the registry.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let whole = format!("{registry}/{repository}");
    let ends = whole.rmatch_indices('/').map(|(end, _)| end).filter(|end| *end >= registry.len());
    [whole.len()].into_iter().chain(ends).map(|end| whole[..end].to_owned()).collect()
}

/// Returns the names by which helpers know a registry: Docker Hub has two.
fn servers(registry: &str) -> Vec<String> {
    match registry {
        "docker.io" => vec![DOCKER_HUB_KEY.to_owned(), registry.to_owned()],
        _ => vec![registry.to_owned()],
    }
}

/// Returns the host and port of a key that stands for a whole registry: `https://host/…`, `host/`,
/// `host/v1/`, `host/v2/`.
fn host_of_key(key: &str) -> String {
    let stripped = ["https://", "http://"].iter().find_map(|scheme| key.strip_prefix(scheme));
    let host = match stripped {
        Some(address) => address.split('/').next().unwrap_or_default(),
        None => {
            let key = key.trim_end_matches('/');
            ["/v1", "/v2"].iter().find_map(|path| key.strip_suffix(path)).unwrap_or(key)
        }
    };
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

/// Returns whether two host names are equal, regardless of case (RFC 4343).
fn same_host(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

impl Login {
    /// Returns the entry's credentials, if it has any.
    ///
    /// # Errors
    /// Fails with a description of what is wrong with the entry.
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credentials::Registry(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::Token(self.identitytoken.clone())));
        }
        let (user, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            decode(&self.auth)?
        };
        Ok(credentials(user, password))
    }
}

/// Returns user and password as credentials, or `None` if there is no user. For the user `<token>`
/// the password is an identity token (docker-credential-helpers).
pub fn credentials(user: String, password: String) -> Option<Credentials> {
    match &*user {
        "" => None,
        TOKEN_USER => Some(Credentials::Token(password)),
        _ => Some(Credentials::Password(user, password)),
    }
}

/// Decodes `auth`. Ignores NULs after the password, which Docker once wrote.
fn decode(auth: &str) -> Result<(String, String), &'static str> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(&STANDARD, config).decode(auth.trim());
    let text = decoded.map_err(|_| "`auth` is not base 64")?;
    let text = String::from_utf8(text).map_err(|_| "`auth` is not text in base 64")?;
    let (user, password) = text.split_once(':').ok_or("`auth` is not USER:PASSWORD in base 64")?;
    Ok((user.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the places that are tried, in one line.
    fn found(file: &Value, registry: &str, repository: &str) -> String {
        let file = AuthFile::parse(file.to_string().as_bytes()).unwrap();
        let entries = file.entries(registry, repository).into_iter().map(|entry| match entry {
            AuthEntry::Credentials(Credentials::Password(user, password)) => {
                format!("{user}:{password}")
            }
            AuthEntry::Credentials(Credentials::Token(token)) => format!("token {token}"),
            AuthEntry::Credentials(Credentials::Registry(token)) => format!("bearer {token}"),
            AuthEntry::Helper { helper, servers } => format!("{helper} {}", servers.join(" ")),
            AuthEntry::Broken { key, reason } => format!("{key}: {reason}"),
        });
        entries.collect::<Vec<_>>().join("; ")
    }

    fn base64(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    #[test]
    fn entries_are_read_as_docker_writes_them() {
        let nul = base64("u:p\0");
        let plain = base64("u:p");
        let token_user = base64("<token>:t");
        for (login, expected) in [
            (json!({"auth": plain}), "u:p"),
            (json!({"auth": plain.trim_end_matches('=')}), "u:p"),
            (json!({"auth": nul}), "u:p"),
            (json!({"auth": base64("u:p:q")}), "u:p:q"),
            (json!({"auth": base64("u:")}), "u:"),
            (json!({"auth": base64(":")}), ""),
            (json!({"auth": "", "username": "u", "password": "p"}), "u:p"),
            (json!({"username": "u", "password": "p"}), "u:p"),
            (json!({"auth": null, "username": "u", "password": "p"}), "u:p"),
            (json!({"auth": plain, "username": "other", "password": null}), "u:p"),
            (json!({"auth": plain, "email": "u@example.org"}), "u:p"),
            (json!({"auth": plain, "identitytoken": "t"}), "token t"),
            (json!({"auth": plain, "identitytoken": ""}), "u:p"),
            (json!({"username": "<token>", "password": "t"}), "token t"),
            (json!({"auth": token_user}), "token t"),
            (json!({"registrytoken": "r"}), "bearer r"),
            (json!({"auth": plain, "identitytoken": "t", "registrytoken": "r"}), "bearer r"),
            (json!({}), ""),
            (json!(null), ""),
            (json!({"auth": ""}), ""),
            (json!({"auth": "!"}), "reg: `auth` is not base 64"),
            (json!({"auth": base64("token")}), "reg: `auth` is not USER:PASSWORD in base 64"),
        ] {
            let file = json!({"auths": {"reg": login}});
            assert_eq!(found(&file, "reg", "a"), expected, "{login}");
        }
    }

    #[test]
    fn keys_are_those_that_were_ever_written() {
        let login = json!({"username": "u", "password": "p"});
        for (key, registry, expected) in [
            ("reg:5000", "reg:5000", true),
            ("reg:5000/", "reg:5000", true),
            ("reg:5000/v1/", "reg:5000", true),
            ("reg:5000/v2/", "reg:5000", true),
            ("reg:5000/v2", "reg:5000", true),
            ("https://reg:5000", "reg:5000", true),
            ("http://reg:5000/v1/", "reg:5000", true),
            ("https://reg:5000/any/path", "reg:5000", true),
            ("REG:5000", "reg:5000", true),
            ("[::1]:5000", "[::1]:5000", true),
            ("https://[::1]:5000/", "[::1]:5000", true),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("index.docker.io", "docker.io", true),
            ("docker.io", "docker.io", true),
            ("registry-1.docker.io", "docker.io", true),
            ("https://registry-1.docker.io/v2/", "docker.io", true),
            ("reg", "reg:5000", false),
            ("reg:5000", "reg", false),
            ("reg:5000/team", "reg:5000", false),
            ("reg.example", "reg", false),
            ("https://reg.example/reg:5000", "reg:5000", false),
            ("", "reg", false),
        ] {
            let file = json!({"auths": {key: login}});
            assert_eq!(!found(&file, registry, "a/b").is_empty(), expected, "{key} {registry}");
            let file = json!({"credHelpers": {key: "x"}});
            assert_eq!(!found(&file, registry, "a/b").is_empty(), expected, "{key} {registry}");
        }
    }

    #[test]
    fn the_most_specific_is_first() {
        let login = |user: &str| json!({"username": user, "password": "p"});
        let file = json!({
            "auths": {
                "reg/team/app": login("app"),
                "reg/team": login("team"),
                "reg": login("host"),
                "docker.io/team": login("hub team"),
                "https://index.docker.io/v1/": login("hub"),
                "quay.io/empty": {},
                "quay.io": null,
            },
            "credHelpers": {"ghcr.io": "gh", "quay.io": "", "gcr.io": null},
            "credsStore": "all",
        });
        for (registry, repository, expected) in [
            ("reg", "team/app", "app:p; team:p; host:p; all reg"),
            ("reg", "team/app/part", "app:p; team:p; host:p; all reg"),
            ("reg", "team/apps", "team:p; host:p; all reg"),
            ("reg", "other", "host:p; all reg"),
            (
                "docker.io",
                "team/app",
                "hub team:p; hub:p; all https://index.docker.io/v1/ docker.io",
            ),
            ("docker.io", "library/app", "hub:p; all https://index.docker.io/v1/ docker.io"),
            ("ghcr.io", "a/b", "gh ghcr.io; all ghcr.io"),
            ("quay.io", "empty/b", "all quay.io"),
            ("gcr.io", "a", "all gcr.io"),
        ] {
            assert_eq!(found(&file, registry, repository), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn files_without_entries_have_none() {
        for text in [
            "",
            "\n",
            "null",
            "{}",
            r#"{"auths": null, "credHelpers": null, "credsStore": null}"#,
            r#"{"auths": {}, "HttpHeaders": {"a": "b"}, "credsStore": ""}"#,
        ] {
            assert!(
                AuthFile::parse(text.as_bytes()).unwrap().entries("reg", "a").is_empty(),
                "{text}"
            );
        }
        for text in ["{", "[]", r#"{"auths": 1}"#, r#"{"auths": {"reg": 1}}"#] {
            assert!(AuthFile::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
