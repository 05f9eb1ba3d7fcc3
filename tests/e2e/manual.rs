use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{REPOSITORY, nix, run, stderr};

/// Returns the Nix blocks of the manual and the README, with their places.
fn blocks() -> Vec<(String, String)> {
    let top = Path::new(REPOSITORY);
    let mut files = vec![top.join("README.md")];
    for directory in ["docs", "docs/reference"] {
        let entries = std::fs::read_dir(top.join(directory)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.retain(|file| file.extension().is_some_and(|kind| kind == "md"));
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            if line.trim_start() == "```nix" {
                let block = lines.by_ref().map(|(_, line)| line);
                let block: Vec<_> = block.take_while(|line| line.trim_start() != "```").collect();
                found.push((format!("{}:{}", file.display(), number + 1), block.join("\n")));
            }
        }
    }
    found
}

fn parse(code: &str) -> Output {
    let mut command = nix(&["--exec", "nix-instantiate", "--parse", "--expr"]);
    // Names of variables are the reader's.
    command.arg(format!("reader: with reader; {code}")).output().unwrap()
}

/// Checks that each block is Nix code: an expression, or definitions for an attribute set.
#[test]
fn nix_blocks_can_be_parsed() {
    let blocks = blocks();
    assert!(blocks.len() > 30, "only {} blocks", blocks.len());
    let mut failed = Vec::new();
    for (place, block) in blocks {
        // A part of a larger thing leaves out the rest.
        let code = block.replace('…', "");
        let alone = parse(&code);
        let inside = parse(&format!("{{ {code}\n}}"));
        if !alone.status.success() && !inside.status.success() {
            failed.push(format!("{place}: {}{}", stderr(&alone), stderr(&inside)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Checks that the examples of the reference are calls that the functions take.
#[test]
fn examples_of_functions_can_be_evaluated() {
    let examples: Vec<_> = blocks()
        .into_iter()
        .filter(|(place, _)| place.contains("reference/functions.md"))
        .collect();
    assert!(examples.len() >= 8, "only {} examples", examples.len());
    let digest = format!("sha256:{}", "0".repeat(64));
    let hash = format!("sha256-{}=", "A".repeat(43));
    let examples: Vec<_> = examples
        .iter()
        .map(|(place, code)| {
            // Files and digests are the reader's.
            let code = code
                .replace("./", "/missing/")
                .replace("sha256:…", &digest)
                .replace("sha256-…", &hash);
            format!("{{ name = {place:?}; value = builtins.typeOf ({code}\n); }}")
        })
        .collect();
    let function = format!(
        "pkgs: with pkgs.stowage; let helloForAmd64 = 1; helloForArm64 = 2; self.packages.x86_64-linux.app = buildImage {{ name = \"app\"; }}; \
         in builtins.listToAttrs [ {} ]",
        examples.join("\n")
    );
    let packages = ".#legacyPackages.x86_64-linux";
    run(&mut nix(&["eval", "--impure", "--json", packages, "--apply", &function]));
}

/// Checks that mdBook builds the manual, and that the links of its pages lead somewhere.
#[test]
fn the_manual_is_built() {
    let mut manual = Command::new(Path::new(REPOSITORY).join("checks/manual"));
    let directory = run(manual.env("STOWAGE_PROGRAM", env!("CARGO_BIN_EXE_stowage")));
    let directory = PathBuf::from(directory.trim());
    for page in ["index.html", "reference/commands.html", "searchindex.js"] {
        assert!(directory.join(page).exists(), "{page}");
    }
}
