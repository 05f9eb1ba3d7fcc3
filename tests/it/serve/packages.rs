use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::{Images, Server};

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
