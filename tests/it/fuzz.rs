//! Runs the targets of `fuzz/` on mutations of their corpora, for a second. The mutations are the
//! same each time. `checks/fuzz SECONDS` sets another time and starts with another random number.

use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

#[path = "../../fuzz/targets.rs"]
mod targets;

use targets::Target;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");
/// The time after which a target counts as hanging, even on a busy machine.
const HANGS: Duration = Duration::from_secs(30);

/// Makes numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number below `end`, or 0 if `end` is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// The texts that are inserted into inputs, since parsers often fail at them.
const TOKENS: [&str; 16] = [
    "0",
    "-1",
    "18446744073709551615",
    "9223372036854775808",
    "1e400",
    "null",
    "{}",
    "[",
    "\"",
    "\\u0000",
    "../",
    "//",
    "\r\n",
    "\n",
    "é",
    "sha256:",
];

fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(64)).min(bytes.len());
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 0xff, 0x80, b'7', b'/', b'.'][random.below(6)],
            2 => drop(bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].bytes())),
            3 if at < end => drop(bytes.drain(at..end)),
            4 if at < end => {
                let part = bytes[at..end].to_vec();
                let times = 1 + random.below(50);
                drop(bytes.splice(at..at, part.repeat(times)));
            }
            5 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            6 => bytes.truncate(at),
            // A number is replaced by another one.
            _ => {
                let is_digit = |place: &usize| bytes[*place].is_ascii_digit();
                let Some(begin) = (at..bytes.len()).find(is_digit) else { continue };
                let end = (begin..bytes.len()).find(|place| !is_digit(place));
                let number = TOKENS[1 + random.below(3)].bytes();
                drop(bytes.splice(begin..end.unwrap_or(bytes.len()), number));
            }
        }
        bytes.truncate(1 << 20);
    }
    bytes
}

/// Corrects the checksums of tar headers. With wrong ones, readers would stop at the first header.
fn with_checksums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn run(name: &str) {
    let (_, target): (_, Target) =
        *targets::TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let mut files: Vec<_> = fs::read_dir(Path::new(CORPUS).join(name))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let seeds: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty());
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let time = Duration::from_secs(number("STOWAGE_FUZZ_SECONDS").unwrap_or(1));
    let mut random = Random(number("STOWAGE_FUZZ_SEED").unwrap_or(1).max(1));
    let begin = Instant::now();
    let mut count = seeds.len();
    let check = |bytes: &[u8]| {
        let began = Instant::now();
        let ended = catch_unwind(|| target(bytes));
        if ended.is_err() || began.elapsed() > HANGS {
            let file = env::temp_dir().join(format!("stowage-fuzz-{name}"));
            fs::write(&file, bytes).unwrap();
            panic!("{name} fails or hangs for {}, after {:?}", file.display(), began.elapsed());
        }
    };
    seeds.iter().for_each(|seed| check(seed));
    while begin.elapsed() < time {
        let mut bytes = mutated(&seeds, &mut random);
        if name == "archives" && random.below(4) > 0 {
            with_checksums(&mut bytes);
        }
        check(&bytes);
        count += 1;
    }
    println!("{name}: {count} inputs");
}

#[test]
fn registration() {
    run("registration");
}

#[test]
fn attributes() {
    run("attributes");
}

#[test]
fn specs() {
    run("specs");
}

#[test]
fn archives() {
    run("archives");
}

#[test]
fn http() {
    run("http");
}

#[test]
fn names() {
    run("names");
}

#[test]
fn programs() {
    run("programs");
}

#[test]
fn documents() {
    run("documents");
}

#[test]
fn every_target_has_a_test_and_a_program() {
    let programs = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/fuzz_targets");
    for (name, _) in targets::TARGETS {
        assert!(include_str!("fuzz.rs").contains(&format!("run(\"{name}\")")), "{name}");
        assert!(Path::new(programs).join(format!("{name}.rs")).exists(), "{name}");
    }
}
