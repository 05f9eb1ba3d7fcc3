//! Tests tokens and challenges.

use super::Pushed;
use super::access::{Access, Beside, Named, Place, Token, basic};
use super::registry::{Quirks, Quirky};

const CREDENTIALS: [&str; 2] = ["--dest-creds", "u:p"];

fn user() -> Token {
    Token { user: Some("u:p"), ..Token::default() }
}

#[test]
fn tokens_have_many_forms() {
    let image = Pushed::new();
    let all = [
        ("both", user()),
        ("access_token beside an empty token", Token { named: Named::EmptyToken, ..user() }),
        ("access_token alone", Token { named: Named::AccessToken, ..user() }),
        ("token beside null", Token { named: Named::Token, ..user() }),
        ("an empty scope", Token { scope: Some(""), ..user() }),
        ("a blank scope", Token { scope: Some(" "), ..user() }),
        (
            "several scopes",
            Token { scope: Some("repository:a/b:pull repository:a/b:push"), ..user() },
        ),
        ("the first scope alone", Token { one_scope: Some(Place::First), ..user() }),
        ("the last scope alone", Token { one_scope: Some(Place::Last), ..user() }),
        ("a challenge with 403", Token { forbids: true, ..user() }),
    ];
    for (what, token) in all {
        let quirks = Quirks { access: Access::Token(token), ..Quirks::default() };
        image.arrives_twice(what, quirks, &CREDENTIALS, true);
    }
    let forbids = Access::Token(Token { forbids: true, ..Token::default() });
    let quirks = Quirks { access: forbids, ..Quirks::default() };
    image.arrives_twice("a challenge with 403, no credentials", quirks, &[], true);
    // An empty scope counts as none.
    let access = Access::Token(Token { scope: Some(""), ..user() });
    let registry = Quirky::start(Quirks { access, ..Quirks::default() });
    image.arrives("an empty scope", &registry, &CREDENTIALS);
    let seen = registry.take_seen();
    let asked: Vec<_> = seen.iter().filter(|seen| seen.path == "/token").collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].query, "service=reg&scope=repository%3Aa%2Fb%3Apull%2Cpush");
}

/// Checks that, of several challenges, the strongest one that can be answered is answered.
#[test]
fn challenges_come_in_many_ways() {
    let image = Pushed::new();
    for beside in [Beside::Before, Beside::Behind, Beside::SameBefore, Beside::SameBehind] {
        for (token, flags) in [(Token::default(), &[][..]), (user(), &CREDENTIALS[..])] {
            let token = Token { beside: Some(beside), ..token };
            let quirks = Quirks { access: Access::Token(token), ..Quirks::default() };
            image.arrives_twice(&format!("{beside:?}, {flags:?}"), quirks, flags, true);
        }
    }
    let expected = basic("u:p");
    for challenges in [
        &["Negotiate", "Basic realm=\"x\""][..],
        &["Negotiate abc==, NTLM, Basic realm=x"],
        &["Bearer realm=\"http://127.0.0.1:1/token\" scope", "Basic realm=x"],
        &["Bearer service=\"without a realm\", Basic realm=\"x, y\", charset=\"UTF-8\""],
        &["basic"],
        &["BASIC Realm = x"],
        &["Digest realm=\"a\", nonce=\"b\", qop=\"auth,auth-int\", Basic realm=\"c\""],
    ] {
        let challenges = challenges.iter().map(|text| (*text).to_owned()).collect();
        let access = Access::Challenges(challenges, expected.clone());
        let what = format!("{access:?}");
        let registry = Quirky::start(Quirks { access, ..Quirks::default() });
        image.arrives(&what, &registry, &CREDENTIALS);
    }
    // If the token service refuses, another challenge is answered.
    let refuses = Quirky::start(Quirks::default());
    let bearer = format!("Bearer realm=\"{}/token\",service=\"x\"", refuses.base());
    let access = Access::Challenges(vec![bearer, "Basic realm=x".to_owned()], expected);
    let registry = Quirky::start(Quirks { access, ..Quirks::default() });
    image.arrives("no tokens", &registry, &CREDENTIALS);
}

#[test]
fn a_mount_that_may_not_be_is_none() {
    let image = Pushed::new();
    let flags = ["--dest-creds", "u:p", "--mount-from", "other/c", "--mount-from", "b/d"];
    let all = [
        ("its scope is left out", Token { denied: vec!["other/c"], ..user() }),
        ("no token at all", Token { denied: vec!["other/c"], deny_all: true, ..user() }),
        ("the first scope alone", Token { one_scope: Some(Place::First), ..user() }),
        ("the last scope alone", Token { one_scope: Some(Place::Last), ..user() }),
    ];
    for (what, token) in all {
        let quirks = Quirks { access: Access::Token(token), ..Quirks::default() };
        image.arrives_twice(what, quirks, &flags, true);
    }
    // A mount that is allowed succeeds.
    let quirks = Quirks { access: Access::Token(user()), ..Quirks::default() };
    let registry = Quirky::start(quirks);
    image.arrives("first", &registry, &CREDENTIALS);
    let mut contents = registry.contents();
    let blobs = std::mem::take(&mut contents.blobs);
    let blobs = blobs.into_iter().map(|((_, digest), blob)| (("b/d".to_owned(), digest), blob));
    contents.blobs = blobs.collect();
    contents.manifests.clear();
    contents.received.clear();
    drop(contents);
    image.arrives("mounted", &registry, &flags);
    assert_eq!(registry.contents().received.len(), 1, "the configuration alone");
}

#[test]
fn who_may_only_write_writes() {
    let image = Pushed::new();
    let token = Token { write_only: true, ..user() };
    let quirks = Quirks { access: Access::Token(token), ..Quirks::default() };
    image.arrives_twice("a token to write", quirks, &CREDENTIALS, false);
    for status in [403, 404] {
        let quirks = Quirks { access: Access::Hidden("u:p", status), ..Quirks::default() };
        image.arrives_twice(&format!("hidden, {status}"), quirks, &CREDENTIALS, true);
    }
    let quirks = Quirks { access: Access::WriteBasic("u:p"), ..Quirks::default() };
    image.arrives_twice("anybody may read", quirks, &CREDENTIALS, true);
}

/// Checks that the identity token which `docker login` stores for some registries works in place of
/// a password.
#[test]
fn identity_tokens_are_exchanged() {
    let image = Pushed::new();
    let login = |host: &str| {
        let entry = serde_json::json!({"auths": {host: {"auth": "", "identitytoken": "refresh"}}});
        image.store().write("auth.json", &entry.to_string())
    };
    let refreshed = Token { refresh: Some("refresh"), ..Token::default() };
    let by_get = [Some(404), Some(405), Some(401), Some(400)].map(|post| Token {
        post,
        user: Some("<token>:refresh"),
        ..Token::default()
    });
    for token in [refreshed].into_iter().chain(by_get) {
        let what = format!("{token:?}");
        let registry = Quirky::start(Quirks { access: Access::Token(token), ..Quirks::default() });
        let file = login(&registry.host());
        image.arrives(&what, &registry, &["--authfile", file.to_str().unwrap()]);
    }
}
