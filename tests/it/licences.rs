use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Checks that every dependency has a licence that `deny.toml` allows. Replaces `cargo deny check
/// licenses` where that program is not installed.
#[test]
fn dependencies_have_licences_that_are_allowed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let deny = std::fs::read_to_string(root.join("deny.toml")).unwrap();
    let list = deny.split("allow = [").nth(1).unwrap().split(']').next().unwrap();
    let allowed: BTreeSet<_> = list.split(',').map(|name| name.trim().trim_matches('"')).collect();

    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 20);
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        // Licences are SPDX expressions: of alternatives one must be allowed, of a conjunction all.
        let flat = licence.replace(['(', ')'], "").replace('/', " OR ");
        let terms = flat
            .split(" AND ")
            .all(|term| term.split(" OR ").any(|name| allowed.contains(name.trim())));
        assert!(terms, "{} {}: {licence}", package["name"], package["version"]);
    }
}
