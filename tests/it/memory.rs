use std::fmt::Write;
use std::process::{Command, Stdio};
use std::{env, fs, io};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;

use crate::remote::{Remote, noise};
use crate::support::FakeStore;

/// The memory that a command may take, in KiB, as in `benches/run`.
const LIMIT: u64 = 64 << 10;

fn path(number: usize) -> String {
    let digits = b"0123456789abcdfghijklmnpqrsvwxyz";
    // The digits are spread as in hashes, so that paths and names sort differently.
    let spread = |digit: u32| number.wrapping_mul(0x9e37_79b9) >> (digit % 6 * 5) & 31;
    let hash: String = (0..32).map(|digit| char::from(digits[spread(digit)])).collect();
    format!("/nix/store/{hash}-some-package-{number}-1.2.3")
}

/// Returns a registration of `count` store paths, each of which refers to the ten before it.
fn registration(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let references: Vec<_> =
            (1..=10.min(number)).map(|step| path(number - number * step / 11 - 1)).collect();
        let hash = "0".repeat(52);
        // The recorded size is large enough for a layer of its own.
        writeln!(text, "{}\nsha256:{hash}\n100000\n\n{}", path(number), references.len()).unwrap();
        references.iter().for_each(|reference| text += &format!("{reference}\n"));
    }
    text
}

/// Makes a store of `count` paths, each a file, and their registration.
fn store(count: usize) -> FakeStore {
    let store = FakeStore::new();
    store.write("registration", &registration(count));
    for number in 0..count {
        fs::write(store.root().join(&path(number)[1..]), "x").unwrap();
    }
    store
}

/// The variable that tells [`launcher`] what to run: the command's words, one in each line.
const COMMAND: &str = "STOWAGE_TEST_COMMAND";

/// The variable that tells [`launcher`] which file to use as the command's standard input.
const INPUT: &str = "STOWAGE_TEST_INPUT";

/// The result of a command.
pub struct Ended {
    /// The peak memory, in KiB.
    pub peak: u64,
    pub code: i32,
    pub said: String,
}

/// Runs a command in the store's directory, with the file `input` as standard input.
pub fn measure(store: &FakeStore, arguments: &[&str], input: &str) -> Ended {
    let mut command = store.stowage(arguments);
    // Every thread makes layers of its own.
    command.args(["--jobs", "2"]);
    measure_command(store, &command, input)
}

/// Runs a command, with its variables, in the store's directory. The peak is that of the largest
/// among the command and the programs that it runs.
fn measure_command(store: &FakeStore, command: &Command, input: &str) -> Ended {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut launcher = Command::new(env::current_exe().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => launcher.env(name, value),
            None => launcher.env_remove(name),
        };
    }
    let output = launcher
        .args(["--exact", "memory::launcher", "--ignored", "--nocapture"])
        .current_dir(store.root())
        .env(COMMAND, words.join("\n"))
        .env(INPUT, input)
        .env_remove("NIX_BUILD_CORES")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, found) = text.split_once("peak of ").unwrap_or_else(|| panic!("{command:?}: {text}"));
    let mut words = found.split_whitespace();
    let mut number = || words.next().unwrap().parse::<i64>().unwrap();
    let (peak, code) = (number() as u64, number() as i32);
    Ended { peak, code, said: String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// Returns the peak memory of a command, in KiB. The command must succeed.
fn peak(store: &FakeStore, arguments: &[&str]) -> u64 {
    let Ended { peak, code, said } = measure(store, arguments, "/dev/null");
    assert_eq!(code, 0, "{arguments:?}: {said}");
    peak
}

/// Runs a command, and prints its exit code and the memory that the kernel reports for it after its
/// end. That includes the time before `exec`, when the child is a copy of this process: so this
/// process must be small.
#[test]
#[ignore = "not a test: `measure` runs it in a process of its own"]
fn launcher() {
    let Ok(command) = env::var(COMMAND) else { return };
    let mut words = command.split('\n');
    let mut command = Command::new(words.next().unwrap());
    let input = fs::File::open(env::var(INPUT).unwrap()).unwrap();
    command.args(words).stdin(input).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    io::copy(&mut child.stdout.take().unwrap(), &mut io::sink()).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    println!("\npeak of {} {code}", usage.max_rss());
}

fn assert_flat(store: &FakeStore, arguments: &[&str]) -> u64 {
    let peak = peak(store, arguments);
    assert!(peak > 0 && peak <= LIMIT, "{} MiB: {arguments:?}", peak >> 10);
    peak
}

/// Checks both methods: up to 20,000 paths are planned by bitsets, and more by sketches.
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
    let store = store(15_000);
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

/// Checks that an earlier image takes less memory than making the layers would, and little memory
/// if all layers are made. The peak depends on which threads work at the same time, so that the
/// same command differs by 2 MiB: the limits are twice the usual difference.
#[test]
fn an_earlier_image_of_many_paths_takes_little() {
    let store = store(12_000);
    let build = ["build", "--closure", "registration", "-o", "image.json"];
    let alone = assert_flat(&store, &build);
    let image = fs::read_to_string(store.root().join("image.json")).unwrap();
    for (what, image, more) in [
        ("the same", image.clone(), 3 << 10),
        ("other versions", image.replace("-1.2.3\"", "-1.2.2\""), 7 << 10),
    ] {
        let options = json!({"previousImage": store.write("earlier.json", &image)});
        store.write("options.json", &options.to_string());
        let peak = assert_flat(&store, &[&build[..], &["--options", "options.json"]].concat());
        assert!(peak <= alone + more, "{what}: {peak} KiB, and {alone} without");
    }
}

/// Checks both sides of a copy to another machine: many small layers, and then one large layer that
/// is new, that is there, and of which most pieces are there.
#[test]
fn a_copy_to_another_machine_takes_little() {
    let remote = Remote::new("");
    let copy = |what: &str, store: &FakeStore| {
        let mut command = remote.command(store, &["image.json", "ssh://other/oci:layout"]);
        command.args(["--jobs", "2"]);
        let Ended { peak, code, said } = measure_command(store, &command, "/dev/null");
        assert_eq!(code, 0, "{what}: {said}");
        println!("{what}: {} MiB", peak >> 10);
        assert!(peak > 0 && peak <= LIMIT, "{what}: {} MiB", peak >> 10);
    };
    let many = store(4_000);
    peak(&many, &["build", "--closure", "registration", "-o", "image.json"]);
    copy("many paths", &many);
    let large = |digit: char, end: &[u8]| {
        let mut store = FakeStore::new();
        let bytes = [&noise(80 << 20, 1), end].concat();
        store.add(digit, "large", &[], |path| fs::write(path, bytes).unwrap());
        store.build("{}");
        store
    };
    let (old, new) = (large('1', b"old"), large('2', b"new"));
    copy("a large layer", &old);
    copy("a large layer that is there", &old);
    copy("a large layer that changed", &new);
}
