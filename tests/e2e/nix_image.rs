use std::path::Path;

use crate::support::{Docker, Image, REPOSITORY, build, nix, run};

fn shell(docker: &Docker, reference: &str, script: &str) -> String {
    docker.container(reference, &["/root/.nix-profile/bin/bash", "-ec", script])
}

/// Checks typical commands in a container with Nix.
#[test]
fn one_can_work_and_build_in_the_flakes_image() {
    let docker = Docker::start();
    let image = Image::at("dockerImage");
    docker.load(&image);
    let shell = |script: &str| shell(&docker, &image.reference(), script);

    let versions = shell("git --version; curl --version; nix --version");
    for program in ["git version ", "curl ", "nix (Nix) "] {
        assert!(versions.contains(program), "{versions}");
    }
    let programs =
        "bash cat curl find git grep gzip less man nix sqlite3 ssh tar wget which xmllint";
    assert_eq!(shell(&format!("which {programs}")).lines().count(), programs.split(' ').count());
    shell("nix-store --verify --check-contents");
    assert_eq!(shell("nix-store --gc --print-dead 2> /dev/null"), "");
    assert_eq!(
        shell("stat -c '%a %n' /tmp /var/tmp /root"),
        "1777 /tmp\n1777 /var/tmp\n700 /root\n"
    );
    assert_eq!(shell("whoami; id -gn nixbld1; echo ~nobody"), "root\nnixbld\n/var/empty\n");
    let installed = shell("nix-env --query --profile /nix/var/nix/profiles/default");
    assert!(installed.lines().any(|name| name.starts_with("git-")), "{installed}");
    assert_eq!(shell("test -e /root/.nix-defexpr/channels/nixpkgs/ && echo there"), "there\n");
    assert_eq!(shell("test -s $SSL_CERT_FILE && echo there"), "there\n");
    let built = shell(
        r#"echo 'derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh";
             args = [ "-c" "echo built > $out" ]; }' > /tmp/x.nix
           cat $(nix-build --option substituters '' --no-out-link /tmp/x.nix 2> /dev/null)"#,
    );
    assert_eq!(built, "built\n");
}

/// Checks that the tarball can be made in Nix's sandbox, which has no `/var/tmp` and no other
/// programs.
#[test]
fn a_tarball_is_made_in_a_derivation() {
    let tarball = build("checks.x86_64-linux.nixTarball");
    let docker = Docker::start();
    let loaded = docker.run(&["load", "--input", tarball.join("image.tar.gz").to_str().unwrap()]);
    let id = loaded.trim().strip_prefix("Loaded image ID: ").unwrap().to_owned();
    assert!(shell(&docker, &id, "nix --version").starts_with("nix (Nix) "));
}

/// Checks that a flake that starts from the template builds.
#[test]
fn the_template_is_a_flake_that_works() {
    let directory = tempfile::tempdir().unwrap();
    let template = Path::new(REPOSITORY).join("template/flake.nix");
    std::fs::copy(template, directory.path().join("flake.nix")).unwrap();
    let flake = directory.path().display();
    let ours = format!("git+file://{REPOSITORY}");
    let build = |attribute: &str| {
        let reference = format!("path:{flake}#{attribute}");
        let arguments = [
            "build",
            "--no-link",
            "--json",
            "--no-write-lock-file",
            "--override-input",
            "stowage",
            &ours,
            &reference,
        ];
        let built: serde_json::Value = serde_json::from_str(&run(&mut nix(&arguments))).unwrap();
        built[0]["outputs"]["out"].as_str().unwrap().to_owned()
    };
    let docker = Docker::start();
    for (attribute, reference, script, prints) in [
        ("default", "hello:v1", None, "Hello, world!\n"),
        (
            "development",
            "development:latest",
            Some(
                "which jq tree python3 > /dev/null; cat /etc/nix/nix.conf; id alice; \
                 stat -c '%a %U' /home/alice; grep wheel /etc/group; ls /root/.nix-defexpr/channels/",
            ),
            "build-users-group = nixbld\nexperimental-features = nix-command flakes\nsandbox = false\n\
             trusted-public-keys = cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=\n\
             uid=1000(alice) gid=65534(nobody) groups=65534(nobody),10(wheel)\n\
             700 alice\nwheel:x:10:alice\n",
        ),
    ] {
        let mut stream = std::process::Command::new(build(attribute));
        let mut stream = stream.stdout(std::process::Stdio::piped()).spawn().unwrap();
        run(docker.command(&["load"]).stdin(stream.stdout.take().unwrap()));
        assert!(stream.wait().unwrap().success());
        let printed = match script {
            Some(script) => shell(&docker, reference, script),
            None => docker.container(reference, &[]),
        };
        assert_eq!(printed, prints, "{attribute}");
    }
}
