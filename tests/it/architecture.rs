mod causes;
mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The stages in the order of the data, which is also that of the alphabet.
const STAGES: [&str; 8] =
    ["closure", "layer", "oci", "outgoing", "proof", "registry", "report", "target"];
/// The modules that every stage shares, which name no stage.
const VOCABULARY: [&str; 10] = [
    "date",
    "digest",
    "error",
    "foreign",
    "image_path",
    "regular_file",
    "sink",
    "small_file",
    "store",
    "system",
];
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// Collects every `.rs` file below a path, with its text.
fn sources(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_file() {
        found.push((path.display().to_string(), fs::read_to_string(path).unwrap()));
        return;
    }
    for entry in fs::read_dir(path).unwrap() {
        sources(&entry.unwrap().path(), found);
    }
}

/// Returns the code of a file: its text without comments and without the module of its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns whether code names a module of a crate, by its path or in a group of imports.
fn names_of(code: &str, root: &str, module: &str) -> bool {
    let grouped = code.split(&format!("use {root}::{{")).skip(1).any(|rest| {
        let list = rest.split(';').next().unwrap_or_default();
        list.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == module)
    });
    let path = format!("{root}::{module}");
    let is_longer = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    grouped || code.split(&path).skip(1).any(|rest| !is_longer(rest))
}

fn names(text: &str, stage: &str) -> bool {
    // Doc comments may name later stages: code may not.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    names_of(&lines.collect::<Vec<_>>().join("\n"), "crate", stage)
}

/// The modules of `std` and of this program that reach files, other programs or the system.
const OUTSIDE: [(&str, &str); 9] = [
    ("std", "fs"),
    ("std", "process"),
    ("std", "env"),
    ("std", "thread"),
    ("std::os", "fd"),
    ("std::os::unix", "net"),
    ("crate", "system"),
    ("crate", "date::now"),
    ("std", "io::stdin"),
];
/// Names by which code reaches the outside: clocks, the network, files, programs, randomness,
/// output, shared state.
const REACHING: [&str; 33] = [
    "Instant",
    "SystemTime",
    "now_utc",
    "now_local",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "stdin(",
    "stdout(",
    "stderr(",
    "print!(",
    "println!(",
    "eprint!(",
    "eprintln!(",
    "File::open",
    "OpenOptions",
    "Command::new",
    ".exists()",
    ".is_file()",
    ".is_dir()",
    ".metadata()",
    ".symlink_metadata()",
    ".canonicalize()",
    ".read_link()",
    ".read_dir()",
    "Mutex<",
    "thread_rng",
    "getrandom",
    "OsRng",
    "tokio::",
    "rustix::",
    "tracing::",
];

/// Returns how code reaches the outside, if it does.
fn reach(text: &str) -> Option<String> {
    let code = code(text);
    let module = OUTSIDE.iter().find(|(root, module)| names_of(&code, root, module));
    let module = module.map(|(root, module)| format!("{root}::{module}"));
    module.or_else(|| REACHING.iter().find(|name| code.contains(*name)).map(ToString::to_string))
}

fn violations(part: &str, forbidden: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let directory = Path::new(SOURCE).join(part);
    let path = if directory.is_dir() { directory } else { directory.with_extension("rs") };
    sources(&path, &mut found);
    assert!(!found.is_empty(), "{part} has no sources");
    let violation = |(file, text): &(String, String)| {
        let later = forbidden.iter().find(|later| names(text, later))?;
        Some(format!("{file} names crate::{later}, a later stage"))
    };
    found.iter().filter_map(violation).collect()
}

#[test]
fn no_stage_names_a_later_one() {
    for (place, stage) in STAGES.iter().enumerate() {
        let later: Vec<_> = STAGES[place + 1..].iter().copied().chain(["cli"]).collect();
        assert_eq!(violations(stage, &later), [""; 0]);
    }
}

#[test]
fn the_vocabulary_names_no_stage() {
    let stages: Vec<_> = STAGES.into_iter().chain(["cli"]).collect();
    for part in VOCABULARY {
        assert_eq!(violations(part, &stages), [""; 0]);
    }
}

#[test]
fn there_are_no_other_stages() {
    let mut parts: Vec<_> = fs::read_dir(SOURCE)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect();
    parts.sort();
    let mut known: Vec<_> = STAGES.map(String::from).to_vec();
    known.extend(VOCABULARY.map(String::from));
    known.extend(["cli", "lib", "main"].map(String::from));
    known.sort();
    assert_eq!(parts, known, "a new part of src/ needs a place in this test and in lib.rs");
}

/// Checks that a module whose first lines say "(pure)" reads no file, clock or variable, asks no
/// other computer or program, and prints nothing: its results follow from its arguments.
#[test]
fn pure_modules_reach_nothing_outside() {
    let mut found = Vec::new();
    sources(Path::new(SOURCE), &mut found);
    let is_pure = |(_, text): &&(String, String)| {
        let doc = text.lines().take_while(|line| line.starts_with("//!"));
        doc.collect::<String>().contains("(pure")
    };
    let pure: Vec<_> = found.iter().filter(is_pure).collect();
    assert!(pure.len() > 100, "{} files say that they are pure", pure.len());
    let reaching = pure.iter().filter_map(|(file, text)| {
        reach(text).map(|name| format!("{file} says \"(pure)\", and names {name}"))
    });
    assert_eq!(reaching.collect::<Vec<_>>(), [""; 0]);
}

/// Tests the test of purity: it detects each way to the outside, and nothing else.
#[test]
fn ways_outside_are_seen() {
    for text in [
        "use std::fs;",
        "use std::fs::File;",
        "use std::{fmt, process};",
        "let home = std::env::var(\"HOME\");",
        "use std::time::{Duration, Instant};",
        "use std::net::TcpStream;",
        "use crate::{digest, system};",
        "if path.exists() {}",
        "#[cfg(test)]\nuse std::fs;",
    ] {
        assert!(reach(text).is_some(), "{text}");
    }
    for text in [
        "use std::fmt;",
        "use std::time::Duration;",
        "use std::net::IpAddr;",
        "//! Not `std::fs`.",
        "use std::{fmt, io};",
        "use crate::oci::build::system;",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
    ] {
        assert_eq!(reach(text), None, "{text}");
    }
}

/// Tests the test of stages: it detects imports in each form.
#[test]
fn imports_are_seen() {
    for text in [
        "use crate::oci::Image;",
        "use crate::{closure, oci};",
        "use crate::{\n    digest,\n    oci::Image,\n};",
        "crate::oci::f()",
    ] {
        assert!(names(text, "oci"), "{text}");
    }
    for text in ["//! See [`crate::oci`].", "use crate::{layer, closure};", "use oci_spec::image;"]
    {
        assert!(!names(text, "oci"), "{text}");
    }
}

/// Checks that only one module reads archives: `src/oci/unpack/`, which applies the limits.
#[test]
fn there_is_one_reader_of_archives() {
    let mut found = Vec::new();
    sources(Path::new(SOURCE), &mut found);
    for (file, text) in found {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for other in ["tar::Archive", "Archive::new(", "GzDecoder::new(", "zstd::Decoder::"] {
            let allowed = file.ends_with("src/oci/compression.rs") && !other.contains("Archive");
            assert!(!code.contains(other) || allowed, "{file} reads archives by `{other}`");
        }
    }
}

/// Returns the names of the types that a file gives to other files, each once: with `#[cfg]`, one
/// name may have two definitions.
fn types_of(text: &str) -> BTreeSet<&str> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let visible = text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("pub")?;
        match rest.strip_prefix('(') {
            Some(within) => within.split_once(") ").map(|(_, item)| item),
            None => rest.strip_prefix(' '),
        }
    });
    let named = visible.filter_map(|item| {
        let (kind, rest) = item.split_once(' ')?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        ["struct", "enum", "trait", "type"].contains(&kind).then(|| &rest[..end])
    });
    named.filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase())).collect()
}

/// Checks that each type which other files can name has a name of its own. Only the errors of stages
/// share a name: code names them with their stage, as `layer::Error`.
#[test]
fn types_have_names_of_their_own() {
    let mut found = Vec::new();
    sources(Path::new(SOURCE), &mut found);
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, text) in &found {
        for name in types_of(text).into_iter().filter(|name| *name != "Error") {
            files.entry(name).or_default().push(file);
        }
    }
    assert!(files.len() > 400, "{} types", files.len());
    files.retain(|_, files| files.len() > 1);
    assert!(files.is_empty(), "each of these names is that of several types: {files:#?}");
}

/// Tests the test of names: it detects types of each kind, and nothing else.
#[test]
fn types_are_seen() {
    let text = "pub struct A;\npub(crate) enum B {\n    pub(super) trait C<T>\npub type D = u8;\n\
                struct E;\npub fn F() {}\npub use x::G;\n#[cfg(test)]\nmod tests {\npub struct H;\n}";
    assert_eq!(types_of(text).into_iter().collect::<String>(), "ABCD");
}
