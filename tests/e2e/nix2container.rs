use serde_json::Value;

use crate::support::{Docker, Image, build_together, run};

fn image(name: &str) -> Image {
    Image::named(&format!("nix2container-{name}"))
}

/// Loads an image and runs its command, with `arguments` in place of its own if there are any.
fn prints(docker: &Docker, name: &str, arguments: &[&str]) -> String {
    let image = image(name);
    docker.load(&image);
    docker.container(&image.reference(), arguments)
}

/// Runs nix2container's examples, and checks what its own tests check.
#[test]
fn its_images_run_as_they_do_there() {
    let docker = Docker::start();
    let cases = [
        ("basic", &[][..], &["Hello, world!"][..]),
        ("hello", &[], &["and good night"]),
        ("bash", &["bash", "-c", "bash --version; ls"], &["GNU bash, version", "\nbin\n"]),
        ("copyToRoot", &[], &["Hello, world!"]),
        ("layered", &[], &["Hello, world!"]),
        ("duplicated", &[], &["Hello, world!"]),
        ("nested", &[], &["Hello, world!"]),
        ("nonReproducible", &[], &["built at "]),
        ("python", &[], &["hello from a path of the flake"]),
        ("openbar", &[], &["\ndrwxrwxrwx "]),
        (
            "perms",
            &[],
            &[
                "-rwxrwxrwx 1 0 0 0 Jan  1  1970 first\n",
                "-rwxrwxrwx 1 0 0 0 Jan  1  1970 second\n",
            ],
        ),
        // A rule for one file does not affect others.
        (
            "someFiles",
            &[],
            &[
                "-rwxrwxrwx 1 0 0 0 Jan  1  1970 first\n",
                "-r--r--r-- 1 0 0 0 Jan  1  1970 second\n",
            ],
        ),
        (
            "ownership",
            &[],
            &[
                "-r--r--r-- 1 1001 1002 0 Jan  1  1970 first\n",
                "-r--r--r-- 1    0    0 0 Jan  1  1970 second\n",
            ],
        ),
        ("layerPerms", &[], &["\n640 7 /tmp/first\n4755 0 /nix/store/", "\n444 0 /tmp/second\n"]),
    ];
    let names: Vec<_> = cases.iter().map(|(name, ..)| format!("nix2container-{name}")).collect();
    build_together(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, arguments, expected) in cases {
        let printed = format!("\n{}", prints(&docker, name, arguments));
        for expected in expected {
            assert!(printed.contains(expected), "{name}: {printed}");
        }
    }
}

#[test]
fn its_images_say_of_themselves_what_was_asked_for() {
    let docker = Docker::start();
    let inspected = |name: &str| -> Value {
        let image = image(name);
        docker.load(&image);
        let inspected = docker.run(&["image", "inspect", &image.reference()]);
        serde_json::from_str::<Value>(&inspected).unwrap()[0].clone()
    };
    assert_eq!(inspected("created")["Created"], "2024-05-13T09:31:10Z");
    // The image has the paths that both layers below hold, once, and then its own.
    assert_eq!(layer_names(&image("duplicated"), "readline"), 1);

    let history = &image("metadata").spec.history[0];
    let found = [history.created_by(), history.author(), history.comment()];
    assert_eq!(found.map(|text| text.clone().unwrap()), ["by whom", "whose", "and why"]);
}

/// Returns the number of layers that have a store path of that name.
fn layer_names(image: &Image, name: &str) -> usize {
    let with_name = |layer: &&stowage::oci::SpecLayer| layer.names().contains(name);
    image.spec.layers.iter().filter(with_name).count()
}

/// Checks that the image uses the layer as it was built and kept in the store.
#[test]
fn what_is_not_reproducible_is_kept() {
    let image = image("nonReproducible");
    let kept: Vec<_> = image.spec.layers.iter().filter_map(|layer| layer.stored()).collect();
    assert!(!kept.is_empty());
    for blob in kept {
        assert_eq!(std::fs::metadata(&blob.file).unwrap().len(), blob.size);
    }
}

#[test]
fn nginx_serves_from_a_container() {
    let docker = Docker::start();
    let image = image("nginx");
    docker.load(&image);
    let reference = image.reference();
    let id = docker.run(&["run", "--detach", "--network=none", &reference]);
    let id = id.trim();
    let ask = r#"for i in {1..100}; do "$CURL" --silent --retry-connrefused --retry 50 --retry-delay 0 localhost:8080 && exit; done"#;
    let bash = run(&mut docker.command(&["inspect", "--format", "{{json .Config.Env}}", id]));
    let bash: Vec<String> = serde_json::from_str(&bash).unwrap();
    let bash = bash.iter().find_map(|variable| variable.strip_prefix("BASH=")).unwrap();
    let answer = docker.run(&["exec", id, bash, "-c", ask]);
    assert_eq!(answer, "served by nginx\n", "{}", docker.run(&["logs", id]));
    docker.run(&["rm", "--force", id]);
}

#[test]
fn nix_knows_what_is_in_layers_below() {
    let docker = Docker::start();
    let image = image("nix");
    docker.load(&image);
    let query = |what: &str| {
        let command = format!("nix-store --query --requisites {what}");
        docker.container(&image.reference(), &["/bin/bash", "-c", &command])
    };
    let hello = image.spec.sources.iter().find(|source| source.path.name().starts_with("hello"));
    let hello = stowage::store::Store::default().print(&hello.unwrap().path);
    assert!(query("$NIX").lines().any(|path| path.contains("-nix-")));
    assert!(query(&hello).lines().any(|path| path == hello));
}

/// Checks that an ordinary user has a Nix too, and can build with it.
#[test]
fn nix_is_there_for_another_user() {
    let docker = Docker::start();
    let image = image("nixUser");
    docker.load(&image);
    let shell = |script: &str| docker.container(&image.reference(), &["/bin/bash", "-ec", script]);
    assert_eq!(shell("stat -c '%a %U:%G' /nix/store /nix/var/nix/db"), "755 user:user\n".repeat(2));
    assert_eq!(
        shell("stat -c '%a %U' /home/user /nix/var/nix/db/db.sqlite"),
        "744 user\n644 user\n"
    );
    shell("nix-store --verify --check-contents");
    let built = shell(
        "mkdir /home/user/tmp; export TMPDIR=/home/user/tmp
         echo \"derivation { name = \\\"x\\\"; system = \\\"x86_64-linux\\\"; builder = \\\"$BUILDER\\\"; \
         args = [ \\\"-c\\\" \\\"echo built by a user > \\$out\\\" ]; }\" > x.nix
         cat $(nix-build --option sandbox false --option build-users-group '' --no-out-link x.nix 2>&1 | tail -n 1)",
    );
    assert_eq!(built, "built by a user\n");
}
