//! Looks up the credentials that `docker login` and `podman login` have stored.
//! Stage: registry. Reads files, runs helpers. Input: places to look in, and an image's name.
//! Output: [`Login`].
//!
//! The crate `docker_credential` was not enough: it refuses an empty `auth` beside a user and a
//! password, does not know `registrytoken` or keys with a path, and does not tell a missing helper
//! from one that fails.

mod auth_file;
mod helper;

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::outgoing::Reference;
use crate::small_file;
use auth_file::{AuthEntry, AuthFile};
use helper::HelperError;

/// Says why credentials can't be read: the place, and the reason.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("credentials: {0}")]
pub struct CredentialsError(String);

/// The credentials of a client.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user's name and password: for Basic, and to fetch a token.
    Password(String, String),
    /// An identity token, with which a token is fetched (OAuth 2: a refresh token).
    Token(String),
    /// A token for the registry itself, sent unchanged (`registrytoken`).
    Registry(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A place that may have credentials.
#[derive(Clone)]
pub enum AuthSource {
    /// A file in Docker's or podman's format. It need not exist.
    File(PathBuf),
    /// The text of such a file in an environment variable.
    Variable {
        /// The name of the variable.
        name: &'static str,
        /// The text.
        text: String,
    },
}

impl fmt::Display for AuthSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Variable { name, .. } => f.write_str(name),
        }
    }
}

/// The credentials for a registry, or the places that have none.
#[derive(Clone, Debug)]
pub struct Login {
    /// The credentials.
    pub credentials: Option<Credentials>,
    /// The registry's name for users.
    pub host: String,
    /// The places where credentials were looked for.
    pub looked_in: LookedIn,
}

/// The places where credentials were looked for, and the errors of reading them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookedIn {
    places: Vec<String>,
    problems: Vec<String>,
}

/// Writes ` in PLACE, PLACE; PROBLEM`, or nothing if there was no place to look in.
impl fmt::Display for LookedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.places.is_empty() {
            write!(f, " in {}", self.places.join(", "))?;
        }
        self.problems.iter().try_for_each(|problem| write!(f, "; {problem}"))
    }
}

impl Login {
    /// Wraps credentials that the user gave on the command line.
    pub fn given(credentials: Credentials, reference: &Reference) -> Self {
        let host = reference.registry().to_string();
        Self { credentials: Some(credentials), host, looked_in: LookedIn::default() }
    }
}

/// Looks for the credentials of a repository in one place after the other, until one has some.
///
/// A helper that can't be run is not an error: the registry may not ask for credentials.
///
/// # Errors
/// Fails with [`CredentialsError`] if a file is not valid, or if a helper failed and no
/// other place has credentials.
pub fn look_up(sources: &[AuthSource], reference: &Reference) -> Result<Login, CredentialsError> {
    let (registry, repository) = (reference.registry().as_str(), reference.repository().as_str());
    let mut looked_in = LookedIn::default();
    let mut failure = None;
    let login =
        |credentials, looked_in| Login { credentials, host: registry.to_owned(), looked_in };
    for source in sources {
        looked_in.places.push(source.to_string());
        let text = match text_of(source) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                looked_in.problems.push(format!("{source} cannot be read: {error}"));
                continue;
            }
        };
        let file = AuthFile::parse(&text).map_err(|error| {
            CredentialsError(format!("{source} is no file with credentials: {error}"))
        })?;
        for entry in file.entries(registry, repository) {
            let found = match entry {
                AuthEntry::Credentials(credentials) => Some(credentials),
                AuthEntry::Broken { key, reason } => {
                    let key = key.escape_debug();
                    looked_in.problems.push(format!("the entry `{key}` of {source}: {reason}"));
                    None
                }
                AuthEntry::Helper { helper, servers } => match from_helper(helper, &servers) {
                    Ok(found) => found,
                    Err(error @ HelperError::Missing { .. }) => {
                        looked_in.problems.push(format!("{error}, and {source} names it"));
                        None
                    }
                    Err(error) => {
                        failure.get_or_insert_with(|| format!("{error} ({source} names it)"));
                        None
                    }
                },
            };
            if found.is_some() {
                return Ok(login(found, looked_in));
            }
        }
    }
    match failure {
        Some(failure) => Err(CredentialsError(failure)),
        None => Ok(login(None, looked_in)),
    }
}

fn text_of(source: &AuthSource) -> io::Result<Vec<u8>> {
    match source {
        AuthSource::File(file) => small_file::read(file),
        AuthSource::Variable { text, .. } => Ok(text.clone().into_bytes()),
    }
}

fn from_helper(helper: &str, servers: &[String]) -> Result<Option<Credentials>, HelperError> {
    for server in servers {
        if let Some(found) = helper::ask(helper, server)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(text: &str) -> AuthSource {
        AuthSource::Variable { name: "AUTH", text: text.to_owned() }
    }

    /// Looks for credentials in the texts of files, and returns the user's name, since all have the
    /// same password.
    fn user_in(files: &[&str], name: &str) -> Option<String> {
        let sources: Vec<_> = [AuthSource::File("/nonexistent/auth.json".into())]
            .into_iter()
            .chain(files.iter().map(|text| variable(text)))
            .collect();
        let login = look_up(&sources, &name.parse().unwrap()).unwrap();
        Some(match login.credentials? {
            Credentials::Password(user, password) => {
                assert_eq!(password, "p");
                user
            }
            Credentials::Token(token) | Credentials::Registry(token) => token,
        })
    }

    #[test]
    fn the_most_specific_entry_counts() {
        let podman = r#"{"auths": {
            "reg:5000/team/app": {"username": "app", "password": "p"},
            "reg:5000/team": {"username": "team", "password": "p"},
            "reg:5000": {"username": "host", "password": "p"},
            "docker.io/team": {"username": "hub team", "password": "p"},
            "quay.io/empty": {}
        }}"#;
        let docker = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnA="},
            "ghcr.io": {"auth": "eDpw", "identitytoken": "token"},
            "quay.io": {"auth": "cXVheTpw"},
            "[::1]:5000": {"username": "six", "password": "p"}
        }}"#;
        for (name, expected) in [
            ("reg:5000/team/app", Some("app")),
            ("reg:5000/team/app/part", Some("app")),
            ("reg:5000/team/apps", Some("team")),
            ("reg:5000/team", Some("team")),
            ("reg:5000/other/app", Some("host")),
            ("reg:5001/team/app", None),
            ("docker.io/team/app", Some("hub team")),
            ("team/app", Some("hub team")),
            ("app", Some("hub")),
            ("ghcr.io/a/b", Some("token")),
            ("quay.io/empty/b", Some("quay")),
            ("[::1]:5000/a", Some("six")),
        ] {
            assert_eq!(user_in(&[podman, docker], name).as_deref(), expected, "{name}");
        }
        // The first file that has the registry counts.
        assert_eq!(user_in(&[docker, podman], "team/app").as_deref(), Some("hub"));
        assert_eq!(user_in(&["", "{}", "null", podman], "reg:5000/a").as_deref(), Some("host"));
    }

    #[test]
    fn what_is_no_file_of_credentials_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("auth.json");
        std::fs::write(&file, "{").unwrap();
        let error = look_up(&[AuthSource::File(file.clone())], &"reg/a".parse().unwrap());
        let error = error.err().unwrap().to_string();
        assert!(error.contains(&*file.to_string_lossy()), "{error}");
    }

    #[test]
    fn it_is_said_where_credentials_were_looked_for() {
        let missing = AuthSource::File("/nonexistent/auth.json".into());
        let directory = AuthSource::File("/".into());
        let none = variable(r#"{"auths": {"reg:80": {"auth": "!"}}, "credsStore": "nonesuch"}"#);
        for (sources, expected) in [
            (vec![], ""),
            (
                vec![missing, directory],
                " in /nonexistent/auth.json, /; / cannot be read: Is a directory (os error 21)",
            ),
            (
                vec![none],
                " in AUTH; the entry `reg:80` of AUTH: `auth` is not base 64; \
                 `docker-credential-nonesuch` cannot be run: No such file or directory (os error 2), \
                 and AUTH names it",
            ),
        ] {
            let login = look_up(&sources, &"reg:80/a".parse().unwrap()).unwrap();
            assert_eq!(login.looked_in.to_string(), expected);
            assert!(login.credentials.is_none());
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let given = Login::given(Credentials::Token("secret".into()), &"reg/a".parse().unwrap());
        assert!(!format!("{given:?}").contains("secret"));
    }
}
