//! Who we are, as `docker login` and `podman login` have stored it.
//! Stage: transport. Input: files of credentials and a registry. Output: [`Credentials`].

use std::fs;
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential};

use super::error::PushError;

/// Name and password, or a token that stands for them.
#[derive(Clone)]
pub enum Credentials {
    /// For Basic, and to get a token.
    Password(String, String),
    /// A refresh token (OAuth 2).
    Token(String),
}

/// What the first file that knows the registry says.
///
/// # Errors
/// [`PushError::Credentials`] if a file or a credential helper can't be understood.
pub fn stored(files: &[PathBuf], registry: &str) -> Result<Option<Credentials>, PushError> {
    // Docker's own name for its hub.
    let servers: &[&str] = match registry {
        "docker.io" => &["https://index.docker.io/v1/", "docker.io"],
        other => &[other],
    };
    for file in files {
        for server in servers {
            let Ok(opened) = fs::File::open(file) else { continue };
            match docker_credential::get_credential_from_reader(opened, server) {
                Ok(DockerCredential::UsernamePassword(user, password)) => {
                    return Ok(Some(Credentials::Password(user, password)));
                }
                Ok(DockerCredential::IdentityToken(token)) => {
                    return Ok(Some(Credentials::Token(token)));
                }
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                Err(error) => {
                    return Err(PushError::Credentials(format!("{}: {error}", file.display())));
                }
            }
        }
    }
    Ok(None)
}
