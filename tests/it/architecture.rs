use std::fs;
use std::path::Path;

/// The stages in the order of the data, which is also that of the alphabet.
const STAGES: [&str; 8] =
    ["closure", "layer", "oci", "outgoing", "proof", "registry", "report", "target"];
/// The modules that every stage shares, which name no stage.
const VOCABULARY: [&str; 7] = ["date", "digest", "error", "foreign", "sink", "store", "system"];
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

fn names(text: &str, stage: &str) -> bool {
    // Doc comments may name later stages: code may not.
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let grouped = code.split("use crate::{").skip(1).any(|rest| {
        let list = rest.split(';').next().unwrap_or_default();
        list.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == stage)
    });
    grouped || code.contains(&format!("crate::{stage}"))
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

/// Tests this test: it detects imports in each form.
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
