use std::io::{BufRead, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Images, certificate};
use crate::support::stderr;

#[test]
fn what_everybody_can_reach_is_warned_of() {
    let images = Images::new();
    certificate(&images);
    let hash = bcrypt::hash("secret", 4).unwrap();
    images.store.write("users", &format!("ann:{hash}\n"));
    let tls = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let users = ["--htpasswd", "users"];
    for (arguments, warnings) in [
        (vec![], ["--htpasswd", "--tls-cert"].as_slice()),
        (tls.to_vec(), &["--htpasswd"]),
        (users.to_vec(), &["--tls-cert"]),
        ([&tls[..], &users].concat(), &[]),
    ] {
        let mut all = vec!["images", "--quiet", "--listen", "0.0.0.0:0"];
        all.extend(&arguments);
        let mut command = images.store.stowage(&["serve"]);
        let mut child =
            command.args(all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // When the server prints its address, it has printed all warnings.
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let scheme = if arguments.contains(&"--tls-cert") { "https" } else { "http" };
        assert!(address.starts_with(&format!("{scheme}://0.0.0.0:")), "{address}");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let log = stderr(&child.wait_with_output().unwrap());
        let found = ["--htpasswd", "--tls-cert"].map(|flag| log.contains(flag));
        let expected = ["--htpasswd", "--tls-cert"].map(|flag| warnings.contains(&flag));
        assert_eq!(found, expected, "{log}");
    }
}

#[test]
fn an_address_may_have_a_name() {
    let images = Images::new();
    let server = images.serve(&["images", "--listen", "localhost:0"]);
    assert!(server.address.ip().is_loopback(), "{}", server.address);
    assert_eq!(server.get("/v2/").status, 200);
    let log = server.end();
    assert!(!log.contains("--htpasswd"), "{log}");
}

#[test]
fn what_it_cannot_begin_with_is_said() {
    let images = Images::new();
    certificate(&images);
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    images.store.write("other.pem", &other);
    images.store.write("broken.json", "{");
    images.store.write("Upper.json", "{}");
    images.store.write("empty", "\n");
    images.store.write("md5", "ann:$apr1$x$y\n");
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listening.local_addr().unwrap().to_string();
    for (arguments, code, message) in [
        (vec!["none.json"], 1, "error: cannot read none.json: No such file"),
        (vec!["a:v1=none.json"], 1, "error: cannot read none.json: No such file"),
        (vec!["broken.json"], 1, "error: broken.json: not an image spec: "),
        (vec!["Upper.json"], 1, "error: `Upper.json`: `Upper` is no name for a repository"),
        (vec!["A:v1=one.json"], 1, "error: `A:v1=one.json`: `A` is no name for a repository"),
        (vec!["a:.v=one.json"], 1, "error: `a:.v=one.json`: `.v` is no tag"),
        (
            vec!["a:v=one.json", "a:v=two.json"],
            1,
            "error: a:v is two images: one.json and two.json",
        ),
        (vec!["images", "--listen", &taken], 1, "error: cannot listen on 127.0.0.1:"),
        (vec!["images", "--htpasswd", "none"], 1, "error: cannot read none: No such file"),
        (vec!["images", "--htpasswd", "empty"], 1, "error: empty: there is no user in it"),
        (
            vec!["images", "--htpasswd", "md5"],
            1,
            "error: md5, line 1: the password of `ann` is not hashed by bcrypt",
        ),
        (
            vec!["images", "--tls-cert", "none", "--tls-key", "key.pem"],
            1,
            "error: cannot read none: No such file",
        ),
        (
            vec!["images", "--tls-cert", "one.json", "--tls-key", "key.pem"],
            1,
            "error: one.json: not a certificate: there is no certificate in it",
        ),
        (
            vec!["images", "--tls-cert", "cert.pem", "--tls-key", "cert.pem"],
            1,
            "error: cert.pem: not a key: there is no key in it, but `CERTIFICATE`",
        ),
        (
            vec!["images", "--tls-cert", "cert.pem", "--tls-key", "other.pem"],
            1,
            "error: other.pem: not the key of that certificate: ",
        ),
        (vec!["images", "--cache", "one.json"], 1, "error: cannot keep blobs in one.json: "),
        (vec!["images", "--address-file", "none/file"], 1, "error: cannot write none/file: "),
        (vec![], 2, "IMAGE|DIR"),
        (vec!["images", "--listen", "nonsense"], 2, "invalid value 'nonsense' for '--listen"),
        (vec!["images", "--listen", "127.0.0.1"], 2, "expected a host and a port"),
        (vec!["images", "--listen", ":5000"], 2, "expected a host and a port"),
        (vec!["images", "--listen", "localhost:65536"], 2, "expected a host and a port"),
        (vec!["images", "--max-packages", "101"], 2, "101 is not in 1..=100"),
        (vec!["images", "--tls-cert", "cert.pem"], 2, "--tls-key"),
        (vec!["images", "--cache-size", "1G"], 2, "--cache"),
        (vec!["images", "--cache", "c", "--cache-size", "big"], 2, "not a number of bytes"),
        (vec!["images", "--max-connections", "0"], 2, "--max-connections"),
        (vec!["images", "--log-format", "xml"], 2, "--log-format"),
    ] {
        let mut command = images.store.stowage(&["serve", "--quiet"]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let output = command.args(&arguments).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
        // The first line is a message of this program.
        assert!(code == 2 || said.starts_with("error: "), "{arguments:?}: {said}");
    }
}
