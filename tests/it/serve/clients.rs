use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Images, Slow, until};
use crate::http::{self, Answer};

fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[test]
fn what_was_asked_for_is_sent_to_its_end() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let images = Images::new();
        let (blob, size) = images.big("a/b");
        let mut server = images.serve(&["images", "--grace", "60"]);
        let slow = Slow::ask(&server, &blob);
        let mut idle = TcpStream::connect(server.address).unwrap();
        server.signal(signal);
        until("it accepts no more", || refuses(server.address).then_some(()));
        assert!(server.child.try_wait().unwrap().is_none());
        // The server does not wait for a client without a request.
        assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0);
        let answer = slow.finish();
        assert_eq!(answer.body.len() as u64, size);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn nobody_is_waited_for_longer_than_was_said() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--grace", "0"]);
    let slow = Slow::ask(&server, &blob);
    let log = server.end();
    assert!(log.contains("broke off what was not sent in time"), "{log}");
    assert!((slow.finish().body.len() as u64) < size);

    let mut server = images.serve(&["images", "--grace", "1000"]);
    let _slow = Slow::ask(&server, &blob);
    server.signal(Signal::SIGTERM);
    until("it accepts no more", || refuses(server.address).then_some(()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(128 + 15));
}

#[test]
fn slow_clients_do_not_keep_others_waiting() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--jobs", "1"]);
    let slow: Vec<_> = (0..20).map(|_| Slow::ask(&server, &blob)).collect();
    assert_eq!(server.metric("stowage_requests_in_flight"), 21.0);
    assert_eq!(server.get(&blob).body.len() as u64, size);
    drop(slow);
    until("they are forgotten", || {
        (server.metric("stowage_requests_in_flight") == 1.0).then_some(())
    });
}

#[test]
fn connections_are_as_many_as_may_be() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--max-connections", "1"]);
    let slow = Slow::ask(&server, &blob);
    let mut next = TcpStream::connect(server.address).unwrap();
    next.write_all(http::request("GET", "/v2/", "").as_bytes()).unwrap();
    next.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(next.read(&mut [0]).is_err());
    assert_eq!(slow.finish().body.len() as u64, size);
    next.set_read_timeout(None).unwrap();
    let mut bytes = Vec::new();
    next.read_to_end(&mut bytes).unwrap();
    assert_eq!(Answer::parse(&bytes).status, 200);
}
