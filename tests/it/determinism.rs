use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::support::{FakeStore, odd_tree, stderr};

const OPTIONS: &str = r#"{"maxLayers": 4, "config": {"Labels": {"b": "2", "a": "1", "c": "3"}, "Env": ["B=1", "A=2"]}}"#;

/// Makes five store paths with unusual files. `reverse` makes the files in another order, which is
/// the order in which many file systems list them.
fn store(reverse: bool) -> FakeStore {
    let mut store = FakeStore::new();
    store.add('0', "odd", &[], odd_tree);
    for digit in ['1', '2', '3', '4'] {
        store.add(digit, "many", &[], |path| {
            fs::create_dir(path).unwrap();
            let mut names: Vec<String> = (0..50).map(|number| format!("file{number}")).collect();
            if reverse {
                names.reverse();
            }
            for name in names {
                fs::write(path.join(&name), name.repeat(usize::from(digit as u8))).unwrap();
            }
        });
    }
    store
}

fn build_and_stream(
    store: &FakeStore,
    prepare: impl Fn(&mut std::process::Command),
) -> (Vec<u8>, Vec<u8>) {
    store.write("registration", &store.registration());
    store.write("options.json", OPTIONS);
    let arguments =
        ["build", "--closure", "registration", "--options", "options.json", "-o", "image.json"];
    let mut build = store.stowage(&arguments);
    prepare(&mut build);
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let mut stream = store.stowage(&["stream", "image.json", "-t", "a:b"]);
    prepare(&mut stream);
    let output = stream.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (fs::read(store.root().join("image.json")).unwrap(), output.stdout)
}

#[test]
fn threads_umask_locale_and_time_zone_do_not_matter() {
    let store = store(false);
    let expected = build_and_stream(&store, |_| ());
    for jobs in ["1", "2", "7"] {
        let found = build_and_stream(&store, |command| {
            command.args(["--jobs", jobs]);
        });
        assert!(found == expected, "{jobs} jobs");
    }
    for (variable, value) in [
        ("LC_ALL", "tr_TR.UTF-8"),
        ("LC_ALL", "C"),
        ("TZ", "Asia/Kathmandu"),
        ("NIX_BUILD_CORES", "3"),
    ] {
        let found = build_and_stream(&store, |command| {
            command.env(variable, value);
        });
        assert!(found == expected, "{variable}={value}");
    }
    for mask in [0o000, 0o077] {
        let found = build_and_stream(&store, |command| {
            // SAFETY: between fork and exec this calls umask alone, which is async-signal-safe.
            unsafe {
                command.pre_exec(move || {
                    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
                    Ok(())
                })
            };
        });
        assert!(found == expected, "umask {mask:o}");
    }
}

#[test]
fn what_a_file_system_keeps_beside_contents_does_not_matter() {
    let (one, other) = (store(false), store(true));
    let odd = other.store().physical_dir().join(format!("{}-odd", "0".repeat(32)));
    // Remove a hard link and a hole, and change a mode without changing its meaning, and a time.
    fs::remove_file(odd.join("hard-link")).unwrap();
    fs::write(odd.join("hard-link"), fs::read(odd.join("a/file")).unwrap()).unwrap();
    fs::write(odd.join("sparse"), vec![0; 2 << 20]).unwrap();
    for (name, mode) in [("run", 0o544), ("a0", 0o640)] {
        fs::set_permissions(odd.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    set_times(&odd);
    assert!(build_and_stream(&one, |_| ()) == build_and_stream(&other, |_| ()));
}

fn set_times(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name() != Some(OsStr::new("link")) {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
            fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        }
    }
}

#[test]
fn the_order_of_records_does_not_matter() {
    let store = store(false);
    let expected = store.build(OPTIONS);
    let registration = store.registration();
    let lines: Vec<&str> = registration.lines().collect();
    let reversed: Vec<String> =
        lines.chunks(5).rev().map(|record| record.join("\n") + "\n").collect();
    store.write("registration", &reversed.concat());
    let arguments =
        ["build", "--closure", "registration", "--options", "options.json", "-o", "other.json"];
    assert!(store.stowage(&arguments).status().unwrap().success());
    assert!(fs::read(store.root().join("other.json")).unwrap() == expected);
}
