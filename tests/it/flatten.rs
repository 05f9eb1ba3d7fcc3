//! Compares `stowage flatten` with what GNU tar makes of the layers.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{FakeStore, stderr};

/// Writes a tar of entries: `d NAME`, `f NAME CONTENTS`, `s NAME TARGET`, `h NAME TARGET`.
fn tar_of(file: &Path, entries: &[&str]) {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let words: Vec<_> = entry.split(' ').collect();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(86400);
        header.set_size(0);
        match words[0] {
            "d" => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o750);
                tar.append_data(&mut header, words[1], &[][..]).unwrap();
            }
            "s" | "h" => {
                let kind =
                    if words[0] == "s" { tar::EntryType::Symlink } else { tar::EntryType::Link };
                header.set_entry_type(kind);
                tar.append_link(&mut header, words[1], words[2]).unwrap();
            }
            _ => {
                header.set_size(words[2].len() as u64);
                if words[0] == "x" {
                    tar.append_pax_extensions([("SCHILY.xattr.user.said", &b"something"[..])])
                        .unwrap();
                }
                tar.append_data(&mut header, words[1], words[2].as_bytes()).unwrap();
            }
        }
    }
    fs::write(file, tar.into_inner().unwrap()).unwrap();
}

/// Makes an image of a store path on top of these layers.
fn image(layers: &[&[&str]]) -> FakeStore {
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], "a");
    let tars: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(number, entries)| {
            let file = store.root().join(format!("{number}.tar"));
            tar_of(&file, entries);
            format!("{:?}", file.display().to_string())
        })
        .collect();
    store.build(&format!(r#"{{"tars": [{}]}}"#, tars.join(", ")));
    store
}

fn flatten(store: &FakeStore, arguments: &[&str]) -> Output {
    store.stowage(&[&["flatten"], arguments].concat()).output().unwrap()
}

/// Returns GNU tar's listing of an archive, sorted.
fn listing(archive: &[u8]) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive).unwrap();
    let output = Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--full-time", "--utc", "--file"])
        .arg(file.path())
        .env("TZ", "UTC")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let squeezed = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    squeezed.filter(|line| !line.contains(" nix/")).collect()
}

#[test]
fn a_container_would_see_the_same() {
    let store = image(&[
        &[
            "d dir",
            "f dir/one 1",
            "f dir/two 22",
            "s link dir",
            "f gone x",
            "f first 333",
            "h second first",
        ],
        &[
            "f dir/.wh.one ",
            "f .wh.gone ",
            "f .wh.first ",
            "d dir",
            "f link/three 4444",
            "x marked yes",
        ],
    ]);
    let output = flatten(&store, &["image.json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let date = "1970-01-02 00:00:00";
    assert_eq!(
        listing(&output.stdout),
        [
            format!("drwxr-x--- 7/8 0 {date} dir/"),
            format!("-rw-r----- 7/8 2 {date} dir/two"),
            format!("lrw-r----- 7/8 0 {date} link -> dir"),
            // The first name of the file was removed.
            format!("-rw-r----- 7/8 3 {date} second"),
            // The target of the link was removed.
            format!("-rw-r----- 7/8 4 {date} dir/three"),
            format!("-rw-r----- 7/8 3 {date} marked"),
        ]
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("SCHILY.xattr.user.said=something"));
    // The tar also has the store, and a second run writes the same bytes to a file.
    assert!(text.contains("nix/store/"));
    let again = flatten(&store, &["image.json", "--output", "root.tar", "--jobs", "1"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(fs::read(store.root().join("root.tar")).unwrap() == output.stdout);
}

/// Checks every format that a base may have.
#[test]
fn archives_are_images_too() {
    let store = image(&[&["d dir", "f dir/one 1"]]);
    let of_spec = flatten(&store, &["image.json"]).stdout;
    for target in ["docker-archive:a.tar", "oci:layout", "dir:directory"] {
        let copied = store.stowage(&["copy", "-q", "image.json", target]).output().unwrap();
        assert!(copied.status.success(), "{}", stderr(&copied));
        let file = target.split_once(':').unwrap().1;
        let output = flatten(&store, &[file, "--arch", "amd64"]);
        assert!(output.status.success(), "{target}: {}", stderr(&output));
        assert!(output.stdout == of_spec, "{target}");
    }
}

/// Checks that an archive of one image is flattened for the architecture that is asked for, which is
/// this machine's if none is named.
#[test]
fn an_archive_has_an_architecture() {
    let store = image(&[&["f one 1"]]);
    store.build(r#"{"tars": [], "architecture": "s390x"}"#);
    let copied = store.stowage(&["copy", "-q", "image.json", "oci:layout"]).output().unwrap();
    assert!(copied.status.success(), "{}", stderr(&copied));
    let output = flatten(&store, &["layout", "--arch", "s390x"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stdout == flatten(&store, &["image.json"]).stdout);
    let other = flatten(&store, &["layout"]);
    assert_eq!(other.status.code(), Some(1));
    let said = stderr(&other);
    assert!(said.contains("is for linux/s390x, not for linux/"), "{said}");
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_left() {
    for (layers, expected) in [
        (
            &["h b a"][..],
            "layer 2 of 2: `b` is a hard link to `a`, and there is no such file before it",
        ),
        (
            &["s a b", "s b a", "f a/x 1"],
            "layer 2 of 2: the links on the way to `a/x` lead in a circle",
        ),
    ] {
        let store = image(&[layers]);
        let output = flatten(&store, &["image.json", "-o", "root.tar"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        assert!(!store.root().join("root.tar").exists());
    }
    let store = image(&[]);
    let output = flatten(&store, &["nowhere.tar"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nowhere.tar"), "{}", stderr(&output));
}

/// Checks that a pipe is refused at once, since an archive is read more than once.
#[test]
fn a_pipe_is_no_archive() {
    let store = image(&[]);
    nix::unistd::mkfifo(&store.root().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = flatten(&store, &["fifo"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("fifo: is no image: it is a pipe"), "{}", stderr(&output));
}
