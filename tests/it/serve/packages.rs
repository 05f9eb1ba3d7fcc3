use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::{Images, Server};
use crate::support::stderr;

const LIBRARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nix");

/// Puts a `nix-build` into the directory `bin`, which is a shell's.
fn nix_build(images: &Images, script: &str) -> PathBuf {
    let directory = images.path("bin");
    fs::create_dir_all(&directory).unwrap();
    let program = directory.join("nix-build");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

/// `stowage serve --packages`, which finds no other programs.
fn serve(images: &Images, source: &str) -> Command {
    let mut command = images.store.stowage(&["serve", "--packages", source]);
    command.env("PATH", images.path("bin")).env("STOWAGE_LIBRARY", LIBRARY);
    command
}

#[test]
fn what_a_repository_lacks_is_not_found() {
    let images = Images::new();
    // As git says it, for Nix. What is printed else is none of it.
    let script = "echo \"fatal: couldn't find remote ref refs/heads/none\" >&2
        echo \"error: program 'git' failed with 'path:/srv/secret'\" >&2
        exit 1";
    nix_build(&images, script);
    let server = Server::run(&images, &mut serve(&images, "git!https://localhost/secret!main"));
    for (tag, status, code) in
        [("none", 404, "MANIFEST_UNKNOWN"), ("other", 500, "UNKNOWN"), ("latest", 500, "UNKNOWN")]
    {
        let answer = server.get(&format!("/v2/hello/manifests/{tag}"));
        assert_eq!((answer.status, &*answer.code()), (status, code), "{tag}");
        assert!(!answer.text().contains("secret"), "{}", answer.text());
        // The same for half a minute.
        assert_eq!(server.get(&format!("/v2/hello/manifests/{tag}")).status, status);
    }
    let log = server.end();
    assert!(log.contains("/srv/secret"), "{log}");
}

#[test]
fn a_program_that_is_gone_is_named_in_the_log() {
    let images = Images::new();
    let program = nix_build(&images, "exit 1");
    let server = Server::run(&images, &mut serve(&images, "path!/nowhere"));
    fs::remove_file(program).unwrap();
    let answer = server.get("/v2/hello/manifests/latest");
    assert_eq!((answer.status, &*answer.code()), (500, "UNKNOWN"));
    assert!(!answer.text().contains("nix-build"), "{}", answer.text());
    let log = server.end();
    assert!(log.contains("cannot run nix-build: No such file"), "{log}");
}

#[test]
fn what_it_cannot_build_with_is_said() {
    let images = Images::new();
    nix_build(&images, "exit 1");
    for (variables, arguments, message, hint) in [
        (
            &[("PATH", "/nowhere:/none")][..],
            &[][..],
            "error: cannot find `nix-build`, by which images are built, in PATH (/nowhere:/none)\n",
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
