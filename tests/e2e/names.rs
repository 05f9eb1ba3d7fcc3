use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Value, json};

use stowage::oci::ImageSpec;

use crate::support::{Docker, Image, REPOSITORY, build, nix, run, stderr, stowage};

fn image(name: &str) -> Image {
    Image::named(&format!("names-{name}"))
}

/// Evaluates `expression`, in which `image` is `buildImageFromNames` and `set` the packages of
/// `names.nix`. Does not use the flake, which is slow.
fn evaluate(expression: &str) -> Output {
    static PACKAGES: OnceLock<String> = OnceLock::new();
    let packages = PACKAGES.get_or_init(|| {
        let attribute = ".#legacyPackages.x86_64-linux";
        run(&mut nix(&["eval", "--raw", attribute, "--apply", "pkgs: toString pkgs.path"]))
    });
    let expression = format!(
        "let
           overlay = final: _: {{ stowage = import {REPOSITORY}/nix/lib.nix {{ pkgs = final; }}; }};
           pkgs = import {packages} {{ system = \"x86_64-linux\"; overlays = [ overlay ]; }};
           inherit (import {REPOSITORY}/tests/e2e/names.nix {{ inherit pkgs; }}) packageSet anywhere;
           set = packageSet;
           image = arguments: pkgs.stowage.buildImageFromNames ({{ name = \"a\"; }} // arguments);
         in {expression}"
    );
    // Only this mode writes derivations.
    let mode = "--read-write-mode";
    let options = ["--exec", "nix-instantiate", "--eval", mode, "--strict", "--json", "--expr"];
    nix(&[&options[..], &[&expression]].concat()).output().unwrap()
}

fn value(expression: &str) -> Value {
    let output = evaluate(expression);
    assert!(output.status.success(), "{expression}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn evaluation_error(expression: &str) -> String {
    let output = evaluate(expression);
    assert!(!output.status.success(), "{expression}: {:?}", output.stdout);
    stderr(&output)
}

/// Builds a derivation, and returns the path of its output.
fn realise(derivation: &Value) -> String {
    let derivation = derivation.as_str().unwrap();
    run(&mut nix(&["--exec", "nix-store", "--realise", derivation])).trim().to_owned()
}

#[test]
fn a_shell_has_what_was_asked_for_and_what_programs_expect() {
    let docker = Docker::start();
    let image = image("shell");
    docker.load(&image);
    assert!(image.reference().starts_with("names/shell/git/curl:"), "{}", image.reference());
    let inspected = docker.run(&["image", "inspect", &image.reference()]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected[0]["Config"]["Cmd"], json!(["bash"]));

    let shell = |script: &str| docker.container(&image.reference(), &["bash", "-euc", script]);
    assert!(shell("git --version").starts_with("git version "));
    // Packages with the same directories each keep their files.
    shell("test -d /share/git-core; test -d /share/debianutils");
    assert!(shell("curl --version").starts_with("curl "));
    assert_eq!(shell("sponge"), "sponge is there\n");
    assert_eq!(
        shell("stat -c %a-%u-%g /tmp; cd /tmp; mktemp -u | cut -c 1-9"),
        "1777-0-0\n/tmp/tmp.\n"
    );
    assert_eq!(shell("test -s $SSL_CERT_FILE; test -s /etc/protocols; echo both"), "both\n");
    let script = "printf '#!/usr/bin/env bash\\necho by env\\n' > /tmp/s; chmod +x /tmp/s; /tmp/s";
    assert_eq!(shell(script), "by env\n");
    // The command is bash, whose input ends at once.
    assert_eq!(docker.container(&image.reference(), &[]), "");
}

#[test]
fn a_container_may_be_run_by_another_user() {
    let docker = Docker::start();
    docker.load(&image("ofUser"));
    let script = "id; touch ~/f /tmp/f; test -s /etc/protocols; test -s $SSL_CERT_FILE";
    assert_eq!(
        docker.container("of-user:v1", &["bash", "-euc", script]),
        "uid=1001(app) gid=1001(app) groups=1001(app)\n"
    );
}

#[test]
fn one_program_is_there_alone() {
    let docker = Docker::start();
    let image = image("hello");
    docker.load(&image);
    assert_eq!(image.reference(), "hello:v1");
    assert_eq!(docker.container("hello:v1", &["hello"]), "Hello, world!\n");
    assert_eq!(docker.container("hello:v1", &["/usr/bin/env", "hello"]), "Hello, world!\n");
    // The image does not have the other programs of the package that has /usr/bin/env.
    let failed = docker.command(&["run", "--rm", "--network=none", "hello:v1", "ls"]).output();
    assert!(!failed.unwrap().status.success());
}

#[test]
fn packages_are_found_by_odd_names() {
    let docker = Docker::start();
    let image = image("odd");
    docker.load(&image);
    assert!(image.spec.layers.len() <= 3, "{}", image.spec.layers.len());
    let printed = docker.container(
        &image.reference(),
        &["bash", "-euc", "requests; odd; hlint; nested; 7zz; cat /home/file; stat -c '%a %u %g' /tmp /home/file; ls /etc"],
    );
    let found = "requests is there\nodd is there\nhlint is there\nnested is there\n7zz is there\n";
    let own = "the \"owner's\" own\n1777 1000 100\n444 1000 100\n";
    assert!(printed.starts_with(&format!("{found}{own}")), "{printed}");
    assert!(printed.contains("\nservices\n") && !printed.contains("\nprotocols\n"), "{printed}");
}

/// Checks an image of another machine's packages, which is made here by programs of this machine.
#[test]
fn arm64_is_what_an_image_is_for() {
    let arguments = r#"{ packages = [ "arm64" "here" ]; pkgSource = "path!${anywhere}"; system = "x86_64-linux"; }"#;
    let spec_file = realise(&value(&format!("(image {arguments}).spec.drvPath")));
    let image = ImageSpec::read(Path::new(&spec_file)).unwrap();
    let root = image.sources.iter().find(|source| source.path.name().ends_with("system")).unwrap();
    let file = stowage::store::Store::default().physical(&root.path).join("system");
    assert_eq!(fs::read_to_string(file).unwrap(), "aarch64-linux");
    let spec: Value = serde_json::from_slice(&image.to_json()).unwrap();
    assert_eq!(spec["platform"]["architecture"], "arm64");

    // The package set can be given, or be the library's own.
    for source in ["", "pkgs = set;"] {
        for how in [
            r#"packages = [ "arm64" "hello" ];"#,
            r#"packages = [ "hello" ]; system = "aarch64-linux";"#,
        ] {
            let derivation = value(&format!("(image {{ {source} {how} }}).spec.drvPath"));
            let shown = run(&mut nix(&["show-derivation", derivation.as_str().unwrap()]));
            assert!(shown.contains(r#"\"architecture\":\"arm64\""#), "{shown}");
            assert!(shown.contains(r#""system": "x86_64-linux""#), "{shown}");
        }
    }
}

#[test]
fn missing_names_are_all_told() {
    let arguments = r#"{ pkgs = set; packages = [
        "hello" "nonsense" "lib" "python3Packages" "python3Packages.nonsense" "number" "number.one"
        "hello.nonsense" "nonsense" "stdenv.mkDerivation" "8zz" "shell" "Arm64" "-"
    ]; }"#;
    let missing = json!([
        "nonsense",
        "lib",
        "python3Packages",
        "python3Packages.nonsense",
        "number",
        "number.one",
        "hello.nonsense",
        "stdenv.mkDerivation",
        "8zz",
        "Arm64",
        "-"
    ]);
    assert_eq!(value(&format!("(image {arguments}).missing")), missing);
    let file = realise(&value(&format!("(image {arguments}).json.drvPath")));
    let found: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(found, json!({"error": "not_found", "pkgs": missing}));

    for attribute in ["drvPath", "sbom", "imageTag", "copyToRegistry"] {
        let error = evaluation_error(&format!("(image {arguments}).{attribute}"));
        assert!(
            error.contains("there are no packages by the names `nonsense`, `lib`, "),
            "{error}"
        );
    }
    assert_eq!(value(r#"(image { packages = [ ]; }).missing"#), json!([]));
    // A package that belongs in every image may be missing too.
    let bare = r#"image { packages = [ "hello" ]; pkgs = { inherit (pkgs) stdenv hello; }; }"#;
    assert_eq!(value(&format!("({bare}).missing")), json!(["cacert", "iana-etc", "coreutils"]));
}

/// Checks that the list of packages describes those of another package set than the library's: packages that the C
/// library stands for here are no inputs of others, and a package that only a text mentions has no other way.
#[test]
fn a_list_describes_the_packages_of_the_given_set() {
    let facts = value(
        r#"let
             libc = set.writeTextDir "libc" "" // { pname = "libc-of-set"; version = "9"; };
             mentioned = set.writeTextDir "text" "" // { pname = "mentioned"; version = "3"; };
             other = set // {
               stdenv = set.stdenv // { cc = { inherit libc; }; };
               text = mentioned;
               program = set.writeShellScriptBin "program" "cat ${mentioned}/text";
             };
             sbom = (image { packages = [ "program" ]; pkgs = other; }).sbom;
             path = drv: builtins.unsafeDiscardStringContext drv.outPath;
             facts = builtins.fromJSON (builtins.unsafeDiscardStringContext sbom.facts.text);
           in
           map (drv: facts.${path drv} or null) [ libc mentioned other.program set.coreutils ]"#,
    );
    let versions: Vec<_> =
        facts.as_array().unwrap().iter().map(|facts| facts["version"].clone()).collect();
    assert_eq!(facts[0]["pname"], "libc-of-set", "{facts}");
    assert_eq!(versions[..2], [json!("9"), json!("3")], "{facts}");
    assert!(facts[2].is_object(), "{facts}");
    assert!(versions[3].is_string(), "{facts}");
}

/// Checks that the JSON has the manifest that a registry serves, and the origin of each blob.
#[test]
fn json_leads_to_every_blob() {
    let image = image("hello");
    let json = fs::read(build(&format!("{}.json", image.attribute))).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", directory.path().join("image").display());
    run(stowage(&["copy", "--quiet"]).arg(&image.spec_file).arg(target));
    let copied = |name: &str| fs::read(directory.path().join("image").join(name)).unwrap();
    let manifest: Value = serde_json::from_slice(&copied("manifest.json")).unwrap();
    assert_eq!(json["manifest"], manifest);

    let locations = json["layerLocations"].as_object().unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(locations.len(), layers.len() + 1);
    for blob in layers.iter().chain([&manifest["config"]]) {
        let digest = blob["digest"].as_str().unwrap();
        let location = &locations[digest];
        let bytes = match location["content"].as_str() {
            Some(content) => content.as_bytes().to_vec(),
            None => {
                assert_eq!(layers[location["layer"].as_u64().unwrap() as usize], *blob);
                let arguments = ["manifest", location["spec"].as_str().unwrap(), "--blob", digest];
                stowage(&arguments).output().unwrap().stdout
            }
        };
        assert_eq!(bytes, copied(digest.strip_prefix("sha256:").unwrap()), "{digest}");
    }
}

#[test]
fn names_that_are_none_are_refused() {
    for (packages, message) in [
        (r#"[ "a b" ]"#, r#""a b" is no name of a package, which has letters"#),
        (r#"[ "" ]"#, r#""" is no name of a package"#),
        (r#"[ "../hello" ]"#, r#""../hello" is no name"#),
        (r#"[ "$(id)" ]"#, r#""$(id)" is no name"#),
        (r#"[ "hello\n" ]"#, r#""hello\n" is no name"#),
        (r#"[ "héllo" ]"#, r#""héllo" is no name"#),
        (r#"[ "\${abort}" ]"#, "is no name"),
        (r#"[ "." ]"#, "nothing is before, between or behind a dot"),
        (r#"[ ".hello" ]"#, "nothing is before, between or behind a dot"),
        (r#"[ "python3Packages..requests" ]"#, "nothing is before, between or behind a dot"),
        (r#"[ "hello." ]"#, "nothing is before, between or behind a dot"),
        (r#"[ "hello" 1 ]"#, "must be a list of names, and one of these is of the type `int`"),
        (r#"[ pkgs.hello ]"#, "must be a list of names, and one of these is of the type `set`"),
        (r#"{ }"#, "must be a list of names, or such a list as JSON"),
        (r#""{ }""#, "must be a list of names, or such a list as JSON"),
        (r#""hello""#, "must be a list of names, or such a list as JSON"),
        (r#""[ null ]""#, "must be a list of names, and one of these is of the type `null`"),
        (r#""[ \"a/b\" ]""#, r#""a/b" is no name"#),
        (
            r#"[ "hello" "arm64" ]"#,
            "`arm64` is the architecture of an image, and must be the first",
        ),
        (
            r#"[ "arm64" "arm64" ]"#,
            "`arm64` is the architecture of an image, and must be the first",
        ),
        (
            r#"builtins.genList (n: "a${toString n}") 101"#,
            "an image may have 100 packages, not 101",
        ),
        (
            r#"[ (builtins.concatStringsSep "" (builtins.genList (_: "a") 300000)) ]"#,
            "a name of a package has 300000 characters, and may have 255",
        ),
    ] {
        let error = evaluation_error(&format!("(image {{ packages = {packages}; }}).missing"));
        assert!(error.contains(message), "{packages}: {error}");
    }
}

#[test]
fn errors_of_packages_are_passed_on() {
    for (packages, message) in [
        (r#"[ "removed" ]"#, "removed: use git"),
        (r#"[ "REMOVED" ]"#, "removed: use git"),
        (r#"[ "python3packages.broken" ]"#, "it is broken"),
        (r#"[ "unfree" ]"#, "its licence is unfree"),
    ] {
        let image = format!("(image {{ pkgs = set; packages = {packages}; }})");
        let error = evaluation_error(&format!("{image}.json.drvPath"));
        assert!(error.contains(message), "{packages}: {error}");
    }
    let image =
        r#"(image { packages = [ "hello" ]; extraCommands = "echo went wrong >&2; exit 3"; })"#;
    let derivation = value(&format!("{image}.json.drvPath"));
    let built =
        nix(&["--exec", "nix-store", "--realise", derivation.as_str().unwrap()]).output().unwrap();
    assert!(!built.status.success());
    assert!(stderr(&built).contains("went wrong"), "{}", stderr(&built));
}

/// Checks package sources that are a directory or a repository. Nothing of them is read before it
/// is needed.
#[test]
fn packages_are_from_where_the_source_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let commit = |version: &str| {
        let set = format!(
            "{{ system }}: {{ stdenv.hostPlatform = {{ inherit system; go.GOARCH = \"amd64\"; }}; }}
             // builtins.listToAttrs (map (name: {{ inherit name; value = {{ type = \"derivation\";
             outPath = builtins.toFile name \"{version}\"; }}; }}) [ \"hello\" \"cacert\" \"iana-etc\" \"coreutils\" ])"
        );
        fs::write(path.join("default.nix"), set).unwrap();
        git(path, &["add", "default.nix"]);
        git(path, &["commit", "--quiet", "--message", version]);
        git(path, &["rev-parse", "HEAD"]).trim().to_owned()
    };
    git(path, &["init", "--quiet", "--initial-branch", "packages"]);
    let first = commit("first");
    git(path, &["tag", "v1"]);
    commit("second");

    let path = path.display();
    for (source, expected) in [
        (format!("path!{path}"), "second"),
        (format!("git!file://{path}!packages"), "second"),
        (format!("git!file://{path}!refs/tags/v1"), "first"),
        (format!("git!file://{path}!{first}"), "first"),
    ] {
        let derivation = value(&format!(
            "(image {{ packages = [ \"hello\" ]; pkgSource = \"{source}\"; }}).spec.drvPath"
        ));
        let inputs = run(&mut nix(&["--exec", "nix-store", "-qR", derivation.as_str().unwrap()]));
        let hello = inputs.lines().find(|path| path.ends_with("-hello")).unwrap();
        assert_eq!(fs::read_to_string(hello).unwrap(), expected, "{source}");
    }

    for (source, message) in [
        ("", "`pkgSource` must be `nixpkgs!CHANNEL`"),
        ("nixpkgs", "`pkgSource` must be"),
        ("nixpkgs!", "`pkgSource` must be"),
        ("nixpkgs!../../other/repository", "`pkgSource` must be"),
        ("git!only", "`pkgSource` must be"),
        ("path!/a!/b", "`pkgSource` must be"),
        ("svn!a", "`pkgSource` must be"),
        ("path!/nonexistent", "/nonexistent"),
    ] {
        let arguments = format!("{{ packages = [ ]; pkgSource = \"{source}\"; }}");
        let error = evaluation_error(&format!("(image {arguments}).missing"));
        assert!(error.contains(message), "{source}: {error}");
    }
    let bare = r#"(image { packages = [ "arm64" ]; pkgs = { inherit (pkgs) stdenv; }; }).missing"#;
    let error = evaluation_error(bare);
    assert!(error.contains("`pkgs` are for x86_64-linux, and have no `path`"), "{error}");
    let both = r#"(image { pkgs = set; pkgSource = "path!/a"; }).missing"#;
    let error = evaluation_error(both);
    assert!(error.contains("`pkgs` and `pkgSource` both say"), "{error}");
    // A source that is not needed is not fetched, and names are checked first.
    let wrong =
        r#"(image { packages = [ "a b" ]; pkgSource = "nixpkgs!nixos-unstable"; }).missing"#;
    assert!(evaluation_error(wrong).contains("is no name"));
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(["-c", "user.name=a", "-c", "user.email=a@example.org"]);
    run(command.args(arguments))
}

/// Checks that images of different names, with the same popularity data, have most of their common
/// paths in the same layers.
#[test]
fn images_of_other_names_share_layers() {
    let [one, other] = ["popularOne", "popularOther"].map(image);
    assert_ne!(one.evaluate("imageName"), other.evaluate("imageName"));
    let theirs: BTreeSet<_> = other.diff_ids().into_iter().collect();
    let layers = one.spec.layers.iter();
    let shared: Vec<_> =
        layers.filter(|layer| theirs.contains(&layer.diff_id.to_string())).collect();
    let is_shared = |package: &str| {
        let mut paths = shared.iter().flat_map(|layer| layer.sources());
        paths.any(|path| path.name().starts_with(package))
    };
    for package in ["glibc-2", "coreutils-", "libssl3-"] {
        assert!(is_shared(package), "{package} is in no common layer");
    }
    assert!(!is_shared("git-") && shared.len() >= 4, "{}", shared.len());

    let sources = one.spec.sources.iter();
    let in_both = sources.filter(|info| other.spec.source(&info.path).is_some());
    let in_both: u64 = in_both.map(|info| info.nar_size).sum();
    let bytes: u64 = shared.iter().map(|layer| layer.size).sum();
    assert!(bytes * 10 > in_both * 8, "{bytes} of {in_both} bytes are shared");
}
