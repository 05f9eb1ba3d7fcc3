use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::registry::Registry;
use crate::schema;
use crate::support::{Docker, Image, REPOSITORY, program_of, run, stderr, stowage};

fn key(name: &str) -> String {
    format!("{REPOSITORY}/tests/it/keys/{name}")
}

/// Returns cosign of a Debian release.
fn cosign(release: &str, home: &Path) -> Command {
    let mut command = program_of(release, "cosign");
    command.env("HOME", home).env("COSIGN_PASSWORD", "secret").current_dir(home);
    command
}

fn cosign_verifies(release: &str, home: &Path, key: &str, image: &str) -> bool {
    let arguments = ["verify", "--insecure-ignore-tlog=true", "--allow-insecure-registry", "--key"];
    let output = cosign(release, home).args(arguments).args([key, image]).output().unwrap();
    if !output.status.success() {
        eprintln!("cosign of {release}: {}", stderr(&output));
    }
    output.status.success()
}

/// Pushes an image, and returns its name with its digest.
fn push(image: &Image, name: &str, more: &[&str]) -> String {
    let digest = tempfile::NamedTempFile::new().unwrap();
    let file = digest.path().to_str().unwrap();
    let spec = image.spec_file.to_str().unwrap();
    run(stowage(&["push", spec, name, "--quiet", "--digestfile", file]).args(more));
    let digest = std::fs::read_to_string(file).unwrap();
    format!("{}@{digest}", name.rsplit_once(':').unwrap().0)
}

fn verify(arguments: &[&str]) -> Output {
    stowage(&["verify"]).args(arguments).output().unwrap()
}

#[test]
fn cosign_verifies_what_was_signed_here() {
    let (registry, home) = (Registry::start(), tempfile::tempdir().unwrap());
    let image = Image::named("configOnly");
    let name = format!("{}/app:v1", registry.host);
    let by_digest = push(&image, &name, &["--sign-key", &key("test.key")]);
    for release in ["trixie", "sid"] {
        for image in [&name, &by_digest] {
            assert!(cosign_verifies(release, home.path(), &key("test.pub"), image), "{image}");
        }
        assert!(!cosign_verifies(release, home.path(), &key("other.pub"), &name));
    }
    // Signing again by the same key, which is encrypted here, sends nothing.
    let again = run(stowage(&["sign", &name, "--json", "--key", &key("test.cosign.key")])
        .env("COSIGN_PASSWORD", "secret"));
    let again = schema::checked("sign", &again);
    assert_eq!(again["sent"], 0);
    let from_environment = ["sign", &name, "--json", "--key", "env://SIGNING_KEY"];
    let text = std::fs::read_to_string(key("test.key")).unwrap();
    let again = run(stowage(&from_environment).env("SIGNING_KEY", text));
    assert!(again.contains("\"sent\": 0"), "{again}");

    let by_key = |name: &str, public: &str| verify(&[name, "--key", &key(public)]);
    assert!(by_key(&name, "test.pub").status.success());
    let other = by_key(&name, "other.pub");
    assert!(stderr(&other).contains("is not signed by this key"), "{}", stderr(&other));
    let unsigned = format!("{}/unsigned:v1", registry.host);
    push(&Image::named("listed"), &unsigned, &[]);
    let output = by_key(&unsigned, "test.pub");
    assert!(stderr(&output).contains("it has no signature"), "{}", stderr(&output));
    assert!(!cosign_verifies("sid", home.path(), &key("test.pub"), &unsigned));
}

/// Checks the bytes of both forms of a signature by a program that knows neither.
#[test]
fn openssl_verifies_the_bytes_of_a_signature() {
    let registry = Registry::start();
    let name = format!("{}/app:v1", registry.host);
    let by_digest = push(&Image::named("configOnly"), &name, &["--sign-key", &key("test.key")]);
    let get = |path: &str| {
        let url = format!("http://{}/v2/app/{path}", registry.host);
        let accept = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
        run(Command::new("curl").args(["--silent", "--fail", "--header", accept, &url]))
    };
    let json = |path: &str| -> Value { serde_json::from_str(&get(path)).unwrap() };
    let layer =
        |manifest: &Value| format!("blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap());
    let bytes = |text: &Value| BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap();
    let tag = by_digest.rsplit_once('@').unwrap().1.replace(':', "-");

    // cosign 2's form: the signature is an annotation, and the layer is what was signed.
    let manifest = json(&format!("manifests/{tag}.sig"));
    let signature = &manifest["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"];
    let old = (get(&layer(&manifest)).into_bytes(), bytes(signature));
    // cosign 3's form: an envelope, whose signature covers its type and its payload with their
    // lengths (DSSE, "PAE").
    let index = json(&format!("manifests/{tag}"));
    let manifest =
        json(&format!("manifests/{}", index["manifests"][0]["digest"].as_str().unwrap()));
    let envelope = &json(&layer(&manifest))["dsseEnvelope"];
    let (kind, payload) = (envelope["payloadType"].as_str().unwrap(), bytes(&envelope["payload"]));
    let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    signed.extend(payload);
    let new = (signed, bytes(&envelope["signatures"][0]["sig"]));

    let directory = tempfile::tempdir().unwrap();
    for (mut signed, signature) in [old, new] {
        let is_valid = |signed: &[u8], public: &str| {
            std::fs::write(directory.path().join("signed"), signed).unwrap();
            std::fs::write(directory.path().join("signature"), &signature).unwrap();
            let arguments = ["dgst", "-sha256", "-signature", "signature", "-verify"];
            let mut openssl = Command::new("openssl");
            openssl.current_dir(directory.path()).args(arguments).args([&key(public), "signed"]);
            openssl.output().unwrap().status.success()
        };
        assert!(is_valid(&signed, "test.pub"));
        assert!(!is_valid(&signed, "other.pub"));
        *signed.last_mut().unwrap() ^= 1;
        assert!(!is_valid(&signed, "test.pub"));
    }
}

#[test]
fn what_cosign_signed_is_verified() {
    let (registry, home) = (Registry::start(), tempfile::tempdir().unwrap());
    let image = Image::named("configOnly");
    for (release, more) in [("trixie", "--tlog-upload=false"), ("sid", "--signing-config=sc.json")]
    {
        if release == "sid" {
            run(cosign(release, home.path()).args([
                "signing-config",
                "create",
                "--out",
                "sc.json",
            ]));
        }
        let name = format!("{}/by-{release}:v1", registry.host);
        let by_digest = push(&image, &name, &[]);
        let key_file = key("test.cosign.key");
        let arguments = ["sign", "--yes", "--allow-insecure-registry", "--key", &key_file, more];
        run(cosign(release, home.path()).args(arguments).arg(&by_digest));
        let output = verify(&[&name, "--key", &key("test.pub")]);
        assert!(output.status.success(), "{release}: {}", stderr(&output));
        assert!(!verify(&[&name, "--key", &key("other.pub")]).status.success());
        // This program's signature is added beside those of cosign.
        run(&mut stowage(&["sign", &name, "--key", &key("test.key")]));
        assert!(cosign_verifies("trixie", home.path(), &key("test.pub"), &name));
        assert!(cosign_verifies("sid", home.path(), &key("test.pub"), &name));
    }
}

/// Checks signed statements about the flake that an image is from, and base images that are
/// verified by a key.
#[test]
fn statements_are_signed_and_bases_verified() {
    let (registry, home) = (Registry::start(), tempfile::tempdir().unwrap());
    let image = Image::named("listed");
    let spec = image.spec_file.to_str().unwrap();
    let name = format!("{}/app:v1", registry.host);
    push(&image, &name, &["--sign-key", &key("test.key")]);
    let lock = home.path().join("flake.lock");
    let locked = r#"{"type":"github","owner":"a","repo":"b","rev":"c","narHash":"sha256-d"}"#;
    let text = format!(
        r#"{{"version":7,"root":"root","nodes":{{"root":{{}},"b":{{"locked":{locked}}}}}}}"#
    );
    std::fs::write(&lock, text).unwrap();
    let statement =
        run(stowage(&["provenance", spec, "--flake", "github:x/y", "--attribute", "a"]).args([
            "--builder-id",
            "https://ci.example",
            "--lock",
            lock.to_str().unwrap(),
        ]));
    let file = home.path().join("provenance.json");
    std::fs::write(&file, statement).unwrap();
    let list = crate::support::build(&format!("{}.sbom", image.attribute));
    let attest = |expected: &str| {
        let said = run(stowage(&["sign", &name, "--json", "--key", &key("test.key")])
            .arg("--attest")
            .arg(&file)
            .arg("--attest")
            .arg(&list));
        assert!(said.contains(expected), "{said}");
    };
    attest("\"sent\": 2");
    attest("\"sent\": 0");
    for kind in ["slsaprovenance1", "spdxjson"] {
        let arguments =
            ["verify-attestation", "--insecure-ignore-tlog=true", "--allow-insecure-registry"];
        for (public, expected) in [("test.pub", true), ("other.pub", false)] {
            let public = key(public);
            let more = ["--type", kind, "--key", &public, &name];
            let output = cosign("sid", home.path()).args(arguments).args(more).output().unwrap();
            assert_eq!(output.status.success(), expected, "{kind}: {}", stderr(&output));
        }
    }
    let prefetch = |public: &str| {
        stowage(&["prefetch", &name, "--quiet", "--key", &key(public)]).output().unwrap()
    };
    let output = prefetch("test.pub");
    assert!(output.status.success(), "{}", stderr(&output));
    let output = prefetch("other.pub");
    assert!(stderr(&output).contains("is not signed by this key"), "{}", stderr(&output));
}

/// Checks that BuildKit's own program finds an SBOM and a provenance statement beside an image, and that clients still
/// find the image.
#[test]
fn buildx_finds_statements_in_an_index() {
    let (registry, home) = (Registry::start(), tempfile::tempdir().unwrap());
    let image = Image::named("listed");
    let list = crate::support::build(&format!("{}.sbom", image.attribute));
    let name = format!("{}/app:v1", registry.host);
    let statement = home.path().join("provenance.json");
    let predicate = r#"{"buildDefinition":{"buildType":"https://ci.example/type"}}"#;
    let text = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://slsa.dev/provenance/v1","predicate":{predicate}}}"#
    );
    std::fs::write(&statement, text).unwrap();
    let (list, statement) = (list.to_str().unwrap(), statement.to_str().unwrap());
    let spec = image.spec_file.to_str().unwrap();
    let options = ["--attestation", list, "--attestation", statement, "--json"];
    let push =
        || run(stowage(&["push", spec, &name, "--sign-key", &key("test.key")]).args(options));
    let first = schema::checked("copy", &push());
    let again = schema::checked("copy", &push());
    assert_eq!(again["manifestDigest"], first["manifestDigest"]);
    let inspect = |format: &str| {
        let mut buildx = program_of("sid", "docker-buildx");
        buildx.env("HOME", home.path()).args(["imagetools", "inspect", "--format", format, &name]);
        serde_json::from_str::<Value>(&run(&mut buildx)).unwrap()
    };
    let found = inspect("{{json .SBOM.SPDX}}");
    assert_eq!(found, serde_json::from_slice::<Value>(&std::fs::read(list).unwrap()).unwrap());
    assert_eq!(
        inspect("{{json .Provenance.SLSA}}")["buildDefinition"]["buildType"],
        "https://ci.example/type"
    );
    // The clients of this program, and others, take the image from the index.
    run(&mut stowage(&["verify", &format!("docker://{name}"), "--against", spec]));
    run(&mut stowage(&["verify", &name, "--key", &key("test.pub")]));
    run(&mut stowage(&["prefetch", &name, "--quiet", "--key", &key("test.pub")]));
    assert!(cosign_verifies("sid", home.path(), &key("test.pub"), &name));
    let docker = Docker::start();
    docker.run(&["pull", "--quiet", &name]);
    let copied = format!("dir:{}", home.path().join("copied").display());
    let skopeo = ["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"];
    run(Command::new("skopeo").args(skopeo).args([&format!("docker://{name}"), &copied]));
}

/// Checks a registry that does not keep the list of documents that refer to an image: all clients
/// then write the same list under a tag.
#[test]
fn eight_attach_at_a_time() {
    let registry = Registry::start();
    let name = format!("{}/app:v1", registry.host);
    let by_digest = push(&Image::named("configOnly"), &name, &[]);
    let directory = tempfile::tempdir().unwrap();
    let attach = |number: usize| {
        let file = directory.path().join(format!("{number}.txt"));
        std::fs::write(&file, format!("{number}")).unwrap();
        let attach = format!("{}:text/x-{number}", file.display());
        run(&mut stowage(&["sign", &name, "--json", "--attach", &attach]))
    };
    thread::scope(|scope| {
        (0..8).for_each(|number| drop(scope.spawn(move || attach(number))));
    });
    let tag = by_digest.rsplit_once('@').unwrap().1.replace(':', "-");
    let url = format!("http://{}/v2/app/manifests/{tag}", registry.host);
    let accept = "Accept: application/vnd.oci.image.index.v1+json";
    let index = run(Command::new("curl").args(["--silent", "--fail", "--header", accept, &url]));
    let index: Value = serde_json::from_str(&index).unwrap();
    let types = index["manifests"].as_array().unwrap().iter();
    let mut types: Vec<_> = types.map(|entry| entry["artifactType"].as_str().unwrap()).collect();
    types.sort_unstable();
    assert_eq!(types, (0..8).map(|number| format!("text/x-{number}")).collect::<Vec<_>>());
    assert!(attach(3).contains("\"sent\": 0"));
}

#[test]
fn images_are_proved_against_what_is_built() {
    let (image, other) = (Image::named("configOnly"), Image::named("listed"));
    let (spec, other_spec) = (image.spec_file.to_str().unwrap(), other.spec_file.to_str().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let registry = Registry::start();
    let docker = Docker::start();
    docker.load(&image);
    let pushed = format!("docker://{}/app:v1", registry.host);
    let archive = format!("docker-archive:{}:e2e/config-only:v1", at("archive.tar"));
    let places = [
        pushed.clone(),
        archive,
        format!("oci:{}:v1", at("layout")),
        format!("oci-archive:{}:v1", at("layout.tar")),
        format!("dir:{}", at("dir")),
    ];
    let on_docker = |arguments: &[&str]| {
        let mut command = stowage(&["verify"]);
        command.args(arguments).env("DOCKER_HOST", docker.host()).output().unwrap()
    };
    for place in &places {
        run(&mut stowage(&["copy", spec, place, "--quiet"]));
    }
    // The image is the same if another program compresses it.
    let again = format!("docker://{}/compressed:v1", registry.host);
    let skopeo =
        ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--dest-compress"];
    let dir = &places[4];
    run(Command::new("skopeo").args(skopeo).args([dir, &again]));
    let loaded = format!("docker-daemon:{}", image.reference());
    for place in places.iter().chain([&again, &loaded]) {
        let output = on_docker(&[place, "--against", spec]);
        assert!(output.status.success(), "{place}: {}", stderr(&output));
        let output = on_docker(&[place, "--against", other_spec]);
        assert!(!output.status.success(), "{place}");
        let said = String::from_utf8(output.stdout).unwrap();
        for expected in
            ["configuration differs in config.", "layer 1: expected sha256:", "/nix/store/"]
        {
            assert!(said.contains(expected), "{place}: {said}");
        }
    }
    let nowhere: PathBuf = at("nowhere").into();
    assert!(!verify(&[nowhere.to_str().unwrap(), "--against", spec]).status.success());
}

/// Checks the policy in the manual, by which podman, CRI-O and skopeo admit only signed images.
#[test]
fn a_policy_admits_only_what_was_signed() {
    let page = std::fs::read_to_string(format!("{REPOSITORY}/docs/signed-cluster.md")).unwrap();
    let (registry, home) = (Registry::start(), tempfile::tempdir().unwrap());
    let team = format!("{}/team", registry.host);
    // Writes the file of the manual that has a text, for this registry and a key.
    let file = |language: &str, text: &str, path: &str, public: &str| {
        let mut blocks = page.split("```").filter_map(|block| block.strip_prefix(language));
        let block = blocks.find(|block| block.contains(text)).unwrap();
        let block = block.replace("registry.example/team", &team);
        let path = home.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, block.replace("/etc/containers/cosign.pub", &key(public))).unwrap();
        path
    };
    let lookaside = file("yaml\n", "use-sigstore-attachments", "registries.d/here.yaml", "");
    for (name, more) in [("signed", &["--sign-key", &key("test.key")][..]), ("unsigned", &[])] {
        push(&Image::named("configOnly"), &format!("{team}/{name}:v1"), more);
    }
    for (public, name, refusal) in [
        ("test.pub", "signed", None),
        ("other.pub", "signed", Some("signature verification failed")),
        ("test.pub", "unsigned", Some("no signature exists")),
    ] {
        let policy = file("json\n", "sigstoreSigned", "policy.json", public);
        let mut skopeo = program_of("trixie", "skopeo");
        skopeo.arg("--policy").arg(policy);
        skopeo.arg("--registries.d").arg(lookaside.parent().unwrap());
        skopeo.args(["copy", "--quiet", "--src-tls-verify=false"]);
        skopeo.arg(format!("docker://{team}/{name}:v1"));
        let target = format!("dir:{}", home.path().join(format!("{public}-{name}")).display());
        let output = skopeo.arg(target).output().unwrap();
        let said = stderr(&output);
        match refusal {
            None => assert!(output.status.success(), "{said}"),
            Some(refusal) => assert!(!output.status.success() && said.contains(refusal), "{said}"),
        }
    }
}
