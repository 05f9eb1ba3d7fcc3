//! Tests what stock clients do with layers that are compressed as `zstd:chunked`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stowage::digest::Digest;

use crate::registry::Registry;
use crate::serve::Served;
use crate::support::{
    Docker, Image, build_together, program_of, root_command, run, stderr, stowage,
};

/// The most bytes of an image's manifest and configuration.
const DOCUMENTS: u64 = 20 << 10;

/// podman 5 with a storage of its own, which may fetch pieces of layers.
struct Podman {
    directory: tempfile::TempDir,
}

impl Podman {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let configuration = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{path}/root\"\nrunroot = \"{path}/run\"\n\
             [storage.options.pull_options]\nenable_partial_images = \"true\"\n"
        );
        fs::write(directory.path().join("storage.conf"), configuration).unwrap();
        Self { directory }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let podman = program_of("trixie", "podman");
        let mut command = root_command("env");
        let configuration = self.directory.path().join("storage.conf");
        command.arg(format!("CONTAINERS_STORAGE_CONF={}", configuration.display()));
        command.arg(podman.get_program()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Pulls an image, and returns the number of layers of which podman fetched pieces.
    fn pull(&self, reference: &str) -> usize {
        let pull = ["--log-level=debug", "pull", "--quiet", "--tls-verify=false", reference];
        let output = self.command(&pull).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output).matches("Retrieved partial blob").count()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["image", "rm", "--all", "--force"]).output();
        let overlay = self.directory.path().join("root/overlay");
        let _ = root_command("umount").arg("--quiet").arg(overlay).output();
    }
}

/// Returns the layers of an image as skopeo 1.9 reads them: tars, each of which was compressed by
/// Zstandard and has its diff ID.
fn tars(reference: &str, image: &Image, directory: &Path) -> Vec<PathBuf> {
    let copied = directory.join("copied");
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    run(copy.arg(format!("docker://{reference}")).arg(format!("dir:{}", copied.display())));
    let manifest = fs::read(copied.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let unpacked = layers.iter().zip(image.diff_ids()).map(|(layer, diff_id)| {
        let blob = copied.join(layer["digest"].as_str().unwrap().replace("sha256:", ""));
        run(Command::new("zstd").args(["--quiet", "--test"]).arg(&blob));
        let tar = blob.with_extension("tar");
        run(Command::new("zstd").args(["--quiet", "-d"]).arg(&blob).arg("-o").arg(&tar));
        assert_eq!(Digest::of(&fs::read(&tar).unwrap()).to_string(), diff_id);
        tar
    });
    unpacked.collect()
}

/// Checks that a mounted image has the files of the tars with all their attributes, and no others.
fn same_tree(mounted: &str, tars: &[PathBuf]) {
    let mut names = BTreeSet::new();
    for tar in tars {
        let same = ["--diff", "--directory", mounted, "--file"];
        run(root_command("tar").args(same).arg(tar));
        let listed = run(Command::new("tar").arg("--list").arg("--file").arg(tar));
        names.extend(listed.lines().map(|name| name.trim_end_matches('/').to_owned()));
    }
    let found = run(root_command("find").args([mounted, "-mindepth", "1", "-printf", "%P\n"]));
    let found: BTreeSet<_> = found.lines().map(str::to_owned).collect();
    assert_eq!(found, names);
}

/// Returns the number of bytes that a server sent up to now.
fn sent(served: &Served) -> u64 {
    let metrics = run(Command::new("curl").args(["-sSf", &served.reference("metrics")]));
    let line = metrics.lines().find(|line| line.starts_with("stowage_sent_bytes_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

#[test]
fn podman_fetches_the_pieces_that_it_lacks() {
    build_together(&["chunked", "chunkedRebuilt"]);
    let (one, two) = (Image::named("chunked"), Image::named("chunkedRebuilt"));
    // With another libc, each store path has another hash, and each layer is another one.
    assert!(one.diff_ids().iter().all(|layer| !two.diff_ids().contains(layer)));
    let registry = Registry::start();
    for (image, tag) in [(&one, "v1"), (&two, "v2")] {
        let target = format!("docker://{}/app:{tag}", registry.host);
        run(stowage(&["copy"]).arg(&image.spec_file).arg(target));
    }
    let served = Served::start(&[("app/v1", &one), ("app/v2", &two)], &[]);
    for (host, is_ours) in [(&registry.host, false), (&served.reference(""), true)] {
        let host = host.trim_end_matches('/');
        let podman = Podman::new();
        let mut bytes = Vec::new();
        for (tag, image) in [("v1", &one), ("v2", &two)] {
            let reference = format!("{host}/app:{tag}");
            let before = if is_ours { sent(&served) } else { 0 };
            assert_eq!(podman.pull(&reference), image.spec.layers.len(), "{reference}");
            bytes.extend(is_ours.then(|| sent(&served) - before));
            let inspected = run(&mut podman.command(&["image", "inspect", &reference]));
            let inspected: Value = serde_json::from_str(&inspected).unwrap();
            assert_eq!(inspected[0]["RootFS"]["Layers"], json!(image.diff_ids()));
            let directory = tempfile::tempdir().unwrap();
            let mounted = run(&mut podman.command(&["image", "mount", &reference]));
            same_tree(mounted.trim(), &tars(&reference, image, directory.path()));
            run(&mut podman.command(&["image", "unmount", &reference]));
        }
        if let [first, second] = bytes[..] {
            assert!(second < first / 20, "{second} of {first}");
            let pieces = |arguments: &[&str], field: &str| {
                let mut command = stowage(&[arguments, &["--pieces", "--json"]].concat());
                let found: Value = serde_json::from_str(&run(&mut command)).unwrap();
                found[field]["bytesByPieces"].as_u64().unwrap()
            };
            let [old, new] = [&one, &two].map(|image| image.spec_file.to_str().unwrap());
            for (what, estimate) in [
                ("diff", pieces(&["diff", old, new], "pieces")),
                ("explain", pieces(&["explain", old], "rebuild")),
            ] {
                println!("{what}: podman fetched {second} bytes, and {estimate} were estimated");
                // Manifest, configuration and the headers of ranges are fetched as well.
                let most = estimate + estimate / 4 + DOCUMENTS;
                assert!((estimate * 4 / 5..=most).contains(&second), "{what}");
            }
        }
    }
}

/// Checks that Docker sees a layer that is compressed by Zstandard, and that copies keep the
/// annotations, which are part of the manifest's digest.
#[test]
fn others_see_plain_zstandard() {
    let image = Image::named("chunked");
    let registry = Registry::start();
    let served = Served::start(&[("app/v1", &image)], &[]);
    let docker = Docker::of_release("trixie");
    let reference = served.reference("app:v1");
    docker.run(&["pull", "--quiet", &reference]);
    assert_eq!(docker.container(&reference, &[]), "chunked\n");

    let directory = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:v1", directory.path().join("layout").display());
    run(stowage(&["copy"]).arg(&image.spec_file).arg(&layout));
    let back = format!("docker://{}/app:v1", registry.host);
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet", "--preserve-digests"]);
    run(copy.arg("--dest-tls-verify=false").args([&layout, &back]));
    let raw = |image: &str| {
        run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", image]))
    };
    let manifest = raw(&back);
    assert_eq!(manifest, raw(&format!("docker://{reference}")));
    assert!(manifest.contains("zstd-chunked.manifest-checksum"));
}
