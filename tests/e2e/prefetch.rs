//! Compares `stowage prefetch` with what skopeo and Nix make of the same image. The tests of
//! `pullImage` are where base images are tested.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::registry::Registry;
use crate::support::{Image, build, nix, run, stderr, stowage};

/// Returns Nix's hash of the directory that skopeo writes.
fn by_skopeo(reference: &str, arch: &str, directory: &Path) -> String {
    let target = directory.join(arch);
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "--override-os", "linux", "--override-arch", arch]);
    copy.args(["copy", "--quiet", "--src-tls-verify=false", reference]);
    run(copy.arg(format!("dir:{}", target.display())).stdin(Stdio::null()));
    run(nix(&["hash", "path"]).arg(&target)).trim().to_owned()
}

fn prefetch(arguments: &[&str]) -> Value {
    let printed = run(stowage(&["prefetch", "--json", "--quiet"]).args(arguments));
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn what_is_prefetched_is_what_nix_pulls() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let image = Image::named("smallApp1");
    let name = format!("{}/team/app", registry.host);
    let tagged = format!("{name}:v1");
    run(stowage(&["push", "--quiet"]).arg(&image.spec_file).arg(&tagged));
    let found = prefetch(&[&tagged]);
    let by_digest = format!("docker://{name}@{}", found["imageDigest"].as_str().unwrap());
    assert_eq!(found["hash"], by_skopeo(&by_digest, "amd64", directory.path()));
    assert_eq!((&found["os"], &found["arch"]), (&"linux".into(), &"amd64".into()));
}

#[test]
fn every_image_of_an_index_is_prefetched() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    let copy_to = build("checks.x86_64-linux.index.copyTo").join("bin/copy-to");
    let tagged = format!("{}/e2e/index:v1", registry.host);
    let reference = format!("docker://{tagged}");
    run(Command::new(copy_to).args([&reference, "--dest-tls-verify=false"]).stdin(Stdio::null()));
    let all = prefetch(&[&tagged, "--all"]);
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 2);
    for (found, arch) in all.iter().zip(["amd64", "arm64"]) {
        assert_eq!(found["arch"], arch);
        assert_eq!(found["hash"], by_skopeo(&reference, arch, directory.path()), "{arch}");
        assert_eq!(*found, prefetch(&[&tagged, "--arch", arch]));
    }
}

/// Checks that skopeo and this program use the mirror in `registries.conf` if the registry itself
/// does not answer, also for a name without a registry.
#[test]
fn a_mirror_answers_for_a_registry_that_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let mirror = Registry::start();
    let image = Image::named("configOnly");
    let stored = format!("{}/mirrored/app:v1", mirror.host);
    run(stowage(&["push", "--quiet"]).arg(&image.spec_file).arg(&stored));
    // No program listens at this port after the listener is dropped.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let conf = directory.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"{closed}/team\"\nlocation = \"{closed}/team\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{}/mirrored\"\ninsecure = true\n\
         [aliases]\n\"app\" = \"{closed}/team/app\"\n",
        mirror.host
    );
    std::fs::write(&conf, text).unwrap();
    let whole = format!("{closed}/team/app:v1");
    let prefetched = |name: &str| {
        let mut command = stowage(&["prefetch", "--json", "--quiet", name]);
        let printed = run(command.env("CONTAINERS_REGISTRIES_CONF", &conf));
        serde_json::from_str::<Value>(&printed).unwrap()
    };
    let found = prefetched(&whole);
    // The name is that of the request, wherever the image was found.
    assert_eq!(found["imageName"], format!("{closed}/team/app"));
    assert_eq!(prefetched("app:v1"), found);
    let mut inspect = Command::new("skopeo");
    inspect.arg("--registries-conf").arg(&conf).args([
        "inspect",
        "--no-tags",
        "--format",
        "{{.Digest}}",
    ]);
    let digest = run(inspect.arg(format!("docker://{whole}")));
    assert_eq!(found["imageDigest"], digest.trim());

    // If neither answers, the message names the registry of the request.
    drop(mirror);
    let mut command = stowage(&["prefetch", "--quiet", &whole]);
    let output = command.env("CONTAINERS_REGISTRIES_CONF", &conf).output().unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains(&closed.to_string()), "{}", stderr(&output));
}
