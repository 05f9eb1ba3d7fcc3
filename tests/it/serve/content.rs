use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::oci::Image;

#[cfg(target_os = "linux")]
use super::Server;
use super::{Images, manifest_digest, until};

#[test]
fn a_directory_and_files_are_served() {
    let images = Images::new();
    let server = images.serve(&["images", "c/d:v3=one.json", "two.json"]);
    assert_eq!(
        server.get("/v2/_catalog").json(),
        json!({"repositories": ["a", "a/b", "c/d", "two"]})
    );
    for (name, tag, spec) in [
        ("a/b", "v1", &images.one),
        ("a", "v2", &images.two),
        ("c/d", "v3", &images.one),
        ("two", "latest", &images.two),
    ] {
        let answer = server.get(&format!("/v2/{name}/manifests/{tag}"));
        assert_eq!(answer.headers["docker-content-digest"], manifest_digest(spec), "{name}");
        let manifest = answer.json();
        let config = manifest["config"]["digest"].as_str().unwrap();
        let config = server.get(&format!("/v2/{name}/blobs/{config}")).json();
        let diff_ids = manifest["layers"].as_array().unwrap().iter().map(|layer| {
            let digest = layer["digest"].as_str().unwrap();
            let blob = server.get(&format!("/v2/{name}/blobs/{digest}"));
            assert_eq!(blob.body.len() as u64, layer["size"].as_u64().unwrap());
            Digest::of(&blob.body).to_string()
        });
        assert_eq!(config["rootfs"]["diff_ids"], json!(diff_ids.collect::<Vec<_>>()), "{name}");
    }
    let log = server.end();
    assert!(log.contains("method=GET path=\"/v2/a/manifests/v2\" status=200 bytes="), "{log}");
}

#[test]
fn the_start_page_lists_the_images() {
    let images = Images::new();
    images.store.write("rules", "a/b: @anybody\n");
    let server = images.serve(&["images", "two.json", "--permissions", "rules"]);
    let page = server.get("/");
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let page = page.text();
    let size: u64 = images.one.layers.iter().map(|layer| layer.size).sum();
    let size = format!("{}.{} MB", size / 1_000_000, size / 100_000 % 10);
    let row = format!(
        "<code>docker pull x/a/b:v1</code><td>linux/amd64<td class=\"size\">{size}<td><a href=\"/map/a/b:v1?amd64\">contents</a>\n"
    );
    assert!(page.contains(&row), "{page}");
    // Only what the client may pull, and only what this server can do.
    assert!(!page.contains("x/two:") && !page.contains("packages"), "{page}");
    assert_eq!(server.ask("HEAD", "/", "").status, 200);
}

#[test]
fn each_image_has_a_page_with_its_contents() {
    let images = Images::new();
    images.store.write("rules", "a/b: @anybody\nshown: @anybody\nindex: @anybody\n");
    images.store.write(
        "index.json",
        &json!({ "version": 1, "images": [{ "spec": images.path("one.json") }] }).to_string(),
    );
    fs::create_dir(images.path("images/index")).unwrap();
    images.link("index.json", "index/v1");
    fs::copy(images.path("one.json"), images.path("copy.json")).unwrap();
    let server = images.serve(&["images", "shown:v1=copy.json", "--permissions", "rules"]);
    for path in ["/map/a/b:v1", "/map/a/b:v1?amd64", "/map/index:v1?amd64", "/map/shown:v1"] {
        let page = server.get(path);
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
        assert!(page.headers["content-security-policy"].starts_with("default-src 'none'"));
        let page = page.text();
        let title = path.trim_start_matches("/map/").trim_end_matches("?amd64");
        assert!(page.contains(&format!("<h1>What is in {title}</h1>")), "{path}: {page}");
        assert!(page.contains(r#""name":"big""#) && !page.contains(r#""name":"more""#), "{page}");
        let head = server.ask("HEAD", path, "");
        assert_eq!((head.status, &*head.body), (200, &b""[..]));
    }
    // The rules are those of the images.
    assert_eq!(server.get("/map/a:v2").status, 403);
    for missing in ["/map/a/b:v2", "/map/shown", "/map/", "/map/index:v1?arm64"] {
        assert_eq!(server.get(missing).status, 404, "{missing}");
    }
    assert_eq!(server.ask("POST", "/map/a/b:v1", "").status, 405);
    // A page never shows another image than the one that is served.
    fs::copy(images.path("two.json"), images.path("copy.json")).unwrap();
    let page = server.get("/map/shown:v1");
    let served =
        server.ask("HEAD", "/v2/shown/manifests/v1", "").headers["docker-content-digest"].clone();
    match page.status {
        404 => assert!(page.text().contains("has changed"), "{}", page.text()),
        status => assert_eq!((status, served), (200, manifest_digest(&images.two))),
    }
}

#[test]
fn what_changes_in_a_directory_is_served() {
    let images = Images::new();
    let server = images.serve(&["images"]);
    let digest = |reference: &str| {
        let answer = server.ask("HEAD", &format!("/v2/a/b/manifests/{reference}"), "");
        answer.headers.get("docker-content-digest").cloned()
    };
    let (one, two) = (manifest_digest(&images.one), manifest_digest(&images.two));
    assert_eq!(digest("v1").as_ref(), Some(&one));
    images.link("two.json", "a/b/v1");
    until("the link is followed", || digest("v1").filter(|found| *found == two));
    assert_eq!(server.metric("stowage_reloads_total"), 1.0);
    // A client that is pulling the image that the tag stood for gets all of it.
    assert_eq!(digest(&one).as_ref(), Some(&one));

    images.store.write("broken.json", "{");
    images.link("broken.json", "a/b/v1");
    images.link("one.json", "a/b/v9");
    until("the new one is there", || digest("v9"));
    assert_eq!(digest("v1").as_ref(), Some(&two));
    fs::remove_file(images.path("images/a/b/v9")).unwrap();
    until("the new one is gone", || digest("v9").is_none().then_some(()));

    let before = server.metric("stowage_reloads_total");
    server.signal(Signal::SIGHUP);
    until("it reloads", || (server.metric("stowage_reloads_total") > before).then_some(()));
    let log = server.end();
    assert!(log.contains("images/a/b/v1: not an image spec"), "{log}");
    assert_eq!(log.matches("a/b:v1 stays as it was").count(), 1, "{log}");
}

/// Sets limits of inotify for a server, in a user namespace, which has limits of its own.
#[test]
#[cfg(target_os = "linux")]
fn changes_are_found_where_none_are_reported() {
    for (limit, message) in [
        ("instances", "cannot watch for changes (`fs.inotify.max_user_instances`): "),
        ("watches", "for changes (`fs.inotify.max_user_watches`): "),
    ] {
        let images = Images::new();
        let file = format!("/proc/sys/user/max_inotify_{limit}");
        let limited = |command: &[&str]| {
            let script = "echo \"$1\" >\"$0\" && shift && exec \"$@\"";
            let mut limited = std::process::Command::new("unshare");
            limited.args(["--user", "--map-root-user", "sh", "-c", script, &file]);
            limited.arg(if limit == "watches" { "2" } else { "0" }).args(command);
            limited
        };
        if !limited(&["true"]).output().is_ok_and(|output| output.status.success()) {
            eprintln!("not tested: there are no user namespaces");
            return;
        }
        let stowage = images.store.stowage(&[]);
        let program = stowage.get_program().to_str().unwrap();
        let root = images.store.root().to_str().unwrap();
        let mut command = limited(&[program, "--root", root, "serve", "images"]);
        let server = Server::run(&images, command.current_dir(images.store.root()));
        let status = |tag: &str| server.get(&format!("/v2/a/b/manifests/{tag}")).status;
        assert_eq!((status("v1"), status("v9")), (200, 404));
        images.link("two.json", "a/b/v9");
        until("the new one is there", || (status("v9") == 200).then_some(()));
        let log = server.end();
        assert_eq!(log.matches(message).count(), 1, "{log}");
        assert!(log.contains("looking for changes every second instead"), "{log}");
    }
}

/// Runs the distribution-spec's conformance tests for pull and content discovery, as far as they
/// apply to a read-only registry.
#[test]
fn it_conforms_to_the_distribution_spec() {
    let images = Images::new();
    let server = images.serve(&["images", "a/b:v0=two.json"]);
    let image = Image::new(&images.one);
    let (manifest, config) = (image.manifest.digest.to_string(), image.config.digest.to_string());
    let (layer, size) = images.big("a/b");
    let absent = format!("sha256:{}", "0".repeat(64));
    let path = |kind: &str, reference: &str| format!("/v2/a/b/{kind}/{reference}");
    for (case, method, path, status, code) in [
        ("GET on the base endpoint", "GET", "/v2/".to_owned(), 200, ""),
        ("HEAD to nonexistent blob", "HEAD", path("blobs", &absent), 404, ""),
        ("HEAD to existing blob", "HEAD", layer.clone(), 200, ""),
        ("GET nonexistent blob", "GET", path("blobs", &absent), 404, "BLOB_UNKNOWN"),
        ("GET existing blob", "GET", layer.clone(), 200, ""),
        ("GET existing config", "GET", path("blobs", &config), 200, ""),
        ("HEAD to nonexistent manifest", "HEAD", path("manifests", ".INVALID"), 404, ""),
        ("HEAD to manifest by digest", "HEAD", path("manifests", &manifest), 200, ""),
        ("HEAD to manifest by tag", "HEAD", path("manifests", "v1"), 200, ""),
        ("GET nonexistent manifest", "GET", path("manifests", "none"), 404, "MANIFEST_UNKNOWN"),
        ("GET absent manifest", "GET", path("manifests", &absent), 404, "MANIFEST_UNKNOWN"),
        ("GET manifest by digest", "GET", path("manifests", &manifest), 200, ""),
        ("GET manifest by tag", "GET", path("manifests", "v1"), 200, ""),
        ("GET in no repository", "GET", "/v2/none/manifests/v1".to_owned(), 404, "NAME_UNKNOWN"),
        ("bad digest", "GET", path("blobs", "sha256:totallywrong"), 400, "DIGEST_INVALID"),
        ("GET tags", "GET", "/v2/a/b/tags/list".to_owned(), 200, ""),
        ("tags of no repository", "GET", "/v2/none/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("GET referrers", "GET", path("referrers", &manifest), 200, ""),
        ("GET referrers of nothing", "GET", path("referrers", &absent), 200, ""),
        ("bad referrers", "GET", path("referrers", "sha256:x"), 400, "DIGEST_INVALID"),
        ("push of a blob", "POST", "/v2/a/b/blobs/uploads/".to_owned(), 405, "UNSUPPORTED"),
        ("push of a manifest", "PUT", path("manifests", "v7"), 405, "UNSUPPORTED"),
        ("DELETE of a tag", "DELETE", path("manifests", "v1"), 405, "UNSUPPORTED"),
        ("DELETE of a blob", "DELETE", layer.clone(), 405, "UNSUPPORTED"),
    ] {
        let answer = server.ask(method, &path, "");
        assert_eq!(answer.status, status, "{case}");
        assert_eq!(if method == "HEAD" { String::new() } else { answer.code() }, code, "{case}");
    }
    let head = server.ask("HEAD", &layer, "");
    assert_eq!(head.headers["content-length"], size.to_string());
    // Content discovery: all tags, pages, and the tags after a given one.
    for (query, tags, more) in [
        ("", json!(["v0", "v1"]), false),
        ("?n=1", json!(["v0"]), true),
        ("?n=2", json!(["v0", "v1"]), false),
        ("?n=0", json!([]), false),
        ("?n=5&last=v0", json!(["v1"]), false),
        ("?last=v1", json!([]), false),
    ] {
        let answer = server.get(&format!("/v2/a/b/tags/list{query}"));
        assert_eq!(answer.json(), json!({"name": "a/b", "tags": tags}), "{query}");
        assert_eq!(answer.headers.contains_key("link"), more, "{query}");
    }
    let referrers = server.get(&path("referrers", &manifest));
    assert_eq!(referrers.headers["content-type"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(referrers.json()["manifests"], json!([]));
}

#[test]
fn metrics_and_log_say_what_was_done() {
    let images = Images::new();
    let server = images.serve(&["images", "--log-format", "json"]);
    assert_eq!(server.get("/healthz").text(), "ok\n");
    server.get("/v2/a/b/manifests/v1");
    server.get("/v2/a/b/manifests/none");
    server.get("/v2/a/b/manifests/none");
    server.ask("POST", "/v2/a/b/blobs/uploads/", "");
    let text = server.get("/metrics").text();
    for line in [
        "stowage_requests_total{route=\"healthz\",status=\"200\"} 1",
        "stowage_requests_total{route=\"manifest\",status=\"200\"} 1",
        "stowage_requests_total{route=\"manifest\",status=\"404\"} 2",
        "stowage_requests_total{route=\"upload\",status=\"405\"} 1",
        "stowage_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
    }
    let log = server.end();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered = lines.iter().find(|line| line["path"] == "/v2/a/b/manifests/v1").unwrap();
    assert_eq!((&answered["method"], &answered["status"]), (&json!("GET"), &json!(200)));
    let size = Image::new(&images.one).manifest.bytes.len();
    assert_eq!(answered["bytes"], json!(size), "{answered}");
    assert!(answered["ms"].is_u64());

    let server = images.serve(&["images", "--quiet"]);
    server.get("/v2/");
    assert_eq!(server.end(), "");
}
