//! Admits users: HTTP's basic authentication (RFC 7617) by a file of `htpasswd -B`.
//! Stage: registry. Input: the file, and `Authorization` headers. Output: yes or no.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio_rustls::rustls::crypto::ring;

use crate::registry::error::SetupError;

/// The number of passwords that are checked at a time: each takes a processor for a good part of a
/// second, and guesses must not keep layers from being made.
const TRIED_AT_ONCE: usize = 2;

/// Users and the hashes of their passwords.
pub struct Users {
    hashes: BTreeMap<String, String>,
    /// Keyed hashes of passwords that were right: a client sends its password with every blob, and
    /// bcrypt is slow on purpose. Without the key, these hashes are useless to an attacker.
    verified: Mutex<BTreeMap<String, [u8; 32]>>,
    key: [u8; 32],
    tries: Semaphore,
}

impl Users {
    /// Reads a file of `USER:HASH` lines.
    ///
    /// # Errors
    /// Fails with file and line if a line is not valid or a hash is not bcrypt's.
    pub fn read(file: &Path) -> Result<Self, SetupError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| SetupError::Read { path: file.to_owned(), source })?;
        let hashes = parse(&text).map_err(|(line, reason)| SetupError::Users {
            file: file.to_owned(),
            line,
            reason,
        })?;
        if hashes.is_empty() {
            return Err(SetupError::NoUsers(file.to_owned()));
        }
        Ok(Self::new(hashes))
    }

    fn new(hashes: BTreeMap<String, String>) -> Self {
        let mut key = [0; 32];
        let random = ring::default_provider().secure_random;
        random.fill(&mut key).expect("the system has random numbers");
        Self { hashes, verified: Mutex::default(), key, tries: Semaphore::new(TRIED_AT_ONCE) }
    }

    /// Returns whether these credentials are valid. For an unknown user this takes as long as for a
    /// wrong password.
    pub async fn admits(self: &Arc<Self>, authorization: Option<&str>) -> bool {
        let Some((user, password)) = authorization.and_then(credentials) else { return false };
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.key).chain_update(&password).finalize().into();
        if self.was_right(&user, &digest) {
            return true;
        }
        let Ok(_place) = self.tries.acquire().await else { return false };
        // While this request waited, another one may have had the answer.
        if self.was_right(&user, &digest) {
            return true;
        }
        let users = Arc::clone(self);
        let tried = move || {
            let known = users.hashes.get(&user);
            let hash = known.or_else(|| users.hashes.values().next());
            let right = hash.is_some_and(|hash| bcrypt::verify(&password, hash).unwrap_or(false));
            let admitted = known.is_some() & right;
            if admitted {
                let mut verified = users.verified.lock().unwrap_or_else(PoisonError::into_inner);
                verified.insert(user, digest);
            }
            admitted
        };
        tokio::task::spawn_blocking(tried).await.unwrap_or(false)
    }

    fn was_right(&self, user: &str, digest: &[u8; 32]) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(user).is_some_and(|right| bool::from(right.ct_eq(digest)))
    }
}

/// Parses the users of a file. An error has the line's number and the reason.
fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut hashes = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let error = |reason: &str| (number, reason.to_owned());
        // The message does not quote the line: there may be a password in it.
        let (user, hash) = line.split_once(':').ok_or_else(|| error("not `USER:HASH`"))?;
        if user.is_empty() {
            return Err(error("not `USER:HASH`"));
        }
        if hash.parse::<bcrypt::HashParts>().is_err() {
            return Err((number, format!("the password of `{user}` is not hashed by bcrypt")));
        }
        if hashes.insert(user.to_owned(), hash.to_owned()).is_some() {
            return Err((number, format!("`{user}` is there a second time")));
        }
    }
    Ok(hashes)
}

/// Returns user and password of an `Authorization` header.
fn credentials(header: &str) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(credentials: &str) -> String {
        format!("Basic {}", STANDARD.encode(credentials))
    }

    #[test]
    fn files_are_read() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = parse(&format!("# ours\n\nann:{hash}\nbob:{}\n", hash.replace("$2b$", "$2y$")));
        assert_eq!(users.unwrap().keys().collect::<Vec<_>>(), ["ann", "bob"]);
        for (text, line, reason) in [
            ("ann", 1, "not `USER:HASH`"),
            (&*format!("\n:{hash}"), 2, "not `USER:HASH`"),
            ("ann:$apr1$x$y", 1, "the password of `ann` is not hashed by bcrypt"),
            ("ann:secret", 1, "the password of `ann` is not hashed by bcrypt"),
            (&*format!("ann:{hash}\nann:{hash}"), 2, "`ann` is there a second time"),
        ] {
            assert_eq!(parse(text), Err((line, reason.to_owned())), "{text}");
        }
    }

    #[test]
    fn credentials_are_found() {
        for (text, expected) in [
            (header("ann:secret"), Some(("ann", "secret"))),
            (header("ann:a:b"), Some(("ann", "a:b"))),
            (header("ann:"), Some(("ann", ""))),
            (header("ann:secret").replace("Basic", "bAsIc"), Some(("ann", "secret"))),
            (header("ann"), None),
            (header("ann:secret").replace("Basic", "Bearer"), None),
            ("Basic".to_owned(), None),
            ("Basic !".to_owned(), None),
            (String::new(), None),
        ] {
            let found = credentials(&text);
            let found = found.as_ref().map(|(user, password)| (&**user, &**password));
            assert_eq!(found, expected.map(|(user, word)| (user, word.as_bytes())), "{text}");
        }
    }

    #[tokio::test]
    async fn only_users_with_their_passwords_are_admitted() {
        let hash = |password| bcrypt::hash(password, 4).unwrap();
        let hashes =
            [("ann", hash("secret")), ("bob", hash("other"))].map(|(u, h)| (u.to_owned(), h));
        let users = Arc::new(Users::new(hashes.into()));
        for _ in 0..2 {
            for (text, admitted) in [
                ("ann:secret", true),
                ("ann:other", false),
                ("ann:", false),
                ("bob:secret", false),
                ("bob:other", true),
                ("eve:secret", false),
                (":secret", false),
            ] {
                assert_eq!(users.admits(Some(&header(text))).await, admitted, "{text}");
            }
            assert!(!users.admits(None).await);
        }
        assert_eq!(users.verified.lock().unwrap().len(), 2);
    }
}
