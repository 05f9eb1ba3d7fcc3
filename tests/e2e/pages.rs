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

#[test]
fn other_shells_read_their_scripts() {
    run(Command::new("zsh").arg("--no-exec").arg(share().join("zsh/site-functions/_stowage")));
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
