use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use stowage::digest::Digest;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Images, certificate, until};
use crate::http::{self, Answer};

#[test]
fn only_users_are_served() {
    let images = Images::new();
    // Use a fast hash, since the test tries it often.
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    images.store.write("users", &format!("ann:{}\nbob:{}\n", hash("secret"), hash("other")));
    let server = images.serve(&["images", "--htpasswd", "users"]);
    let basic = |text: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(text));
    for (path, credentials, status) in [
        ("/v2/", "", 401),
        ("/v2/a/b/manifests/v1", "", 401),
        ("/v2/none/manifests/v1", "", 401),
        ("/metrics", "", 401),
        ("/healthz", "", 200),
        ("/v2/", &*basic("ann:secret"), 200),
        ("/v2/", &*basic("bob:other"), 200),
        ("/v2/a/b/manifests/v1", &*basic("ann:secret"), 200),
        ("/metrics", &*basic("ann:secret"), 200),
        ("/v2/", &*(basic("ann:secret") + &basic("ann:other")), 401),
        ("/v2/", &*(basic("ann:secret") + &basic("ann:secret")), 401),
        ("/v2/", &*basic("ann:other"), 401),
        ("/v2/", &*basic("ann:"), 401),
        ("/v2/", &*basic("eve:secret"), 401),
        ("/v2/", "Authorization: Bearer x\r\n", 401),
        ("/v2/", "Authorization: Basic !\r\n", 401),
    ] {
        let answer = server.ask("GET", path, credentials);
        assert_eq!(answer.status, status, "{path} {credentials}");
        if status == 401 {
            assert_eq!(answer.code(), "UNAUTHORIZED");
            let challenge = &answer.headers["www-authenticate"];
            assert!(challenge.starts_with("Basic realm="), "{challenge}");
        }
    }
    let log = server.end();
    assert!(!log.contains("secret") && !log.contains("Authorization"), "{log}");
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn tls(address: SocketAddr, certificate: &Path) -> TlsStream {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(client, TcpStream::connect(address).unwrap())
}

fn get_by_tls(address: SocketAddr, certificate: &Path, path: &str) -> Answer {
    try_by_tls(address, certificate, path, "").unwrap()
}

fn try_by_tls(
    address: SocketAddr,
    certificate: &Path,
    path: &str,
    headers: &str,
) -> io::Result<Answer> {
    let mut stream = tls(address, certificate);
    stream.write_all(http::request("GET", path, headers).as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(Answer::parse(&bytes))
}

#[test]
fn certificates_and_users_are_read_again() {
    let images = Images::new();
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    let basic = |text: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(text));
    let replace = |name: &str, text: &str| {
        images.store.write("new", text);
        fs::rename(images.path("new"), images.path(name)).unwrap();
    };
    images.store.write("users", &format!("ann:{}\n", hash("secret")));
    certificate(&images);
    let trusted = |name: &str| fs::copy(images.path("cert.pem"), images.path(name)).map(drop);
    trusted("first").unwrap();
    let (blob, size) = images.big("a/b");
    let mut arguments = vec!["images", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    arguments.extend(["--htpasswd", "users"]);
    let server = images.serve(&arguments);
    let status = |certificate: &str, user: &str| {
        let certificate = images.path(certificate);
        let answer = try_by_tls(server.address, &certificate, "/v2/", &basic(user));
        answer.ok().map(|answer| answer.status)
    };
    assert_eq!(status("first", "ann:secret"), Some(200));
    let mut old = tls(server.address, &images.path("first"));
    old.write_all(http::request("GET", &blob, &basic("ann:secret")).as_bytes()).unwrap();
    let mut begin = vec![0; 4096];
    old.read_exact(&mut begin).unwrap();

    // Replace the files one after the other: in between, they don't belong together.
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    replace("cert.pem", &made.cert.pem());
    trusted("second").unwrap();
    let log = || fs::read_to_string(&server.log).unwrap();
    until("it says so", || log().contains("not the key of that certificate").then_some(()));
    assert_eq!(status("first", "ann:secret"), Some(200));
    replace("key.pem", &made.signing_key.serialize_pem());
    server.signal(Signal::SIGHUP);
    until("it has the other one", || status("second", "ann:secret").filter(|s| *s == 200));
    assert_eq!(status("first", "ann:secret"), None);
    old.read_to_end(&mut begin).unwrap();
    assert_eq!(Answer::parse(&begin).body.len() as u64, size);

    replace("users", &format!("bob:{}\n", hash("other")));
    until("it has the other one", || status("second", "bob:other").filter(|s| *s == 200));
    assert_eq!(status("second", "ann:secret"), Some(401));
    replace("users", "bob:other\n");
    replace("cert.pem", "nonsense");
    server.signal(Signal::SIGHUP);
    let wrong =
        ["users, line 1: the password of `bob` is not hashed", "cert.pem: not a certificate"];
    until("it says so", || wrong.iter().all(|wrong| log().contains(wrong)).then_some(()));
    assert_eq!(status("second", "bob:other"), Some(200));
}

#[test]
fn layers_go_by_tls() {
    let images = Images::new();
    let certificate = certificate(&images);
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    let answer = get_by_tls(server.address, &certificate, &blob);
    assert_eq!((answer.status, answer.body.len() as u64), (200, size));
    assert_eq!(format!("/v2/a/b/blobs/{}", Digest::of(&answer.body)), blob);
    // Without TLS there is no answer, and other clients still get theirs.
    let plain = http::raw(server.address, &http::request("GET", "/v2/", ""));
    assert!(!plain.starts_with(b"HTTP"));
    assert_eq!(get_by_tls(server.address, &certificate, "/v2/").status, 200);
}
