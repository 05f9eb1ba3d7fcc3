use std::path::Path;

use crate::support::{Docker, Image, REPOSITORY, build, nix, run, stderr};

fn shell(docker: &Docker, reference: &str, script: &str) -> String {
    docker.container(reference, &["/root/.nix-profile/bin/bash", "-ec", script])
}

#[test]
fn the_program_runs_in_its_own_image() {
    let docker = Docker::start();
    let image = Image::at("programImage");
    docker.load(&image);
    let printed = docker.container(&image.reference(), &["--version"]);
    assert_eq!(printed, concat!("stowage ", env!("CARGO_PKG_VERSION"), "\n"));
    let list = std::fs::read_to_string(build(&format!("{}.sbom", image.attribute))).unwrap();
    assert!(list.contains("pkg:nix/stowage@"), "{list}");
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

/// Checks that a user other than root can work with a Nix of the user's own.
#[test]
fn another_user_can_build_in_the_flakes_image() {
    let docker = Docker::start();
    let image = Image::at("checks.x86_64-linux.nixOfUser");
    docker.load(&image);
    let shell = |script: &str| {
        let bash = ["/home/nix/.nix-profile/bin/bash", "-ec", script];
        docker.container(&image.reference(), &bash)
    };
    assert_eq!(
        shell("id; echo $HOME; cat /etc/motd; . /etc/os-release; echo; echo $ID"),
        "uid=1000(nix) gid=1000(nix) groups=1000(nix)\n/home/nix\nwelcome\nnix\n"
    );
    let certificates =
        ["ssl/certs/ca-bundle.crt", "ssl/certs/ca-certificates.crt", "pki/tls/certs/ca-bundle.crt"];
    for name in certificates {
        shell(&format!("test -s /etc/{name}"));
    }
    // Variables of the configuration are added, and come in place of others of their names.
    assert_eq!(
        shell("echo $EDITOR $MANPATH $USER; env | grep -c ^MANPATH="),
        "vi /usr/share/man nix\n1\n"
    );
    // The image's own command is for any user.
    let other = ["run", "--rm", "--network=none", "--user=1234567:0", &image.reference()];
    docker.run(&other);
    // The loader runs a program by itself.
    shell("test -d /run; /lib64/ld-linux-x86-64.so.2 --version > /dev/null");
    shell(
        "nix-store --verify; touch ~/f ~/.nix-defexpr/f ~/.nix-channels /nix/var/nix/profiles/f /nix/var/nix/gcroots/f",
    );
    assert_eq!(
        shell(
            r#"echo 'derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh";
                 args = [ "-c" "echo built > $out" ]; }' > /tmp/x.nix
               cat $(nix-build --option substituters '' --no-out-link /tmp/x.nix 2> /dev/null)
               nix-env --option substituters '' --profile /nix/var/nix/profiles/own --set $(nix-build --option substituters '' --no-out-link /tmp/x.nix 2> /dev/null)
               cat /nix/var/nix/profiles/own
               nix-store --gc 2> /dev/null > /dev/null
               nix --version > /dev/null && echo there"#
        ),
        "built\nbuilt\nthere\n"
    );
}

/// Checks that the tarball can be made in Nix's sandbox, which has no `/var/tmp` and no other
/// programs.
/// Checks that mistakes in accounts are named at evaluation.
#[test]
fn mistakes_in_accounts_of_the_flakes_image_are_named() {
    for (arguments, message) in [
        ("{ users.alice = { }; }", "`users.alice` has no `uid`"),
        ("{ users.alice = { uid = 7; shel = \"/x\"; }; }", "`users.alice.shel` is none of"),
        ("{ users.alice.uid = \"7\"; }", "`users.alice.uid` must be a number"),
        ("{ users.\"a:b\".uid = 7; }", "`users.\"a:b\"` is no name of an account"),
        ("{ uid = 7; users.alice.uid = 7; }", "`users` have one number, 7, for alice nix"),
        ("{ groups.x = { }; }", "`groups.x` has no `gid`"),
        ("{ uid = \"7\"; }", "`uid` must be a number from 0"),
        ("{ uid = 7; uname = \"a b\"; }", "`uname` is no name of an account"),
        ("{ nixConf.x.y = 1; }", "`nixConf.x` must be a string, a number"),
        ("{ env.A = [ ]; }", "`env.A` must be a string or a number"),
        (
            "{ users.alice = { uid = 7; groups = [ \"x\" ]; }; }",
            "`users` are in groups that `groups` lacks: x",
        ),
    ] {
        let apply = format!("image: (image.override {arguments}).drvPath");
        let image = ".#packages.x86_64-linux.dockerImage";
        let output = nix(&["eval", "--raw", image, "--apply", &apply]).output().unwrap();
        let said = stderr(&output);
        assert!(!output.status.success() && said.contains(message), "{arguments}: {said}");
    }
}

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
