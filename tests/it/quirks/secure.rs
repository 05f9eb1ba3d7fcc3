//! Tests that nothing is sent by plain HTTP after a registry used HTTPS.

use super::Pushed;
use super::access::{Access, Token};
use super::registry::{Quirks, Quirky};

struct Trusted {
    key: rcgen::CertifiedKey<rcgen::KeyPair>,
    directory: tempfile::TempDir,
}

impl Trusted {
    fn new() -> Self {
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), key.cert.pem()).unwrap();
        Self { key, directory }
    }

    fn flags(&self) -> Vec<&str> {
        vec!["--dest-tls-verify=true", "--dest-cert-dir", self.directory.path().to_str().unwrap()]
    }
}

#[test]
fn https_goes_on_with_https() {
    let image = Pushed::new();
    let trusted = Trusted::new();
    let flags = [&trusted.flags()[..], &["--dest-creds", "u:p"]].concat();
    let registry = Quirky::start_tls(Quirks::default(), &trusted.key);
    image.arrives("HTTPS", &registry, &flags);

    let plain = Quirky::start_at("127.0.0.2", Quirks::default(), None);
    let address = || plain.base().to_owned();
    let realm = Token { realm: Some(format!("{}/token", address())), ..Token::default() };
    for (what, quirks) in [
        ("a realm", Quirks { access: Access::Token(realm), ..Quirks::default() }),
        ("a location", Quirks { location: Some(address()), ..Quirks::default() }),
        ("a redirection", Quirks { redirect_to: Some(address()), ..Quirks::default() }),
    ] {
        let registry = Quirky::start_tls(quirks.clone(), &trusted.key);
        let said = image.fails(what, &registry, &flags);
        assert!(plain.take_seen().is_empty(), "{what}");
        assert!(said.contains(plain.base()) && said.contains("HTTPS"), "{what}: {said}");
        assert!(said.contains("\nhint: `--dest-tls-verify=false`"), "{what}: {said}");
        assert!(!said.contains("trying again"), "{what}: {said}");

        // A user may allow it.
        image.push(&registry.host(), &["--dest-tls-verify=false"]);
        assert!(!plain.take_seen().is_empty(), "{what}");
    }
}

/// Checks a registry behind a proxy that ends TLS, which calls itself by HTTP: clients go on with
/// HTTPS.
#[test]
fn a_registry_may_not_know_that_it_is_spoken_to_by_https() {
    let image = Pushed::new();
    let trusted = Trusted::new();
    let registry = Quirky::start_tls(Quirks::default(), &trusted.key);
    let itself = registry.base().replace("https://", "http://");
    for quirks in [
        Quirks { location: Some(itself.clone()), ..Quirks::default() },
        Quirks {
            access: Access::Token(Token {
                realm: Some(format!("{itself}/token")),
                ..Token::default()
            }),
            ..Quirks::default()
        },
    ] {
        registry.set(quirks);
        registry.contents().blobs.clear();
        registry.contents().manifests.clear();
        image.arrives("itself", &registry, &trusted.flags());
    }
}
