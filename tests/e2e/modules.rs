use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::serve::until;
use crate::support::{REPOSITORY, build, check, nix, program_of, run, stderr, stowage};

fn evaluate(attribute: &str) -> Value {
    serde_json::from_str(&run(&mut evaluation(attribute))).unwrap()
}

fn evaluation(attribute: &str) -> Command {
    let function = format!(
        "pkgs: (import {}/tests/e2e/modules.nix {{ inherit pkgs; }}).{attribute}",
        REPOSITORY
    );
    let packages = ".#legacyPackages.x86_64-linux";
    nix(&["eval", "--impure", "--json", packages, "--apply", &function])
}

/// Returns a service's command, without the store path of its program.
fn command(systems: &Value, name: &str) -> String {
    let command = systems[name]["command"].as_str().unwrap();
    let (program, arguments) = command.split_once("/bin/stowage-serve ").unwrap();
    assert!(program.starts_with("/nix/store/"), "{command}");
    arguments.to_owned()
}

/// Checks that `nix flake check` accepts every output, for every system.
#[test]
fn the_flake_passes_its_check() {
    let mut arguments = vec!["flake", "check", "--no-build"];
    // Nix 2.8 checks all systems, and does not know the option.
    if run(&mut nix(&["flake", "check", "--help"])).contains("--all-systems") {
        arguments.push("--all-systems");
    }
    run(&mut nix(&arguments));
}

#[test]
fn options_of_the_service_are_arguments() {
    let systems = evaluate("systems");
    assert_eq!(
        command(&systems, "images"),
        r#""--cache=/var/cache/stowage/layers" "--cache-size=10G" "--listen=127.0.0.1:5000" "/etc/stowage/images""#
    );
    // A `%` is doubled for systemd, except in `%d`, the directory of credentials.
    assert_eq!(
        command(&systems, "tls"),
        r#""--grace=30" "--listen=[::]:443" "--max-connections=512" "--quiet" --tls-cert=%d/certificate --tls-key=%d/key --htpasswd=%d/htpasswd "--jobs=1" "/srv/100%% images" "/srv/more""#
    );
    assert_eq!(
        command(&systems, "packages"),
        r#""--cache=/var/cache/stowage/layers" "--cache-size=1G" "--listen=127.0.0.1:5001" "--packages=nixpkgs!nixos-unstable" "--require-sigs" "--roots=/var/lib/stowage/roots" "--storage=s3://images/nixos""#
    );
    let acme = command(&systems, "acme");
    assert!(acme.contains("--tls-key=/var/lib/acme/registry.example/key.pem"), "{acme}");
    // The firewall and the right to low ports follow the address that is listened at.
    let low = "CAP_NET_BIND_SERVICE";
    for (name, firewall, capabilities) in [
        ("images", json!([5000]), json!([])),
        ("tls", json!([]), json!([low])),
        ("packages", json!([5001]), json!([])),
        ("low", json!([80]), json!([low])),
        ("admin", json!([5000]), json!([low])),
        ("high", json!([8443]), json!([])),
    ] {
        assert_eq!(systems[name]["firewall"], firewall, "{name}");
        assert_eq!(systems[name]["capabilities"], capabilities, "{name}");
    }
    assert_eq!(systems["tls"]["credentials"][1], "key:/var/lib/secrets/registry.key");
    for (name, said) in [
        ("nothing", "serves nothing"),
        ("keyless", "go together"),
        ("both", "not both"),
        ("stored", "tls.key is in the Nix store"),
        ("storedEnvironment", "environmentFile is in the Nix store"),
        ("storage", "storage is for images of `packages`"),
        (
            "twice",
            "htpasswd is given twice: `/etc/htpasswd`, and `/var/lib/secrets/htpasswd` by an",
        ),
        ("hidden", "`a:b` has the place of another image's directory"),
        ("unsigned", "requireSigs is for images of `packages`"),
    ] {
        let failed = systems[name]["failed"].as_array().unwrap();
        assert_eq!(failed.len(), 1, "{name}: {failed:?}");
        assert!(failed[0].as_str().unwrap().contains(said), "{name}: {failed:?}");
    }
    for name in ["images", "tls", "acme", "packages", "low", "admin", "high"] {
        assert_eq!(systems[name]["failed"], json!([]), "{name}");
        // The port of a server for this machine alone is opened in vain.
        let is_warned = ["images", "packages", "admin"].contains(&name);
        assert_eq!(systems[name]["warnings"].as_array().unwrap().len(), usize::from(is_warned));
    }
}

#[test]
fn a_certificate_that_is_not_there_is_named() {
    let error = stderr(&evaluation("groups").output().unwrap());
    let message = "tls.acmeHost: `security.acme.certs` has no certificate `registry.example`";
    assert!(error.contains(message), "{error}");
}

/// Checks that a name under which the server would not find an image is refused.
#[test]
fn images_of_the_service_have_names_and_tags() {
    let names = evaluate("names");
    for (name, is_name) in names.as_object().unwrap() {
        let expected = ["a:v1", "team/a.b__c---d/e:V1_2"].contains(&&**name);
        assert_eq!(is_name, expected, "{name}");
    }
}

/// Checks with systemd that the units are valid, and that they have few rights.
#[test]
fn systemd_takes_the_units() {
    let units = build(&check("units"));
    for name in ["images", "tls", "acme", "packages", "low", "admin", "high"] {
        let unit = units.join(name).join("stowage.service");
        run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
        run(Command::new("systemd-analyze")
            .args(["security", "--no-pager", "--offline=true", "--threshold=20"])
            .arg(&unit));
    }
}

#[test]
fn the_services_images_are_served() {
    let images = build(&check("units")).join("served");
    let directory = tempfile::tempdir().unwrap();
    let address = directory.path().join("address");
    let mut serve = stowage(&["serve", "--listen", "127.0.0.1:0", "--address-file"])
        .arg(&address)
        .arg(&images)
        .spawn()
        .unwrap();
    let address = until("it answers", || std::fs::read_to_string(&address).ok());
    let registry = address.trim().trim_start_matches("http://");
    for name in ["team/hello:v1", "spec:latest"] {
        let source = format!("docker://{registry}/{name}");
        run(Command::new("skopeo").args(["inspect", "--tls-verify=false", &source]));
    }
    // The documents of `attach` are served with their image.
    let name = format!("{registry}/team/documented:v1");
    let arguments = ["discover", "--plain-http", "--format", "json", &name];
    let found: Value =
        serde_json::from_str(&run(program_of("sid", "oras").args(arguments))).unwrap();
    let types = found["referrers"].as_array().unwrap().iter();
    let types: BTreeSet<_> = types.map(|it| it["artifactType"].as_str().unwrap()).collect();
    assert_eq!(types, ["application/spdx+json", "text/x-python"].into());
    serve.kill().unwrap();
    serve.wait().unwrap();
}

#[test]
fn a_flakes_images_have_packages_programs_and_checks() {
    let outputs = evaluate("outputs");
    assert_eq!(outputs["packages"], json!(["hello", "quiet"]));
    assert_eq!(outputs["checks"], json!(["hello-lint", "hello-structure", "hello-verify"]));
    // A list or a set is merged; two commands are a conflict.
    assert_eq!(
        evaluate("conflicts"),
        json!({ "variables": true, "commands": false, "chosen": true, "tags": false, "arguments": false })
    );
    let plain = evaluate("plain");
    assert_eq!(plain["module"], plain["function"]);
    let programs = ["copyTo", "copyToDockerDaemon", "copyToPodman", "copyToRegistry", "explain"];
    let apps: Vec<_> = ["hello", "quiet"]
        .iter()
        .flat_map(|image| programs.map(|program| format!("{image}-{program}")))
        .collect();
    assert_eq!(outputs["apps"], json!(apps));
    let built = build(&check("flakeParts"));
    let explained = run(&mut Command::new(built.join("hello-explain")));
    assert!(explained.contains("hello"), "{explained}");
    let directory = tempfile::tempdir().unwrap();
    let target = format!("oci:{}:v1", directory.path().display());
    run(Command::new(built.join("hello-copyTo")).arg(target));
    assert!(Path::new(&directory.path().join("index.json")).exists());
}

/// Checks that the manual's page on options has the text of the modules.
#[test]
fn options_are_described_as_they_are() {
    let modules = evaluate("documentation");
    let mut page = "# Options of the modules\n\nThis page is made from the sources. [How to use them](../modules.md).\n".to_owned();
    for (title, module) in [("NixOS", "nixos"), ("flake-parts", "flakeParts")] {
        page += &format!("\n## {title}\n");
        for option in modules[module].as_array().unwrap() {
            let text = |field: &str| option[field].as_str().map(str::trim).unwrap_or_default();
            page += &format!("\n### `{}`\n\n{}\n\n", text("name"), text("description"));
            page += &format!("* type: {}\n", text("type").replace('<', "\\<"));
            for field in ["default", "example"] {
                if option[field].is_string() {
                    page += &format!("* {field}: `{}`\n", text(field));
                }
            }
        }
    }
    let file = Path::new(REPOSITORY).join("docs/reference/modules.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == page,
        "{} is not what the modules say: UPDATE_GOLDEN=1 checks/test e2e options_are",
        file.display()
    );
}
