//! Tests that a program that is killed at any time leaves nothing that is wrong but can be read,
//! and nothing that stops the next run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use stowage::digest::Digest;

use crate::support::FakeStore;

/// Returns the number of kills. It is small by default; `STOWAGE_KILLS=500` sets another one.
fn kills() -> u32 {
    std::env::var("STOWAGE_KILLS").map_or(20, |kills| kills.parse().expect("a number"))
}

/// Collects the files below a directory, with their digests.
fn files(path: &Path, found: &mut BTreeMap<String, Digest>) {
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.insert(path.display().to_string(), Digest::of(&fs::read(&path).unwrap()));
        }
    }
}

fn files_of(path: &Path) -> BTreeMap<String, Digest> {
    let mut found = BTreeMap::new();
    files(path, &mut found);
    found
}

#[test]
fn what_is_killed_leaves_nothing_wrong() {
    let mut store = FakeStore::new();
    for (digit, size) in [('1', 3 << 20), ('2', 1 << 20), ('3', 1 << 10)] {
        let bytes: Vec<u8> = (0..size).map(|place: u32| (place >> 5) as u8).collect();
        store.add(digit, "file", &[], |path| fs::write(path, bytes).unwrap());
    }
    store.build(r#"{"layering": "largest-first"}"#);
    let build = ["build", "--closure", "registration", "-o", "new/image.json"];
    let commands: [&[&str]; 7] = [
        &["copy", "image.json", "oci-archive:new/image.tar"],
        &["copy", "image.json", "docker-archive:new/image.tar:a:v1"],
        &["copy", "image.json", "oci:new/layout"],
        &["copy", "image.json", "dir:new/dir"],
        &["flatten", "image.json", "-o", "new/root.tar"],
        &["merge", "one.tar", "one.tar", "-o", "new/all.tar"],
        &build,
    ];
    let archive = store.stowage(&["copy", "image.json", "docker-archive:one.tar:a:v1"]).output();
    assert!(archive.unwrap().status.success());
    fs::write(store.root().join("registration"), store.registration()).unwrap();
    let new = store.root().join("new");
    let (mut killed, mut left) = (0, 0);
    for (number, command) in (0..kills()).zip(commands.iter().cycle()) {
        let run = || {
            let mut command = store.stowage(command);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let _ = fs::remove_dir_all(&new);
        fs::create_dir(&new).unwrap();
        let begin = Instant::now();
        assert!(run().status().unwrap().success(), "{command:?}");
        let time = begin.elapsed();
        let whole = files_of(&new);
        fs::remove_dir_all(&new).unwrap();
        fs::create_dir(&new).unwrap();
        let mut child = run().spawn().unwrap();
        // The golden ratio spreads the kills over the time that the command takes.
        sleep(time.mul_f64(f64::from(number) * 0.618_033_99 % 1.0).min(Duration::from_secs(20)));
        let _ = child.kill();
        killed += u32::from(!child.wait().unwrap().success());
        for (name, digest) in files_of(&new) {
            match whole.get(&name) {
                Some(expected) => assert_eq!(*expected, digest, "{command:?}: {name}"),
                None => left += u32::from(name.ends_with(".part")),
            }
        }
        // If an archive already had its name, it is complete, and the next run adds nothing to it.
        let again = run().status().unwrap();
        assert_eq!(files_of(&new), whole, "{command:?}: {again}");
    }
    println!("{} runs, {killed} ended by SIGKILL, {left} temporary files", kills());
    assert_eq!(left, 0, "the file system of the tests has files without names");
}
