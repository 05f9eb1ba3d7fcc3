use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use stowage::closure::Closure;
use stowage::layer::nar_hash;
use stowage::oci::ImageSpec;
use stowage::store::Store;

use crate::support::{Image, build, check, nix, run, stowage};

/// Checks that the script and the spec are the same, bit for bit.
#[test]
fn a_rebuild_is_identical() {
    for attribute in ["dockerImage", "dockerImage.spec"] {
        build(attribute);
        run(&mut nix(&["build", "--no-link", "--rebuild", &format!(".#{attribute}")]));
    }
}

/// Checks that digests taken from an earlier image are right (`Image` makes all layers again), and
/// that the result does not refer to that image.
#[test]
fn an_image_after_another_has_its_layers() {
    let (one, two) = (Image::named("app1"), Image::named("app2AfterApp1"));
    let (before, after) = (one.diff_ids(), two.diff_ids());
    let same = after.iter().filter(|layer| before.contains(layer)).count();
    assert_eq!((after.len(), same), (before.len(), before.len() - 1));
    let query = ["--exec", "nix-store", "--query", "--references"];
    let references = run(nix(&query).arg(&two.spec_file));
    assert!(!references.contains(one.spec_file.to_str().unwrap()), "{references}");
}

#[test]
fn the_tag_is_the_hash_of_the_output() {
    let image = Image::named("configOnly");
    let name = image.path.file_name().unwrap().to_str().unwrap().to_owned();
    let hash = name.split('-').next().unwrap();
    assert_eq!(image.reference(), format!("e2e/config-only:{hash}"));
    let is_exe = format!(".#{}.isExe", image.attribute);
    assert_eq!(run(&mut nix(&["eval", "--json", &is_exe])).trim(), "true");
}

/// Checks that the script refers to the image's store paths, which protects them from garbage
/// collection.
#[test]
fn the_output_refers_to_every_store_path_of_the_image() {
    let image = Image::at("dockerImage");
    let closure = run(&mut nix(&[
        "--exec",
        "nix-store",
        "--query",
        "--requisites",
        image.path.to_str().unwrap(),
    ]));
    let closure: BTreeSet<_> = closure.lines().collect();
    let store = Store::default();
    let sources: BTreeSet<_> =
        image.spec.sources.iter().map(|source| store.print(&source.path)).collect();
    assert!(sources.len() > 10);
    for path in &sources {
        assert!(closure.contains(&path[..]), "{path}");
    }
}

#[test]
fn no_image_holds_the_program_or_its_own_spec() {
    let program = build("stowage");
    let image = Image::at("dockerImage");
    let paths: Vec<_> =
        image.spec.sources.iter().map(|source| Store::default().physical(&source.path)).collect();
    assert!(
        !paths.contains(&program)
            && !paths.contains(&image.spec_file)
            && !paths.contains(&image.path)
    );
    assert!(paths.iter().all(|path| !path.to_string_lossy().ends_with("-config.json")));
}

#[test]
fn nar_hashes_are_those_that_nix_registered() {
    let image = Image::at("dockerImage");
    for source in &image.spec.sources {
        assert_eq!(
            nar_hash(&Store::default(), &source.path).unwrap(),
            source.nar_hash,
            "{}",
            source.path
        );
    }
}

/// Checks that `closureInfo` and `exportReferencesGraph` give the same closure.
#[test]
fn a_registration_gives_the_same_closure() {
    let registration = build("checks.x86_64-linux.registration").join("registration");
    let closure = Closure::read(&registration).unwrap();
    let image = Image::named("app1");
    let spec_sources: BTreeSet<_> = image.spec.sources.iter().map(|source| &source.path).collect();
    assert!(closure.infos().iter().all(|info| spec_sources.contains(&info.path)));

    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("image.json");
    run(stowage(&["build", "--output"]).arg(&output).arg("--closure").arg(&registration));
    let spec = ImageSpec::read(&output).unwrap();
    assert_eq!(spec.sources.len(), closure.infos().len());
    run(stowage(&["verify"]).arg(&output));
}

/// Checks that the number of threads and the user do not change the image.
#[test]
fn the_environment_does_not_matter() {
    let registration = build("checks.x86_64-linux.registration").join("registration");
    let directory = tempfile::tempdir().unwrap();
    let mut specs = BTreeSet::new();
    for (number, (jobs, locale)) in
        [("1", "C"), ("2", "C"), ("2", "tr_TR.UTF-8")].into_iter().enumerate()
    {
        let output = directory.path().join(number.to_string());
        let arguments = ["build", "--jobs", jobs, "--output"];
        run(stowage(&arguments)
            .arg(&output)
            .arg("--closure")
            .arg(&registration)
            .env("LC_ALL", locale));
        specs.insert(std::fs::read(&output).unwrap());
    }
    assert_eq!(specs.len(), 1);
}

#[test]
fn the_output_is_an_executable_script() {
    let image = Image::named("full");
    let mode = image.path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o555);
    assert!(std::fs::read(&image.path).unwrap().starts_with(b"#!/nix/store/"));
}

/// Checks that GNU tar can read the stream, and that every layer is sorted by bytes.
#[test]
fn layers_are_sorted_by_name() {
    let image = Image::named("full");
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    image.stream_to(&archive);
    for layer in &image.spec.layers {
        let blob = format!("blobs/sha256/{}", layer.diff_id.digest().hex());
        let mut inner = std::process::Command::new("tar");
        inner.arg("--extract").arg("--to-stdout").arg("--file").arg(&archive).arg(&blob);
        let mut inner = inner.stdout(Stdio::piped()).spawn().unwrap();
        let mut list = std::process::Command::new("tar");
        let names = run(list
            .args(["--list", "--quoting-style=literal", "--file=-"])
            .env("LC_ALL", "C")
            .stdin(inner.stdout.take().unwrap()));
        inner.wait().unwrap();
        let names: Vec<_> = names.lines().map(str::as_bytes).collect();
        assert!(!names.is_empty() && names.windows(2).all(|pair| pair[0] < pair[1]), "{blob}");
    }
}

/// Checks that a script takes names in place of its own.
#[test]
fn the_script_takes_other_names() {
    let image = Image::named("configOnly");
    let mut script = std::process::Command::new(&image.path);
    let output = script.args(["--repo-tag", "other:name", "-t", "third:name"]).output().unwrap();
    let mut archive = tar::Archive::new(&output.stdout[..]);
    let manifest = archive
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .find(|entry| *entry.path_bytes() == b"manifest.json"[..]);
    let manifest: serde_json::Value = serde_json::from_reader(manifest.unwrap()).unwrap();
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["other:name", "third:name"]));
}

/// Checks that a store path is in the lowest of the layers that have it, that a layer is used once,
/// and that an image has the layers below a layer too.
#[test]
fn layers_of_build_layer_hold_each_store_path_once() {
    let image = Image::named("layered");
    let paths: Vec<_> =
        image.spec.layers.iter().flat_map(|layer| &layer.contents().unwrap().store_paths).collect();
    let unique: BTreeSet<_> = paths.iter().collect();
    assert_eq!(paths.len(), unique.len());
    let holds = |layer: usize, name: &str| image.spec.layers[layer].names().contains(name);
    assert_eq!(image.spec.layers.len(), 4);
    assert!(holds(0, "bash-") && !holds(1, "bash-") && holds(1, "coreutils-"));
    assert!(holds(2, "lower") && holds(3, "upper"));
    let history = &image.spec.history[1];
    assert_eq!(history.created_by().as_deref(), Some("tools"));
    assert_eq!(
        (history.author().as_deref(), history.comment().as_deref()),
        (Some("me"), Some("with bash"))
    );
}

#[test]
fn a_long_chain_of_layers_is_an_image() {
    let image = Image::named("chained");
    let names: Vec<_> = image.spec.layers.iter().map(|layer| layer.names()).collect();
    let expected: Vec<_> = (1..=20).map(|number| format!("file{number}")).collect();
    assert_eq!(names, expected);
}

/// Checks that scripts run on the machine that builds, for an image of any platform.
#[test]
fn a_cross_built_image_has_scripts_for_this_machine() {
    let image = Image::named("cross");
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    image.stream_to(&archive);
    let copy_to = build(&format!("{}.copyTo", image.attribute)).join("bin/copy-to");
    run(Command::new(copy_to).arg(format!("dir:{}", directory.path().join("dir").display())));
    let inspected = run(Command::new("skopeo")
        .args(["--insecure-policy", "inspect", "--config"])
        .arg(format!("docker-archive:{}", archive.display())));
    let config: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(config["architecture"], "arm64");
}

/// Checks that with `scriptPkgs` the image is for this machine, and its scripts are for another
/// one.
#[test]
fn scripts_may_be_for_another_machine() {
    let image = check("scriptsElsewhere");
    let script = build(&image);
    let [shell, program] = [0, 2].map(|line| {
        let text = std::fs::read_to_string(&script).unwrap();
        let line = text.lines().nth(line).unwrap();
        line.trim_start_matches("#!")
            .trim_start_matches("exec ")
            .split(' ')
            .next()
            .unwrap()
            .to_owned()
    });
    let copy_to =
        std::fs::read_to_string(build(&format!("{image}.copyTo")).join("bin/copy-to")).unwrap();
    assert!(copy_to.starts_with(&format!("#!{shell}\n")), "{copy_to}");
    for file in [&shell, &program] {
        // `e_machine` of an ELF header: AArch64.
        assert_eq!(std::fs::read(file).unwrap()[18], 183, "{file}");
    }
    // The program that builds the image is for this machine.
    assert_eq!(
        ImageSpec::read(&build(&format!("{image}.spec"))).unwrap().architecture.to_string(),
        "amd64"
    );
}
