use std::fs::File;
use std::process::{Command, Stdio};

use stowage::store::{Store, StorePath};

use crate::podman::podman;
use crate::support::{Docker, Image, REPOSITORY, nix, run, stderr, stowage};

/// Returns Nix's error for an image with wrong `arguments`.
fn build_error(arguments: &str) -> String {
    spec_error(&format!("pkgs.stowage.buildImage {arguments}"))
}

/// Returns Nix's error for an image that an expression makes of `pkgs`.
fn spec_error(arguments: &str) -> String {
    let apply = format!("pkgs: ({arguments}).spec.drvPath");
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

/// Checks that the limits for unpacking a base image reach the derivations, however they are given.
#[test]
fn limits_for_a_base_image_are_arguments() {
    let with_base = |image: &str| {
        format!(
            "let base = pkgs.runCommand \"base.tar.gz\" {{ nativeBuildInputs = [ pkgs.gzip ]; }} \"\
             ${{pkgs.stowage.buildImage {{ name = \"base\"; copyToRoot = pkgs.bash; }}}} | gzip > $out\"; in {image}"
        )
    };
    for image in [
        r#"pkgs.stowage.buildImage { name = "a"; fromImage = base; maxUnpacked = 1000; }"#,
        r#"pkgs.stowage.buildImage { name = "a"; fromImage = base // { maxUnpacked = "1K"; }; }"#,
        r#"pkgs.stowage.buildImage { name = "a"; fromImage = base; maxUnpacked = "1K"; initializeNixDatabase = true; }"#,
        r#"pkgs.stowage.buildImage { name = "a"; fromImage = base; maxUnpacked = "1K"; tmp = true; }"#,
        r#"pkgs.stowage.dockerTools.streamLayeredImage { name = "a"; fromImage = base // { maxUnpacked = "1K"; }; }"#,
    ] {
        let error = spec_error(&with_base(image));
        assert!(error.contains("(`--max-unpacked`, or `maxUnpacked` in Nix)"), "{image}: {error}");
    }
    // The argument comes before the base's attribute. The scripts have the limits as well.
    let image = r#"pkgs.stowage.buildImage { name = "a"; fromImage = base // { maxUnpacked = "1K"; }; maxUnpacked = "1G"; }"#;
    let apply = format!("pkgs: ({}).drvPath", with_base(image));
    let evaluate = ["eval", "--raw", ".#legacyPackages.x86_64-linux", "--apply", &apply];
    let derivation = run(&mut nix(&evaluate));
    let script = run(&mut nix(&["--exec", "nix-store", "--realise", &derivation]));
    let text = std::fs::read_to_string(script.trim()).unwrap();
    assert!(
        text.contains("\nexport STOWAGE_MAX_UNPACKED=\"${STOWAGE_MAX_UNPACKED-1G}\"\nexec "),
        "{text}"
    );
    assert!(Command::new(script.trim()).stdout(Stdio::null()).status().unwrap().success());
}

#[test]
fn mistakes_in_nix_code_are_named() {
    for (arguments, message) in [
        (r#"{ name = 5; }"#, "`name` must be a string, not `5`: write `\"5\"`"),
        (r#"{ name = "a b"; }"#, "`name` must be an image name such as"),
        (r#"{ name = "a:v1"; }"#, "give the tag by itself, `tag = \"v1\"`"),
        (r#"{ name = "https://registry.example/a"; }"#, "leave out `https://`"),
        (r#"{ name = "localhost:5000/-a"; }"#, "`name` must be an image name such as"),
        (
            r#"{ name = "x.example:99999/a"; }"#,
            "`x.example:99999` is not a registry, which is a host name",
        ),
        (r#"{ name = "x.example:0/a"; }"#, "`x.example:0` is not a registry"),
        (r#"{ name = "x.example:/a"; }"#, "`x.example:` is not a registry"),
        (r#"{ name = "[:::]:5000/a"; }"#, "`[:::]:5000` is not a registry"),
        (
            r#"{ name = "a"; annotations."a\nb" = ""; }"#,
            r#"`annotations` has the key "a\nb", with a control character"#,
        ),
        (
            r#"{ name = "a"; annotations.a = builtins.fromJSON ''"\u001b[2J"''; }"#,
            "`annotations.\"a\"` has a control character in it",
        ),
        (r#"{ name = "a"; config.Labels."" = "x"; }"#, "`config.Labels` has a key of no letters"),
        (r#"{ name = "a"; tag = "a/b"; }"#, "`tag` must be 1 to 128 letters"),
        (r#"{ name = "a"; maxLayer = 3; }"#, "unexpected argument 'maxLayer'"),
        (
            r#"{ name = "a"; tag = 3; }"#,
            "stowage.buildImage: `tag` must be a string or null, not `3`: write `\"3\"`",
        ),
        (r#"{ name = pkgs.bash; }"#, "`name` must be a string, not a derivation"),
        (r#"{ name = "a"; created = null; }"#, "`created` must be a string, not `null`"),
        (
            r#"{ name = "a"; copyToRoot = [ pkgs.bash [ 3 ] ]; }"#,
            "`copyToRoot` must be derivations or paths, not `3`",
        ),
        (
            r#"{ name = "a"; previousPlan = "plan.json"; }"#,
            "`previousPlan` must be a file of the store: a path without quotes",
        ),
        (r#"{ name = "a"; maxLayers = 0; }"#, "an image may have 1 to 127 layers, not 0"),
        (r#"{ name = "a"; created = "yesterday"; }"#, "`created` must be"),
        (
            r#"{ name = "a"; fromImage = pkgs.bash; maxUnpacked = "lots"; }"#,
            "`maxUnpacked` must be a number of bytes such as \"256G\", not `lots`",
        ),
        (
            r#"{ name = "a"; keepCompressed = true; }"#,
            "`keepCompressed` needs a `compression`: layers that are not compressed are never stored",
        ),
        (
            r#"{ name = "a"; compression = "lz4"; }"#,
            "`compression` of the image: unknown variant `lz4`",
        ),
        (r#"{ name = "a"; compression = "zstd-chunked"; }"#, "did you mean `zstd:chunked`?"),
        (r#"{ name = "a"; layering = "run"; }"#, "did you mean `runs`?"),
        (r#"{ name = "a"; layeringHints.togethr = [ ]; }"#, "did you mean `together`?"),
        (r#"{ name = "a"; directoryLinks = "merg"; }"#, "did you mean `merge`?"),
        (
            r#"{ name = "a"; copyToRoot = pkgs.bash; perms = [{ path = pkgs.bash; mod = "0755"; }]; }"#,
            "did you mean `mode`?",
        ),
        (r#"{ name = "a"; arch = "x86_64"; }"#, "`arch` must be one of Go's names"),
        (
            r#"{ name = "a"; config.Entrypoint = "/bin/sh"; }"#,
            "`config.Entrypoint` must be a list of strings",
        ),
        (
            r#"{ name = "a"; config.WorkingDir = "srv"; }"#,
            "`config.WorkingDir` must be an absolute path, not `srv`",
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
            r#"{ name = "a"; copyToRoot = pkgs.bash; perms = [{ path = "${pkgs.bash}/bin"; mode = "0700"; }]; }"#,
            "which is not a whole store path: give the derivation",
        ),
        (
            r#"{ name = "a"; perms = [{ path = "/"; mode = "0700"; }]; }"#,
            "`perms` has the path `/`, which is not a whole store path",
        ),
        (
            r#"{ name = "a"; copyToRoot = pkgs.bash; perms = [{ path = pkgs.bash; mode = "rwx"; }]; }"#,
            "`mode` must be octal digits such as `0755` or `1777`, or changes such as `g=u` or `a+rX`, not `rwx`",
        ),
        (
            r#"{ name = "a"; copyToRoot = pkgs.bash; perms = [{ path = pkgs.bash; regex = "("; }]; }"#,
            "`regex` `(`: ",
        ),
        (
            r#"{ name = "a"; layers = [ (pkgs.stowage.buildLayer { metadata.autor = "me"; }) ]; }"#,
            "did you mean `author`?",
        ),
        (r#"{ name = "a"; contents = pkgs.bash; copyToRoot = pkgs.bash; }"#, "give one of them"),
        (
            r#"{ name = "a"; copyToRoot = [ pkgs.bash [ "/etc" ] ]; }"#,
            "`copyToRoot` has the string `/etc`",
        ),
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

/// Evaluates `pullImage` with a public key, and returns what Nix says.
fn pull_by(key: &str) -> String {
    let digest = format!("sha256:{}", "0".repeat(64));
    let apply = format!(
        "pkgs: (pkgs.stowage.pullImage {{ imageName = \"a\"; imageDigest = \"{digest}\"; \
         hash = \"\"; publicKey = {key}; }}).drvPath"
    );
    let arguments =
        ["eval", "--impure", "--raw", ".#legacyPackages.x86_64-linux", "--apply", &apply];
    stderr(&nix(&arguments).output().unwrap())
}

/// Checks that a private key is refused before it is copied to the store.
#[test]
fn a_private_key_stays_out_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    for (name, key) in [("plain", "test.key"), ("cosign", "test.cosign.key")] {
        // The name is one of its own, so that nothing else can have copied the file.
        let file = directory.path().join(format!("{name}-{}.pem", std::process::id()));
        std::fs::copy(format!("{REPOSITORY}/tests/it/keys/{key}"), &file).unwrap();
        let path = file.display();
        for key in [path.to_string(), format!("pkgs.writeText \"key\" (builtins.readFile {path})")]
        {
            let said = pull_by(&key);
            assert!(said.contains("`publicKey` is a private key"), "{key}: {said}");
        }
        let suffix = format!("-{}", file.file_name().unwrap().to_str().unwrap());
        let stored = std::fs::read_dir("/nix/store").unwrap();
        let mut names = stored.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!names.any(|name| name.ends_with(&suffix)), "{suffix}");
    }
}

/// Checks that a key which is no file of the store is refused before it is part of a command line.
#[test]
fn a_public_key_is_a_file() {
    for (key, is_right) in [
        (r#""-----BEGIN PUBLIC KEY-----""#, false),
        (r#""/etc/base.pub""#, false),
        ("./tests/it/keys/test.pub", true),
        (r#"pkgs.writeText "base.pub" """#, true),
    ] {
        let key = key.replace("./", &format!("{REPOSITORY}/"));
        let said = pull_by(&key);
        let is_refused = said.contains("`publicKey` must be a file of the store");
        assert_eq!(is_refused, !is_right, "{key}: {said}");
    }
}

/// Copies a real image's store and changes the last byte of `echo`. Returns the copy and the store
/// path of the changed file.
fn altered_store(image: &Image) -> (tempfile::TempDir, StorePath) {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("nix/store")).unwrap();
    let store = Store::below(root.path());
    for source in &image.spec.sources {
        let original = Store::default().physical(&source.path);
        run(Command::new("cp").arg("-a").arg(original).arg(store.physical_dir()));
    }
    let coreutils =
        image.spec.sources.iter().find(|source| source.path.name().contains("coreutils")).unwrap();
    let program = store.physical(&coreutils.path).join("bin/echo");
    let mut bytes = std::fs::read(&program).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    run(Command::new("chmod").arg("-R").arg("u+w").arg(store.physical(&coreutils.path)));
    std::fs::write(&program, bytes).unwrap();
    (root, coreutils.path.clone())
}

#[test]
fn a_store_path_altered_after_the_build_is_named() {
    let image = Image::named("configOnly");
    let (root, coreutils) = altered_store(&image);
    let stream =
        stowage(&["stream"]).arg(&image.spec_file).arg("--root").arg(root.path()).output().unwrap();
    assert_eq!(stream.status.code(), Some(1));
    assert!(stderr(&stream).contains("is not what it was"), "{}", stderr(&stream));
    assert!(!stream.stdout.windows(13).any(|window| window == b"manifest.json"));

    let verify =
        stowage(&["verify"]).arg(&image.spec_file).arg("--root").arg(root.path()).output().unwrap();
    assert_eq!(verify.status.code(), Some(1));
    let named = Store::default().print(&coreutils);
    assert!(String::from_utf8_lossy(&verify.stdout).contains(&format!("{named}: NAR hash")));
}

/// Checks that receivers which are relied on to check layers do so: none of them takes an unchecked
/// stream with a changed layer. A copy reports the error in this program's words.
#[test]
fn receivers_check_what_is_not_checked_here() {
    let image = Image::named("configOnly");
    let (root, _) = altered_store(&image);
    let root = root.path().to_str().unwrap();
    let spec = image.spec_file.to_str().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let archive = scratch.path().join("image.tar");
    let stream = stowage(&["stream", "--unchecked", "-t", "e2e/altered:1", "--root", root, spec])
        .stdout(File::create(&archive).unwrap())
        .status()
        .unwrap();
    assert!(stream.success());

    let docker = Docker::start();
    let loaded = docker.command(&["load"]).stdin(File::open(&archive).unwrap()).output().unwrap();
    assert!(!loaded.status.success());
    assert!(stderr(&loaded).contains("invalid diffID"), "{}", stderr(&loaded));
    let copied = stowage(&["copy", "--root", root, spec, "docker-daemon:e2e/altered:1"])
        .env("DOCKER_HOST", docker.host())
        .output()
        .unwrap();
    assert_eq!(copied.status.code(), Some(1));
    assert!(
        stderr(&copied).contains("is not what it was: expected sha256:"),
        "{}",
        stderr(&copied)
    );
    assert_eq!(docker.run(&["image", "ls", "--quiet", "--all"]), "");

    let loaded =
        podman(scratch.path(), &["load"]).stdin(File::open(&archive).unwrap()).output().unwrap();
    assert!(!loaded.status.success());
    let copied = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet"])
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(format!("dir:{}", scratch.path().join("dir").display()))
        .output()
        .unwrap();
    assert!(!copied.status.success());
}
