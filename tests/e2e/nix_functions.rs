//! Tests the Nix functions themselves: their arguments, other systems, and the derivations that a
//! change of the program's sources rebuilds.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Image, REPOSITORY, build, nix, run, stderr};

/// Evaluates a function of the packages to JSON.
fn apply(system: &str, function: &str) -> Value {
    let attribute = format!(".#legacyPackages.{system}");
    let json = run(&mut nix(&["eval", "--json", &attribute, "--apply", function]));
    serde_json::from_str(&json).unwrap()
}

#[test]
fn lists_may_be_nested_and_commands_be_strings() {
    let equal = apply(
        "x86_64-linux",
        r#"{ stowage, hello, bash, ... }:
        let
          inherit (stowage) dockerTools;
          same = function: this: that: (function ({ name = "a"; } // this)).drvPath == (function ({ name = "a"; } // that)).drvPath;
          without = function: this: that: (function this).drvPath == (function that).drvPath;
          nested = [ [ hello [ null ] ] null bash [ ] ];
          flat = [ hello bash ];
          strings = { Cmd = "${hello}/bin/hello"; entrypoint = "a"; Shell = "b"; User = "c"; };
          lists = { Cmd = [ "${hello}/bin/hello" ]; entrypoint = [ "a" ]; Shell = [ "b" ]; User = "c"; };
        in {
          buildImage = same stowage.buildImage { copyToRoot = nested; } { copyToRoot = flat; };
          buildImageOne = same stowage.buildImage { copyToRoot = [ hello ]; } { copyToRoot = hello; };
          buildLayer = without stowage.buildLayer { deps = nested; copyToRoot = nested; } { deps = flat; copyToRoot = flat; };
          popularity = without stowage.popularity { packages = nested; } { packages = flat; };
          plain = same dockerTools.buildImage { copyToRoot = nested; config = strings; } { copyToRoot = flat; config = lists; };
          noConfig = same dockerTools.buildImage { config = null; } { };
          layered = same dockerTools.buildLayeredImage { contents = nested; config = strings; } { contents = flat; config = lists; };
          streamed = same dockerTools.streamLayeredImage { contents = null; config = strings; } { config = lists; };
        }"#,
    );
    for (case, equal) in equal.as_object().unwrap() {
        assert_eq!(equal, true, "{case}");
    }
}

#[test]
fn functions_know_their_arguments() {
    let found = apply(
        "x86_64-linux",
        r#"{ stowage, ... }:
        let
          inherit (builtins) attrNames functionArgs;
          inherit (stowage) dockerTools;
          arguments = function: attrNames (functionArgs function);
        in {
          names = map arguments [ stowage.buildLayer stowage.popularity dockerTools.exportImage ];
          all = map (function: arguments function != [ ]) (with stowage; [
            buildImage buildImageFromNames buildIndex pullImage pullImageFromManifest
            dockerTools.buildImage dockerTools.pullImage dockerTools.mergeDrvs
          ]);
          layered = functionArgs dockerTools.buildLayeredImage
            == functionArgs dockerTools.streamLayeredImage // { compressor = true; };
          shell = functionArgs dockerTools.buildNixShellImage
            == functionArgs dockerTools.streamNixShellImage // { compressor = true; };
          overridden = (((stowage.buildImage { name = "a"; tag = "x"; }).override (old: { tag = old.tag + "y"; }))
            .override { name = "b"; }).imageRefUnsafe;
        }"#,
    );
    let layer = [
        "contents",
        "copyToRoot",
        "deps",
        "ignore",
        "layering",
        "layers",
        "maxLayers",
        "metadata",
        "perms",
        "reproducible",
    ];
    let export = ["diskSize", "fromImage", "fromImageName", "fromImageTag", "name"];
    assert_eq!(found["names"], json!([layer, ["name", "packages"], export]));
    assert_eq!(found["all"], json!(vec![true; 8]));
    assert_eq!(found["layered"], true);
    assert_eq!(found["shell"], true);
    assert_eq!(found["overridden"], "b:xy");
}

/// Checks that a value of a wrong type is named with its argument, by every function. Only such errors are caught by
/// `tryEval`: one by Nix itself would end the evaluation.
#[test]
fn wrong_types_are_named_by_the_functions() {
    let caught = apply("x86_64-linux", include_str!("wrong_types.nix"));
    for (function, unchecked) in caught.as_object().unwrap() {
        assert_eq!(unchecked, &json!([]), "{function}: arguments that take every value");
    }
}

/// Checks that the flake can be evaluated for every system, on any machine.
#[test]
fn other_systems_can_be_evaluated() {
    for system in ["aarch64-linux", "x86_64-darwin", "aarch64-darwin"] {
        let packages = format!(".#packages.{system}");
        let function = r#"packages: map (name: packages.${name}.drvPath)
            [ "default" "stowage" "serve" "nix2container" "nix2container-bin" "skopeo-nix2container" ]
            ++ [ (packages.nix2container.buildImage { name = "a"; }).drvPath ]"#;
        run(&mut nix(&["eval", "--json", &packages, "--apply", function]));
    }
}

/// Checks `skopeo` with `nix:`, as flakes of nix2container's users call it.
#[test]
fn skopeo_copies_images_of_the_store() {
    let image = Image::named("configOnly");
    let skopeo = build("packages.x86_64-linux.skopeo-nix2container").join("bin/skopeo");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let skopeo = |arguments: &[&str]| {
        let mut command = Command::new(&skopeo);
        command.args(arguments).current_dir(directory.path());
        command
    };

    // Copy the script and the image spec, with options before and after the names.
    let script = format!("nix:{}", image.path.display());
    let oci = format!("oci:{}:latest", at("oci"));
    run(&mut skopeo(&["--insecure-policy", "copy", &script, &oci, "--tmpdir", &at("tmp")]));
    let spec = format!("nix:{}", image.spec_file.display());
    let dir = format!("dir:{}", at("dir"));
    let digest = at("digest");
    run(&mut skopeo(&["copy", "-f", "v2s2", "--digestfile", &digest, "--quiet", &spec, &dir]));
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("dir/manifest.json")).unwrap())
            .unwrap();
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert!(std::fs::read_to_string(&digest).unwrap().starts_with("sha256:"));

    // skopeo itself copies images that are not in the store.
    let copy = format!("dir:{}", at("copy"));
    run(&mut skopeo(&["--insecure-policy", "copy", "--quiet", &oci, &copy]));
    assert!(Path::new(&at("copy")).join("manifest.json").exists());
    assert!(run(&mut skopeo(&["--version"])).starts_with("skopeo version "));

    for (arguments, message) in [
        (&["copy", "--frobnicate", &spec, &dir][..], "`--frobnicate` is none of the options"),
        (&["copy", "--dest-compress", &spec, &dir], "give `buildImage` a `compression`"),
        (&["copy", &spec], "wants an image and a target, and has 1 of them"),
        (&["copy", &dir, &spec], "nothing is copied to `nix:`"),
        (&["copy", &spec, &dir, "--dest-creds"], "`--dest-creds` wants a value"),
        (&["copy", "--policy", "/p", &spec, &dir], "leave it out"),
        (&["inspect", &spec], "there is only `copy`"),
        (&["copy", "nix:/nonexistent", &dir], "/nonexistent does not exist"),
    ] {
        let output = skopeo(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(message), "{arguments:?}: {}", stderr(&output));
    }
}

/// Copies the sources of the program.
fn copied_sources() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut command = Command::new("cp");
    command.arg("-r").arg("--target-directory").arg(copy.path()).current_dir(REPOSITORY);
    run(command.args(["Cargo.toml", "Cargo.lock", "src", "crates", "nix"]));
    copy
}

/// Returns the store path of the sources of the builder or of the whole program, with the texts of
/// its Cargo.toml and Cargo.lock.
fn inputs(sources: &Path, only_builder: bool) -> (String, String, String) {
    let expression = format!(
        "let
           package = import {nix}/package.nix {{
             lib = import {REPOSITORY}/checks/pkgs/lib.nix;
             stdenv = {{ hostPlatform.isLinux = true; buildPlatform.canExecute = _: true; }};
             runCommand = null;
             rustPlatform.buildRustPackage = arguments: arguments;
             onlyBuilder = {only_builder};
           }};
         in [ (toString package.src) package.passthru.cargoToml package.cargoLock.lockFileContents ]",
        nix = sources.join("nix").display(),
    );
    let options =
        ["--exec", "nix-instantiate", "--eval", "--read-write-mode", "--strict", "--json"];
    let json = run(&mut nix(&[&options[..], &["--expr", &expression]].concat()));
    serde_json::from_str(&json).unwrap()
}

/// Checks that derivations, which run the builder, change with the builder only.
#[test]
fn images_are_rebuilt_by_changes_of_the_builder_alone() {
    let sources = copied_sources();
    let path = sources.path();
    let builder = inputs(path, true);
    let program = inputs(path, false);
    let touch = |file: &str, text: &str| {
        let file = path.join(file);
        let old = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{old}{text}")).unwrap();
    };
    for file in [
        "src/registry/mod.rs",
        "src/registry/server/mod.rs",
        "src/report/mod.rs",
        "src/target/program/mod.rs",
        "src/target/directory/mod.rs",
        "src/cli/serve.rs",
        "src/cli/arguments/registry.rs",
    ] {
        touch(file, "\n// changed\n");
    }
    assert_ne!(inputs(path, false), program);
    assert_eq!(inputs(path, true), builder);
    // A release does not change it either, nor does a crate that only the server uses.
    let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap();
    let manifest = manifest.replacen("version = \"0.1.0\"", "version = \"0.2.0\"", 1);
    std::fs::write(path.join("Cargo.toml"), manifest).unwrap();
    touch("Cargo.lock", "\n[[package]]\nname = \"unneeded\"\nversion = \"1.0.0\"\n");
    assert_eq!(inputs(path, true), builder);
    touch("src/oci/mod.rs", "\n// changed\n");
    assert_ne!(inputs(path, true), builder);

    // Derivations refer to the builder, not to the program.
    let image = "checks.x86_64-linux.configOnly";
    for attribute in [image.to_owned(), format!("{image}.spec")] {
        let attribute = format!(".#{attribute}.drvPath");
        let derivation = run(&mut nix(&["eval", "--raw", &attribute]));
        let inputs = run(&mut nix(&["--exec", "nix-store", "-qR", &derivation]));
        assert!(inputs.contains("-stowage-builder-"), "{inputs}");
        let program = concat!("-stowage-", env!("CARGO_PKG_VERSION"));
        assert!(!inputs.contains(program), "{inputs}");
    }
}

/// Checks that the builder's sources are complete: Cargo accepts the reduced Cargo.toml and
/// Cargo.lock with the remaining sources.
#[test]
fn the_builder_is_complete() {
    let sources = copied_sources();
    for only_builder in [true, false] {
        let (source, manifest, lock) = inputs(sources.path(), only_builder);
        let directory = tempfile::tempdir().unwrap();
        run(Command::new("cp")
            .args(["-r", "--no-preserve=mode", &format!("{source}/.")])
            .arg(directory.path()));
        std::fs::write(directory.path().join("Cargo.toml"), manifest).unwrap();
        std::fs::write(directory.path().join("Cargo.lock"), &lock).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--offline", "--format-version=1"]).current_dir(directory.path());
        let metadata: Value = serde_json::from_str(&run(&mut cargo)).unwrap();
        // Cargo found every package that it uses in the lock file.
        for package in metadata["packages"].as_array().unwrap() {
            let (name, version) = (&package["name"], &package["version"]);
            assert!(
                lock.contains(&format!("\"name\" = {name}\n"))
                    && (version == "0.0.0" || lock.contains(&format!("\"version\" = {version}\n"))),
                "{name} {version}"
            );
        }
        for module in module_files(&directory.path().join("src"), only_builder) {
            assert!(module.0.exists() || module.1.exists(), "{module:?}");
        }
    }
}

/// Returns the files for which `mod NAME;` asks, except for modules that need a feature.
fn module_files(
    directory: &Path,
    only_builder: bool,
) -> Vec<(std::path::PathBuf, std::path::PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(module_files(&path, only_builder));
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let below = if ["mod", "lib", "main"].contains(&stem) {
            directory.to_owned()
        } else {
            directory.join(stem)
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let mut before = "";
        for line in text.lines() {
            let name = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ");
            let gated = only_builder && before.starts_with("#[cfg(feature");
            if let Some(name) = name.and_then(|name| name.strip_suffix(';'))
                && !gated
            {
                found.push((below.join(format!("{name}.rs")), below.join(name).join("mod.rs")));
            }
            before = line;
        }
    }
    found
}
