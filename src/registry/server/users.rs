//! Admits users: HTTP's basic authentication (RFC 7617) by a file of `htpasswd -B`.
//! Stage: registry. Input: the file, and `Authorization` headers. Output: yes or no.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_rustls::rustls::crypto::ring;

use crate::registry::error::SetupError;
use crate::registry::fair::{FairPlaces, Shares};
use crate::small_file;

/// The highest cost of a hash, which is also the highest of `htpasswd -C`. Each check takes as long as
/// the highest cost in the file: ten seconds for this one, and days for 31.
const HIGHEST_COST: u32 = 17;

/// The largest number of bytes in a user's name, as for `htpasswd`.
pub const LONGEST_NAME: usize = 255;

/// The limits for passwords that are checked at a time: each takes a processor for a good part of a
/// second, and guesses must not keep layers from being made.
const TRIES: Shares = Shares { places: 2, client_places: 1, queue: 64, client_queue: 8 };
/// The number of wrong passwords that a client may send at once, and the number of further ones for
/// each second.
const BURST: f64 = 20.0;
const PER_SECOND: f64 = 1.0;
/// The largest number of clients with wrong passwords that are remembered.
const REMEMBERED: usize = 4096;

/// The sender of a password: an address, and the name of the user if there is such a user.
type Trier = (IpAddr, Option<String>);

/// Users and the hashes of their passwords.
pub struct Users {
    hashes: BTreeMap<String, Hash>,
    /// The highest cost of a hash. Every check takes as long as one with this cost.
    cost: u32,
    /// Keyed hashes of passwords that were right: a client sends its password with every blob, and
    /// bcrypt is slow on purpose. Without the key, these hashes are useless to an attacker.
    verified: Mutex<BTreeMap<String, [u8; 32]>>,
    key: [u8; 32],
    tries: FairPlaces<Trier>,
    wrong: Mutex<BTreeMap<Trier, Wrong>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hash {
    text: String,
    cost: u32,
}

/// The number of wrong passwords that were left to a sender at a moment.
struct Wrong {
    left: f64,
    then: Instant,
}

/// The result of checking credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The credentials are valid. Holds the user's name.
    Admitted(String),
    /// The credentials are not valid, or missing. Holds the name that was given.
    Refused(String),
    /// The credentials were not checked, since too many were wrong or wait to be checked. Holds the
    /// name that was given.
    TooMany(String),
}

impl Admission {
    /// Returns the user's name, as it was given.
    pub fn user(&self) -> &str {
        match self {
            Self::Admitted(user) | Self::Refused(user) | Self::TooMany(user) => user,
        }
    }
}

impl Users {
    /// Reads a file of `USER:HASH` lines.
    ///
    /// # Errors
    /// Fails with file and line if a line is not valid or a hash is not bcrypt's.
    pub fn read(file: &Path) -> Result<Self, SetupError> {
        let text = small_file::read_text(file)
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

    fn new(hashes: BTreeMap<String, Hash>) -> Self {
        let mut key = [0; 32];
        let random = ring::default_provider().secure_random;
        random.fill(&mut key).expect("the system has random numbers");
        let cost = hashes.values().map(|hash| hash.cost).max().unwrap_or(bcrypt::DEFAULT_COST);
        let (verified, wrong) = Default::default();
        Self { hashes, cost, verified, key, tries: FairPlaces::new(TRIES), wrong }
    }

    /// Returns whether there is a user of this name.
    pub fn has(&self, user: &str) -> bool {
        self.hashes.contains_key(user)
    }

    /// Checks credentials. For an unknown user this takes as long as for a wrong password.
    pub async fn admits(
        self: &Arc<Self>,
        authorization: Option<&str>,
        client: IpAddr,
    ) -> Admission {
        let Some((user, password)) = authorization.and_then(credentials) else {
            return Admission::Refused(String::new());
        };
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.key).chain_update(&password).finalize().into();
        if self.was_right(&user, &digest) {
            return Admission::Admitted(user);
        }
        let trier = (client, self.has(&user).then(|| user.clone()));
        let Ok(_place) = self.tries.acquire(&trier).await else { return Admission::TooMany(user) };
        // While this request waited, another one may have had the answer.
        if self.was_right(&user, &digest) {
            return Admission::Admitted(user);
        }
        if !self.may_be_wrong(&trier) {
            return Admission::TooMany(user);
        }
        let (users, given) = (Arc::clone(self), user.clone());
        let tried = tokio::task::spawn_blocking(move || users.is_right(&given, &password)).await;
        if !tried.unwrap_or(false) {
            self.was_wrong(trier);
            return Admission::Refused(user);
        }
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.insert(user.clone(), digest);
        Admission::Admitted(user)
    }

    /// Returns whether a password matches the user's hash. Always takes the time of the slowest
    /// hash.
    fn is_right(&self, user: &str, password: &[u8]) -> bool {
        let known = self.hashes.get(user);
        let right = known.is_some_and(|hash| {
            // Each cost takes twice as long as the one before. So hashes of all costs from this
            // hash's to below the highest, and this check, take as long as one hash of the highest.
            let others = hash.cost..self.cost;
            others.for_each(|cost| drop(bcrypt::hash_with_salt(password, cost, [0; 16])));
            bcrypt::verify(password, &hash.text).unwrap_or(false)
        });
        if known.is_none() {
            let _ = bcrypt::hash_with_salt(password, self.cost, [0; 16]);
        }
        right
    }

    fn was_right(&self, user: &str, digest: &[u8; 32]) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(user).is_some_and(|right| bool::from(right.ct_eq(digest)))
    }

    /// Returns whether a client may try one more password that is wrong.
    fn may_be_wrong(&self, trier: &Trier) -> bool {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.get(trier).is_none_or(|wrong| wrong.now() >= 1.0)
    }

    fn was_wrong(&self, trier: Trier) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= REMEMBERED {
            wrong.retain(|_, wrong| wrong.now() < BURST);
            // Many clients are guessing. It is better not to count this one than to forget all
            // others.
            if wrong.len() >= REMEMBERED {
                return;
            }
        }
        let now = Instant::now();
        let entry = wrong.entry(trier).or_insert(Wrong { left: BURST, then: now });
        *entry = Wrong { left: (entry.now() - 1.0).max(0.0), then: now };
    }
}

impl Wrong {
    fn now(&self) -> f64 {
        (self.left + self.then.elapsed().as_secs_f64() * PER_SECOND).min(BURST)
    }
}

/// Parses the users of a file. An error has the line's number and the reason.
fn parse(text: &str) -> Result<BTreeMap<String, Hash>, (usize, String)> {
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
        if user.len() > LONGEST_NAME {
            return Err((number, format!("the user's name has more than {LONGEST_NAME} bytes")));
        }
        if user.chars().any(char::is_control) {
            return Err(error("the user's name has a control character, which no client can send"));
        }
        let Ok(parts) = hash.parse::<bcrypt::HashParts>() else {
            return Err((number, format!("the password of `{user}` is not hashed by bcrypt")));
        };
        let cost = parts.get_cost();
        if cost > HIGHEST_COST {
            let reason = format!(
                "the password of `{user}` has the cost {cost}, and {HIGHEST_COST} is the most"
            );
            return Err((number, reason));
        }
        let hash = Hash { text: hash.to_owned(), cost };
        if hashes.insert(user.to_owned(), hash).is_some() {
            return Err((number, format!("`{user}` is there a second time")));
        }
    }
    Ok(hashes)
}

/// Returns user and password of an `Authorization` header. A name with control characters is returned as
/// well: no user has it, and the log says that it was tried.
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
            (
                &*format!("a\u{1}nn:{hash}"),
                1,
                "the user's name has a control character, which no client can send",
            ),
            (&*format!("{}:{hash}", "a".repeat(256)), 1, "the user's name has more than 255 bytes"),
            ("ann:$apr1$x$y", 1, "the password of `ann` is not hashed by bcrypt"),
            ("ann:secret", 1, "the password of `ann` is not hashed by bcrypt"),
            (
                &hash.replace("$04$", "$18$").replacen("$2b", "ann:$2b", 1),
                1,
                "the password of `ann` has the cost 18, and 17 is the most",
            ),
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
            (header("a\0nn:secret"), Some(("a\0nn", "secret"))),
            (header("ann:a\tb"), Some(("ann", "a\tb"))),
            ("Basic".to_owned(), None),
            ("Basic !".to_owned(), None),
            (String::new(), None),
        ] {
            let found = credentials(&text);
            let found = found.as_ref().map(|(user, password)| (&**user, &**password));
            assert_eq!(found, expected.map(|(user, word)| (user, word.as_bytes())), "{text}");
        }
    }

    fn users(given: &[(&str, &str, u32)]) -> Arc<Users> {
        let hashes = given.iter().map(|(user, password, cost)| {
            let text = bcrypt::hash(password, *cost).unwrap();
            ((*user).to_owned(), Hash { text, cost: *cost })
        });
        Arc::new(Users::new(hashes.collect()))
    }

    fn address(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    #[tokio::test]
    async fn only_users_with_their_passwords_are_admitted() {
        let users = users(&[("ann", "secret", 4), ("bob", "other", 5)]);
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
                let found = users.admits(Some(&header(text)), address(1)).await;
                assert_eq!(matches!(found, Admission::Admitted(_)), admitted, "{text}");
                assert_eq!(found.user(), text.split(':').next().unwrap());
            }
            assert_eq!(users.admits(None, address(1)).await, Admission::Refused(String::new()));
        }
        assert_eq!(users.verified.lock().unwrap().len(), 2);
    }

    /// Checks that a client that guesses passwords is slowed down, and that other clients are not.
    #[tokio::test]
    async fn wrong_passwords_are_counted() {
        let users = users(&[("ann", "secret", 4), ("bob", "other", 4)]);
        let mut refused = 0;
        let too_many = loop {
            match users.admits(Some(&header("ann:guess")), address(1)).await {
                Admission::Refused(_) => refused += 1,
                other => break other,
            }
        };
        assert!((20..40).contains(&refused), "{refused}");
        assert_eq!(too_many, Admission::TooMany("ann".to_owned()));
        for (text, from) in [("bob:other", 1), ("ann:secret", 2)] {
            let found = users.admits(Some(&header(text)), address(from)).await;
            assert!(matches!(found, Admission::Admitted(_)), "{text}");
        }
        // A password that was right before needs no further check.
        let found = users.admits(Some(&header("ann:secret")), address(1)).await;
        assert!(matches!(found, Admission::Admitted(_)));
    }

    /// Checks that a user can log in for the first time while two hundred guesses wait.
    #[tokio::test(flavor = "multi_thread")]
    async fn many_guesses_are_no_queue_for_others() {
        let users = users(&[("ann", "secret", 8)]);
        let guesses: Vec<_> = (0..200)
            .map(|number| {
                let (users, text) = (Arc::clone(&users), header(&format!("eve{number}:guess")));
                tokio::spawn(async move { users.admits(Some(&text), address(1)).await })
            })
            .collect();
        let found = users.admits(Some(&header("ann:secret")), address(1)).await;
        assert!(matches!(found, Admission::Admitted(_)), "{found:?}");
        let mut too_many = 0;
        for guess in guesses {
            too_many += usize::from(matches!(guess.await.unwrap(), Admission::TooMany(_)));
        }
        assert!(too_many > 150, "{too_many}");
    }
}
