//! Covers nixpkgs' own test of dockerTools (nixos/tests/docker-tools.nix), assertion by assertion:
//!
//! - [x] includeStorePaths: an image without its store breaks, has no store path, and works with the host's store
//! - [x] dates: stable by default, "now" if asked for (plain, layered)
//! - [x] bash runs; imageTag is the daemon's tag; without a tag; layered
//! - [x] compressors: none, gz, zstd (plain, layered)
//! - [x] a Nix database: `nix-store -qR`, `--verify --check-contents` (plain, layered)
//! - [x] /nix and /nix/store are 755; another owner of the store
//! - [x] runAsRoot, with an entry point, and together with extraCommands
//! - [x] layered; on top of layered; two images share layers
//! - [x] layers in their order, also for runAsRoot; a base that has a layer twice
//! - [x] bare paths among the contents; a tree of /etc
//! - [x] Env is inherited, each name once
//! - [x] maxLayers: bulk layers, with a base
//! - [x] no /nix in a layer without store paths
//! - [x] an image for another architecture
//! - [x] a store path that is a link stays one
//! - [x] names with a registry
//! - [x] fakeRootCommands: owners, modes, store paths that they mention; with chroot
//! - [x] files for everybody: sh, env, users, certificates
//! - [x] environments of derivations: run, command, shellHook, passAsFile, inputs, the build itself
//! - [x] the same files, modes, owners and times as by nixpkgs' streamer
//! - [x] a user who isn't root
//! - [x] pullImage, and an image on what was pulled
//! - [x] mergeImages: all load, with and without tags, of different compressors
//! - [x] exportImage is a tar of what a container sees
//! - [x] tarsum
//! - [x] mistakes are named
//!
//! and what nixpkgs does not have: declared accounts, directories and files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::registry::Registry;
use crate::support::{
    Docker, Image, build, build_together, check, evaluate as evaluated, nix, run, stderr, stowage,
};

fn attribute(name: &str) -> String {
    check(&format!("tools-{name}"))
}

/// Loads the stream of a script, or an archive. Returns the image's name in Nix code.
fn load(docker: &Docker, name: &str) -> String {
    let path = build(&attribute(name));
    let name_of_file = path.display().to_string();
    if [".tar", ".gz", ".zst"].iter().any(|extension| name_of_file.ends_with(extension)) {
        // The daemon of Debian 12 can't read Zstandard.
        let zstd = name_of_file.ends_with(".zst");
        let mut cat = Command::new(if zstd { "zstdcat" } else { "cat" });
        let mut cat = cat.arg(&path).stdout(Stdio::piped()).spawn().unwrap();
        run(docker.command(&["load"]).stdin(cat.stdout.take().unwrap()));
        assert!(cat.wait().unwrap().success());
    } else {
        let mut stream = Command::new(&path).stdout(Stdio::piped()).spawn().unwrap();
        run(docker.command(&["load"]).stdin(stream.stdout.take().unwrap()));
        assert!(stream.wait().unwrap().success());
    }
    reference(name)
}

/// Returns an image's name in Nix code.
fn reference(name: &str) -> String {
    let field = |field: &str| evaluated(&format!("{}.{field}", attribute(name)));
    format!("{}:{}", field("imageName"), field("imageTag"))
}

/// Builds images by one evaluation.
fn build_all(names: &BTreeSet<&str>) {
    let names: Vec<_> = names.iter().map(|name| format!("tools-{name}")).collect();
    build_together(&names.iter().map(String::as_str).collect::<Vec<_>>());
}

fn inspect(docker: &Docker, reference: &str) -> Value {
    serde_json::from_str::<Value>(&docker.run(&["image", "inspect", reference])).unwrap()[0].take()
}

/// Runs each image's own command, and checks a part of the output.
#[test]
fn images_run() {
    let docker = Docker::start();
    let cases = [
        ("bashImage", &["bash", "--version"][..], &["GNU bash"][..]),
        ("bashUncompressed", &["bash", "--version"], &["GNU bash"]),
        ("bashZstd", &["bash", "--version"], &["GNU bash"]),
        ("layered", &[], &["Hello, world!"]),
        ("layered", &["cat", "/extraCommands"], &["(extraCommands)"]),
        ("layered", &["readlink", "/bin/hello"], &["/nix/store/"]),
        ("layeredArchive", &[], &["Hello, world!"]),
        ("layeredUncompressed", &[], &["Hello, world!"]),
        ("layeredOnTop", &[], &["grep (GNU grep)"]),
        ("layeredOnTop", &["hello"], &["Hello, world!"]),
        (
            "asRoot",
            &[],
            &["\n/data 755 901:900\n", "\n/data/file 4750 901:900\n", "\n/empty 755 0:0\n"],
        ),
        ("asRoot", &["cat", "/extra", "/data/uid"], &["extra\n0\n"]),
        (
            "asRootOnBase",
            &[],
            &["\n/data 755 901:900\n", "\n/data/file 4750 901:900\n", "\n/data/uid 644 5:6\n"],
        ),
        // If several layers have a file, the last one counts.
        (
            "layer3",
            &["bash", "-c", "cat /tmp/layer? /tmp/last"],
            &["layer1\nlayer2\nlayer3\nlayer3\n"],
        ),
        ("unpackOrder", &[], &["layer1\nlayer2\nlayer3\nlayer3\n"]),
        ("repeated", &[], &["the same\n"]),
        ("barePath", &[], &["# shellcheck shell=bash\n"]),
        ("barePathPlain", &[], &["# shellcheck shell=bash\n"]),
        ("etc", &[], &["on\n"]),
        (
            "withUser",
            &[],
            &[
                "\n/nix 999:998 315532800\n",
                "\n/nix/store 999:998 315532800\n",
                "/bin/bash 999:998 315532800\n",
            ],
        ),
        ("fakeRoot", &[], &["Hello, world!", "\n/home 755 0:0\n", "\n/home/alice 700 1000:100\n"]),
        ("capable", &[], &["0100000200040000000000000000000000000000\n"]),
        ("fakeChroot", &[], &["\n7:8\n7:8\n"]),
        ("files", &[], &["\nroot\n", "\ncertificates\n", "\n/var/empty\n", "\nhosts: files dns\n"]),
        ("bulk", &["/bin/hello"], &["Hello, world!"]),
        ("layeredBulk", &[], &["git version"]),
        ("storeLink", &[], &["-target\n"]),
        ("nonRoot", &[], &["\nuser\n"]),
        ("pipeline", &["/bin/hello"], &["Hello, world!"]),
        (
            "shell",
            &[],
            &[
                "\nthis is the hook\n",
                "good morning from tools-shell in /build as 1000, a long text\n",
                "\nout\n",
            ],
        ),
        ("shellWithHook", &[], &["\nthis is the hook\nHello, world!\n"]),
        ("shellThatBuilds", &[], &["Hello, world!\n"]),
        // Programs of the environment, without its shell.
        ("shellWithHook", &["hello"], &["\nthis is the hook\nHello, world!\n"]),
        ("shellWithHook", &["bash", "-c", "hello; type -t runHook || true"], &["Hello, world!\n"]),
        ("shellArchive", &[], &["\narchived\n"]),
        (
            "structuredShell",
            &[],
            &[
                "\nHello, world!\n",
                "\n<two words><it's><\"quoted\"><7><1><><structured>",
                "{\"than\":{\"bash\":\"goes\"}}\n",
            ],
        ),
        ("loose", &[], &["Hello, world!"]),
        ("nixImage", &["nix-store", "--verify", "--check-contents"], &["\n"]),
        ("nixImage", &["bash", "-c", "nix-store -qR $(readlink -f /bin/nix)"], &["-nix-"]),
        ("nixLayered", &["nix-store", "--verify", "--check-contents"], &["\n"]),
        ("nixLayered", &["bash", "-c", "nix-store -qR $(readlink -f /bin/hello)"], &["-hello-"]),
        (
            "declared",
            &[],
            &["\nuid=1000(app) gid=5000(data) groups=5000(data)\nsetting = 1\n750 1000:1000\n"],
        ),
        (
            "declaredOnCommands",
            &[],
            &["\nuid=1000(app) gid=5000(data) groups=5000(data)\n\
                 uid=7(early) gid=7(early) groups=7(early)\n711 7:7\nsetting = 1\n"],
        ),
        (
            "declaredOnShadow",
            &[],
            &[
                "\nuid=1000(app) gid=5000(data) groups=5000(data)\nuid=901(service) ",
                "setting = 1\n",
            ],
        ),
        ("declaredNix", &[], &["-hello-"]),
    ];
    build_all(&cases.iter().map(|(name, ..)| *name).collect());
    let mut loaded = BTreeMap::new();
    for (name, arguments, expected) in cases {
        let reference = loaded.entry(name).or_insert_with(|| load(&docker, name));
        let printed = format!("\n{}", docker.container(reference, arguments));
        for expected in expected {
            assert!(printed.contains(expected), "{name} {arguments:?}: {printed}");
        }
    }
}

#[test]
fn daemons_know_them_as_nix_does() {
    let docker = Docker::start();
    let names = ["bashImage", "layered", "crossed", "prefixed", "noTag", "now", "layeredOnTop"];
    build_all(&names.into());
    for (name, date, architecture) in [
        ("bashImage", "1970-01-01T00:00:01Z", "amd64"),
        ("layered", "1970-01-01T00:00:01Z", "amd64"),
        ("crossed", "1970-01-01T00:00:01Z", "arm64"),
        ("prefixed", "1970-01-01T00:00:01Z", "amd64"),
        ("noTag", "1970-01-01T00:00:01Z", "amd64"),
    ] {
        let reference = load(&docker, name);
        let image = inspect(&docker, &reference);
        assert_eq!(
            (&image["Created"], &image["Architecture"]),
            (&date.into(), &architecture.into()),
            "{name}"
        );
    }
    let image = inspect(&docker, &load(&docker, "now"));
    let created = image["Created"].as_str().unwrap().to_owned();
    assert!(created.as_str() > "2026" && created.ends_with('Z'), "{created}");
    // An image's variables come before its base's, each name once.
    let image = inspect(&docker, &load(&docker, "layeredOnTop"));
    let variables: BTreeSet<_> = image["Config"]["Env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        variables,
        ["FROM_CHILD=true", "LAST=parent", "OWN=1", "PATH=/bin"].map(String::from).into()
    );
    assert_eq!(image["Config"]["Env"].as_array().unwrap().len(), 4);
}

fn image(name: &str) -> Image {
    Image::at(&attribute(name))
}

/// Returns the names of the files in an image's layer.
fn names(image: &Image, layer: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    let form = stowage::oci::Form::AsStored;
    image.spec.layers[layer]
        .write_blob(&stowage::store::Store::default(), form, &mut bytes)
        .unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

#[test]
fn layers_are_as_many_as_wanted() {
    for (name, layers) in
        [("bulk", 2), ("layeredBulk", 4), ("crossed", 0), ("declaredOnCommands", 5)]
    {
        assert_eq!(image(name).spec.layers.len(), layers, "{name}");
    }
    let (below, above) = (image("layeredArchive").diff_ids(), image("layeredOnTop").diff_ids());
    assert_eq!(above[..below.len()], below);
    // A layer made by commands has no /nix.
    let layered = image("layered");
    let top = names(&layered, layered.spec.layers.len() - 1);
    assert!(top.contains(&"extraCommands".to_owned()), "{top:?}");
    assert!(!top.iter().any(|name| name.starts_with("nix")), "{top:?}");
    // The layers are: paths that only bash needs, paths that both need, and hello.
    let pipeline = image("pipeline");
    let names: Vec<_> = pipeline.spec.layers.iter().map(|layer| layer.names()).collect();
    assert!(names[0].contains("bash-") && names[2].starts_with("hello-"), "{names:?}");
}

#[test]
fn an_image_can_do_without_its_store() {
    let docker = Docker::start();
    let reference = load(&docker, "withoutStorePaths");
    let image = image("withoutStorePaths");
    for layer in 0..image.spec.layers.len() {
        let names = names(&image, layer);
        assert!(!names.iter().any(|name| name.starts_with("nix")), "{names:?}");
    }
    let alone = docker.command(&["run", "--rm", "--network=none", &reference]).output().unwrap();
    assert!(!alone.status.success());
    let store = "--volume=/nix/store:/nix/store:ro";
    assert_eq!(
        docker.run(&["run", "--rm", "--network=none", store, &reference]),
        "Hello, world!\n"
    );
}

/// Checks that a layer has no files that runAsRoot did not change, and that removed files are gone.
#[test]
fn a_layer_has_what_changed() {
    let image = image("asRootOnBase");
    let top = names(&image, image.spec.layers.len() - 1);
    assert_eq!(top, [".wh.empty", ".wh.extra", "data/", "data/uid"]);
    let exported = build(&attribute("exported"));
    let listing = run(Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--file"])
        .arg(exported));
    let lines: BTreeSet<String> =
        listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for (begin, end) in [
        ("drwxr-xr-x 901/900 ", " data/"),
        ("-rwsr-x--- 901/900 5 ", " data/file"),
        ("-rw-r--r-- 5/6 8 ", " data/uid"),
        ("dr-xr-xr-x 0/0 0 ", " bin/"),
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(begin) && line.ends_with(end)),
            "{begin}{end}: {listing}"
        );
    }
    for gone in [" empty", " empty/", " extra"] {
        assert!(!lines.iter().any(|line| line.ends_with(gone)), "{gone}: {listing}");
    }
    assert!(!listing.contains(".wh."));
}

#[test]
fn images_are_merged() {
    let docker = Docker::start();
    let mut archive = Command::new("cat")
        .arg(build(&attribute("merged")))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    run(docker.command(&["load"]).stdin(archive.stdout.take().unwrap()));
    assert!(archive.wait().unwrap().success());
    for (name, printed) in [("bashImage", "GNU bash"), ("bashUncompressed", "GNU bash")] {
        let reference = reference(name);
        assert!(docker.container(&reference, &["bash", "--version"]).contains(printed), "{name}");
    }
    for name in ["layeredArchive", "prefixed", "noTagArchive"] {
        assert_eq!(docker.container(&reference(name), &[]), "Hello, world!\n", "{name}");
    }
}

#[test]
fn an_image_is_pulled() {
    let (registry, docker) = (Registry::start(), Docker::start());
    let image = image("plain");
    let remote = format!("{}/team/plain:v1", registry.host);
    run(stowage(&["push", "-q"]).arg(&image.spec_file).arg(&remote));
    let named = ["--final-image-name", "e2e/pulled", "--final-image-tag", "v2"];
    let mut prefetch = stowage(&["prefetch", "--docker-tools", "-q", "--tls-verify=false"]);
    let pulled = format!("dockerTools.pullImage {}", run(prefetch.args(named).arg(&remote)));
    let on_it = format!(
        r#"dockerTools.buildImage {{ name = "e2e/on-pulled"; tag = "v1"; compressor = "none"; fromImage = {pulled}; extraCommands = "echo on top > top"; }}"#
    );
    for (expression, reference, arguments, expected) in [
        (&pulled, "e2e/pulled:v2", ["/bin/sh", "-c", "echo it runs"], "it runs\n"),
        (&on_it, "e2e/on-pulled:v1", ["/bin/sh", "-c", "busybox cat /top"], "on top\n"),
    ] {
        let built = nix(&["--exec", "nix-store", "--realise"])
            .arg(evaluate(expression).unwrap())
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", stderr(&built));
        let archive = String::from_utf8(built.stdout).unwrap();
        run(&mut docker.command(&["load", "--input", archive.trim()]));
        assert_eq!(docker.container(reference, &arguments), expected);
    }
}

/// Checks that the sum of a tar does not depend on the order of its entries.
#[test]
fn a_tar_has_its_sum() {
    let program = run(
        nix(&["--exec", "nix-store", "--realise"]).arg(evaluate("dockerTools.tarsum").unwrap())
    );
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::write(directory.path().join(name), name).unwrap();
    }
    let sum = |names: [&str; 2]| {
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "--mode=644", "-cC"]).arg(directory.path()).args(names);
        let mut tar = tar.stdout(Stdio::piped()).spawn().unwrap();
        let mut tarsum = Command::new(format!("{}/bin/tarsum", program.trim()));
        let sum = run(tarsum.stdin(tar.stdout.take().unwrap()));
        assert!(tar.wait().unwrap().success());
        sum
    };
    let found = sum(["a", "b"]);
    assert!(found.starts_with("tarsum.v1+sha256:"), "{found}");
    assert_eq!(found, sum(["b", "a"]));
}

/// Returns the derivation of an expression over `pkgs.stowage`, or the error of evaluating it.
fn evaluate(expression: &str) -> Result<PathBuf, String> {
    let apply = format!(
        "pkgs: let inherit (pkgs) hello; inherit (pkgs.stowage) dockerTools; in ({expression}).drvPath"
    );
    let evaluated = nix(&["eval", "--raw", ".#legacyPackages.x86_64-linux", "--apply", &apply])
        .output()
        .unwrap();
    if !evaluated.status.success() {
        return Err(stderr(&evaluated));
    }
    Ok(String::from_utf8(evaluated.stdout).unwrap().into())
}

/// Returns Nix's error for an image that can't be built.
fn refused(expression: &str) -> String {
    let apply = format!(
        "pkgs: let inherit (pkgs) hello lib; inherit (pkgs.stowage) dockerTools; in ({expression}).drvPath"
    );
    let evaluated = nix(&["eval", "--raw", ".#legacyPackages.x86_64-linux", "--apply", &apply])
        .output()
        .unwrap();
    if !evaluated.status.success() {
        return stderr(&evaluated);
    }
    let derivation: PathBuf = String::from_utf8(evaluated.stdout).unwrap().into();
    let built = nix(&["--exec", "nix-store", "--realise"]).arg(derivation).output().unwrap();
    assert!(!built.status.success(), "{expression} was built");
    stderr(&built)
}

#[test]
fn mistakes_are_named() {
    for (expression, expected) in [
        (
            r#"dockerTools.buildImage { name = "x"; contents = [ hello ]; copyToRoot = hello; }"#,
            "`contents` is the old name of `copyToRoot`: give one of them (x)",
        ),
        (
            r#"dockerTools.streamLayeredImage { name = "x"; maxLayers = 1; }"#,
            "`maxLayers` must be greater than 1, not 1",
        ),
        (
            r#"dockerTools.buildLayeredImage { name = "x"; compressor = "xz"; }"#,
            "`compressor` must be one of `gz`, `none`, `zstd`, not `xz`",
        ),
        (
            r#"dockerTools.streamLayeredImage { name = "x"; created = "yesterday"; }"#,
            "`created` must be a date",
        ),
        (
            r#"dockerTools.streamLayeredImage { name = "x"; mtime = "yesterday"; }"#,
            "`mtime` must be a date",
        ),
        (
            r#"dockerTools.streamLayeredImage { name = "x"; contents = [ hello ]; fakeRootCommands = "if"; }"#,
            "`fakeRootCommands` failed with exit status",
        ),
        (
            r#"dockerTools.streamLayeredImage { name = "x"; extraCommands = "echo it begins; false; echo it goes on"; }"#,
            "`extraCommands` failed with exit status 1",
        ),
        (
            r#"dockerTools.buildImage { name = "x"; runAsRoot = "echo it begins; exit 7"; }"#,
            "`runAsRoot` failed with exit status 7",
        ),
        (
            r#"dockerTools.streamLayeredImage { name = "x"; fakeRootCommands = "mknod null c 1 3"; }"#,
            "/null is a device",
        ),
        (
            r#"dockerTools.streamLayeredImage { name = "x"; fakeRootCommands = "mkdir a; echo > a/.wh.foo"; }"#,
            "/a/.wh.foo has a name that would delete files in an image",
        ),
        (r#"dockerTools.mergeImages [ hello ]"#, "not an archive of images: it is a directory"),
        (
            r#"dockerTools.streamLayeredImage { name = "x"; contents = [ hello ]; maxLayers = 3; fromImage = dockerTools.buildLayeredImage { name = "y"; contents = [ hello ]; maxLayers = 3; extraCommands = "touch y"; }; }"#,
            "no layer is left for store paths",
        ),
        (
            r#"dockerTools.streamLayeredImage { name = "x"; user = "app"; config.User = "app"; }"#,
            "stowage.dockerTools.streamLayeredImage: `user` is what `config.User` will be",
        ),
        (
            r#"dockerTools.buildImage { name = "x"; user = "app"; }"#,
            "`user` has the user `app`, and the image has no accounts",
        ),
        (
            r#"dockerTools.buildLayeredImage { name = "x"; tmp = true; includeStorePaths = false; }"#,
            "declared accounts and files need `includeStorePaths`",
        ),
        (
            r#"dockerTools.buildLayeredImage { name = "x"; tmp = true; maxLayers = 1; }"#,
            "`maxLayers` must be greater than 1, not 1",
        ),
        (r#"dockerTools.mergeImages [ ]"#, "there is no image in the list"),
        (
            r#"dockerTools.streamNixShellImage { drv = hello; run = "x"; command = "y"; }"#,
            "give one of `command` and `run`",
        ),
    ] {
        let said = refused(expression);
        assert!(said.contains(expected), "{expression}: {said}");
        assert!(!expression.contains("it begins") || said.contains("it begins"), "{said}");
        assert!(!said.contains("it goes on\n"), "{said}");
    }
}

/// Checks that a shell that reads commands from a pipe has the environment of the derivation.
#[test]
fn commands_come_from_a_pipe() {
    let docker = Docker::start();
    load(&docker, "shellFromPipe");
    let mut container = docker.command(&["run", "--rm", "--interactive", "--network=none"]);
    container.arg(reference("shellFromPipe")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut container = container.spawn().unwrap();
    container.stdin.take().unwrap().write_all(b"hello; echo $greeting; exit 5\n").unwrap();
    let output = container.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "this is the hook\nHello, world!\ngood morning\n");
    assert_eq!(output.status.code(), Some(5));
}

/// Checks layers against the rules of nixpkgs' streamer: each file is as it is in the store, with
/// the owner and the time that were asked for, and `/nix` and `/nix/store` have mode 755.
#[test]
fn the_store_is_as_nixpkgs_has_it() {
    let image = image("withUser");
    let mut expected = BTreeMap::new();
    for directory in ["nix", "nix/store"] {
        expected.insert(directory.to_owned(), "directory 755".to_owned());
    }
    let store = stowage::store::Store::default();
    for source in image.spec.layers.iter().flat_map(|layer| layer.sources()) {
        if image.spec.layers.last().is_some_and(|top| top.sources().any(|path| path == source)) {
            continue; // it is copied to `/`
        }
        as_in_store(Path::new(&store.print(source)), &mut expected);
    }
    let mut found = BTreeMap::new();
    let below = image.spec.layers.len() - 1;
    for layer in &image.spec.layers[..below] {
        let mut bytes = Vec::new();
        layer.write_blob(&store, stowage::oci::Form::AsStored, &mut bytes).unwrap();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let name = name.trim_end_matches('/').to_owned();
            let header = entry.header().clone();
            let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap());
            assert_eq!(owner, (999, 998, 315_532_800), "{name}");
            let names = [header.username(), header.groupname()].map(|name| name.unwrap().unwrap());
            assert_eq!(names, ["somebody", "some"], "{name}");
            let mode = header.mode().unwrap();
            let text = if header.entry_type().is_symlink() {
                format!("link to {}", entry.link_name().unwrap().unwrap().display())
            } else if header.entry_type().is_dir() {
                format!("directory {mode:o}")
            } else {
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).unwrap();
                format!("file {mode:o} {}", stowage::digest::Digest::of(&contents))
            };
            found.insert(name, text);
        }
    }
    assert_eq!(found.len(), expected.len());
    for (name, expected) in &expected {
        assert_eq!(found.get(name), Some(expected), "{name}");
    }
}

/// Describes the files at and below a path, as a tar has them.
fn as_in_store(path: &Path, entries: &mut BTreeMap<String, String>) {
    let metadata = path.symlink_metadata().unwrap();
    let mode = metadata.permissions().mode() & 0o7777;
    let text = if metadata.is_symlink() {
        format!("link to {}", std::fs::read_link(path).unwrap().display())
    } else if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            as_in_store(&entry.unwrap().path(), entries);
        }
        format!("directory {mode:o}")
    } else {
        format!("file {mode:o} {}", stowage::digest::Digest::of(&std::fs::read(path).unwrap()))
    };
    entries.insert(path.display().to_string().trim_start_matches('/').to_owned(), text);
}
