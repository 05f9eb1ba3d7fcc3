use std::fmt::Write;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::support::FakeStore;

/// What a command may take, in KiB: as `benches/run` has it.
const LIMIT: u64 = 64 << 10;

fn path(number: usize) -> String {
    let digits = b"0123456789abcdfghijklmnpqrsvwxyz";
    // Spread like hashes, so that paths and names sort differently.
    let spread = |digit: u32| number.wrapping_mul(0x9e37_79b9) >> (digit % 6 * 5) & 31;
    let hash: String = (0..32).map(|digit| char::from(digits[spread(digit)])).collect();
    format!("/nix/store/{hash}-some-package-{number}-1.2.3")
}

/// So many store paths, each of which refers to ten before it.
fn registration(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let references: Vec<_> =
            (1..=10.min(number)).map(|step| path(number - number * step / 11 - 1)).collect();
        let hash = "0".repeat(52);
        writeln!(text, "{}\nsha256:{hash}\n1\n\n{}", path(number), references.len()).unwrap();
        references.iter().for_each(|reference| text += &format!("{reference}\n"));
    }
    text
}

/// The most memory that a command ever had, in KiB.
///
/// Not by `wait4`: that counts this process's own, which the command was for a moment.
fn peak(store: &FakeStore, arguments: &[&str]) -> u64 {
    let mut command = store.stowage(arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let file = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(&file).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        // None of one that has ended.
        peak = line.map_or(peak, |line| line.trim().trim_end_matches(" kB").parse().unwrap());
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{arguments:?}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn assert_flat(store: &FakeStore, arguments: &[&str]) {
    let peak = peak(store, arguments);
    assert!(peak > 0 && peak <= LIMIT, "{} MiB: {arguments:?}", peak >> 10);
}

/// Up to 20,000 paths are planned by bitsets, and more by sketches.
#[test]
fn plans_of_many_paths_take_little() {
    let store = FakeStore::new();
    for count in [20_000, 40_000] {
        store.write("registration", &registration(count));
        assert_flat(&store, &["plan", "registration"]);
    }
}

#[test]
fn images_of_many_paths_take_little() {
    let store = FakeStore::new();
    let count = 15_000;
    store.write("registration", &registration(count));
    for number in 0..count {
        fs::write(store.root().join(&path(number)[1..]), "x").unwrap();
    }
    assert_flat(&store, &["build", "--closure", "registration", "-o", "image.json"]);
    for arguments in [
        &["stream", "image.json"][..],
        &["verify", "image.json"],
        &["explain", "image.json", "--json"],
        &["diff", "image.json", "image.json"],
        &["plan", "registration", "--previous", "image.json"],
    ] {
        assert_flat(&store, arguments);
    }
}
