//! Tests the messages of pushes that fail, and what they never contain.

use super::Pushed;
use super::access::{Access, Named, Token};
use super::registry::{Quirks, Quirky};
use crate::support::stderr;

const SECRET: &str = "HUNTER2";

#[test]
fn who_is_not_let_in_learns_why() {
    let image = Pushed::new();
    let token = || Access::Token(Token { user: Some("u:p"), ..Token::default() });
    for (access, flags, expected) in [
        (Access::Basic("u:p"), &[][..], "no credentials for HOST were found"),
        (token(), &[], "no credentials for HOST were found"),
        (
            Access::Basic("u:p"),
            &["--dest-creds", "u:HUNTER2"],
            "the user name or the password of `u` is wrong",
        ),
        (token(), &["--dest-creds", "u:HUNTER2"], "the user name or the password of `u` is wrong"),
    ] {
        let registry = Quirky::start(Quirks { access, ..Quirks::default() });
        let said = image.fails(expected, &registry, flags);
        let expected = expected.replace("HOST", &registry.host());
        assert!(said.contains(&expected) && said.contains("401"), "{said}");
        assert!(!said.contains(SECRET) && !said.contains("refuses this user"), "{said}");
        assert!(said.contains("\nhint: "), "{said}");
        if flags.is_empty() {
            // The message names the place where a user would look for credentials.
            assert!(said.contains(".docker/config.json"), "{said}");
        }
    }
}

/// Checks what is said if the credentials are there, and the registry does not let them in.
#[test]
fn a_way_that_leads_nowhere_is_named() {
    let image = Pushed::new();
    let credentials = ["--dest-creds", "u:HUNTER2"];
    let token = |named| Token { named, ..Token::default() };
    let challenges = |all: &[&str]| {
        let all = all.iter().map(|text| (*text).to_owned()).collect();
        Access::Challenges(all, "nothing".to_owned())
    };
    let denied = Token { user: Some("u:HUNTER2"), denied: vec!["a/b"], ..Token::default() };
    for (access, expected) in [
        (Access::Token(token(Named::Elsewhere)), "/token: the answer has no token"),
        (Access::Token(token(Named::Broken)), "the token for it has characters that no header may"),
        (challenges(&[]), "the answer does not say how to authenticate"),
        (challenges(&["Bearer"]), "it asks for Bearer, and the credentials are of another kind"),
        (
            challenges(&["Negotiate, NTLM", "negotiate"]),
            "it asks for Negotiate, NTLM, and the credentials are of another kind",
        ),
        (Access::Token(denied), "hint: this user may not push there"),
    ] {
        let registry = Quirky::start(Quirks { access, ..Quirks::default() });
        let said = image.fails(expected, &registry, &credentials);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!said.contains(SECRET) && !said.contains("docker login"), "{said}");
    }
}

/// Checks what is said if an upload begins nowhere.
#[test]
fn an_upload_needs_a_place() {
    let image = Pushed::new();
    for place in [None, Some(""), Some(" ")] {
        let registry = Quirky::start(Quirks { place: Some(place), ..Quirks::default() });
        let said = image.fails("no place", &registry, &[]);
        assert!(
            said.contains("/blobs/uploads/: the answer, a success, has no `Location`"),
            "{said}"
        );
        let begun = registry.take_seen().iter().filter(|seen| seen.method == "POST").count();
        assert!(begun <= 4, "{begun}");
    }
}

#[test]
fn a_registry_is_quoted_in_plain_text() {
    let image = Pushed::new();
    let html = "<!DOCTYPE html>\n<html><head><title>Too Many</title><style>a { b: c }</style></head>\
                <body><h1>Sorry</h1><p>You have reached your pull&nbsp;rate limit.</p><script>x()</script></body></html>";
    let escapes = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}told\r\nso";
    let long = format!("long{}", "A".repeat(2_000_000));
    let json = |message: &str| {
        serde_json::json!({"errors": [{"code": "DENIED", "message": message}]}).to_string()
    };
    for (media_type, body, expected) in [
        ("text/html", html.to_owned(), "You have reached your pull rate limit."),
        ("application/json", html.to_owned(), "Too Many"),
        ("application/json", json(escapes), "told so"),
        ("text/plain", escapes.to_owned(), "told so"),
        ("application/json", json(&long), "longAAA"),
        ("text/plain", long.clone(), "longAAA"),
        ("text/html", format!("<html>{long}"), "longAAA"),
        ("application/json", json(html), "You have reached"),
    ] {
        let refusal = Some((403, media_type, body));
        let registry = Quirky::start(Quirks { refusal, ..Quirks::default() });
        let said = image.fails(expected, &registry, &[]);
        let error = &said[said.find("error: ").unwrap()..];
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.len() < 1000, "{expected}: {} bytes", error.len());
        assert!(
            !error.contains('<') && !error.contains("x()") && !error.contains("b: c"),
            "{error}"
        );
        let control = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!error.contains(control), "{error:?}");
    }
}

#[test]
fn signed_addresses_and_passwords_are_not_printed() {
    let image = Pushed::new();
    let signed =
        |host: &str| format!("http://user:{SECRET}@{host}/up?X-Amz-Signature={SECRET}#{SECRET}");
    // A host without a server, one that refuses, and one whose name is unknown.
    let refuses =
        Quirky::start_at("127.0.0.2", Quirks { post: Some(500), ..Quirks::default() }, None);
    let hosts = ["127.0.0.1:1".to_owned(), refuses.host(), "host.invalid".to_owned()];
    std::thread::scope(|scope| {
        for (host, progress) in hosts.iter().zip(["json", "plain", "none"]) {
            let image = &image;
            let token = Token { realm: Some(signed(host)), ..Token::default() };
            for quirks in [
                Quirks { location: Some(signed(host)), ..Quirks::default() },
                Quirks { redirect_to: Some(signed(host)), ..Quirks::default() },
                Quirks { access: Access::Token(token), ..Quirks::default() },
            ] {
                scope.spawn(move || {
                    let registry = Quirky::start(quirks);
                    let flags = ["--progress", progress, "--dest-creds", "u:HUNTER2"];
                    let output = image.push(&registry.host(), &flags);
                    let out = String::from_utf8_lossy(&output.stdout);
                    let said = format!("{}{out}", stderr(&output));
                    assert_eq!(output.status.code(), Some(1), "{said}");
                    assert!(!said.contains(SECRET) && !said.contains("X-Amz"), "{said}");
                });
            }
        }
    });
    // A name that contains a password is not valid.
    for name in ["user:HUNTER2@host/a:v1", "docker://user:HUNTER2@host/a:v1", "user:HUNTER2@host/a"]
    {
        for verb in ["push", "copy"] {
            let output = image.store().stowage(&[verb, "image.json", name]).output().unwrap();
            assert_ne!(output.status.code(), Some(0));
            assert!(!stderr(&output).contains(SECRET), "{}", stderr(&output));
        }
    }
}

/// Checks that network errors are told apart, and that permanent ones are not tried again.
#[test]
fn a_registry_that_is_not_there_is_told_from_others() {
    let image = Pushed::new();
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let untrusted = Quirky::start_tls(Quirks::default(), &key);
    let long = Quirky::start(Quirks::default());
    let tag = ("a/b".to_owned(), "v1".to_owned());
    long.contents().manifests.insert(tag, vec![b'a'; 9 << 20]);
    for (host, flags, expected, tried_again) in [
        ("127.0.0.1:1".to_owned(), &[][..], "connection refused", true),
        ("host.invalid".to_owned(), &[], "host.invalid", true),
        (untrusted.host(), &["--dest-tls-verify=true"], "certificate", false),
        (long.host(), &[], "longer than", false),
    ] {
        let output = image.push(&host, flags);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(said.contains("trying again"), tried_again, "{expected}: {said}");
    }
}

/// Checks that the reason for waiting is reported once for each attempt, and not for each blob.
#[test]
fn waiting_is_reported_once_for_all_blobs() {
    let image = Pushed::with_layers(12);
    let quirks = Quirks { no_whole: Some(503), no_patch: Some((503, false)), ..Quirks::default() };
    let broken = Quirky::start(quirks);
    for host in ["127.0.0.1:1".to_owned(), broken.host()] {
        let output = image.push(&host, &[]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let waits = said.matches("trying again").count();
        assert!((1..=8).contains(&waits), "{waits}: {said}");
    }
}

#[test]
fn the_digest_is_printed() {
    let image = Pushed::new();
    let digest = stowage::digest::Digest::of(image.manifest()).to_string();
    let registry = Quirky::start(Quirks::default());
    let said = image.arrives("a push", &registry, &[]);
    assert!(said.contains(&digest), "{said}");
    let output = image.push(&registry.host(), &["--json"]);
    let copied: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(copied["manifestDigest"], digest);
}

#[test]
fn a_transport_that_is_misspelt_is_named() {
    let image = Pushed::new();
    for (target, meant) in [
        ("docker-deamon:a:b", Some("docker-daemon:")),
        ("Docker-Archive:x", Some("docker-archive:")),
        ("containers-stroage:a", Some("containers-storage:")),
        ("ociarchive:a", Some("oci-archive:")),
        ("conatinerd:a:b", Some("containerd:")),
        ("OCI:a", Some("oci:")),
        ("tarball:a.tar", None),
    ] {
        let output = image.store().stowage(&["copy", "image.json", target]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        let suggestion = meant.map(|meant| format!("did you mean `{meant}`?"));
        match suggestion {
            Some(suggestion) => assert!(said.contains(&suggestion), "{target}: {said}"),
            None => assert!(!said.contains("did you mean"), "{target}: {said}"),
        }
    }
}
