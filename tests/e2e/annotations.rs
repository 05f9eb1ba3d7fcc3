//! Tests annotations, from Nix code to a registry and back: an image names its base, and does not
//! have the base's own annotations.

use std::process::Command;

use serde_json::{Value, json};

use crate::base::realise;
use crate::registry::Registry;
use crate::support::{Image, run, stowage};

fn inspect(arguments: &[&str]) -> String {
    run(Command::new("skopeo").args(["inspect", "--tls-verify=false"]).args(arguments))
}

fn annotations(manifest: &str) -> Value {
    serde_json::from_str::<Value>(manifest).unwrap()["annotations"].clone()
}

#[test]
fn annotations_arrive_and_are_not_inherited() {
    let image = Image::named("annotated");
    let registry = Registry::start();
    let remote = format!("docker://{}/team/base:v1", registry.host);
    let directory = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:v1", directory.path().display());
    for target in [&remote, &layout] {
        let copy = ["copy", "--quiet", "--dest-tls-verify=false"];
        run(stowage(&copy).arg(&image.spec_file).arg(target));
        let raw = inspect(&["--raw", target]);
        let expected = json!({"org.opencontainers.image.source": "https://example.org/ü"});
        assert_eq!(annotations(&raw), expected, "{target}");
    }

    let address = &registry.host;
    let digest = inspect(&["--format", "{{.Digest}}", &remote]);
    let digest = digest.trim();
    let found = |function: &str, more: &str| {
        let image = format!(r#"{function} {{ name = "a"; {more} }}"#);
        let spec = realise(&format!("({image}).spec"));
        annotations(&run(stowage(&["manifest"]).arg(spec)))
    };
    let tagged = json!({
        "org.opencontainers.image.base.name": format!("{address}/team/base:v1"),
        "org.opencontainers.image.base.digest": digest,
    });
    for (function, flag) in [("", None), ("dockerTools.", Some("--docker-tools"))] {
        let prefetch = ["prefetch", "--quiet", "--tls-verify=false"];
        let reference = format!("{address}/team/base:v1");
        let arguments = run(stowage(&prefetch).args(flag).arg(reference));
        let base = format!("fromImage = {function}pullImage {arguments};");
        let build = format!("{function}buildImage");
        assert_eq!(found(&build, &base), tagged);
        // A value that is set here counts, and null removes the annotation.
        let set = r#""org.opencontainers.image.base.name" = "mine";"#;
        let null = r#""org.opencontainers.image.base.digest" = null;"#;
        let more = format!("{base} annotations = {{ {set} {null} }};");
        assert_eq!(found(&build, &more), json!({"org.opencontainers.image.base.name": "mine"}));
        // If no tag is given, the base's name has none.
        let untagged = format!(
            "fromImage = {function}pullImage (removeAttrs {arguments} [ \"finalImageTag\" ]);"
        );
        if flag.is_none() {
            let mut expected = tagged.clone();
            expected["org.opencontainers.image.base.name"] =
                format!("{address}/team/base@{digest}").into();
            assert_eq!(found(&build, &untagged), expected);
        }
    }
    let manifest = serde_json::to_string(&inspect(&["--raw", &remote])).unwrap();
    let base = format!(
        r#"fromImage = pullImageFromManifest {{ imageName = "team/base"; imageTag = "v1"; registryUrl = "{address}"; tlsVerify = false; imageManifest = builtins.toFile "m" {manifest}; }};"#
    );
    let expected = json!({"org.opencontainers.image.base.name": format!("{address}/team/base:v1")});
    assert_eq!(found("buildImage", &base), expected);
}
