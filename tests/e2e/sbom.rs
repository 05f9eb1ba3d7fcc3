use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use stowage::store::Store;

use crate::support::{Image, REPOSITORY, build, check, evaluate, nix, run, stowage};

fn document(attribute: &str) -> Value {
    serde_json::from_slice(&fs::read(build(attribute)).unwrap()).unwrap()
}

/// Returns the store paths that a CycloneDX document lists.
fn listed(document: &Value) -> BTreeSet<String> {
    let components = document["components"].as_array().unwrap().iter();
    let paths = components.flat_map(|component| component["properties"].as_array().unwrap());
    let paths = paths.filter(|property| property["name"] == "nix:output_path");
    paths.map(|property| property["value"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn lists_the_closure_with_what_evaluation_knows() {
    let image = Image::named("listed");
    let attribute = format!("{}.sbom", image.attribute);
    let (spdx, cyclonedx) = (document(&attribute), document(&format!("{attribute}.cyclonedx")));

    // The list has all store paths of the image, and all that Nix says they need.
    let paths = listed(&cyclonedx);
    let store = Store::default();
    let sources: BTreeSet<_> =
        image.spec.sources.iter().map(|source| store.print(&source.path)).collect();
    assert_eq!(paths, sources);
    let requisites = run(nix(&["--exec", "nix-store", "--query", "--requisites"]).args(&paths));
    assert_eq!(paths, requisites.lines().map(str::to_owned).collect());
    for name in ["-described-1.2", "-coreutils-9.1", "-hello-2.10", "-bash-5.2.15", "-jq-1.6"] {
        assert!(paths.iter().any(|path| path.ends_with(name)), "{name}: {paths:?}");
    }

    let packages = spdx["packages"].as_array().unwrap();
    assert_eq!(packages.len(), paths.len() + 1);
    let described = packages.iter().find(|package| package["name"] == "described").unwrap();
    for (key, expected) in [
        ("versionInfo", "1.2"),
        ("licenseDeclared", "MIT AND LicenseRef-Own-Licence"),
        ("homepage", "https://example.org/described"),
        ("downloadLocation", "https://example.org/described.tar.gz"),
        ("summary", "Says what it is"),
    ] {
        assert_eq!(described[key], expected, "{key}");
    }
    let references = described["externalRefs"].to_string();
    assert!(references.contains("cpe:2.3:a:example:described:1.2"), "{references}");
    assert_eq!(spdx["name"], "listed:v1");

    // Without `--meta`, the list has the same store paths.
    let file = image.spec_file.to_str().unwrap();
    let by_hand = || run(&mut stowage(&["sbom", file, "--format", "cyclonedx"]));
    assert_eq!(by_hand(), by_hand());
    assert_eq!(listed(&serde_json::from_str(&by_hand()).unwrap()), paths);
}

/// Checks the lists by the validators of both formats' authors, with what evaluation knows and without.
#[test]
fn lists_are_valid() {
    for name in ["listed", "names-shell"] {
        let image = Image::named(name);
        let facts = build(&format!("{}.sbom.facts", image.attribute));
        let bases =
            ["sbom", "sbom.cyclonedx"].map(|list| build(&format!("{}.{list}", check("oneLayer"))));
        let bases = bases.iter().flat_map(|base| ["--base", base.to_str().unwrap()]);
        let named = vec!["--name", "listed:v1", "--meta", facts.to_str().unwrap()];
        for arguments in [named, vec![], bases.collect()] {
            let mut validators = Command::new(format!("{REPOSITORY}/checks/sbom"));
            run(validators.arg(&image.spec_file).args(arguments));
        }
    }
}

/// Checks that the list of an image on another one has what evaluation knows of both images' packages.
#[test]
fn the_packages_of_a_base_are_described() {
    let facts = |image: &str| {
        let facts = build(&format!("{}.sbom.facts", check(image)));
        serde_json::from_slice::<Value>(&fs::read(facts).unwrap()).unwrap()
    };
    let (below, above) = (facts("onListed.fromImage"), facts("onListed"));
    let below = below.as_object().unwrap();
    assert!(below.values().any(|package| package["pname"] == "described"), "{below:?}");
    for (path, package) in below {
        assert_eq!(above[path], *package, "{path}");
    }
    let list = document(&format!("{}.sbom", check("onListed")));
    let packages = list["packages"].as_array().unwrap();
    let described = packages.iter().find(|package| package["name"] == "described").unwrap();
    assert_eq!(described["homepage"], "https://example.org/described");
}

/// Checks that the facts depend on no package: making an SBOM builds no packages.
#[test]
fn a_list_needs_no_package() {
    build(&format!("{}.sbom.facts", check("listed")));
    let derivation = evaluate(&format!("{}.sbom.facts.drvPath", check("listed")));
    let query = ["--exec", "nix-store", "--query", "--requisites", &derivation];
    let needed = run(&mut nix(&query));
    for package in ["-described-1.2.drv", "-hello-2.10.drv", "-jq-1.6.drv"] {
        assert!(!needed.contains(package), "{package} is needed: {needed}");
    }
}

#[test]
fn images_of_docker_tools_and_of_names_have_lists() {
    for (name, package) in [("listedByTools", "described"), ("names-shell", "coreutils")] {
        let list = document(&format!("{}.sbom", check(name)));
        let packages = list["packages"].as_array().unwrap();
        let found = packages.iter().filter(|found| found["name"] == package).count();
        assert_eq!(found, 1, "{name}");
    }
}
