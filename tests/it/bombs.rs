//! Archives that are made to cost much memory or time. Checks the cost and the errors of each
//! command.

use std::fs;
use std::io::{self, Read};
use std::time::Instant;

use serde_json::{Value, json};
use stowage::digest::Digest;
use tar::{EntryType, Header};

use crate::memory::{Ended, measure};
use crate::support::FakeStore;

/// The most memory (KiB) and time (seconds) that a command may take. Tests run in parallel and
/// without optimisation, so the time is only short enough to notice a command that never ends.
const LIMIT: u64 = 128 << 10;
const SECONDS: u64 = 60;

fn header(kind: EntryType, name: &str, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Returns a tar with an empty file of this name.
fn named(name: &str) -> Vec<u8> {
    let name = format!("{name}\0").into_bytes();
    let long = header(EntryType::GNULongName, "long", name.len() as u64);
    [long, padded(name), header(EntryType::Regular, "f", 0)].concat()
}

/// Returns a gzip stream of a tar: a member of `kind` with a body of zeros, then a file. Also
/// returns the digest of the uncompressed tar.
fn zeros(kind: EntryType, mebibytes: u64) -> (Vec<u8>, String) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let (begin, end) = (header(kind, "z", mebibytes << 20), header(EntryType::Regular, "f", 0));
    let body = io::repeat(0).take(mebibytes << 20);
    let mut all = begin.chain(body).chain(&end[..]);
    let digest = stowage::digest::DigestWriter::new(&mut encoder);
    let mut digest = digest;
    io::copy(&mut all, &mut digest).unwrap();
    let digest = digest.finish().0;
    (encoder.finish().unwrap(), digest.to_string())
}

fn plain(tar: Vec<u8>) -> (Vec<u8>, String) {
    let digest = Digest::of(&tar).to_string();
    (tar, digest)
}

fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    [header(EntryType::Regular, name, bytes.len() as u64), padded(bytes.to_vec())].concat()
}

fn configuration(diff_ids: &[&str]) -> Value {
    json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
}

/// Returns a docker-archive that has a layer `times` times. `more` is added to the JSON of its
/// configuration.
fn archive((layer, digest): &(Vec<u8>, String), times: usize, more: &str) -> Vec<u8> {
    let mut config = configuration(&vec![&**digest; times]).to_string();
    config.truncate(config.len() - 1);
    config += more;
    config.push('}');
    let manifest = json!([{"Config": "c.json", "Layers": vec!["l.tar"; times]}]).to_string();
    let mut tar = [
        member("manifest.json", manifest.as_bytes()),
        member("c.json", config.as_bytes()),
        member("l.tar", layer),
    ]
    .concat();
    tar.extend([0; 1024]);
    tar
}

/// Runs a command with `base.tar` as its standard input, and checks its memory and its time.
fn run_cheaply(what: &str, store: &FakeStore, command: &[&str]) -> Ended {
    let begin = Instant::now();
    let ended = measure(store, command, "base.tar");
    let name = command[0];
    let seconds = begin.elapsed().as_secs();
    println!("{what} {name}: {} MiB, {seconds} s, {}", ended.peak >> 10, ended.said.trim());
    assert!(ended.peak <= LIMIT, "{what}: {name}: {} MiB", ended.peak >> 10);
    assert!(seconds <= SECONDS, "{what}: {name}: {seconds} s");
    ended
}

/// Runs each command that reads archives, and checks its memory and its time. `build` and `flatten`
/// must fail with the `expected` error.
fn assert_cheap(what: &str, bytes: &[u8], expected: &str) {
    let store = FakeStore::new();
    store.write("registration", "");
    fs::write(store.root().join("base.tar"), bytes).unwrap();
    store.write("options.json", r#"{"fromImage": "base.tar", "architecture": "amd64"}"#);
    for command in [
        &["build", "--closure", "registration", "--options", "options.json", "-o", "i.json"][..],
        &["flatten", "base.tar", "--arch", "amd64"],
        &["merge", "base.tar"],
        &["tarsum"],
    ] {
        let ended = run_cheaply(what, &store, command);
        let name = command[0];
        assert!([0, 1].contains(&ended.code), "{what}: {name}: {}", ended.said);
        // The other commands copy or hash layers without unpacking them.
        if ["build", "flatten"].contains(&name) {
            let first = ended.said.lines().find(|line| line.starts_with("error: "));
            let first = first.unwrap_or_else(|| panic!("{what}: {name}: {}", ended.said));
            assert!(first.contains(expected), "{what}: {name}: {first}");
            assert!(first.len() < 500, "{what}: {name}: {first}");
        }
    }
}

#[test]
fn long_records_are_not_read() {
    for kind in [EntryType::XHeader, EntryType::GNULongName, EntryType::GNULongLink] {
        let layer = zeros(kind, 200);
        let expected = "layer 1 of 1: can't be unpacked: its member `z` has 209715200 bytes of names and records, \
                        and 1048576 are the most";
        assert_cheap("record in a layer", &archive(&layer, 1, ""), expected);
    }
    let (outer, _) = zeros(EntryType::XHeader, 200);
    assert_cheap("record in the archive", &outer, "its member `z` has 209715200 bytes");
}

#[test]
fn deep_paths_are_not_kept() {
    let deep = plain(named(&("a/".repeat(100_000) + "x")));
    assert_cheap("one deep path", &archive(&deep, 1, ""), "has a path of more than 4096 bytes");
    let paths: Vec<_> =
        (0..300).map(|number| named(&format!("{number}/{}x", "a/".repeat(2000)))).collect();
    assert_cheap(
        "many deep paths",
        &archive(&plain(paths.concat()), 1, ""),
        "it has more directories, links and names than fit in memory",
    );
}

/// Checks that names below a link to a deep directory cost no more than their budget.
#[test]
fn paths_behind_links_are_counted() {
    let link = |target: &str| {
        let records = [target.as_bytes(), b"\0"].concat();
        let size = records.len() as u64;
        let long = [header(EntryType::GNULongLink, "t", size), padded(records)].concat();
        [long, header(EntryType::Symlink, "l", 0)].concat()
    };
    let files = |count: u32, name: &dyn Fn(u32) -> String| -> Vec<u8> {
        (0..count).flat_map(|number| member(&name(number), b"")).collect()
    };
    let deep = link(&["a"; 2000].join("/"));
    let names = files(30_000, &|number| format!("l/{number}"));
    let whiteouts = files(30_000, &|number| format!("l/.wh.{number}"));
    for (what, members, expected) in [
        ("files", names, "it has more directories, links and names than fit in memory"),
        ("whiteouts", whiteouts, "and names before it are behind too many links, or too long ones"),
    ] {
        let layer = plain([deep.clone(), members].concat());
        let store = FakeStore::new();
        fs::write(store.root().join("base.tar"), archive(&layer, 1, "")).unwrap();
        let ended = run_cheaply(what, &store, &["flatten", "base.tar", "--arch", "amd64"]);
        assert!(ended.said.contains(expected), "{what}: {}", ended.said);
    }
}

#[test]
fn layers_are_counted_first() {
    let directories: Vec<_> =
        (0..5000).map(|number| header(EntryType::Directory, &number.to_string(), 0)).collect();
    let layer = plain(directories.concat());
    let expected = "has 1000 layers, and 127 is the most that image tools take";
    assert_cheap("a layer 1000 times", &archive(&layer, 1000, ""), expected);
}

#[test]
fn large_documents_are_not_parsed() {
    let layer = plain(header(EntryType::Regular, "f", 0));
    for (what, item, count, expected) in [
        (
            "small objects",
            r#"{"a":{}},"#,
            900_000,
            "`c.json` is no image configuration: it has more than 100000 values",
        ),
        ("numbers", "0,", 5_000_000, "`c.json` is no document: it has 10"),
    ] {
        let more = format!(r#","x":[{}0]"#, item.repeat(count));
        assert_cheap(what, &archive(&layer, 1, &more), expected);
    }
}

/// Checks files beside an image that strangers may have written.
#[test]
fn large_files_beside_an_image_are_cheap() {
    let store = FakeStore::new();
    store.write("registration", "");
    store.write("base.tar", "");
    store.build("{}");
    let provenance =
        "provenance image.json --flake a --attribute b --builder-id https://c --lock f";
    for (command, begin, item, code, said) in [
        (
            "sbom image.json --base f",
            r#"{"spdxVersion":"SPDX-2.3","documentNamespace":"https://a/b","x":["#,
            r#"{"":{}},"#,
            0,
            "",
        ),
        (provenance, r#"{"version":7,"nodes":["#, "{},", 1, "f: it is not a `flake.lock`: it has "),
        (
            "plan registration --popularity f",
            r#"{"x":["#,
            "[0],",
            1,
            "cannot read f: it has more than 500000 values",
        ),
    ] {
        store.write("f", &format!("{begin}{}0]}}", item.repeat(3_000_000)));
        let command: Vec<_> = command.split(' ').collect();
        let ended = run_cheaply("a file", &store, &command);
        assert_eq!(ended.code, code, "{command:?}: {}", ended.said);
        assert!(ended.said.contains(said), "{command:?}: {}", ended.said);
    }
}

#[test]
fn much_does_not_come_of_little() {
    let expected = "layer 1 of 1: is not a complete tar archive in a gzip stream: ";
    assert_cheap("zeros", &archive(&zeros(EntryType::Regular, 700), 1, ""), expected);
    // An option changes the limit.
    let store = FakeStore::new();
    fs::write(store.root().join("base.tar"), archive(&zeros(EntryType::Regular, 1), 1, ""))
        .unwrap();
    let flatten = ["flatten", "base.tar", "--arch", "amd64"];
    for (limit, code) in [("1M", 1), ("2M", 0)] {
        let ended =
            measure(&store, &[&flatten[..], &["--max-unpacked", limit]].concat(), "/dev/null");
        assert_eq!(ended.code, code, "{limit}: {}", ended.said);
        assert_eq!(ended.said.contains("(`--max-unpacked`"), code == 1, "{}", ended.said);
    }
}

/// Checks that `build` and `flatten` refuse the same members.
#[test]
fn odd_members_are_refused_by_all() {
    let to = |kind, name: &str, target: &str| {
        let mut header = Header::new_gnu();
        header.as_mut_bytes().copy_from_slice(&self::header(kind, name, 0));
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let hard = |target| to(EntryType::Link, "h", target);
    let link = |target| to(EntryType::Symlink, target, target);
    for (what, layer, expected) in [
        (
            "parent",
            named("../../etc/evil"),
            "layer 1 of 1: can't be unpacked: its member `../../etc/evil` leads out of the image",
        ),
        (
            "link out",
            hard("../etc/passwd"),
            "its member `h` is a hard link to `../etc/passwd`, which leads out of the image",
        ),
        (
            "link to a missing file",
            hard("etc/passwd"),
            "layer 1 of 1: can't be unpacked: `h` is a hard link to `etc/passwd`, and there is no such file before it",
        ),
        (
            "link to itself",
            [link("loop"), member("loop/f", b"")].concat(),
            "layer 1 of 1: can't be unpacked: the links on the way to `loop/f` lead in a circle",
        ),
        (
            "device",
            header(EntryType::Block, "blk", 0),
            "its member `blk` has no valid device number",
        ),
        (
            "records",
            [header(EntryType::XHeader, "x", 5), padded(b"5 a=b".to_vec())].concat(),
            "its member `x` has malformed PAX records",
        ),
    ] {
        assert_cheap(what, &archive(&plain(layer), 1, ""), expected);
    }
}
