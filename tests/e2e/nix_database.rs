use crate::support::{Docker, Image, build, build_log, nix, run};

/// Checks in a container that Nix's database is complete and agrees with the files.
#[test]
fn nix_in_the_image_knows_its_store() {
    let docker = Docker::start();
    let image = Image::named("withNix");
    docker.load(&image);
    let reference = image.reference();
    let shell = |script: &str| docker.container(&reference, &["/bin/bash", "-ec", script]);

    shell("nix-store --verify --check-contents");
    // Query paths of a layer, of a layer below that one, and of the image itself.
    let closure = shell("nix-store --query --requisites $HELLO");
    assert!(closure.lines().any(|path| path.ends_with(image_path(&image, "hello"))), "{closure}");
    let valid = shell("nix-store --query --requisites /nix/var/nix/gcroots/docker/*");
    let valid: std::collections::BTreeSet<_> = valid.lines().collect();
    let there: std::collections::BTreeSet<_> = image
        .spec
        .layers
        .iter()
        .flat_map(|layer| &layer.contents().unwrap().store_paths)
        .map(|path| stowage::store::Store::default().print(path))
        .collect();
    assert_eq!(valid, there.iter().map(String::as_str).collect());

    assert_eq!(shell("nix-store --gc --print-dead 2> /dev/null"), "");
    let built =
        shell("mkdir -m 1777 /tmp; cat $(nix-build --no-out-link /example.nix 2> /dev/null)");
    assert_eq!(built, "built in a container\n");
}

/// Checks that Nix knows the base image's store paths and the image's own: all are valid, none is
/// garbage, and this program's layers of the base are unchanged.
#[test]
fn databases_of_base_and_image_are_one() {
    let docker = Docker::start();
    let base = Image::named("withNix");
    for (name, prints) in [
        ("onNix", "added\n"),
        ("onNixArchive", "added\n"),
        ("onNixDockerTools", "added\nof dockerTools\n"),
    ] {
        let image = Image::named(name);
        let below = image.spec.layers.iter().zip(&base.spec.layers);
        assert!(below.into_iter().all(|(layer, base)| layer.diff_id == base.diff_id), "{name}");
        docker.load(&image);
        let script = "
            export PATH=/bin NIX_STORE_DIR=/nix/store
            nix-store --verify --check-contents
            for path in /nix/store/*-*; do nix-store --query --hash $path > /dev/null; done
            before=$(echo /nix/store/*)
            nix-store --gc > /dev/null 2>&1
            test \"$before\" = \"$(echo /nix/store/*)\"
            /opt/addition; ls / > /dev/null; if [ -e /opt/file ]; then cat /opt/file; fi";
        let printed = docker.container(&image.reference(), &["/bin/bash", "-ec", script]);
        assert_eq!(printed, prints, "{name}");
    }
    let on_ours = Image::named("onNix");
    let added = &on_ours.spec.layers[base.spec.layers.len()..];
    let paths: Vec<_> =
        added.iter().flat_map(|layer| &layer.contents().unwrap().store_paths).collect();
    assert_eq!(paths.iter().filter(|path| path.name() != "addition").count(), 0, "{paths:?}");
}

/// Checks that the build warns of store paths that a garbage collection in the container would
/// remove.
#[test]
fn what_the_bases_nix_does_not_know_is_said() {
    let log = build_log("checks.x86_64-linux.withoutDatabase.spec");
    assert!(log.contains("`nix-store --gc` in a container deletes"), "{log}");
    assert!(log.contains("-addition"), "{log}");
}

/// Returns hash and name of the store path with a name.
fn image_path<'i>(image: &'i Image, name: &str) -> &'i str {
    let paths = image.spec.sources.iter().map(|source| source.path.name());
    paths.into_iter().find(|found: &&str| found.starts_with(name)).unwrap()
}

/// Checks that two builds are equal, bit for bit.
#[test]
fn the_database_is_the_same_every_time() {
    let attribute = "checks.x86_64-linux.withNix.spec";
    build(attribute);
    run(&mut nix(&["build", "--no-link", "--rebuild", &format!(".#{attribute}")]));
}
