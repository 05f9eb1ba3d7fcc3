//! Tests that a program that is killed at any time leaves nothing that is wrong but can be read,
//! and nothing that stops the next run.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stowage::digest::Digest;

use crate::remote::Remote;
use crate::support::{FakeStore, stderr};

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

/// Makes an image of three store paths: `image.json`.
fn image() -> FakeStore {
    let mut store = FakeStore::new();
    for (digit, size) in [('1', 3 << 20), ('2', 1 << 20), ('3', 1 << 10)] {
        let bytes: Vec<u8> = (0..size).map(|place: u32| (place >> 5) as u8).collect();
        store.add(digit, "file", &[], |path| fs::write(path, bytes).unwrap());
    }
    store.build(r#"{"layering": "largest-first"}"#);
    store
}

/// Returns the time in a command's run at which to kill it: the golden ratio spreads the kills over
/// the whole run.
fn moment(number: u32, time: Duration) -> Duration {
    time.mul_f64(f64::from(number) * 0.618_033_99 % 1.0).min(Duration::from_secs(20))
}

#[test]
fn what_is_killed_leaves_nothing_wrong() {
    let store = image();
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
        sleep(moment(number, time));
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

/// Kills the sender of a copy to another machine, or its receiver, in turn.
#[test]
fn what_is_killed_leaves_nothing_wrong_on_another_machine() {
    let store = image();
    // The receiver has the process number of the script.
    let remote = Remote::new("echo $$ > ../pid.new; mv ../pid.new ../pid");
    let targets = ["oci:layout:v1", "dir:dir", "docker-archive:image.tar:a:v1"];
    let clear = || {
        let _ = fs::remove_file(remote.path("pid"));
        fs::remove_dir_all(remote.home()).unwrap();
        fs::create_dir(remote.home()).unwrap();
    };
    let run = |target: &str| {
        let mut command = remote.command(&store, &["image.json", &format!("ssh://other/{target}")]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let (mut killed, mut left) = (0, 0);
    for (number, target) in (0..kills()).zip(targets.iter().cycle()) {
        clear();
        let begin = Instant::now();
        assert!(run(target).output().unwrap().status.success(), "{target}");
        let time = begin.elapsed();
        let whole = files_of(&remote.home());
        clear();
        let mut child = run(target).spawn().unwrap();
        sleep(moment(number, time));
        let receiver = fs::read_to_string(remote.path("pid")).ok();
        match receiver.filter(|_| number % 2 == 0) {
            Some(pid) => {
                let pid = Pid::from_raw(pid.trim().parse().unwrap());
                // It may have ended.
                let _ = kill(pid, Signal::SIGKILL);
            }
            None => child.kill().unwrap(),
        }
        // Both have the other end of this pipe until they have ended.
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let found = files_of(&remote.home());
        for (name, digest) in &found {
            match whole.get(name) {
                Some(expected) => assert_eq!(expected, digest, "{target}: {name}"),
                None => left += u32::from(name.ends_with(".part")),
            }
        }
        // The receiver may have had all that it needed. An archive that is there is not added to.
        let again = run(target).output().unwrap();
        assert!(again.status.success() || found == whole, "{target}: {}", stderr(&again));
        assert_eq!(files_of(&remote.home()), whole, "{target}: {said}");
    }
    println!("{} runs, {killed} ended by SIGKILL, {left} temporary files", kills());
    assert_eq!(left, 0, "the file system of the tests has files without names");
}
