use std::fs;
use std::process::Output;

use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::oci::Blob;

use super::{Images, manifest_digest, until};
use crate::push_registry::{Faults, Faulty};
use crate::schema;
use crate::support::stderr;

const SBOM: &str = "application/spdx+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

#[test]
fn what_refers_to_an_image_is_served() {
    let images = Images::new();
    images.store.write("sbom.json", "{\"spdxVersion\": \"SPDX-2.3\"}");
    images.store.write("images/note", "a note");
    fs::rename(images.path("images/note"), images.path("images/a/.note")).unwrap();
    let sbom = images.path("sbom.json").display().to_string();
    let list = format!("# its packages\n{sbom}:{SBOM}\n\n../.note:text/plain\n");
    images.store.write("images/a/b/v1@attach", &list);
    images.store.write("two.json@attach", &format!("sbom.json:{SBOM}\n"));
    images.store.write("images/a/v7@attach", "");
    let server = images.serve(&["images", "two.json"]);
    let digest = manifest_digest(&images.one);
    let list = |query: &str| server.get(&format!("/v2/a/b/referrers/{digest}{query}"));

    let all = list("");
    assert_eq!(all.headers["content-type"], "application/vnd.oci.image.index.v1+json");
    assert!(!all.headers.contains_key("oci-filters-applied"));
    let all = all.json()["manifests"].as_array().unwrap().clone();
    let mut kinds: Vec<_> = all.iter().map(|entry| entry["artifactType"].clone()).collect();
    kinds.sort_by_key(Value::to_string);
    assert_eq!(kinds, [json!(SBOM), json!("text/plain")]);

    // As `oras discover` and `oras pull` ask.
    let found = list("?artifactType=application%2Fspdx%2Bjson");
    assert_eq!(found.headers["oci-filters-applied"], "artifactType");
    let found = found.json()["manifests"].clone();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(list("?artifactType=x/y").json()["manifests"], json!([]));
    let name = found[0]["digest"].as_str().unwrap();
    let manifest = server.get(&format!("/v2/a/b/manifests/{name}"));
    assert_eq!(Digest::of(&manifest.body).to_string(), name);
    assert_eq!(manifest.body.len() as u64, found[0]["size"].as_u64().unwrap());
    let manifest = manifest.json();
    assert_eq!(manifest["subject"]["digest"], json!(digest));
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], SBOM);
    for blob in [layer, &manifest["config"]] {
        let digest = blob["digest"].as_str().unwrap();
        let blob = server.get(&format!("/v2/a/b/blobs/{digest}"));
        assert_eq!(Digest::of(&blob.body).to_string(), digest);
    }
    // Only in the repository that has it.
    let layer = layer["digest"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v2/a/blobs/{layer}")).status, 404);
    let of_two = server.get(&format!("/v2/two/referrers/{}", manifest_digest(&images.two))).json();
    assert_eq!(of_two["manifests"].as_array().unwrap().len(), 1);
    // It is no image with a tag.
    assert_eq!(server.get("/v2/a/b/tags/list").json()["tags"], json!(["v1"]));

    // Changes of a document and of the list are noticed, and what can't be read changes nothing.
    images.store.write("sbom.json", "{}");
    let other = Blob::new(b"{}".to_vec()).digest.to_string();
    until("the new document is there", || {
        (server.get(&format!("/v2/a/b/blobs/{other}")).status == 200).then_some(())
    });
    images.store.write("images/a/b/v1@attach", &format!("none.json:{SBOM}\n"));
    images.link("one.json", "a/b/v2");
    until("a new tag is there", || {
        (server.get("/v2/a/b/manifests/v2").status == 200).then_some(())
    });
    assert_eq!(list("").json()["manifests"].as_array().unwrap().len(), 2);
    fs::remove_file(images.path("images/a/b/v1@attach")).unwrap();
    until("nothing refers to it", || (list("").json()["manifests"] == json!([])).then_some(()));
    let log = server.end();
    assert!(log.contains("v1@attach, line 1: cannot read "), "{log}");
    assert!(log.contains("images/a/v7@attach is not served: it is beside no image"), "{log}");
}

fn stowage(images: &Images, arguments: &[&str]) -> Output {
    images.store.stowage(arguments).env("HOME", "/nonexistent").output().unwrap()
}

/// Has a registry with the API for referrers list documents and a signature, and the server serve the
/// same signature.
#[test]
fn a_registry_lists_referrers_by_itself() {
    let images = Images::new();
    images.store.write("test.key", include_str!("../keys/test.key"));
    images.store.write("test.pub", include_str!("../keys/test.pub"));
    images.store.write("other.pub", include_str!("../keys/other.pub"));
    images.store.write("sbom.json", "{}");
    let registry = Faulty::with(Faults { referrers: true, ..Faults::default() });
    let (_runtime, host) = registry.start();
    let name = format!("docker://{host}/a/b:v1");
    let attach = format!("sbom.json:{SBOM}");
    let copy = ["copy", "one.json", &name, "--attach", &attach, "--sign-key", "test.key"];
    let copied = stowage(&images, &copy);
    assert!(copied.status.success(), "{}", stderr(&copied));
    let digest = manifest_digest(&images.one);
    let fallback = digest.replace(':', "-");
    let documents = || -> Vec<(String, Vec<u8>)> {
        let contents = registry.contents();
        let refers = |manifest: &&Value| manifest["subject"]["digest"] == json!(digest);
        let manifests: Vec<Value> = contents
            .manifests
            .iter()
            .filter(|(name, _)| name.starts_with("sha256:"))
            .map(|(_, bytes)| serde_json::from_slice(bytes).unwrap())
            .collect();
        let document = |manifest: &Value| {
            let layer = manifest["layers"][0]["digest"].as_str().unwrap();
            let kind = manifest["artifactType"].as_str().unwrap().to_owned();
            (kind, contents.blobs[layer].clone())
        };
        manifests.iter().filter(refers).map(document).collect()
    };
    let kinds: Vec<_> = documents().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    assert!([SBOM, BUNDLE].iter().all(|kind| kinds.iter().any(|it| it == kind)), "{kinds:?}");
    // The registry keeps the list: clients keep none by a tag.
    assert!(!registry.contents().manifests.contains_key(&fallback));
    // Nothing is sent twice, with a list of several pages.
    let before = registry.contents().manifests.len();
    let again = stowage(&images, &copy);
    assert!(stderr(&again).contains("all signatures and documents are there"), "{again:?}");
    assert_eq!(registry.contents().manifests.len(), before);
    let verify = |host: &str, key: &str| {
        let name = format!("docker://{host}/a/b:v1");
        stowage(&images, &["verify", &name, "--key", key, "--json"])
    };
    let verified = verify(&host, "test.pub");
    assert!(verified.status.success(), "{}", stderr(&verified));

    let (_, bundle) = documents().into_iter().find(|(kind, _)| kind == BUNDLE).unwrap();
    images.store.write("bundle.json", &String::from_utf8(bundle).unwrap());
    let list = format!("../../../bundle.json:{BUNDLE}\n../../../sbom.json:{SBOM}\n");
    images.store.write("images/a/b/v1@attach", &list);
    let server = images.serve(&["images"]);
    let served = verify(&server.address.to_string(), "test.pub");
    assert!(served.status.success(), "{}", stderr(&served));
    let account: Value = serde_json::from_slice(&served.stdout).unwrap();
    schema::check("verify-key", &account);
    assert_eq!((&account["signatures"], &account["bundles"]), (&json!(0), &json!(1)), "{account}");
    assert!(!verify(&server.address.to_string(), "other.pub").status.success());
}
