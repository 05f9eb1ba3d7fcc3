use crate::support::{Docker, Image, build, nix, run};

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
