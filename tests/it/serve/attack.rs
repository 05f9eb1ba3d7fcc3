use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::packages::{NIX, programs, serve};
use super::{Images, Server, Slow, certificate, until};
use crate::http::{self, Answer};

#[test]
fn a_request_has_one_host() {
    let images = Images::new();
    let server = images.serve(&["images"]);
    for (head, status) in [
        ("GET /v2/ HTTP/1.1\r\n", 400),
        ("GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET /v2/ HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET /v2/ HTTP/1.0\r\n", 200),
        ("GET /v2/ HTTP/1.1\r\nHost: a, b\r\n", 400),
        ("GET /v2/ HTTP/1.1\r\nHost: a b\r\n", 400),
        ("GET /v2/ HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET /v2/ HTTP/1.1\r\nHost: a\r\n", 200),
        ("GET /v2/ HTTP/1.1\r\nHost: [::1]:80\r\n", 200),
        ("GET /v2/ HTTP/1.1\r\nHost:\r\n", 200),
    ] {
        let text = format!("{head}Connection: close\r\n\r\n");
        let answer = Answer::parse(&http::raw(server.address, &text));
        assert_eq!(answer.status, status, "{head}");
    }
}

#[test]
fn a_body_has_no_coding_but_chunked() {
    let images = Images::new();
    let server = images.serve(&["images"]);
    for (codings, status) in [
        ("chunked", 200),
        ("CHUNKED", 200),
        ("gzip, chunked", 501),
        ("gzip\r\nTransfer-Encoding: chunked", 501),
    ] {
        let head = format!("GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {codings}\r\n");
        let next = "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answers = http::raw(server.address, &format!("{head}\r\n0\r\n\r\n{next}"));
        assert_eq!(Answer::parse(&answers).status, status, "{codings}");
        // Nothing of a connection is read after a body whose end is not known.
        let found = String::from_utf8_lossy(&answers).matches("HTTP/1.1 ").count();
        assert_eq!(found, if status == 200 { 2 } else { 1 }, "{codings}");
    }
}

/// Checks that a FIFO among the files does not stop the server: opening a FIFO waits until another
/// program writes to it.
#[test]
fn a_fifo_stops_nothing() {
    let images = Images::new();
    let fifo = |name: &str| mkfifo(&images.path(name), Mode::S_IRWXU).unwrap();
    fifo("images/a/v0");
    let mut server = images.serve(&["images"]);
    let log = || fs::read_to_string(&server.log).unwrap();
    until("it says so", || log().contains("v0: it is no regular file").then_some(()));
    assert_eq!(server.get("/v2/a/manifests/v2").status, 200);
    // A FIFO that appears later does not hide later changes.
    fifo("images/a/v1");
    images.link("one.json", "a/v3");
    until("it is there", || (server.get("/v2/a/manifests/v3").status == 200).then_some(()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));

    fifo("fifo");
    certificate(&images);
    for arguments in [
        &["a:v1=fifo"][..],
        &["images", "--htpasswd", "fifo"],
        &["images", "--permissions", "fifo"],
        &["images", "--tls-cert", "fifo", "--tls-key", "key.pem"],
    ] {
        let output = images.store.stowage(&["serve"]).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot read fifo: it is no regular file"), "{said}");
    }
}

/// Checks that connections without requests make room for others.
#[test]
fn silent_connections_keep_nobody_out() {
    let images = Images::new();
    let server = images.serve(&["images", "--max-connections", "4"]);
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    for path in ["/healthz", "/metrics", "/v2/a/manifests/v2"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    // An incomplete request does not count as a request.
    for mut stream in &silent {
        let _ = stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ");
    }
    assert_eq!(server.get("/healthz").status, 200);
    assert!(server.metric("stowage_connections") < 100.0);
}

/// Checks that slow readers get only their share of the places, also behind a proxy.
#[test]
fn slow_readers_keep_nobody_out() {
    let images = Images::new();
    let (blob, _) = images.big("a/b");
    let trusted = ["--trusted-proxy", "127.0.0.0/8"];
    let arguments = ["images", "--max-connections", "4"];
    let server = images.serve(&[&arguments[..], &trusted].concat());
    let from = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    let slow: Vec<_> = (0..3).map(|_| Slow::ask_with(&server, &blob, &from("10.0.0.1"))).collect();
    // Another request of the same client waits.
    let mut next = TcpStream::connect(server.address).unwrap();
    next.write_all(http::request("GET", "/v2/", &from("10.0.0.1")).as_bytes()).unwrap();
    next.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(next.read(&mut [0]).is_err());
    for (path, headers) in [
        ("/v2/a/manifests/v2", from("10.0.0.2")),
        ("/v2/a/manifests/v2", "Forwarded: for=10.0.0.3\r\n".to_owned()),
        ("/healthz", from("10.0.0.1")),
        ("/metrics", from("10.0.0.1")),
    ] {
        assert_eq!(server.ask("GET", path, &headers).status, 200, "{path} {headers}");
    }
    drop(slow);
    next.set_read_timeout(None).unwrap();
    let mut bytes = Vec::new();
    next.read_to_end(&mut bytes).unwrap();
    assert_eq!(Answer::parse(&bytes).status, 200);
}

#[test]
fn the_log_says_who_asked() {
    let images = Images::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    images.store.write("users", &format!("ann:{hash}\n"));
    let arguments = ["images", "--htpasswd", "users", "--log-format", "json"];
    let server = images.serve(&[&arguments[..], &["--trusted-proxy", "127.0.0.1"]].concat());
    let basic = |text: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(text));
    let headers = format!("{}X-Forwarded-For: 6.6.6.6, 10.1.2.3\r\n", basic("ann:secret"));
    let answer = server.ask("GET", "/v2/", &format!("{headers}User-Agent: curl/8\r\n"));
    let id = answer.headers["x-request-id"].clone();
    server.ask("GET", "/v2/", &basic("eve\u{9b}31m:guess"));
    let long = format!("/v2/{}/manifests/v1", "a".repeat(50_000));
    server.ask("GET", &long, &format!("User-Agent: {}\r\n", "b".repeat(10_000)));
    let log = server.end();
    let line = log.lines().find(|line| line.contains(&id)).unwrap();
    for part in [r#""client":"10.1.2.3""#, r#""user":"ann""#, r#""agent":"curl/8""#] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(log.contains("\"user\":\"eve\u{fffd}31m\""), "{log}");
    assert!(log.lines().all(|line| line.len() < 2000), "{log}");
    assert!(!log.contains("guess") && !log.contains("secret"), "{log}");
}

#[test]
fn repositories_are_for_whom_the_rules_say() {
    let images = Images::new();
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    images.store.write("users", &format!("ann:{}\nbob:{}\n", hash("secret"), hash("other")));
    images.store.write("rules", "a: @anybody\na/*: ann zoe\n");
    let server = images.serve(&["images", "--htpasswd", "users", "--permissions", "rules"]);
    let basic = |text: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(text));
    let (ann, bob) = (basic("ann:secret"), basic("bob:other"));
    let (blob, _) = images.big("a/b");
    for (path, credentials, status) in [
        ("/v2/a/manifests/v2", "", 200),
        ("/v2/a/manifests/v2", &*bob, 200),
        ("/v2/a/manifests/v2", &*basic("bob:wrong"), 401),
        ("/v2/a/b/manifests/v1", "", 401),
        ("/v2/a/b/manifests/v1", &*ann, 200),
        ("/v2/a/b/manifests/v1", &*bob, 403),
        ("/v2/a/b/tags/list", &*bob, 403),
        ("/v2/none/tags/list", &*bob, 403),
        (&*blob, &*bob, 403),
        // This path must demand a password: clients that need none here never send one later.
        ("/v2/", "", 401),
        ("/v2/", &*bob, 200),
    ] {
        let answer = server.ask("HEAD", path, credentials);
        assert_eq!(answer.status, status, "{path} {credentials}");
    }
    let catalog = |who: &str| server.ask("GET", "/v2/_catalog", who).text();
    assert_eq!(catalog(&ann), r#"{"repositories":["a","a/b"]}"#);
    assert_eq!(catalog(&bob), r#"{"repositories":["a"]}"#);
    let log = || fs::read_to_string(&server.log).unwrap();
    let warned = |what: &str| log().matches(what).count();
    assert_eq!(warned("does not have first=zoe count=1"), 1, "{}", log());
    // The rules are read again when the file changes.
    images.store.write("new", "**: bob\nc: eve yan\n");
    fs::rename(images.path("new"), images.path("rules")).unwrap();
    until("they are others", || {
        (server.ask("GET", "/v2/a/b/manifests/v1", &bob).status == 200).then_some(())
    });
    assert_eq!(server.ask("GET", "/v2/a/b/manifests/v1", &ann).status, 403);
    assert_eq!(warned("does not have first=eve count=2"), 1, "{}", log());
    images.store.write("new", "nonsense\n");
    fs::rename(images.path("new"), images.path("rules")).unwrap();
    until("it says so", || log().contains("rules, line 1: not `REPOSITORIES: WHO…`").then_some(()));
    assert_eq!(server.ask("GET", "/v2/a/b/manifests/v1", &bob).status, 200);
}

#[test]
fn monitoring_has_an_address_of_its_own() {
    let images = Images::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    images.store.write("users", &format!("ann:{hash}\n"));
    certificate(&images);
    let tls = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let arguments = ["images", "--htpasswd", "users", "--admin-listen", "127.0.0.1:0"];
    let server = images.serve(&[&arguments[..], &tls].concat());
    let log = fs::read_to_string(&server.log).unwrap();
    let line = log.lines().find(|line| line.contains("for monitoring")).unwrap();
    let address = line.rsplit_once("address=").unwrap().1.parse().unwrap();
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(http::ask(address, "GET", "/healthz", "").status, 200);
    let metrics = http::ask(address, "GET", "/metrics", "").text();
    for line in [
        "stowage_build_info{version=",
        "stowage_certificate_end_timestamp_seconds ",
        "stowage_request_duration_seconds_bucket{route=\"healthz\",le=\"+Inf\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found.starts_with(line)), "{line} in {metrics}");
    }
    for path in ["/v2/", "/v2/a/manifests/v2", "/"] {
        assert_eq!(http::ask(address, "GET", path, "").status, 404, "{path}");
    }
    drop(silent);
}

/// Checks that a build ends when the last client that waits for it has left, and that other clients
/// have their turn meanwhile.
#[test]
fn builds_are_for_who_waits() {
    let images = Images::new();
    let script = "case \"$*\" in *slow*) sleep 1000 ;; esac
        echo 'error: attribute missing' >&2
        exit 1";
    programs(&images, &NIX, script);
    // The programs that the script runs.
    for name in ["sleep", "sh"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output();
        let found = String::from_utf8(found.unwrap().stdout).unwrap();
        std::os::unix::fs::symlink(found.trim(), images.path("bin").join(name)).unwrap();
    }
    let mut command = serve(&images, "path!/nowhere");
    command.args(["--abandoned-after=1", "--max-builds=2", "--max-queue=4"]);
    command.args(["--trusted-proxy=127.0.0.1"]);
    let server = Server::run(&images, &mut command);
    let from = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    let ask = |name: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let path = format!("/v2/slow{name}/manifests/latest");
        stream.write_all(http::request("GET", &path, &from("10.0.0.1")).as_bytes()).unwrap();
        stream
    };
    let waiting: Vec<_> = (0..5).map(|number| ask(&number.to_string())).collect();
    until("one is being built", || {
        fs::read_to_string(&server.log).unwrap().contains("building").then_some(())
    });
    // Another client has a place for a build, and a turn though the queue is full.
    let answer = server.ask("GET", "/v2/quick/manifests/latest", &from("10.0.0.2"));
    assert_eq!(answer.status, 500, "{}", answer.text());
    drop(waiting);
    until("they are given up", || {
        (server.metric("stowage_image_builds_abandoned_total") >= 4.0).then_some(())
    });
    let answer = server.ask("GET", "/v2/quick2/manifests/latest", &from("10.0.0.1"));
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(server.end().contains("no client waits for it"));
}
