use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::layer::nar_hash;
use stowage::store::{Store, StorePath};

use crate::schema;
use crate::support::{FakeStore, stderr};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry of one repository, `a/b`, which misbehaves on demand.
#[derive(Default)]
struct Fickle {
    /// The files, by the part of the path after the repository's name.
    files: BTreeMap<String, (&'static str, Vec<u8>)>,
    /// The number of bytes of a blob after which the connection breaks.
    cut: Option<usize>,
    /// True if requests for ranges are answered with these.
    parts: bool,
    /// The status of requests without a password, if one is required. Only 401 has a challenge.
    closed: Option<u16>,
    asked: Mutex<Vec<String>>,
}

impl Fickle {
    fn add(&mut self, kind: &str, media_type: &'static str, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        self.files.insert(format!("{kind}/{digest}"), (media_type, bytes.to_vec()));
        digest
    }

    /// Adds an image of two layers, one of them twice. Returns its digest.
    fn add_image(&mut self, arch: &str) -> String {
        let config = json!({"os": "linux", "architecture": arch}).to_string();
        let size = config.len();
        let config = self.add("blobs", "", config.as_bytes());
        let layers = [vec![7; 100_000], arch.repeat(30_000).into_bytes(), vec![7; 100_000]];
        let layers = layers.map(|layer| {
            json!({"mediaType": "x", "digest": self.add("blobs", "", &layer), "size": layer.len()})
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "y", "digest": config, "size": size},
            "layers": layers,
        });
        self.add("manifests", MANIFEST, manifest.to_string().as_bytes())
    }

    fn tag(&mut self, tag: &str, digest: &str) {
        let manifest = self.files[&format!("manifests/{digest}")].clone();
        self.files.insert(format!("manifests/{tag}"), manifest);
    }

    /// Makes a registry with images for three platforms, one of them in two variants, and an
    /// attestation.
    fn with_images() -> (Self, [String; 4]) {
        let mut this = Self { parts: true, ..Self::default() };
        let images = ["amd64", "arm64", "arm", "arm "].map(|arch| this.add_image(arch));
        let entry = |image: &str, platform: Value| {
            let size = this.files[&format!("manifests/{image}")].1.len();
            json!({"mediaType": MANIFEST, "digest": image, "size": size, "platform": platform})
        };
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            entry(&images[0], json!({"os": "linux", "architecture": "amd64"})),
            entry(&images[1], json!({"os": "linux", "architecture": "arm64"})),
            entry(&images[3], json!({"os": "linux", "architecture": "arm", "variant": "v7"})),
            entry(&images[2], json!({"os": "linux", "architecture": "arm", "variant": "v6"})),
            entry(&images[0], json!({"os": "unknown", "architecture": "unknown"})),
        ]});
        let index = this.add("manifests", INDEX, index.to_string().as_bytes());
        this.tag("all", &index);
        this.tag("one", &images[1]);
        (this, images)
    }

    /// Answers until the test ends. Returns host and port.
    fn start(self) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let this = Arc::new(self);
        let registry = Arc::clone(&this);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // If a client goes away, the next one is served.
                let _ = stream.and_then(|stream| registry.answer(&stream));
            }
        });
        (this, host)
    }

    fn answer(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut begin, mut authorized) = (0, false);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? <= 2 {
                break;
            }
            let header = header.to_lowercase();
            authorized |= header.starts_with("authorization: basic ");
            if let Some(range) = header.trim().strip_prefix("range: bytes=") {
                begin = range.trim_end_matches('-').parse().unwrap();
            }
        }
        self.asked.lock().unwrap().push(format!("{path} {begin}"));
        let file = path.strip_prefix("/v2/a/b/").and_then(|path| self.files.get(path));
        let (mut status, mut headers, mut body) = match file {
            _ if let Some(status) = self.closed.filter(|_| !authorized) => {
                let challenge = "WWW-Authenticate: Basic realm=\"x\"\r\n";
                let challenge = if status == 401 { challenge } else { "" };
                (status, challenge.to_owned(), &b""[..])
            }
            _ if path == "/v2/" => (200, String::new(), &b"{}"[..]),
            Some((media_type, bytes)) => (200, format!("Content-Type: {media_type}\r\n"), &**bytes),
            None => (404, String::new(), &b"{}"[..]),
        };
        if status == 200 && begin > 0 && self.parts {
            let (last, size) = (body.len() - 1, body.len());
            (status, headers) = (206, format!("Content-Range: bytes {begin}-{last}/{size}\r\n"));
            body = &body[begin..];
        }
        let length = body.len();
        if let Some(cut) = self.cut.filter(|_| path.contains("/blobs/")) {
            body = &body[..body.len().min(cut)];
        }
        write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\n{headers}")?;
        write!(stream, "Content-Length: {length}\r\n\r\n")?;
        stream.write_all(body)
    }

    /// Returns Nix's hash of the directory that skopeo would write.
    fn expected(&self, image: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        let store = Store::below(root.path());
        let path: StorePath = "00000000000000000000000000000000-x".parse().unwrap();
        let directory = store.physical(&path);
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
        let manifest = &self.files[&format!("manifests/{image}")].1;
        write("manifest.json", manifest);
        write("version", b"Directory Transport Version: 1.1\n");
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        for blob in layers.chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            write(&digest["sha256:".len()..], &self.files[&format!("blobs/{digest}")].1);
        }
        nar_hash(&store, &path).unwrap().to_sri()
    }
}

/// Returns the output, or the error message.
fn prefetch(arguments: &[&str]) -> Result<String, String> {
    let store = FakeStore::new();
    let mut command = store.stowage(&["prefetch"]);
    // No credentials of this machine's user may be found.
    command.env_remove("REGISTRY_AUTH_FILE").env("HOME", store.root());
    let output = command.args(arguments).output().unwrap();
    let said = stderr(&output);
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{said}");
    Err(said)
}

fn json_of(arguments: &[&str]) -> Value {
    schema::checked("prefetch", &prefetch(&[arguments, &["--json"]].concat()).unwrap())
}

#[test]
fn an_image_is_known_before_it_is_pulled() {
    let (fickle, images) = Fickle::with_images();
    let (fickle, host) = fickle.start();
    let one = &images[1];
    let expected = fickle.expected(one);
    // The registry uses plain HTTP, which `pullImage` has to be told.
    assert_eq!(
        prefetch(&[&format!("{host}/a/b:one")]).unwrap(),
        format!(
            "{{\n  imageName = \"{host}/a/b\";\n  imageDigest = \"{one}\";\n  hash = \"{expected}\";\n  \
             finalImageName = \"{host}/a/b\";\n  finalImageTag = \"one\";\n  os = \"linux\";\n  \
             arch = \"arm64\";\n  tlsVerify = false;\n}}\n"
        )
    );
    // The blob that two layers share is read once.
    let asked = fickle.asked.lock().unwrap().clone();
    assert_eq!(asked.iter().filter(|path| path.contains("/blobs/")).count(), 3, "{asked:?}");
    let by_digest = format!("docker://{host}/a/b@{one}");
    let given = ["--final-image-name", "c", "--final-image-tag", "v\"1\"", "--tls-verify=false"];
    let found = prefetch(&[&[&*by_digest], &given[..]].concat()).unwrap();
    for line in [
        format!("  hash = \"{expected}\";\n"),
        "  finalImageName = \"c\";\n  finalImageTag = \"v\\\"1\\\"\";\n".to_owned(),
        "  arch = \"arm64\";\n  tlsVerify = false;\n}".to_owned(),
    ] {
        assert!(found.contains(&line), "{line} in:\n{found}");
    }
}

#[test]
fn of_an_index_one_is_chosen_or_all() {
    let (fickle, images) = Fickle::with_images();
    let (fickle, host) = fickle.start();
    let name = format!("{host}/a/b:all");
    let expected = |image: usize, arch: &str| {
        let (name, image) = (format!("{host}/a/b"), &images[image]);
        json!({
            "imageName": name, "imageDigest": image, "hash": fickle.expected(image),
            "finalImageName": name, "finalImageTag": "all", "os": "linux", "arch": arch,
        })
    };
    assert_eq!(json_of(&[&name, "--arch", "amd64"]), expected(0, "amd64"));
    assert_eq!(json_of(&[&name, "--arch", "arm64", "--os", "linux"]), expected(1, "arm64"));
    assert_eq!(json_of(&[&name, "--arch", "arm"]), expected(2, "arm"));
    let all =
        json!(
            [expected(0, "amd64"), expected(1, "arm64"), expected(3, "arm"), expected(2, "arm"),]
        );
    assert_eq!(json_of(&[&name, "--all"]), all);
    let printed = prefetch(&[&name, "--all"]).unwrap();
    assert!(printed.starts_with("[\n  {\n    imageName = "), "{printed}");
    assert!(
        printed.ends_with("    arch = \"arm\";\n    tlsVerify = false;\n  }\n]\n"),
        "{printed}"
    );
}

/// Checks broken connections, whether or not the registry supports ranges: bytes that were hashed
/// can't be taken back.
#[test]
fn what_breaks_off_goes_on() {
    for parts in [true, false] {
        let (mut fickle, images) = Fickle::with_images();
        fickle.parts = parts;
        // A registry that begins again at the first byte breaks off at another byte.
        fickle.cut = parts.then_some(40_000);
        let (fickle, host) = fickle.start();
        let found = json_of(&[&format!("{host}/a/b:one"), "--quiet"]);
        assert_eq!(found["hash"], json!(fickle.expected(&images[1])));
        let parts_asked = |at: &str| fickle.asked.lock().unwrap().iter().any(|p| p.ends_with(at));
        assert_eq!((parts_asked(" 40000"), parts_asked(" 80000")), (parts, parts));
    }
}

#[test]
fn credentials_are_given() {
    let start = |status| {
        let (mut fickle, _) = Fickle::with_images();
        fickle.closed = Some(status);
        let (fickle, host) = fickle.start();
        (fickle, format!("{host}/a/b:one"))
    };
    // Some registries answer as if an image did not exist if there is no password, and send no
    // challenge.
    for status in [401, 403, 404] {
        let (_fickle, name) = start(status);
        prefetch(&[&name, "--creds", "ann:secret"]).unwrap_or_else(|e| panic!("{status}: {e}"));
    }
    let (_fickle, name) = start(401);
    let error = prefetch(&[&name]).unwrap_err();
    assert!(error.contains("401") && error.contains("no credentials for"), "{error}");
    assert!(error.contains("`--creds USER:PASSWORD`"), "{error}");
}

#[test]
fn what_is_wrong_is_said() {
    let (mut fickle, _) = Fickle::with_images();
    let wrong = |fickle: &mut Fickle, tag: &str, change: fn(&mut Vec<u8>)| {
        let image = fickle.add_image(tag);
        let manifest: Value =
            serde_json::from_slice(&fickle.files[&format!("manifests/{image}")].1).unwrap();
        let digest = manifest["layers"][1]["digest"].as_str().unwrap();
        let (_, layer) = fickle.files.get_mut(&format!("blobs/{digest}")).unwrap();
        change(layer);
        fickle.tag(tag, &image);
        digest.to_owned()
    };
    let changed = wrong(&mut fickle, "changed", |layer| layer[0] ^= 1);
    let longer = wrong(&mut fickle, "longer", |layer| layer.push(0));
    for (tag, text) in [("first", r#"{"schemaVersion":1}"#), ("text", "nonsense")] {
        fickle.files.insert(format!("manifests/{tag}"), (MANIFEST, text.into()));
    }
    let lying = Digest::of(b"other").to_string();
    fickle.files.insert(format!("manifests/{lying}"), (MANIFEST, b"{}".to_vec()));
    let mut missing = wrong(&mut fickle, "missing", |_| ());
    fickle.files.remove(&format!("blobs/{missing}"));
    missing.insert_str(0, "there is no blob ");
    let (_fickle, host) = fickle.start();
    let none = format!("there is no {host}/a/b:none");
    for (reference, arguments, message) in [
        (":none", &[][..], &*none),
        (":changed", &[], &*format!("blob {changed} of {host}/a/b is not what its manifest says")),
        (":longer", &[], &*format!("blob {longer} of {host}/a/b is not what its manifest says")),
        (":missing", &[], &*missing),
        (":first", &[], "not the manifest of an image"),
        (":text", &[], "a/b:text: expected ident"),
        (&*format!("@{lying}"), &[], "the manifest of"),
        (":one", &["--arch", "amd64"], "has no image for linux/amd64: it has linux/arm64"),
        (
            ":all",
            &["--arch", "s390x"],
            "no image for linux/s390x: it has linux/amd64, linux/arm64, linux/arm/v7, linux/arm/v6\n\nhint: `--os`",
        ),
        (":one", &["--authfile", "none"], "none does not exist"),
        (":A:B", &[], "is not an image name"),
    ] {
        let name = format!("{host}/a/b{reference}");
        let error = prefetch(&[&[&*name], arguments].concat()).unwrap_err();
        assert!(error.starts_with("error: ") && error.contains(message), "{reference}: {error}");
    }
}
