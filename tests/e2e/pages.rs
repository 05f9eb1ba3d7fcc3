use std::path::PathBuf;
use std::process::Command;

use crate::support::{build, run};

fn share() -> PathBuf {
    build("packages.x86_64-linux.stowage").join("share")
}

/// Returns the words that bash offers for the last, incomplete word of a line.
fn completed(words: &[&str]) -> Vec<String> {
    let script = share().join("bash-completion/completions/stowage");
    let bash = r#". "$1"; shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _stowage stowage "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut command = Command::new("bash");
    command.args(["--norc", "-euc", bash, "bash"]).arg(script).args(words);
    run(&mut command).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let copy = completed(&["stowage", "co"]);
    assert!(copy.contains(&"copy".to_owned()), "{copy:?}");
    assert_eq!(completed(&["stowage", "serve", "--address"]), ["--address-file"]);
    assert_eq!(completed(&["stowage", "copy", "--progress", "pl"]), ["plain"]);
    assert!(!completed(&["stowage", ""]).contains(&"man".to_owned()), "it is hidden");
}

/// Types lines into an interactive zsh, and reads what it offers.
#[test]
fn zsh_completes_commands_and_options() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/zsh_completions.zsh");
    let directory = share().join("zsh/site-functions");
    let completed = |line: &str| {
        let mut zsh = Command::new("zsh");
        let found = run(zsh.args(["-f", script]).arg(&directory).arg(line));
        found.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed("stowage co"), ["copy", "completions"]);
    assert_eq!(completed("stowage serve --address"), ["--address-file"]);
    assert_eq!(completed("stowage copy --progress pl"), ["plain"]);
    let commands = completed("stowage ");
    assert!(commands.contains(&"serve".to_owned()), "{commands:?}");
    assert!(!commands.contains(&"man".to_owned()), "it is hidden");
}

#[test]
fn fish_completes_commands() {
    let fish = share().join("fish/vendor_completions.d/stowage.fish");
    run(Command::new("fish").arg("--no-execute").arg(&fish));
    let complete = format!("source {}; complete --do-complete 'stowage pre'", fish.display());
    let found = run(Command::new("fish").args(["--no-config", "--command", &complete]));
    assert!(found.starts_with("prefetch\t"), "{found}");
}

#[test]
fn man_shows_the_pages() {
    for (page, says) in [("stowage", "SUBCOMMANDS"), ("stowage-serve", "--max-connections")] {
        let file = share().join(format!("man/man1/{page}.1"));
        let mut man = Command::new("man");
        man.args(["--warnings", "--local-file"]).arg(&file);
        let output = man.env("MANWIDTH", "80").env("MANPAGER", "cat").output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(says), "{output:?}");
    }
}
