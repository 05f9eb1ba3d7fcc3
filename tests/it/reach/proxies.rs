use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::agreeable::{Agreeable, Setup};
use super::{image, push, tls};

/// A proxy that connects every request to one place, and remembers the requests. It passes on
/// requests with the whole address (RFC 9112, 3.2.2), and opens a tunnel for `CONNECT`.
struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(to: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (to, memory) = (to.clone(), Arc::clone(&memory));
                thread::spawn(move || lead(client, to.as_deref(), &memory));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Answers the requests of one connection. Refuses them if there is no place to connect to.
fn lead(mut client: TcpStream, to: Option<&str>, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut server: Option<TcpStream> = None;
    while let Some(head) = Head::read(&mut reader) {
        asked
            .lock()
            .unwrap()
            .push(format!("{} {}", head.line, head.authorization).trim().to_owned());
        let Some(to) = to else {
            client.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").ok()?;
            return None;
        };
        if server.is_none() {
            let new = TcpStream::connect(to).ok()?;
            let (mut from, mut back) = (new.try_clone().ok()?, client.try_clone().ok()?);
            if head.line.starts_with("CONNECT ") {
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
            }
            thread::spawn(move || std::io::copy(&mut from, &mut back));
            server = Some(new);
        }
        let server = server.as_mut()?;
        if head.line.starts_with("CONNECT ") {
            std::io::copy(&mut reader, server).ok()?;
            return server.shutdown(std::net::Shutdown::Write).ok();
        }
        let (method, rest) = head.line.split_once(" http://")?;
        let path = rest.find('/')?;
        write!(server, "{method} {}\r\n{}\r\n", &rest[path..], head.others).ok()?;
        std::io::copy(&mut (&mut reader).take(head.length), server).ok()?;
    }
    Some(())
}

/// The head of a request.
#[derive(Default)]
struct Head {
    line: String,
    /// The header with the credentials for the proxy.
    authorization: String,
    /// The other headers, each with its end of line.
    others: String,
    /// The number of bytes of the body.
    length: u64,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut head = Self::default();
        reader.read_line(&mut head.line).ok().filter(|read| *read > 0)?;
        head.line = head.line.trim_end().to_owned();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? <= 2 {
                return Some(head);
            }
            let (name, value) = line.split_once(':')?;
            if name.eq_ignore_ascii_case("proxy-authorization") {
                head.authorization = line.trim_end().to_owned();
                continue;
            }
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.trim().parse().unwrap();
            }
            head.others += &line;
        }
    }
}

/// Checks that a registry with a name that only the proxy knows is reached through the proxy for
/// its scheme.
#[test]
fn requests_go_through_the_proxy_for_their_scheme() {
    let store = image();
    let registry = Agreeable::start(Setup::default());
    let proxy = Proxy::start(Some(registry.host.clone()));
    let refusing = Proxy::start(None);
    let plain = ["--dest-tls-verify=false"];
    let name = "reg.invalid:5000/a/b:v1";
    let (good, bad) = (format!("http://{}", proxy.address), format!("http://{}", refusing.address));
    for variables in [
        &[("HTTP_PROXY", &*good), ("HTTPS_PROXY", &bad)][..],
        &[("http_proxy", &good), ("https_proxy", &bad)],
        &[("ALL_PROXY", &good), ("HTTPS_PROXY", &bad)],
        &[
            ("ALL_PROXY", &good),
            ("HTTPS_PROXY", &bad),
            ("NO_PROXY", "other.invalid,reg.invalid:80"),
        ],
    ] {
        push(&store, name, &plain, variables).unwrap_or_else(|error| panic!("{error}"));
        // Plain HTTP does not go through a tunnel: many proxies only allow tunnels to port 443.
        let asked = proxy.asked();
        assert!(asked.iter().any(|line| line.starts_with("PUT ")), "{variables:?}: {asked:?}");
        assert!(
            asked.iter().all(|line| line.contains(" http://reg.invalid:5000/v2/")),
            "{asked:?}"
        );
        assert_eq!(refusing.asked()[0], "CONNECT reg.invalid:5000 HTTP/1.1");
    }
    let secret = format!("http://us%40er:HUNTER2@{}", proxy.address);
    push(&store, name, &plain, &[("ALL_PROXY", &secret)]).unwrap();
    for asked in proxy.asked() {
        assert!(asked.ends_with("Proxy-Authorization: Basic dXNAZXI6SFVOVEVSMg=="), "{asked}");
    }
    assert!(registry.requests()[0].starts_with("reg.invalid:5000 "));
}

/// Checks that a proxy opens a tunnel to a registry with TLS, whose certificate is verified through it.
#[test]
fn a_tunnel_leads_to_a_registry_with_tls() {
    let store = image();
    let authority = tls::authority(&["reg.invalid"]);
    let registry = tls::registry(&authority, None);
    let certificates = tempfile::tempdir().unwrap();
    std::fs::write(certificates.path().join("ca.crt"), authority.cert.pem()).unwrap();
    let flags = ["--dest-cert-dir", certificates.path().to_str().unwrap()];
    let proxy = Proxy::start(Some(registry.host.clone()));
    let login = format!("http://u:p@{}", proxy.address);
    let authorization = "Proxy-Authorization: Basic dTpw";
    for (variable, value, authorization) in [
        ("HTTPS_PROXY", format!("http://{}", proxy.address), ""),
        ("https_proxy", proxy.address.clone(), ""),
        ("ALL_PROXY", login.clone(), authorization),
    ] {
        push(&store, "reg.invalid:5000/a/b:v1", &flags, &[(variable, &value)]).unwrap();
        // The proxy learns only the host: neither paths nor the registry's credentials.
        let asked = proxy.asked();
        let line = format!("CONNECT reg.invalid:5000 HTTP/1.1 {authorization}");
        assert!(!asked.is_empty() && asked.iter().all(|asked| *asked == line.trim()), "{asked:?}");
    }
    assert!(registry.requests().iter().any(|request| request.contains(" PUT ")));
    // The certificate of this registry is not valid for another host behind the same proxy.
    let error = push(&store, "other.invalid/a:v1", &flags, &[("ALL_PROXY", &login)]).unwrap_err();
    assert!(error.contains("other.invalid") && error.contains("certificate"), "{error}");
}

#[test]
fn this_machine_and_exceptions_are_reached_without() {
    let store = image();
    let refusing = Proxy::start(None);
    let proxy = format!("http://{}", refusing.address);
    let all = [("HTTP_PROXY", &*proxy), ("HTTPS_PROXY", &proxy), ("ALL_PROXY", &proxy)];
    for address in ["127.0.0.1", "127.0.0.9", "[::1]"] {
        let registry = Agreeable::start(Setup { address: Some(address), ..Setup::default() });
        push(&store, &format!("{}/a/b:v1", registry.host), &[], &all).unwrap();
        assert!(registry.requests().iter().any(|request| request.contains(" PUT ")));
    }
    for no_proxy in ["reg.invalid", " reg.invalid:5000 ", ".invalid", "a,b *.invalid", "*"] {
        let variables = [&all[..], &[("NO_PROXY", no_proxy)]].concat();
        // The host does not exist, and the proxy is not asked for it.
        push(&store, "reg.invalid:5000/a/b:v1", &["--dest-tls-verify=true"], &variables)
            .unwrap_err();
    }
    assert_eq!(refusing.asked(), [""; 0]);
}

#[test]
fn a_proxy_that_fails_is_named() {
    let store = image();
    let refusing = Proxy::start(None);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (variable, value, message) in [
        ("HTTPS_PROXY", format!("http://u:HUNTER2@{}", refusing.address), "responded 503"),
        ("https_proxy", refusing.address.clone(), "responded 503"),
        ("ALL_PROXY", format!("http://{closed}"), "refused"),
        ("HTTPS_PROXY", format!("socks5://{closed}"), "refused"),
        ("HTTPS_PROXY", "ftp://u:HUNTER2@proxy".to_owned(), "scheme is not supported"),
        ("HTTPS_PROXY", "quic+proxy://proxy".to_owned(), "scheme is not supported"),
        ("HTTPS_PROXY", "http://proxy:port".to_owned(), "is not an address"),
    ] {
        let error = push(&store, "reg.invalid/a/b:v1", &[], &[(variable, &value)]).unwrap_err();
        assert!(error.contains(&format!("the proxy that {variable} names")), "{error}");
        assert!(error.contains(message) && error.contains("NO_PROXY"), "{message}: {error}");
        assert!(!error.contains("HUNTER2"), "{error}");
    }
}

/// Checks that a proxy is asked once for a user that it refuses: more wrong passwords may lock the
/// account.
#[test]
fn a_user_that_the_proxy_refuses_is_not_sent_again() {
    let store = image();
    for (status, scheme, user, message) in [
        (407, "https", "u:HUNTER2@", "it refuses the name and the password in ALL_PROXY"),
        (407, "http", "u:HUNTER2@", "it refuses the name and the password in ALL_PROXY"),
        (407, "https", "", "it wants a name and a password, as in http://NAME:PASSWORD@HOST:PORT"),
        (407, "http", "", "it wants a name and a password, as in http://NAME:PASSWORD@HOST:PORT"),
        (403, "https", "u:HUNTER2@", "it does not connect to this host: it responded 403"),
    ] {
        let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
        let proxy = answering(answer.as_bytes());
        let flag = format!("--dest-tls-verify={}", scheme == "https");
        let variable = format!("http://{user}{}", proxy.address);
        let variables = [("ALL_PROXY", &*variable)];
        let error = push(&store, "reg.invalid:5000/a/b:v1", &[&flag], &variables).unwrap_err();
        assert!(error.contains(message) && !error.contains("HUNTER2"), "{error}");
        assert!(!error.contains("trying again"), "{error}");
        let asked = proxy.asked();
        // Other answers than 407 count for one request alone, and there are three at once.
        let most = if status == 407 { 1 } else { 3 };
        assert!(asked.len() <= most, "{scheme} {status}: {asked:?}");
    }
}

/// Checks that the proxy is named that closes connections, or does not speak HTTP.
#[test]
fn a_proxy_that_answers_nothing_is_named() {
    let store = image();
    for (answer, message) in [
        (&b""[..], "it closes the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "its answer is not HTTP"),
    ] {
        let proxy = answering(answer);
        let name = format!("http://{}", proxy.address);
        let variables = [("HTTP_PROXY", &*name)];
        let flags = ["--dest-tls-verify=false"];
        let error = push(&store, "reg.invalid:5000/a:v1", &flags, &variables).unwrap_err();
        assert!(error.contains("the proxy that HTTP_PROXY names: 127.0.0.1:"), "{error}");
        assert!(error.contains(message), "{message}: {error}");
    }
}

/// Starts a proxy that gives each connection the same answer, and closes it.
fn answering(answer: &[u8]) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (memory, answer) = (Arc::clone(&asked), answer.to_vec());
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let head = Head::read(&mut BufReader::new(&client));
            memory.lock().unwrap().extend(head.map(|head| head.line));
            let _ = client.write_all(&answer);
        }
    });
    Proxy { address, asked }
}

/// Checks that a SOCKS 5 proxy is given the name of the host.
#[test]
fn socks_proxies_are_used() {
    let store = image();
    let registry = Agreeable::start(Setup::default());
    let to = registry.host.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("socks5://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let to = to.clone();
            thread::spawn(move || {
                let mut greeting = [0; 2];
                client.read_exact(&mut greeting).ok()?;
                client.read_exact(&mut vec![0; greeting[1].into()]).ok()?;
                client.write_all(&[5, 0]).ok()?;
                let mut head = [0; 5];
                client.read_exact(&mut head).ok()?;
                assert_eq!(head[..4], [5, 1, 0, 3], "not the name of a host");
                client.read_exact(&mut vec![0; usize::from(head[4]) + 2]).ok()?;
                client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
                let mut server = TcpStream::connect(to).ok()?;
                let (mut from, mut back) = (server.try_clone().ok()?, client.try_clone().ok()?);
                thread::spawn(move || std::io::copy(&mut from, &mut back));
                std::io::copy(&mut client, &mut server).ok()
            });
        }
    });
    let flags = ["--dest-tls-verify=false"];
    push(&store, "reg.invalid:5000/a/b:v1", &flags, &[("ALL_PROXY", &address)]).unwrap();
    assert!(registry.requests()[0].starts_with("reg.invalid:5000 "));
}
