//! Who we are, as `docker login` and `podman login` have stored it.
//! Stage: registry. Input: files of credentials and a registry. Output: [`Credentials`].

use std::fs;
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde_json::Value;

use super::error::ClientError;

/// Name and password, or a token that stands for them.
#[derive(Clone)]
pub enum Credentials {
    /// For Basic, and to get a token.
    Password(String, String),
    /// A refresh token (OAuth 2).
    Token(String),
}

/// What the first file that knows the repository or its registry says.
///
/// # Errors
/// [`ClientError::Credentials`] if a file or a credential helper can't be understood.
pub fn stored(
    files: &[PathBuf],
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, ClientError> {
    // Docker's own name for its hub.
    let hosts: &[&str] = match registry {
        "docker.io" => &["https://index.docker.io/v1/", "docker.io"],
        other => &[other],
    };
    for file in files {
        let Ok(text) = fs::read(file) else { continue };
        let namespaces = namespaces(&text, registry, repository);
        let servers = namespaces.iter().map(String::as_str).chain(hosts.iter().copied());
        for server in servers {
            let found = in_file(&text, server).map_err(|error| {
                ClientError::Credentials(format!("{}: {error}", file.display()))
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

/// Which of the repository and what it is in a file has credentials for, the repository first:
/// podman has them for a part of a registry (containers-auth.json(5)). Helpers have none.
fn namespaces(text: &[u8], registry: &str, repository: &str) -> Vec<String> {
    let file: Value = serde_json::from_slice(text).unwrap_or_default();
    let whole = format!("{registry}/{repository}");
    let slashes = whole.rmatch_indices('/').map(|(at, _)| at).filter(|at| *at > registry.len());
    let names = [whole.len()].into_iter().chain(slashes).map(|end| &whole[..end]);
    // An empty entry says that a helper has it, which knows hosts alone.
    let entry = |name: &str| file["auths"][name].as_object();
    let there = names.filter(|name| entry(name).is_some_and(|entry| !entry.is_empty()));
    there.map(str::to_owned).collect()
}

fn in_file(text: &[u8], server: &str) -> Result<Option<Credentials>, CredentialRetrievalError> {
    match docker_credential::get_credential_from_reader(text, server) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Credentials::Password(user, password)))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credentials::Token(token))),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        // A helper's only way to say that it has none (docker-credential-helpers).
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if [&stdout, &stderr].iter().any(|said| said.contains("credentials not found")) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the user's name, as all have the same password.
    fn user_in(files: &[&str], registry: &str, repository: &str) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let files = files.iter().enumerate().map(|(number, text)| {
            let file = directory.path().join(number.to_string());
            fs::write(&file, text).unwrap();
            file
        });
        let mut files: Vec<_> = files.collect();
        files.insert(0, directory.path().join("missing"));
        match stored(&files, registry, repository).unwrap()? {
            Credentials::Password(user, password) => {
                assert_eq!(password, "p");
                Some(user)
            }
            Credentials::Token(token) => Some(token),
        }
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
            "quay.io": {"auth": "cXVheTpw"}
        }}"#;
        for (registry, repository, expected) in [
            ("reg:5000", "team/app", Some("app")),
            ("reg:5000", "team/app/part", Some("app")),
            ("reg:5000", "team/apps", Some("team")),
            ("reg:5000", "team", Some("team")),
            ("reg:5000", "other/app", Some("host")),
            ("reg", "team/app", None),
            ("docker.io", "team/app", Some("hub team")),
            ("docker.io", "library/app", Some("hub")),
            ("ghcr.io", "a/b", Some("token")),
            ("quay.io", "empty/b", Some("quay")),
        ] {
            let found = user_in(&[podman, docker], registry, repository);
            assert_eq!(found.as_deref(), expected, "{registry}/{repository}");
        }
        // Of two files, the first that knows anything.
        assert_eq!(user_in(&[docker, podman], "docker.io", "team/app").as_deref(), Some("hub"));
    }

    #[test]
    fn what_is_no_file_of_credentials_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("auth.json");
        fs::write(&file, "{").unwrap();
        let error = stored(std::slice::from_ref(&file), "reg", "a").err().unwrap().to_string();
        assert!(error.contains(&*file.to_string_lossy()), "{error}");
    }
}
