//! Tests that blobs in the registry are proved to be there, and that missing ones are sent again.

use serde_json::Value;

use super::Pushed;
use super::access::{Access, Token, basic};
use super::registry::{Quirks, Quirky};

/// Checks a tag that names blobs which a garbage collection has removed.
#[test]
fn what_a_registry_lost_is_sent_again() {
    let image = Pushed::new();
    let blobs = image.blobs();
    for (what, lost) in [
        ("a layer", &blobs[..1]),
        ("the configuration", &blobs[3..]),
        ("two", &blobs[1..3]),
        ("all", &blobs[..]),
    ] {
        let registry = Quirky::start(Quirks::default());
        image.arrives(what, &registry, &[]);
        registry.lose(lost);
        registry.contents().received.clear();
        let output = image.push(&registry.host(), &["--json"]);
        assert!(output.status.success(), "{what}: {}", crate::support::stderr(&output));
        registry.check("a/b", "v1", image.manifest());
        let mut received = registry.contents().received.clone();
        received.sort();
        let mut expected = lost.to_vec();
        expected.sort();
        assert_eq!(received, expected, "{what}");
        let copied: Value = serde_json::from_slice(&output.stdout).unwrap();
        let layers = lost.iter().filter(|digest| **digest != blobs[3]).count();
        assert_eq!(copied["layersSent"], layers, "{what}");
        assert_eq!(copied["layersSkipped"], 3 - layers, "{what}");
    }
}

/// Checks a registry that says that a blob is there, and later that it is not.
#[test]
fn a_blob_that_is_unknown_is_sent_again() {
    let image = Pushed::new();
    let blobs = image.blobs();
    for (status, body) in [
        (404, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","detail":"{}"}]}"#),
        (400, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","detail":{"digest":"{}"}}]}"#),
        (400, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#),
        (404, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#),
        (
            400,
            r#"{"errors":[{"code":"MANIFEST_INVALID","message":"blob unknown to registry: {}"}]}"#,
        ),
        (404, ""),
        (400, ""),
        (404, "no such page"),
    ] {
        for lost in [&blobs[..1], &blobs[3..], &blobs[..]] {
            let registry = Quirky::start(Quirks::default());
            image.arrives("first", &registry, &[]);
            registry.lose(lost);
            // For the registry, the image is now a new one.
            registry.contents().manifests.clear();
            registry.set(Quirks {
                stale: true,
                unknown: Some((status, body)),
                ..Quirks::default()
            });
            image.arrives(&format!("{status} {body} {}", lost.len()), &registry, &[]);
        }
    }
    // The blobs are sent again once, and only for this error.
    for (body, sent) in [
        (r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#, 4),
        (r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}"#, 0),
        (r#"{"errors":[{"code":"MANIFEST_UNVERIFIED","message":"no"}]}"#, 0),
    ] {
        let registry = Quirky::start(Quirks::default());
        image.arrives("first", &registry, &[]);
        registry.contents().received.clear();
        registry.contents().manifests.clear();
        let refusal = Some((400, "application/json", body.to_owned()));
        registry.set(Quirks { refusal, ..Quirks::default() });
        let said = image.fails(body, &registry, &[]);
        assert!(said.contains("refuses the manifest: 400 "), "{said}");
        assert_eq!(registry.contents().received.len(), sent, "{body}");
    }
}

/// Checks that a blob of another length counts as missing.
#[test]
fn a_blob_is_there_with_its_length() {
    let image = Pushed::new();
    let registry = Quirky::start(Quirks::default());
    image.arrives("first", &registry, &[]);
    let mut contents = registry.contents();
    let big = contents.blobs.values_mut().max_by_key(|bytes| bytes.len()).unwrap();
    big.truncate(1000);
    drop(contents);
    image.arrives("a shorter blob", &registry, &[]);
}

/// Checks that a success alone does not count as a proof that a blob is there.
#[test]
fn a_blob_without_length_and_digest_is_sent() {
    let image = Pushed::new();
    let registry = Quirky::start(Quirks::default());
    image.arrives("first", &registry, &[]);
    registry.lose(&image.blobs());
    registry.set(Quirks { vague: true, ..Quirks::default() });
    assert!(image.push(&registry.host(), &[]).status.success());
    registry.set(Quirks::default());
    registry.check("a/b", "v1", image.manifest());
}

/// Checks an index whose images have been removed, as they have no tags.
#[test]
fn an_index_is_made_whole() {
    let image = Pushed::new();
    let index = image.store().stowage(&["index", "image.json", "-o", "index.json"]).output();
    assert!(index.unwrap().status.success());
    let registry = Quirky::start(Quirks::default());
    let push = || image.push_file("index.json", &registry.host(), &[]);
    assert!(push().status.success());
    let tag = ("a/b".to_owned(), "v1".to_owned());
    let top = registry.contents().manifests[&tag].clone();
    registry.check("a/b", "v1", &top);
    registry.contents().manifests.retain(|name, _| *name == tag);
    assert!(push().status.success());
    registry.check("a/b", "v1", &top);
    registry.contents().manifests.retain(|name, _| *name == tag);
    registry.lose(&image.blobs());
    assert!(push().status.success());
    registry.check("a/b", "v1", &top);
}

/// Checks that all questions are asked at once: an unchanged image takes one round trip.
#[test]
fn an_unchanged_image_is_one_round_trip() {
    for layers in [1, 3, 20, 60] {
        let image = Pushed::with_layers(layers);
        // The questions are for the manifest, the configuration, and each layer.
        let asked = layers + 2;
        for (access, flags, more) in [
            (Access::Open, &[][..], 0),
            (Access::Basic("u:p"), &["--dest-creds", "u:p"][..], asked + 1),
            (Access::Token(Token::default()), &[], asked + 1),
        ] {
            let quirks = Quirks { access, ..Quirks::default() };
            let registry = Quirky::start(quirks.clone());
            image.arrives("first", &registry, flags);
            registry.take_seen();
            registry.set(Quirks { together: asked, ..quirks });
            image.arrives("again", &registry, flags);
            let seen = registry.take_seen();
            assert!(seen.len() <= asked + more, "{layers} layers: {seen:#?}");
            let answered =
                seen.iter().filter(|seen| seen.status == 200 && seen.path.contains("/a/b/"));
            assert_eq!(answered.count(), asked, "{layers} layers: {seen:#?}");
        }
    }
}

/// Checks that a wrong password is tried once, even with many requests at once.
#[test]
fn a_wrong_password_is_tried_once() {
    let image = Pushed::with_layers(20);
    let wrong = basic("u:wrong");
    for access in
        [Access::Basic("u:p"), Access::Token(Token { user: Some("u:p"), ..Token::default() })]
    {
        let registry = Quirky::start(Quirks { access, ..Quirks::default() });
        image.fails("a wrong password", &registry, &["--dest-creds", "u:wrong"]);
        let seen = registry.take_seen();
        let tried = seen.iter().filter(|seen| seen.authorization.as_ref() == Some(&wrong)).count();
        assert_eq!(tried, 1, "{seen:#?}");
    }
}

/// Checks that an image which is verified by a key and compared is one image: the tag, which may name
/// another image a moment later, is asked for once.
#[test]
fn the_image_that_is_compared_is_the_one_that_is_signed() {
    let (image, registry) = (Pushed::new(), Quirky::start(Quirks::default()));
    let key = |name: &str| format!("{}/tests/it/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    let pushed = image.push(&registry.host(), &["--sign-key", &key("test.key")]);
    assert!(pushed.status.success(), "{}", crate::support::stderr(&pushed));
    registry.take_seen();
    let (name, public) = (format!("{}/a/b:v1", registry.host()), key("test.pub"));
    let verify = ["verify", &name, "--key", &public, "--against", "image.json"];
    let output = image.store().stowage(&verify).output().unwrap();
    assert!(output.status.success(), "{}", crate::support::stderr(&output));
    let by_tag = registry.take_seen().iter().filter(|it| it.path.ends_with("/v1")).count();
    assert_eq!(by_tag, 1);
}
