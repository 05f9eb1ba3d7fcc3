use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Images, Server};
use crate::support::stderr;

const LIBRARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nix");

/// Puts shell scripts into the directory `bin`, in place of Nix's programs or others.
pub fn programs(images: &Images, names: &[&str], script: &str) {
    let directory = images.path("bin");
    fs::create_dir_all(&directory).unwrap();
    for name in names {
        let program = directory.join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

pub const NIX: [&str; 2] = ["nix-instantiate", "nix-store"];

/// Returns `stowage serve --packages`, which finds no other programs.
pub fn serve(images: &Images, source: &str) -> Command {
    let mut command = images.store.stowage(&["serve", "--packages", source]);
    command.env("PATH", images.path("bin")).env("STOWAGE_LIBRARY", LIBRARY);
    command
}

#[test]
fn what_a_repository_lacks_is_not_found() {
    let images = Images::new();
    programs(&images, &NIX, "exit 1");
    let script = "case \"$*\" in
        *init*) exit ;;
        *ls-remote*/none*) echo \"0\trefs/remotes/refs/heads/none\"; exit ;;
        esac
        echo \"fatal: unable to access 'https://user:secret@localhost/srv/private'\" >&2
        exit 1";
    programs(&images, &["git"], script);
    let mut command = serve(&images, "git!https://user:secret@localhost/srv!main");
    command.arg("--tags=commits").env("XDG_CACHE_HOME", images.path("cache"));
    let server = Server::run(&images, &mut command);
    for (tag, status, code) in
        [("none", 404, "MANIFEST_UNKNOWN"), ("other", 500, "UNKNOWN"), ("latest", 500, "UNKNOWN")]
    {
        let answer = server.get(&format!("/v2/hello/manifests/{tag}"));
        assert_eq!((answer.status, &*answer.code()), (status, code), "{tag}: {}", answer.text());
        assert!(!answer.text().contains("srv"), "{}", answer.text());
        // The answer stays the same for half a minute.
        assert_eq!(server.get(&format!("/v2/hello/manifests/{tag}")).status, status);
    }
    let log = server.end();
    assert!(log.contains("/srv/private") && !log.contains("secret"), "{log}");
}

/// Checks that a name that clients may not use is refused before any program runs.
#[test]
fn tags_are_served_as_the_server_is_told() {
    let images = Images::new();
    programs(&images, &NIX, "exit 1");
    programs(&images, &["git"], "exit 1");
    let commit = "0".repeat(40);
    for (source, arguments, tag, message) in [
        ("git!https://localhost/a!main", &[][..], "next", "serves `latest` alone"),
        ("git!https://localhost/a!main", &[], &*commit, "serves `latest` alone"),
        ("git!https://localhost/a!main", &["--tags=branches"], &commit, "branches and tags"),
        ("nixpkgs!main", &[], "next", "serves `latest` alone"),
        ("nixpkgs!main", &["--tags=commits"], &commit, "serves `latest`, branches and tags"),
    ] {
        let server = Server::run(&images, serve(&images, source).args(arguments));
        let answer = server.get(&format!("/v2/hello/manifests/{tag}"));
        assert_eq!((answer.status, &*answer.code()), (404, "MANIFEST_UNKNOWN"), "{source} {tag}");
        assert!(answer.text().contains(message), "{source} {tag}: {}", answer.text());
        let log = server.end();
        assert!(!log.contains("building"), "{log}");
    }
}

#[test]
fn a_program_that_is_gone_is_named_in_the_log() {
    let images = Images::new();
    programs(&images, &NIX, "exit 1");
    let server = Server::run(&images, &mut serve(&images, "path!/nowhere"));
    fs::remove_file(images.path("bin/nix-instantiate")).unwrap();
    let answer = server.get("/v2/hello/manifests/latest");
    assert_eq!((answer.status, &*answer.code()), (500, "UNKNOWN"));
    assert!(!answer.text().contains("nix-instantiate"), "{}", answer.text());
    let log = server.end();
    assert!(log.contains("cannot run nix-instantiate: No such file"), "{log}");
}

/// Checks that the size of a fetch is asked for beforehand, and that an evaluation that takes too
/// much memory is reported.
#[test]
fn images_that_cost_too_much_are_refused() {
    let images = Images::new();
    let script = "case \"$*\" in
        *--dry-run*) echo 'these 2 paths will be fetched (1.00 MiB download, 3.00 GiB unpacked):' >&2 ;;
        *--realise*) echo realised >&2; exit 1 ;;
        *hungry*) echo 'error: out of memory' >&2; exit 1 ;;
        *) echo /nix/store/x.drv ;;
        esac";
    programs(&images, &NIX, script);
    let mut command = serve(&images, "path!/nowhere");
    let server = Server::run(&images, command.arg("--max-image-size=1K"));
    for (name, message) in [
        ("large", "would fetch 3221225472 bytes, and at most 2147484672 are allowed"),
        ("hungry", "takes more than 4294967296 bytes of memory"),
    ] {
        let answer = server.get(&format!("/v2/{name}/manifests/latest"));
        assert_eq!((answer.status, &*answer.code()), (403, "DENIED"), "{}", answer.text());
        assert!(answer.text().contains(message), "{}", answer.text());
    }
    assert!(!server.end().contains("realised"));
}

#[test]
fn what_it_cannot_build_with_is_said() {
    let images = Images::new();
    programs(&images, &NIX, "exit 1");
    for (variables, arguments, message, hint) in [
        (
            &[("PATH", "/nowhere:/none")][..],
            &[][..],
            "error: cannot find `nix-instantiate`, which builds images, in PATH (/nowhere:/none)\n",
            "install Nix",
        ),
        (&[], &["--roots", "one.json"], "error: cannot keep links in one.json: ", "--roots DIR"),
        (&[("TMPDIR", "none")], &[], "error: cannot keep links in none: ", "--roots DIR"),
        (&[("STOWAGE_LIBRARY", "images")], &[], "on-demand.nix", ""),
        (&[], &["--popularity", "none"], "error: cannot read none: ", ""),
    ] {
        let mut command = serve(&images, "path!/nowhere");
        let output = command
            .args(arguments)
            .envs(variables.iter().copied())
            .arg("--quiet")
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(message) && said.contains(hint), "{said}");
        assert!(said.starts_with("error: "), "{said}");
    }
}
