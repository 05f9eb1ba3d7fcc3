use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::browser::{check_contrast, check_width_on_a_phone, dom};
use crate::support::{Docker, Image, nix, run, stowage};

fn diff(old: &Image, new: &Image) -> Value {
    let output = run(stowage(&["diff", "--json"]).arg(&old.spec_file).arg(&new.spec_file));
    serde_json::from_str(&output).unwrap()
}

fn number(json: &Value, name: &str) -> u64 {
    json[name].as_u64().unwrap_or_else(|| panic!("{name} in {json}"))
}

/// The bytes besides layers: configuration, manifest, index, and the archive's own headers.
const DOCUMENTS: u64 = 64 << 10;

#[test]
fn docker_is_sent_what_diff_says() {
    let docker = Docker::start();
    let (old, new) = (Image::named("smallApp1"), Image::named("smallApp2"));
    let copy = |image: &Image| -> Value {
        let output =
            run(image.copy_to_docker_daemon().arg("--json").env("DOCKER_HOST", docker.host()));
        serde_json::from_str(&output).unwrap()
    };
    copy(&old);
    let (sent, said) =
        (number(&copy(&new), "bytesSent"), number(&diff(&old, &new), "bytesToDocker"));
    assert!(
        said > 0 && sent >= said && sent - said < DOCUMENTS,
        "{sent} bytes sent, {said} by diff"
    );
}

/// Debian's registry on a port of its own.
struct Registry {
    server: Child,
    directory: tempfile::TempDir,
    address: String,
}

impl Registry {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = directory.path().join("config.yml");
        let data = directory.path().join("data");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut server = Command::new("docker-registry");
        server
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let registry = Self {
            server: server.spawn().expect("docker-registry can be started"),
            directory,
            address,
        };
        let start = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        registry
    }

    fn push(&self, image: &Image, tag: &str) {
        let archive = self.directory.path().join("image.tar");
        image.stream_to(&archive);
        // Copy the layers unchanged: skopeo would otherwise compress them, and change their
        // digests.
        let arguments = [
            "--insecure-policy",
            "copy",
            "--quiet",
            "--preserve-digests",
            "--dest-tls-verify=false",
        ];
        let mut skopeo = Command::new("skopeo");
        skopeo.args(arguments).arg(format!("oci-archive:{}", archive.display()));
        run(skopeo.arg(format!("docker://{}/app:{tag}", self.address)));
    }

    /// Returns the number of bytes of all blobs that the registry holds.
    fn size(&self) -> u64 {
        fn size(path: PathBuf) -> u64 {
            let entries = std::fs::read_dir(path).into_iter().flatten().map(Result::unwrap);
            entries
                .map(|entry| {
                    if entry.path().is_dir() {
                        size(entry.path())
                    } else {
                        entry.metadata().unwrap().len()
                    }
                })
                .sum()
        }
        size(self.directory.path().join("data/docker/registry/v2/blobs"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn a_registry_is_sent_what_diff_says() {
    let registry = Registry::start();
    let (old, new) = (Image::named("smallApp1"), Image::named("smallApp2"));
    registry.push(&old, "v1");
    let before = registry.size();
    assert!(before > old.spec.size());
    registry.push(&new, "v2");
    let (sent, said) = (registry.size() - before, number(&diff(&old, &new), "bytesNew"));
    assert!(
        said > 0 && sent >= said && sent - said < DOCUMENTS,
        "{sent} bytes sent, {said} by diff"
    );
}

#[test]
fn the_page_of_an_update_shows_its_cost() {
    let (old, new) = (Image::named("app1"), Image::named("app2"));
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let files = [&old.spec_file, &new.spec_file];
    run(stowage(&["diff", "--name", "app:v2", "--html"]).arg(&page).args(files));
    let shown = dom(&page, "", "1366,768");
    assert!(shown.contains("<h1>What is in app:v2</h1>"), "{shown}");
    let (_, update) = shown.split_once("<strong>The last update</strong>").unwrap();
    assert!(update.starts_with("<p>sends "), "{update}");
    let changed = diff(&old, &new)["pathsNew"].as_array().unwrap().len();
    assert_eq!(shown.matches("class=\"new\"").count(), changed, "{shown}");
    check_width_on_a_phone(&page);
    check_contrast(&page);
    // The first layer of the table is the one that costs most.
    let layers = new.spec.layers.len();
    let (_, table) = shown.split_once("<tbody id=\"layers\">").unwrap();
    assert_eq!(table.matches("<tr>").count(), layers);
    assert!(table.split_once("</tr>").unwrap().0.contains("width: 100%"), "{table}");
}

/// Checks that a page which also says the cost by pieces has its map and its table.
#[test]
fn the_cost_by_pieces_is_on_the_page() {
    let (old, new) = (Image::named("chunked"), Image::named("chunkedRebuilt"));
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    for files in [&[&new.spec_file][..], &[&old.spec_file, &new.spec_file]] {
        let command = if files.len() == 1 { "explain" } else { "diff" };
        run(stowage(&[command, "--pieces", "--html"]).arg(&page).args(files));
        let shown = dom(&page, "", "1366,768");
        assert!(shown.contains("by pieces (podman, CRI-O), of "), "{shown}");
        let count = new.spec.sources.len();
        assert_eq!(shown.matches("<button title=").count(), count, "{command}: {shown}");
    }
}

#[test]
fn explain_is_an_attribute_of_the_image() {
    let printed = run(&mut nix(&["run", ".#dockerImage.explain", "--", "--why", "git"]));
    let lines: Vec<_> = printed.lines().collect();
    assert!(
        lines[0].starts_with("/nix/store/") && lines.last().unwrap().contains("-git-"),
        "{printed}"
    );
}

#[test]
fn the_page_shows_the_image_and_finds_a_package() {
    let image = Image::named("lix");
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    run(stowage(&["explain"]).arg(&image.spec_file).arg("--html").arg(&page));
    // A script reports in the page's title whether the page is wider than the window.
    let measured = std::fs::read_to_string(&page).unwrap().replace(
        "</html>",
        "<script>document.title = document.documentElement.scrollWidth <= innerWidth ? 'fits' : 'too wide'</script></html>",
    );
    std::fs::write(&page, measured).unwrap();
    let count = image.spec.sources.len();
    check_width_on_a_phone(&page);
    check_contrast(&page);
    // The sizes of a laptop, and of a phone: as narrow as this browser's window gets.
    for size in ["1366,768", "500,844"] {
        let shown = dom(&page, "", size);
        assert!(shown.contains("<title>fits</title>"), "{size}");
        let (_, map) = shown.split_once("<div id=\"map\"").unwrap();
        let (map, _) = map.split_once("<div id=\"chosen\"").unwrap();
        assert_eq!(map.matches("<button").count(), count, "{size}");
        assert!(shown.contains(&format!("{count} store paths, ")), "{size}");
    }
    let found = dom(&page, "coreutils", "1366,768");
    let matches =
        image.spec.sources.iter().filter(|source| source.path.name().contains("coreutils")).count();
    assert!(found.contains(&format!("{matches} of {count} store paths")), "{found}");
    let chosen = found.split("id=\"chosen\"").nth(1).unwrap();
    assert!(chosen.starts_with(" aria-live=\"polite\"><strong>coreutils-"), "{}", &chosen[..200]);
}
