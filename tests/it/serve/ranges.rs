//! Tests several ranges in a request, as podman asks for pieces of a layer.

use std::fs;
use std::ops::Range;

use stowage::oci::{Form, ImageSpec};

use super::{Images, Server, until};
use crate::http::Answer;

/// Returns what the answer with these ranges of a blob must be: parts in the order of the ranges.
fn expected(answer: &Answer, blob: &[u8], ranges: &[Range<usize>]) -> Vec<u8> {
    assert_eq!(answer.status, 206);
    assert!(!answer.headers.contains_key("content-range"));
    let media_type = &answer.headers["content-type"];
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let size = blob.len();
    let mut body = Vec::new();
    for (index, Range { start, end }) in ranges.iter().cloned().enumerate() {
        let line = if index == 0 { "" } else { "\r\n" };
        let head = format!(
            "{line}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {start}-{}/{size}\r\n\r\n",
            end - 1
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&blob[start..end]);
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert_eq!(answer.headers["content-length"], body.len().to_string());
    body
}

fn header(ranges: &[Range<usize>]) -> String {
    let ranges: Vec<_> = ranges.iter().map(|it| format!("{}-{}", it.start, it.end - 1)).collect();
    format!("Range: bytes={}\r\n", ranges.join(","))
}

fn check(server: &Server, path: &str, blob: &[u8], ranges: &[Range<usize>]) {
    let answer = server.ask("GET", path, &header(ranges));
    assert!(answer.body == expected(&answer, blob, ranges), "{ranges:?}");
    let head = server.ask("HEAD", path, &header(ranges));
    assert_eq!(head.headers["content-length"], answer.headers["content-length"]);
    assert_eq!((head.status, head.body.len()), (206, 0));
}

/// Returns an image with a chunked layer: the layer's path at the server, and its bytes.
fn chunked(images: &mut Images) -> (String, Vec<u8>) {
    images.store.add('4', "pieces", &[], |path| {
        let byte = |place: u64| (place.wrapping_mul(place).wrapping_mul(0x9e37_79b9) >> 23) as u8;
        fs::write(path, (0..6_u64 << 20).map(byte).collect::<Vec<_>>()).unwrap();
    });
    images.store.build(r#"{"maxLayers": 9, "compression": "zstd:chunked"}"#);
    let file = images.path("chunked.json");
    fs::rename(images.path("image.json"), &file).unwrap();
    let spec = ImageSpec::read(&file).unwrap();
    images.link("chunked.json", "a/v3");
    let largest = spec.layers.iter().max_by_key(|layer| layer.blob(Form::AsStored).size).unwrap();
    let blob = largest.blob(Form::AsStored);
    assert!(blob.toc.is_some());
    let mut bytes = Vec::new();
    largest.write_blob(&images.store.store(), Form::AsStored, &mut bytes).unwrap();
    assert!(bytes.len() > 1 << 20, "{}", bytes.len());
    (format!("/v2/a/blobs/{}", blob.digest), bytes)
}

#[test]
fn several_ranges_are_parts_of_one_answer() {
    let images = Images::new();
    let (path, size) = images.big("a/b");
    let layer = images.one.layers.iter().find(|layer| path.ends_with(&layer.diff_id.to_string()));
    let mut blob = Vec::new();
    layer.unwrap().write_blob(&images.store.store(), Form::AsStored, &mut blob).unwrap();
    let server = images.serve(&["images"]);
    let size = usize::try_from(size).unwrap();
    let many: Vec<_> = (0..1024).map(|index| index * 30_000..index * 30_000 + 7).collect();
    for ranges in [
        &[0..100, 100..101, 5_000_000..9_000_000, size - 1..size][..],
        &[10..20, size - 600..size],
        &many,
    ] {
        check(&server, &path, &blob, ranges);
    }
    // Ranges that the blob does not have are left out; one that is left is not a multipart answer.
    let answer = server.ask("GET", &path, &format!("Range: bytes=5-9,{size}-,{}-\r\n", size + 9));
    assert_eq!(answer.headers["content-range"], format!("bytes 5-9/{size}"));
    assert_eq!((answer.status, &answer.body[..]), (206, &blob[5..10]));
    let answer = server.ask("GET", &path, &format!("Range: bytes={size}-,{}-\r\n", size + 9));
    assert_eq!(answer.status, 416);
    // Too many, overlapping and descending ranges, and those of another blob, are the whole blob.
    let too_many: Vec<_> = (0..1025).map(|index| index * 9..index * 9 + 1).collect();
    for more in [
        header(&too_many),
        header(&[0..9, 8..10]),
        header(&[8..10, 0..5]),
        format!("{}If-Range: \"sha256:{}\"\r\n", header(&[0..2, 4..5]), "0".repeat(64)),
    ] {
        let answer = server.ask("GET", &path, &more);
        assert_eq!((answer.status, answer.body.len()), (200, size), "{more}");
    }
    let tag = server.ask("HEAD", &path, "").headers["etag"].clone();
    let ranges = [0..2, 4..5];
    let answer = server.ask("GET", &path, &format!("{}If-Range: {tag}\r\n", header(&ranges)));
    assert!(answer.body == expected(&answer, &blob, &ranges));
    // A configuration has ranges as well.
    let config = stowage::oci::Image::new(&images.one).config;
    let path = format!("/v2/a/b/blobs/{}", config.digest);
    check(&server, &path, &config.bytes, &[1..3, 7..8]);
}

/// Checks that parts of a chunked layer come from a file, which is made once and removed at the end.
#[test]
fn a_chunked_layer_is_made_once_for_its_readers() {
    let mut images = Images::new();
    let (path, blob) = chunked(&mut images);
    let size = blob.len();
    let temporary = images.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let files = || fs::read_dir(&temporary).unwrap().count();
    for cache in [&[][..], &["--cache", "cache"]] {
        let mut command = images.store.stowage(&["serve", "images"]);
        let server = Server::run(&images, command.args(cache).env("TMPDIR", &temporary));
        assert_eq!(files(), 0);
        std::thread::scope(|scope| {
            for client in 0..4 {
                let (server, path, blob) = (&server, &path, &blob);
                scope.spawn(move || {
                    check(server, path, blob, &[client..9, 70_000..600_000, size - 99..size]);
                });
            }
        });
        check(&server, &path, &blob, &[5..6, size - 2..size]);
        let one = server.ask("GET", &path, &header(std::slice::from_ref(&(7..90_000))));
        assert!(one.body == blob[7..90_000]);
        assert_eq!(server.metric("stowage_layers_made_total"), 1.0);
        assert_eq!(files(), usize::from(cache.is_empty()));
        if cache.is_empty() {
            // The whole layer is sent while it is made, as for other layers.
            assert!(server.get(&path).body == blob);
        }
        server.end();
        until("the file is gone", || (files() == 0).then_some(()));
    }
}
