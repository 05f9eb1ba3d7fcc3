use crate::support::{Image, nix, run, stderr, stowage};

/// An image of `arguments`, which are wrong: what Nix prints.
fn build_error(arguments: &str) -> String {
    let apply = format!("pkgs: (pkgs.stowage.buildImage {arguments}).spec.drvPath");
    let evaluated = nix(&["eval", "--raw", ".#legacyPackages.x86_64-linux", "--apply", &apply])
        .output()
        .unwrap();
    if !evaluated.status.success() {
        return stderr(&evaluated);
    }
    let derivation = String::from_utf8(evaluated.stdout).unwrap();
    let built = nix(&["--exec", "nix-store", "--realise", &derivation]).output().unwrap();
    assert!(!built.status.success(), "{arguments} builds");
    stderr(&built)
}

#[test]
fn mistakes_in_nix_code_are_named() {
    for (arguments, message) in [
        (r#"{ name = "a b"; }"#, "`name` must be an image name such as"),
        (r#"{ name = "a"; tag = "a/b"; }"#, "`tag` must be 1 to 128 letters"),
        (r#"{ name = "a"; maxLayer = 3; }"#, "unexpected argument 'maxLayer'"),
        (r#"{ name = "a"; maxLayers = 0; }"#, "an image may have 1 to 127 layers, not 0"),
        (r#"{ name = "a"; created = "yesterday"; }"#, "`created` must be"),
        (r#"{ name = "a"; arch = "x86_64"; }"#, "`arch` must be one of Go's names"),
        (
            r#"{ name = "a"; config.Entrypoint = "/bin/sh"; }"#,
            "`config.Entrypoint` must be a list of strings",
        ),
        (r#"{ name = "a"; config.Entrypiont = [ ]; }"#, "did you mean `Entrypoint`?"),
        (
            r#"{ name = "a"; layers = [ pkgs.bash ]; }"#,
            "`layers` must be a list of what `buildLayer` makes",
        ),
        (
            r#"{ name = "a"; perms = [{ regex = "/tmp"; mode = "1777"; }]; }"#,
            "each with the `path` that it is for",
        ),
        (
            r#"{ name = "a"; copyToRoot = pkgs.bash; perms = [{ path = pkgs.bash; mode = "rwx"; }]; }"#,
            "`mode` must be octal digits such as `0755` or `1777`, not `rwx`",
        ),
        (
            r#"{ name = "a"; copyToRoot = pkgs.bash; perms = [{ path = pkgs.bash; regex = "("; }]; }"#,
            "`regex` `(`: ",
        ),
        (
            r#"{ name = "a"; layers = [ (pkgs.stowage.buildLayer { metadata.autor = "me"; }) ]; }"#,
            "unknown field `autor`",
        ),
        (r#"{ name = "a"; contents = pkgs.bash; copyToRoot = pkgs.bash; }"#, "give one of them"),
        (r#"{ name = "a"; copyToRoot = pkgs.writeText "f" ""; }"#, "`copyToRoot`: /nix/store/"),
        (
            r#"{ name = "a"; copyToRoot = [ (pkgs.writeTextDir "f" "1") (pkgs.writeTextDir "f" "2") ]; }"#,
            "`copyToRoot`: /f is in two store paths and differs",
        ),
    ] {
        let error = build_error(arguments);
        assert!(error.contains(message), "{arguments}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

/// A copy of a real image's store, with one byte changed in it.
#[test]
fn a_store_path_altered_after_the_build_is_named() {
    let image = Image::named("configOnly");
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("nix/store")).unwrap();
    let store = stowage::store::Store::below(root.path());
    for source in &image.spec.sources {
        let original = stowage::store::Store::default().physical(&source.path);
        run(std::process::Command::new("cp").arg("-a").arg(original).arg(store.physical_dir()));
    }
    let coreutils =
        image.spec.sources.iter().find(|source| source.path.name().contains("coreutils")).unwrap();
    let program = store.physical(&coreutils.path).join("bin/echo");
    let mut bytes = std::fs::read(&program).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    run(std::process::Command::new("chmod")
        .arg("-R")
        .arg("u+w")
        .arg(store.physical(&coreutils.path)));
    std::fs::write(&program, bytes).unwrap();

    let stream =
        stowage(&["stream"]).arg(&image.spec_file).arg("--root").arg(root.path()).output().unwrap();
    assert_eq!(stream.status.code(), Some(1));
    assert!(stderr(&stream).contains("is not what it was"), "{}", stderr(&stream));
    assert!(!stream.stdout.windows(13).any(|window| window == b"manifest.json"));

    let verify =
        stowage(&["verify"]).arg(&image.spec_file).arg("--root").arg(root.path()).output().unwrap();
    assert_eq!(verify.status.code(), Some(1));
    let named = stowage::store::Store::default().print(&coreutils.path);
    assert!(String::from_utf8_lossy(&verify.stdout).contains(&format!("{named}: NAR hash")));
}
