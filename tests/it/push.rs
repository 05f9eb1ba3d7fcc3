use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::oci::{ImageSpec, SpecLayer};

use crate::push_registry::{Faults, Faulty};
use crate::schema;
use crate::support::{FakeStore, odd_tree, stderr};

/// Makes an image of several layers, one of some megabytes.
fn image() -> FakeStore {
    let mut store = FakeStore::new();
    store.add('1', "tree", &[], odd_tree);
    let big: Vec<u8> = (0..3_u32 << 20).map(|place| (place >> 4) as u8).collect();
    store.add('2', "big", &[], |path| std::fs::write(path, big).unwrap());
    store.add_file('3', "small", &[], "small");
    store.build(r#"{"layering": "popularity"}"#);
    store
}

fn push(store: &FakeStore, host: &str, flags: &[&str]) -> Result<Value, String> {
    let target = format!("docker://{host}/a/b:v1");
    let mut arguments = vec!["copy", "image.json", &target, "--json"];
    arguments.extend(flags);
    let output = store.stowage(&arguments).env("HOME", "/nonexistent").output().unwrap();
    match output.status.code() {
        Some(0) => Ok(schema::checked("copy", str::from_utf8(&output.stdout).unwrap())),
        Some(1) => Err(stderr(&output)),
        code => panic!("{code:?}: {}", stderr(&output)),
    }
}

#[test]
fn whatever_goes_wrong_once_is_tried_again() {
    let store = image();
    let all: [(&str, Faults); 13] = [
        ("nothing", Faults::default()),
        ("absolute addresses", Faults { absolute: true, ..Faults::default() }),
        ("cut at the start", Faults { cut: vec![0], ..Faults::default() }),
        ("cut twice", Faults { cut: vec![100_000, 500_000], ..Faults::default() }),
        ("cut and forgotten", Faults { cut: vec![100_000], forgetful: true, ..Faults::default() }),
        ("busy", Faults { statuses: vec![503, 429], ..Faults::default() }),
        ("broken", Faults { statuses: vec![500, 502, 504], ..Faults::default() }),
        ("an end that is lost", Faults { lost: 1, ..Faults::default() }),
        ("every end is lost", Faults { lost: 99, ..Faults::default() }),
        ("forgotten at the end", Faults { expired: 1, ..Faults::default() }),
        ("a token", Faults { token_lasts: 1000, ..Faults::default() }),
        (
            "tokens are late",
            Faults { token_lasts: 1000, token_statuses: vec![503, 0, 429], ..Faults::default() },
        ),
        ("a token that ends", Faults { token_lasts: 12, ..Faults::default() }),
    ];
    for (what, faults) in all {
        let registry = Faulty::with(faults);
        let (_runtime, host) = registry.start();
        let copied = push(&store, &host, &[]).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(copied["layersSkipped"], 0, "{what}");
        registry.check();
        let contents = registry.contents();
        assert_eq!(contents.received.len(), contents.blobs.len(), "{what}: received twice");
        drop(contents);
        assert_eq!(registry.contents().manifests.len(), 1, "{what}");

        let requests = registry.requests();
        let again = push(&store, &host, &[]).unwrap();
        assert_eq!(again["layersSent"], 0, "{what}");
        // The manifest, the configuration and the layers are asked for at once; with a token, once
        // more.
        let asked = registry.requests() - requests;
        let most = if what.contains("token") { 2 * 5 + 1 } else { 5 };
        assert!(asked <= most, "{what}: {asked} requests to find that nothing is missing");
    }
}

/// Checks that statements beside an image are sent once, in BuildKit's form.
#[test]
fn attestations_are_in_an_index() {
    let store = image();
    store.write("sbom.json", r#"{"spdxVersion": "SPDX-2.3"}"#);
    let registry = Faulty::default();
    let (_runtime, host) = registry.start();
    let flags = ["--attestation", "sbom.json"];
    let first = push(&store, &host, &flags).unwrap();
    let received = registry.contents().received.clone();
    let second = push(&store, &host, &flags).unwrap();
    assert_eq!(second["manifestDigest"], first["manifestDigest"]);
    let contents = registry.contents();
    assert_eq!(contents.received, received);
    // The index is stored under its tag, the others under their digests.
    assert_eq!(contents.manifests.len(), 3);
    let index: Value = serde_json::from_slice(&contents.manifests["v1"]).unwrap();
    let (image, statements) = (&index["manifests"][0], &index["manifests"][1]);
    assert_eq!(image["platform"], json!({"architecture": "amd64", "os": "linux"}));
    assert_eq!(statements["platform"], json!({"architecture": "unknown", "os": "unknown"}));
    let annotations = json!({
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    });
    assert_eq!(statements["annotations"], annotations);
    let manifest = &contents.manifests[statements["digest"].as_str().unwrap()];
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
    assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], "https://spdx.dev/Document");
    let statement = &contents.blobs[layer["digest"].as_str().unwrap()];
    let statement: Value = serde_json::from_slice(statement).unwrap();
    let hex = statement["subject"][0]["digest"]["sha256"].as_str().unwrap();
    assert_eq!(image["digest"], format!("sha256:{hex}"));
    assert_eq!(statement["predicate"]["spdxVersion"], "SPDX-2.3");
    drop(contents);

    store.write("index.json", r#"{"version": 1, "images": [{"spec": "image.json"}]}"#);
    for (image, target, expected) in [
        ("index.json", &*format!("docker://{host}/a/b:v2"), "this is an index of images"),
        ("image.json", "dir:d", "`--attestation` is for targets in registries, and dir:d is not"),
    ] {
        let refused = store.stowage(&["copy", image, target]).args(flags).output().unwrap();
        assert!(stderr(&refused).contains(expected), "{}", stderr(&refused));
    }
}

#[test]
fn several_tags_are_pushed() {
    let store = image();
    let registry = Faulty::default();
    let (_runtime, host) = registry.start();
    let names = [format!("{host}/a/b:v1"), format!("docker://{host}/a/b:v2")];
    let output = store.stowage(&["push", "image.json", &names[0], &names[1]]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("docker://{host}/a/b:v1\ndocker://{host}/a/b:v2\n"));
    let contents = registry.contents();
    assert_eq!(contents.manifests["v1"], contents.manifests["v2"]);
}

/// Checks that a digest in the name must be the image's own, and that `latest` is not used in its
/// place.
#[test]
fn a_digest_must_be_the_images_own() {
    let store = image();
    let registry = Faulty::default();
    let (_runtime, host) = registry.start();
    let to = |name: &str, flags: &[&str]| {
        let target = format!("docker://{host}/a/b{name}");
        let mut command = store.stowage(&[&["copy", "image.json", &target], flags].concat());
        command.env("HOME", "/nonexistent").output().unwrap()
    };
    let manifest = store.stowage(&["manifest", "image.json"]).output().unwrap().stdout;
    let ours = Digest::of(&manifest).to_string();
    let other = Digest::of(b"another").to_string();
    for name in [format!("@{other}"), format!(":v1@{other}")] {
        let requests = registry.requests();
        let output = to(&name, &[]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        let expected =
            format!("`{host}/a/b{name}` names another manifest than the one to push, {ours}");
        assert!(error.contains(&expected) && error.contains("name a tag"), "{error}");
        assert_eq!(registry.requests(), requests, "{name}");
        // The image's digest is known only after the registry was asked.
        assert_eq!(to(&name, &["--reuse-compressed"]).status.code(), Some(1));
        let contents = registry.contents();
        assert!(contents.blobs.is_empty() && contents.manifests.is_empty());
    }
    for name in [format!("@{ours}"), format!(":v1@{ours}")] {
        assert!(to(&name, &[]).status.success(), "{}", stderr(&to(&name, &[])));
    }
    let contents = registry.contents();
    assert_eq!(contents.manifests.keys().collect::<Vec<_>>(), [&ours, "v1"]);
    assert!(contents.manifests.values().all(|there| *there == manifest));
}

/// Checks that each repository is asked for, and that no unfinished upload is left behind.
#[test]
fn layers_are_mounted_from_whichever_has_them() {
    let store = image();
    let registry = Faulty::default();
    let (_runtime, host) = registry.start();
    push(&store, &host, &[]).unwrap();
    let spec = ImageSpec::read(&store.root().join("image.json")).unwrap();
    let [one, two, neither] = &spec.layers[..] else { panic!("three layers") };
    let mut contents = registry.contents();
    let there = std::mem::take(&mut *contents).blobs;
    for (repository, layer) in [("team/one", one), ("team/two", two)] {
        let digest = layer.diff_id.to_string();
        let blobs = BTreeMap::from([(digest.clone(), there[&digest].clone())]);
        contents.others.insert(repository.to_owned(), blobs);
    }
    drop(contents);
    let names = ["no/such", "team/one", "team/two"].map(|name| ["--mount-from", name]);
    let copied = push(&store, &host, names.as_flattened()).unwrap();
    assert_eq!((&copied["layersMounted"], &copied["layersSent"]), (&json!(2), &json!(1)));
    registry.check();
    let contents = registry.contents();
    assert!(contents.uploads.is_empty(), "{:?}", contents.uploads.keys());
    let neither = neither.diff_id.to_string();
    // The other blob that was received is the configuration.
    assert!(contents.received.len() == 2 && contents.received.contains(&neither));
}

/// Checks that a text that no repository can have is refused before any registry is asked.
#[test]
fn repositories_to_mount_from_have_names() {
    let store = image();
    let target = "docker://127.0.0.1:1/a:v1";
    for (name, reason) in [
        ("team/App", "must be lowercase"),
        ("", "must have a name"),
        ("a//b", "lower-case letters"),
    ] {
        let arguments = ["copy", "image.json", target, "--mount-from", name];
        let output = store.stowage(&arguments).output().unwrap();
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {error}");
        assert!(error.contains("--mount-from") && error.contains(reason), "{name}: {error}");
    }
}

/// Checks that a client that is refused before it sends a layer gets the refusal, and not a broken
/// connection.
#[test]
fn a_token_that_ends_breaks_no_connection() {
    let store = image();
    // The token lasts longer than the requests that are under way at once.
    let registry = Faulty::with(Faults { token_lasts: 12, ..Faults::default() });
    let (_runtime, host) = registry.start();
    let target = format!("docker://{host}/a/b:v1");
    let output = store.stowage(&["copy", "image.json", &target]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("trying again"), "{}", stderr(&output));
    registry.check();
}

/// Checks that layers which others have compressed are not sent again uncompressed.
#[test]
fn compressed_layers_are_used_if_asked_for() {
    let store = image();
    let plain = std::fs::read(store.root().join("image.json")).unwrap();
    let registry = Faulty::default();
    let (_runtime, host) = registry.start();
    store.build(r#"{"layering": "popularity", "compression": "gzip"}"#);
    let compressed = push(&store, &host, &[]).unwrap();
    std::fs::write(store.root().join("image.json"), plain).unwrap();

    let reused = push(&store, &host, &["--reuse-compressed"]).unwrap();
    assert_eq!(reused["layersSent"], 0);
    assert_eq!(reused["manifestDigest"], compressed["manifestDigest"]);
    registry.check();
    let ours = push(&store, &host, &[]).unwrap();
    assert_eq!((&ours["layersSent"], &ours["layersSkipped"]), (&json!(3), &json!(0)));
    assert_ne!(ours["manifestDigest"], compressed["manifestDigest"]);
    // Now the registry has no compressed layer that could be used.
    assert_eq!(
        push(&store, &host, &["--reuse-compressed"]).unwrap(),
        Value::Object({
            let mut again = ours.as_object().unwrap().clone();
            for (key, value) in
                [("layersSent", json!(0)), ("layersSkipped", json!(3)), ("bytesSent", json!(0))]
            {
                again.insert(key.to_owned(), value);
            }
            again.insert("bytesSkipped".to_owned(), ours["bytesSent"].clone());
            again
        })
    );
}

/// Checks that a push that is killed at any moment leaves nothing wrong, and that the next one
/// completes.
#[test]
fn a_push_that_is_killed_can_be_done_again() {
    let store = image();
    let registry = Faulty::default();
    let (_runtime, host) = registry.start();
    for blobs in 1..4 {
        let target = format!("docker://{host}/a/b:v1");
        let mut child = store.stowage(&["copy", "-q", "image.json", &target]).spawn().unwrap();
        while registry.contents().blobs.len() < blobs && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // The push may already have ended, which is fine too.
        let _ = child.kill();
        child.wait().unwrap();
        registry.check();
    }
    push(&store, &host, &[]).unwrap();
    registry.check();
    assert_eq!(registry.contents().manifests.len(), 1);
}

/// Checks that credentials for the registry are sent to no other host, even if the registry
/// redirects there and that host asks for them.
#[test]
fn credentials_stay_with_the_registry() {
    let store = image();
    for asks in [false, true] {
        let faults = Faults { token_lasts: 1000, ..Faults::default() };
        let storage = Faulty::with(if asks { faults.clone() } else { Faults::default() });
        let (_storage_runtime, elsewhere) = storage.start();
        let registry = Faulty::with(faults);
        registry.send_uploads_to(elsewhere);
        let (_runtime, host) = registry.start();
        // The other host does not know the uploads; the test only looks at what it was sent.
        let error = push(&store, &host, &["--dest-creds", "me:secret"]).unwrap_err();
        assert!(error.contains("error: "), "{error}");
        let asked = storage.requests();
        assert!(asked > 0, "{error}");
        assert_eq!(storage.authorized(), 0);
        assert!(registry.authorized() > 0);
    }
}

/// Checks that a helper without credentials for the registry is not an error, and that further
/// places are asked.
#[test]
fn a_helper_may_have_no_credentials() {
    let store = image();
    let says = |said: &str| {
        let helper = store
            .write("docker-credential-x", &format!("#!/bin/sh\nread -r host\n{said}\nexit 1\n"));
        std::fs::set_permissions(helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let podman = store.write("auth.json", r#"{"credsStore": "x"}"#);
    std::fs::create_dir(store.root().join(".docker")).unwrap();
    let path = std::env::var("PATH").unwrap();
    let push = |host: &str| {
        let mut command = store.stowage(&["push", "-q", "image.json", &format!("{host}/a/b:v1")]);
        command.env("PATH", format!("{}:{path}", store.root().display()));
        command.env("REGISTRY_AUTH_FILE", &podman).env("HOME", store.root());
        let output = command.env_remove("DOCKER_CONFIG").output().unwrap();
        output.status.success().then_some(()).ok_or_else(|| stderr(&output))
    };
    let none = "echo credentials not found in native keychain";
    for (said, docker, authorized) in [
        (none, "{}", false),
        (&*format!("{none} >&2"), "{}", false),
        (none, r#"{"auths": {"HOST": {"auth": "bWU6c2VjcmV0"}}}"#, true),
    ] {
        let registry = Faulty::with(Faults { password: authorized, ..Faults::default() });
        let (_runtime, host) = registry.start();
        says(said);
        store.write(".docker/config.json", &docker.replace("HOST", &host));
        push(&host).unwrap_or_else(|error| panic!("{said}, {docker}: {error}"));
        assert_eq!(registry.authorized() > 0, authorized, "{said}");
        registry.check();
    }
    // Other failures of the helper are reported.
    let registry = Faulty::default();
    let (_runtime, host) = registry.start();
    says("echo the keychain is locked");
    let error = push(&host).unwrap_err();
    assert!(error.contains("the keychain is locked"), "{error}");
}

#[test]
fn what_stays_wrong_is_said() {
    let store = image();
    for (faults, message) in [
        (Faults { refuse: true, ..Faults::default() }, "refuses the manifest: 400 no such thing"),
        (Faults { statuses: vec![403; 99], ..Faults::default() }, "403 not now"),
        // What is asked without a body is answered without one.
        (Faults { statuses: vec![500; 99], ..Faults::default() }, ": 500 "),
        (
            Faults { token_lasts: 1000, token_statuses: vec![401], ..Faults::default() },
            "/token refuses a token: 401",
        ),
        (Faults { cut: vec![0; 99], ..Faults::default() }, "/v2/a/b/blobs/uploads/"),
    ] {
        let registry = Faulty::with(faults);
        let (_runtime, host) = registry.start();
        let error = push(&store, &host, &[]).unwrap_err();
        assert!(error.contains("error: ") && error.contains(message), "{message}: {error}");
        registry.check();
        assert!(registry.contents().manifests.is_empty(), "{message}");
    }
}

/// Checks that the registry never has the changed layer, nor a document that names it.
#[test]
fn a_layer_that_changed_does_not_arrive() {
    let store = image();
    let big = store.store().physical(&format!("{}-big", "2".repeat(32)).parse().unwrap());
    let mut bytes = std::fs::read(&big).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&big, bytes).unwrap();
    let registry = Faulty::default();
    let (_runtime, host) = registry.start();
    let error = push(&store, &host, &[]).unwrap_err();
    assert!(error.contains("is not what it was"), "{error}");
    registry.check();
    let contents = registry.contents();
    assert!(contents.manifests.is_empty() && contents.uploads.is_empty());
    let spec = ImageSpec::read(&store.root().join("image.json")).unwrap();
    let has_big = |layer: &&SpecLayer| layer.names() == "big";
    let layer = spec.layers.iter().find(has_big).unwrap().diff_id.to_string();
    assert!(!contents.blobs.contains_key(&layer));
}

/// Returns the number of cases: few for every day; `PROPTEST_CASES=1000` sets more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(24, |cases| cases.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]
    /// Checks that each push succeeds or reports an error, and that one of them succeeds in the
    /// end.
    #[test]
    fn a_registry_is_never_left_with_anything_wrong(
        cut in prop::collection::vec(0_usize..3 << 20, 0..6),
        statuses in prop::collection::vec(prop::sample::select(vec![429_u16, 500, 503, 403, 404]), 0..4),
        token_lasts in prop::sample::select(vec![0_usize, 15, 50]),
        absolute: bool,
        forgetful: bool,
        lost in 0_usize..3,
        expired in 0_usize..3,
    ) {
        let store = image();
        let faults =
            Faults { cut, statuses, token_lasts, absolute, forgetful, lost, expired, ..Faults::default() };
        let registry = Faulty::with(faults);
        let (_runtime, host) = registry.start();
        for _ in 0..12 {
            let result = push(&store, &host, &[]);
            registry.check();
            match result {
                Ok(_) => break,
                Err(error) => prop_assert!(error.contains("error: "), "{}", error),
            }
        }
        prop_assert_eq!(registry.contents().manifests.len(), 1);
    }
}
