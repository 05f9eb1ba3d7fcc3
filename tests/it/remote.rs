//! Tests copies to another machine. The other machine is this one: a script in place of `ssh` runs
//! the command, as the shell of another machine does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use stowage::store::StorePath;

use crate::base_image::{BaseFiles, write_files};
use crate::schema;
use crate::support::{FakeStore, stderr};
use crate::targets::files;

/// Another machine: its home directory, and the programs that this machine has in place of ssh.
pub struct Remote {
    directory: tempfile::TempDir,
}

impl Remote {
    /// Makes the machine. The script `ssh` runs `before`, and then the command.
    pub fn new(before: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let remote = Self { directory };
        for name in ["bin", "other/bin", "home"] {
            fs::create_dir_all(remote.path(name)).unwrap();
        }
        remote.program(
            "bin/ssh",
            &format!(
                "echo \"$@\" >> {log}\nwhile [ \"$1\" != -- ]; do shift; done\n\
                 cd {home}\nexport HOME={home} PATH={other}:$PATH\n{before}\n\
                 exec /bin/sh -c \"exec $3\"",
                log = remote.path("log").display(),
                home = remote.path("home").display(),
                other = remote.path("other/bin").display(),
            ),
        );
        remote.program(
            "other/bin/stowage",
            &format!(
                "exec {} --root {}/none \"$@\"",
                env!("CARGO_BIN_EXE_stowage"),
                remote.home().display()
            ),
        );
        remote
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn command(&self, store: &FakeStore, arguments: &[&str]) -> Command {
        let mut command = store.stowage(&[&["copy"], arguments].concat());
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env_remove("XDG_CACHE_HOME").env_remove("NIX_SSHOPTS");
        command
    }

    /// Copies an image, and returns the result as JSON.
    fn copy(&self, store: &FakeStore, image: &str, target: &str) -> Value {
        let output = self.command(store, &[image, target, "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        schema::checked("copy", str::from_utf8(&output.stdout).unwrap())
    }

    fn fail(&self, store: &FakeStore, target: &str) -> String {
        let output = self.command(store, &["image.json", target]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stderr(&output)
    }
}

/// Returns bytes without a pattern.
pub fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let byte = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(byte).collect()
}

/// Makes an image of two store paths, of which one names the other: `image.json`. The digits are
/// those of their hashes.
fn image(digits: [char; 2], text: &str) -> FakeStore {
    let mut store = FakeStore::new();
    let fill = |path: &Path, seed, more: &str| {
        fs::create_dir(path).unwrap();
        fs::write(
            path.join("big"),
            [&noise(1 << 18, seed), more.as_bytes(), &noise(1 << 18, seed + 1)].concat(),
        )
        .unwrap();
        fs::write(path.join("small"), noise(20_000, seed + 2)).unwrap();
        fs::write(path.join("text"), format!("{text}\n{more}\n")).unwrap();
    };
    let library: StorePath = store.add(digits[0], "library", &[], |path| fill(path, 1, ""));
    let reference = store.store().print(&library);
    store.add(digits[1], "program", &[&library], |path| fill(path, 5, &reference));
    store.build(r#"{"layering": "largest-first"}"#);
    store
}

/// Checks that an image layout is the one that a copy on this machine makes.
fn assert_same(store: &FakeStore, layout: &Path) {
    let output = store.stowage(&["copy", "image.json", "oci:expected:v1"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let (found, expected) = (files(layout), files(&store.root().join("expected")));
    let other: Vec<_> = expected.iter().filter(|file| found.get(file.0) != Some(file.1)).collect();
    assert!(found == expected, "{:?}", other.iter().map(|file| file.0).collect::<Vec<_>>());
    fs::remove_dir_all(store.root().join("expected")).unwrap();
}

#[test]
fn another_machine_is_sent_what_it_lacks() {
    let remote = Remote::new("");
    let target = "ssh://me@other:2222/oci:lay out:v1";
    let (old, new) = (image(['1', '2'], "old"), image(['3', '4'], "old"));
    let first = remote.copy(&old, "image.json", target);
    assert_same(&old, &remote.home().join("lay out"));
    let sent = |copied: &Value| copied["bytesSent"].as_u64().unwrap();
    assert!((1 << 20..1_200_000).contains(&sent(&first)), "{first}");
    assert_eq!((&first["layersSent"], &first["layersSkipped"]), (&2.into(), &0.into()));
    let command = fs::read_to_string(remote.path("log")).unwrap();
    assert_eq!(command, "-T -p 2222 -- me@other stowage receive -- 'oci:lay out:v1'\n");

    // Nothing changed: no layer is sent.
    let again = remote.copy(&old, "image.json", target);
    assert!(sent(&again) < 2000, "{again}");
    assert_eq!(again["layersSent"], 0);

    // Each store path has another hash.
    let update = remote.copy(&new, "image.json", target);
    assert!(sent(&update) < 10_000, "{update}");
    fs::remove_dir_all(remote.home().join("lay out")).unwrap();
    remote.copy(&new, "image.json", target);
    assert_same(&new, &remote.home().join("lay out"));
    let layers = files(&remote.home().join(".cache/stowage/layers"));
    assert_eq!(layers.len(), 2 * 4, "a blob and a list for each layer");
}

/// Checks that compressed layers, a base's as well as others, arrive as they were built.
#[test]
fn compressed_layers_arrive_as_they_were_built() {
    let remote = Remote::new("");
    let store = image(['1', '2'], "old");
    let base = store.root().join("base");
    write_files(&base, &BaseFiles::gzipped().directory());
    for compression in ["none", "gzip", "zstd", "zstd:chunked"] {
        let options = format!(r#"{{"fromImage": {base:?}, "compression": "{compression}"}}"#);
        store.build(&options);
        // The name of a layout has no colon.
        let name = compression.replace(':', "-");
        let layout = remote.home().join(&name);
        let copied = remote.copy(&store, "image.json", &format!("ssh://other/oci:./{name}:v1"));
        assert_same(&store, &layout);
        // Layers that are compressed in another way are the same for the other machine.
        assert_eq!(copied["layersSent"] == 0, compression != "none", "{copied}");
    }
    let copied = remote.copy(&store, "image.json", "ssh://other/docker-archive:image.tar:a:v1");
    assert_eq!(copied["layersSent"], 0);
    let archive = fs::read(remote.home().join("image.tar")).unwrap();
    store.stowage(&["copy", "image.json", "docker-archive:here.tar:a:v1"]).output().unwrap();
    assert!(archive == fs::read(store.root().join("here.tar")).unwrap());
    remote.copy(&store, "image.json", "ssh://other/dir:dir");
    let output =
        remote.command(&store, &["image.json", "ssh://other/dir:dir2", "--format", "v2s2"]);
    assert!({ output }.output().unwrap().status.success());
    let manifest =
        |name| fs::read_to_string(remote.home().join(name).join("manifest.json")).unwrap();
    assert!(
        manifest("dir").contains("oci.image") && manifest("dir2").contains("docker.distribution")
    );
}

#[test]
fn the_user_reads_what_was_sent() {
    let remote = Remote::new("echo Welcome to other; echo; printf 'no newline\\n'");
    let store = image(['1', '2'], "old");
    let output = remote.command(&store, &["image.json", "ssh://other/oci:a"]);
    let output = { output }.env("NIX_SSHOPTS", "-i key  -4").output().unwrap();
    let said = stderr(&output);
    assert!(
        said.starts_with("sent the missing pieces of 2 layers (1.1 MB), skipped 0 layers"),
        "{said}"
    );
    assert_eq!(output.stdout, b"ssh://other/oci:a\n");
    let log = fs::read_to_string(remote.path("log")).unwrap();
    assert_eq!(log, "-i key -4 -T -- other stowage receive -- oci:a\n");
    for (how, expected) in [("plain", "sent layer 1 of 2"), ("json", r#""event":"sent""#)] {
        fs::remove_dir_all(remote.home().join(".cache")).unwrap();
        let arguments = ["image.json", "ssh://other/oci:a", "--progress", how];
        let output = remote.command(&store, &arguments).output().unwrap();
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        if how == "json" {
            let lines = stderr(&output);
            lines.lines().for_each(|line| drop(schema::checked("progress", line)));
            let last: Value = lines
                .lines()
                .rev()
                .find_map(|line| {
                    let line: Value = serde_json::from_str(line).unwrap();
                    (line["event"] == "progress").then_some(line)
                })
                .unwrap();
            assert_eq!(last["bytes"], last["of"]);
        }
    }
}

#[test]
fn a_copy_that_fails_says_why() {
    let store = image(['1', '2'], "old");
    let target = "ssh://other/oci:a";
    for (before, expected) in [
        (
            "exit 255",
            "error: `ssh other` ended before the image was there (exit status: 255)\n\nhint: `ssh other true` must work",
        ),
        (
            "rm -f ../other/bin/stowage; PATH=/bin:/usr/bin",
            "(exit status: 127)\n\nhint: stowage must be installed on other",
        ),
        ("exec sh -c 'exit 2'", "hint: is stowage on other older than this program?"),
        (
            "echo Hi; exit 0",
            "error: other does not answer as `stowage receive` does: it printed `Hi`\n",
        ),
        ("exec yes", "error: other does not answer as `stowage receive` does: it printed `y`"),
        (
            "echo stowage receive 2 amd64; exec cat",
            "error: stowage on other has version 2 of the protocol, and this program 1\n",
        ),
        ("echo stowage receive 1 vax; exec cat", "`arch` must be one of Go's names"),
        ("kill -9 $$", "(signal: 9 (SIGKILL))"),
        ("mkdir a; touch a/file", "error: other: a is neither empty nor an OCI image layout"),
        ("mkdir -p .cache; touch .cache/stowage", "error: other: cannot write"),
    ] {
        let said = Remote::new(before).fail(&store, target);
        assert!(said.contains(expected), "{before}: {said}");
        assert_eq!(said.matches("error:").count(), 1, "{said}");
    }
    let remote = Remote::new("");
    let output =
        remote.command(&store, &["image.json", target]).env("PATH", "/none").output().unwrap();
    assert!(stderr(&output).contains("error: cannot run `ssh`"), "{}", stderr(&output));
    let output = remote.command(&store, &["image.json", target, "--remote-program", "no such"]);
    assert!(stderr(&{ output }.output().unwrap()).contains("(exit status: 127)"));
    let sign = remote.command(&store, &["image.json", target, "--attach", "image.json:a/b"]);
    assert!(
        stderr(&{ sign }.output().unwrap()).contains("is for targets in registries and layouts")
    );
    // A layer that has changed since the build.
    let file = store.root().join("nix/store").join(format!("{}-library/small", "1".repeat(32)));
    fs::write(&file, noise(20_000, 9)).unwrap();
    let said = remote.fail(&store, target);
    assert!(said.contains("is not what it was") && said.contains("stowage verify"), "{said}");
    assert!(!remote.home().join("a").exists());
}

/// Checks that a receiver which is damaged or hostile makes a copy fail, and neither hang nor crash.
#[test]
fn no_answer_is_believed() {
    let store = image(['1', '2'], "old");
    let greeting = "printf 'stowage receive 1 amd64\\n";
    let digest = format!("sha256:{}", "0".repeat(64));
    let done = format!(r#"{{"manifestDigest":"{digest}","imageId":"{digest}","fellBack":false}}"#);
    for (answer, expected) in [
        ("'", "ended before the image was there (exit status: 0)"),
        (
            "W\\377\\377\\377\\377'",
            "does not answer as `stowage receive` does: 4294967295 bytes, where",
        ),
        (
            "W\\004\\000\\000\\000\\002\\000\\000\\000'",
            "it asks for a layer that there is not, or twice",
        ),
        ("W\\010\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000'", "or twice"),
        (
            "W\\004\\000\\000\\000\\000\\000\\000\\000L\\001\\000\\000\\000\\377'",
            "it does not say which pieces it lacks",
        ),
        (
            "W\\004\\000\\000\\000\\000\\000\\000\\000L\\000\\000\\000\\000'",
            "it does not say which pieces it lacks",
        ),
        ("L\\000\\000\\000\\000'", "it asks for pieces of no layer"),
        ("?'", "ended before the image was there"),
        ("?aaaaaaaa'", "does not answer as `stowage receive` does: 1633771873 bytes"),
        ("?\\000\\000\\000\\000'", "no message begins with the byte 63"),
        (
            "F\\045\\000\\000\\000{\"message\":\"\\\\u001b[2Jdisk is full\"}   '",
            r"error: other: \u{1b}[2Jdisk is full",
        ),
        (
            &format!("D\\{:03o}\\000\\000\\000{done}'", done.len()),
            "error: other has another image than the one that was sent",
        ),
    ] {
        let script = format!("{greeting}{answer}; head -c 300 > /dev/null");
        let remote = Remote::new("");
        remote.program("other/bin/stowage", &script);
        let said = remote.fail(&store, "ssh://other/oci:a");
        assert!(said.contains(expected), "{answer}: {said}");
    }
}

/// Runs `stowage receive` with these bytes of a sender.
fn receive(remote: &Remote, session: &[u8], target: &str) -> Output {
    let mut command = Command::new(remote.path("other/bin/stowage"));
    command.args(["receive", target]).current_dir(remote.home()).env("HOME", remote.home());
    command.env_remove("XDG_CACHE_HOME");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The receiver may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(session);
    child.wait_with_output().unwrap()
}

/// Checks that no sender makes a receiver write something wrong: one that ends at any time, and one
/// whose bytes are damaged. Also checks that a receiver does not depend on the sender's patience.
#[test]
fn no_sender_is_believed() {
    let recorder = Remote::new("");
    recorder.program(
        "other/bin/stowage",
        &format!("tee session | {} \"$@\"", env!("CARGO_BIN_EXE_stowage")),
    );
    let mut store = FakeStore::new();
    for digit in ['1', '2'] {
        store.add(digit, "file", &[], |path| fs::write(path, noise(50_000, digit.into())).unwrap());
    }
    store.build(r#"{"layering": "largest-first"}"#);
    recorder.copy(&store, "image.json", "ssh://other/oci:a");
    let session = fs::read(recorder.home().join("session")).unwrap();
    let remote = Remote::new("");
    let mut whole = BTreeMap::new();
    let check = |session: &[u8], is_whole: bool, what: &str, whole: &mut BTreeMap<_, _>| {
        let output = receive(&remote, session, "oci:a");
        let kept = files(&remote.home());
        assert_eq!(output.status.success(), is_whole, "{what}: {}", stderr(&output));
        if is_whole {
            *whole = kept;
        } else {
            assert_eq!(stderr(&output), "", "{what}");
            let last = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(last.contains(r#"{"message":""#), "{what}: {last}");
            assert!(!remote.home().join("a").exists(), "{what}");
            // The layers that were complete are kept.
            assert!(kept.iter().all(|(name, bytes)| whole.get(name) == Some(bytes)), "{what}");
        }
        for name in ["a", ".cache"] {
            let _ = fs::remove_dir_all(remote.home().join(name));
        }
    };
    check(&session, true, "whole", &mut whole);
    assert_eq!(whole.keys().filter(|name| name.starts_with(".cache")).count(), 4);
    for cut in (0..session.len()).step_by(session.len() / 12) {
        check(&session[..cut], false, &format!("cut at {cut}"), &mut whole);
    }
    for place in (0..session.len()).step_by(session.len() / 12) {
        let mut damaged = session.clone();
        damaged[place] ^= 0x40;
        check(&damaged, false, &format!("damaged at {place}"), &mut whole);
    }
    let greeting = b"stowage send 1\n";
    for (what, sent) in [
        ("another program", &b"GET / HTTP/1.1\r\n\r\n"[..]),
        ("another version", b"stowage send 2\n"),
        ("no Zstandard", b"stowage send 1\n{}"),
        ("a huge length", &[&greeting[..], &crate::base_image::zstd(&[0xff; 400])].concat()),
        ("no offer", &[&greeting[..], &crate::base_image::zstd(b"\x02\0\0\0{}")].concat()),
    ] {
        check(sent, false, what, &mut whole);
    }
}

/// Checks that a sender can't make a receiver take memory for the stream's decoder.
#[test]
fn a_receiver_takes_no_large_window() {
    let stream = |window| {
        let mut encoder = zstd::Encoder::new(b"stowage send 1\n".to_vec(), 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(b"\x02\0\0\0{}").unwrap();
        encoder.finish().unwrap()
    };
    let remote = Remote::new("");
    for (window, expected) in [(23, "missing field"), (27, "too much memory")] {
        let output = receive(&remote, &stream(window), "oci:a");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(expected), "{window}: {said}");
    }
}

/// Returns the session of a sender that offers an image spec.
fn offer(spec: &Value, layers: &Value) -> Vec<u8> {
    let json = serde_json::json!({"spec": spec, "layers": layers}).to_string();
    let length = u32::try_from(json.len()).unwrap().to_le_bytes();
    let stream = [&length[..], json.as_bytes()].concat();
    [&b"stowage send 1\n"[..], &crate::base_image::zstd(&stream)].concat()
}

/// Checks that no file of the receiver's machine becomes part of an image.
#[test]
fn no_path_of_a_sender_is_opened() {
    let remote = Remote::new("");
    let secret = remote.home().join("secret");
    fs::write(&secret, "secret").unwrap();
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], "a");
    store.build("{}");
    let made: Value =
        serde_json::from_slice(&fs::read(store.root().join("image.json")).unwrap()).unwrap();
    let digest = stowage::digest::Digest::of(b"secret").to_string();
    let mut stored = made.clone();
    stored["layers"] = serde_json::json!([{
        "diffId": digest,
        "size": 6,
        "blob": {
            "file": secret, "digest": digest, "size": 6,
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
        },
    }]);
    let mut large = stored.clone();
    large["layers"][0]["size"] = (1_u64 << 50).into();
    large["layers"][0]["blob"]["size"] = (1_u64 << 50).into();
    let mut other = stored.clone();
    other["layers"][0]["size"] = 7.into();
    for (spec, layers, expected) in [
        (&made, serde_json::json!([{}]), "a layer is not offered as a blob"),
        (&stored, serde_json::json!([]), "it describes other layers than the image has"),
        (&large, serde_json::json!([{}]), "(`--max-unpacked`)"),
        (&other, serde_json::json!([{}]), "has another digest than its tar"),
        // The file is asked for, and not read.
        (&stored, serde_json::json!([{}]), "the sender ended"),
    ] {
        let output = receive(&remote, &offer(spec, &layers), "oci:a");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(expected), "{said}");
        assert!(!remote.home().join("a").exists());
    }
}

#[test]
fn a_receiver_is_run_by_a_sender() {
    let remote = Remote::new("");
    for (target, expected) in [
        ("oci-archive:/dev/stdout", "is not a target for what another machine sends"),
        ("ssh://a/oci:b", "is not a target for what another machine sends"),
    ] {
        assert!(stderr(&receive(&remote, b"", target)).contains(expected));
    }
    let output = receive(&remote, b"", "oci:a");
    assert!(String::from_utf8_lossy(&output.stdout).contains("the sender ended before"));
}

/// Checks that a signal ends a copy at any step, and the program that runs in place of ssh.
#[test]
fn a_signal_ends_both_sides() {
    let store = image(['1', '2'], "old");
    for script in [
        // No greeting, no answer, and no room for what is sent.
        "exec sleep 1000",
        "echo stowage receive 1 amd64; exec sleep 1000",
        "printf 'stowage receive 1 amd64\\nW\\004\\000\\000\\000\\000\\000\\000\\000'; exec sleep 1000",
    ] {
        let remote = Remote::new("");
        remote
            .program("other/bin/stowage", &format!("echo $$ > pid.new; mv pid.new pid; {script}"));
        let mut command = remote.command(&store, &["image.json", "ssh://other/oci:a"]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pid = loop {
            match fs::read_to_string(remote.home().join("pid")) {
                Ok(pid) => break pid.trim().to_owned(),
                Err(_) => sleep(Duration::from_millis(5)),
            }
        };
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(143), "{script}");
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{script}");
        assert!(!Path::new("/proc").join(pid).exists(), "{script}");
    }
}
