use std::collections::BTreeSet;
use std::process::Command;

/// Returns the crates of a build with these options of Cargo's.
fn crates(options: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["tree", "--locked", "--offline", "--edges=normal", "--prefix=none", "--format={p}"])
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_builder_has_no_crates_for_the_network() {
    let builder = crates(&["--no-default-features"]);
    let program = crates(&[]);
    for network in [
        "axum",
        "hyper",
        "object_store",
        "reqwest",
        "rustls",
        "rustls-webpki",
        "tokio-rustls",
        "ureq",
    ] {
        assert!(program.contains(network), "{network} is not looked for by its name");
        assert!(!builder.contains(network), "the builder has {network}");
    }
    assert!(builder.is_subset(&program));
}
