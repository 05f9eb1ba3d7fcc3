use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use stowage::digest::Digest;

use super::{Images, Server, Slow, until};
use crate::http;

#[test]
fn a_layer_is_made_once_with_a_cache() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--cache", "cache/blobs"]);
    let numbers = |server: &Server| {
        ["layers_made", "cache_misses", "cache_hits"]
            .map(|name| server.metric(&format!("stowage_{name}_total")))
    };
    let first = server.get(&blob);
    assert_eq!((first.status, first.body.len() as u64), (200, size));
    assert_eq!(numbers(&server), [1.0, 1.0, 0.0]);
    assert!(server.get(&blob).body == first.body);
    assert_eq!(numbers(&server), [1.0, 1.0, 1.0]);
    let part = server.ask("GET", &blob, "Range: bytes=5000000-6000000\r\n");
    assert_eq!(part.status, 206);
    assert!(part.body == first.body[5_000_000..=6_000_000]);
    assert_eq!(numbers(&server), [1.0, 1.0, 2.0]);
    assert!(server.metric("stowage_sent_bytes_total") > 2.0 * size as f64);

    // An incomplete file is made again; a kept one is there for the next request.
    let name = blob.rsplit('/').next().unwrap().replace(':', "-");
    let file = images.path("cache/blobs").join(name);
    assert_eq!(fs::metadata(&file).unwrap().len(), size);
    fs::write(&file, "half of it").unwrap();
    assert!(server.get(&blob).body == first.body);
    assert_eq!(numbers(&server), [2.0, 2.0, 2.0]);
    server.end();
    let server = images.serve(&["images", "--cache", "cache/blobs"]);
    assert!(server.get(&blob).body == first.body);
    assert_eq!(numbers(&server), [0.0, 0.0, 1.0]);
    server.end();
    // A cache that is smaller than the layer does not keep it.
    let server = images.serve(&["images", "--cache", "cache/blobs", "--cache-size", "1M"]);
    for _ in 0..2 {
        assert!(server.get(&blob).body == first.body);
    }
    assert_eq!(numbers(&server), [2.0, 2.0, 0.0]);
    assert!(!file.exists());
}

/// Checks that a layer is made once for several clients, in any order and at any progress.
#[test]
fn a_layer_is_made_once_for_many_who_ask_at_once() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--cache", "cache"]);
    let file = images.path("cache").join(blob.rsplit('/').next().unwrap().replace(':', "-"));
    for round in 1..=3 {
        std::thread::scope(|scope| {
            for client in 0..12 {
                let (server, blob) = (&server, &blob);
                scope.spawn(move || {
                    if client % 3 == 0 {
                        let range = "Range: bytes=5000000-6000000\r\n";
                        assert_eq!(server.ask("GET", blob, range).body.len(), 1_000_001);
                    } else {
                        let body = server.get(blob).body;
                        assert_eq!(format!("/v2/a/b/blobs/{}", Digest::of(&body)), *blob);
                    }
                });
            }
        });
        assert_eq!(server.metric("stowage_layers_made_total"), f64::from(round));
        assert_eq!(server.metric("stowage_cache_misses_total"), f64::from(round));
        let [joins, hits] =
            ["joins", "hits"].map(|name| server.metric(&format!("stowage_cache_{name}_total")));
        assert_eq!(joins + hits, f64::from(round) * 11.0);
        assert_eq!(fs::metadata(&file).unwrap().len(), size);
        // The layer is made again.
        fs::remove_file(&file).unwrap();
    }
    // Clients that go away early do not disturb those that wait.
    std::thread::scope(|scope| {
        for client in 0..12 {
            let (server, blob) = (&server, &blob);
            scope.spawn(move || {
                if client % 2 == 0 {
                    drop(Slow::ask(server, blob));
                } else {
                    let body = server.get(blob).body;
                    assert_eq!(format!("/v2/a/b/blobs/{}", Digest::of(&body)), *blob);
                }
            });
        }
    });
    assert_eq!(server.metric("stowage_layers_failed_total"), 0.0);
}

/// Checks that nothing is kept of a layer that came out wrong, or whose client went away.
#[test]
fn only_checked_layers_are_kept() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--cache", "cache"]);
    let mut client = TcpStream::connect(server.address).unwrap();
    client.write_all(http::request("GET", &blob, "").as_bytes()).unwrap();
    client.read_exact(&mut [0; 4096]).unwrap();
    drop(client);
    let names = || {
        let entries = fs::read_dir(images.path("cache")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    // The layer was completed before that, or it is dropped. No thread makes it after the server's end.
    server.end();
    for name in names() {
        assert_eq!(fs::metadata(images.path("cache").join(&name)).unwrap().len(), size, "{name}");
        fs::remove_file(images.path("cache").join(name)).unwrap();
    }
    let server = images.serve(&["images", "--cache", "cache"]);
    let source = images.one.layers.iter().max_by_key(|layer| layer.size).unwrap();
    let source = images.store.store().physical(source.sources().next().unwrap());
    let mut bytes = fs::read(&source).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&source, bytes).unwrap();
    assert!((server.get(&blob).body.len() as u64) < size);
    assert_eq!(names(), [""; 0]);
    assert_eq!(server.metric("stowage_layers_failed_total"), 1.0);
    let log = server.end();
    assert!(log.contains("is not what it was") && log.contains("broken off"), "{log}");
}

/// Checks that bytes that changed in the cache are not passed on, and that the layer is kept anew.
#[test]
fn what_was_damaged_in_the_cache_is_made_again() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--cache", "cache"]);
    let good = server.get(&blob).body;
    server.end();
    let [file] = &*fs::read_dir(images.path("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>()
    else {
        panic!("one layer is kept")
    };
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(file, bytes).unwrap();
    let server = images.serve(&["images", "--cache", "cache"]);
    for _ in 0..2 {
        let body = server.get(&blob).body;
        assert_eq!(body.len() as u64, size);
        assert!(body == good, "the damaged layer was sent");
        assert!(fs::read(file).unwrap() == good, "the damaged layer is still there");
    }
}

/// Checks that a wrong digest in one image does not spoil the cache for others that have it right.
#[test]
fn only_what_has_the_digest_is_kept() {
    let images = Images::new();
    let digest = images.one.layers.iter().max_by_key(|layer| layer.size).unwrap().diff_id;
    let wrong = format!("sha256:{}", "0".repeat(64));
    let spec = fs::read_to_string(images.path("one.json")).unwrap();
    images.store.write("wrong.json", &spec.replace(&digest.to_string(), &wrong));
    images.link("wrong.json", "a/b/v1");
    let blob = format!("/v2/a/b/blobs/{wrong}");
    let size = images.big("a/b").1;
    let server = images.serve(&["images", "--cache", "cache"]);
    assert!((server.get(&blob).body.len() as u64) < size);
    assert_eq!(fs::read_dir(images.path("cache")).unwrap().count(), 0);
    // A client that is sent the wrong layer compares its digest.
    let server = images.serve(&["images"]);
    assert_eq!(server.get(&blob).body.len() as u64, size);
}

/// Checks that a client that does not read holds up nothing: the layer is completed in the cache,
/// and the client is served from there.
#[test]
fn slow_clients_are_sent_what_is_kept() {
    let images = Images::new();
    let (blob, size) = images.big("a/b");
    let server = images.serve(&["images", "--cache", "cache", "--jobs", "1"]);
    let slow = Slow::ask(&server, &blob);
    until("it is made", || (server.metric("stowage_requests_in_flight") == 2.0).then_some(()));
    let file = images.path("cache").join(blob.rsplit('/').next().unwrap().replace(':', "-"));
    until("it is kept", || file.exists().then_some(()));
    assert_eq!(server.get(&blob).body.len() as u64, size);
    assert_eq!(server.metric("stowage_cache_hits_total"), 1.0);
    // This also holds if the file is removed in the meantime.
    fs::remove_file(&file).unwrap();
    assert_eq!(format!("/v2/a/b/blobs/{}", Digest::of(&slow.finish().body)), blob);
    let part = Slow::ask_with(&server, &blob, "Range: bytes=100-30000000\r\n");
    until("it is kept", || file.exists().then_some(()));
    assert_eq!(part.finish().body.len(), 30_000_000 - 100 + 1);
}

#[test]
fn compressed_layers_are_kept_compressed() {
    let images = Images::new();
    for compression in ["gzip", "zstd"] {
        images.store.build(&json!({"compression": compression, "maxLayers": 5}).to_string());
        let server = images.serve(&["a:v=image.json", "--cache", "cache"]);
        let manifest = server.get("/v2/a/manifests/v").json();
        let layers = manifest["layers"].as_array().unwrap();
        for times in 0..2 {
            for layer in layers {
                let media_type = layer["mediaType"].as_str().unwrap();
                assert!(media_type.ends_with(&format!("+{compression}")), "{media_type}");
                let digest = layer["digest"].as_str().unwrap();
                let blob = server.get(&format!("/v2/a/blobs/{digest}"));
                assert_eq!(Digest::of(&blob.body).to_string(), digest);
            }
            let hits = server.metric("stowage_cache_hits_total");
            assert_eq!(hits as usize, times * layers.len());
        }
    }
}
