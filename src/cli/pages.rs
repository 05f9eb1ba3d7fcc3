//! Writes completions for shells and pages for `man`, from the definitions of the arguments. The Nix
//! package runs both when it is built.

use std::fs;
use std::io::Write;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::Failure;
use super::arguments::Arguments;
use crate::system;

/// Prints a script by which a shell completes commands and options.
pub fn print_completions(shell: Shell) -> Result<(), Failure> {
    // Write to memory first: the generator panics if a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(&Arguments::command()), "stowage", &mut script);
    system::stdout().and_then(|mut out| out.write_all(&script)).map_err(Failure::Stdout)
}

/// Returns a command without its hidden subcommands, which the scripts would offer.
fn shown(command: &Command) -> Command {
    let subcommands = command.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new("stowage")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .args(command.get_arguments())
        .subcommands(subcommands)
}

/// Writes `stowage.1`, and a page for each command, to a directory.
pub fn write_man_pages(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), directory))
        .map_err(|source| Failure::Output { file: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        write_man_pages(directory.path()).unwrap();
        let mut pages: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        let command = Arguments::command();
        let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
        let mut expected: Vec<_> =
            commands.map(|command| format!("stowage-{}.1", command.get_name())).collect();
        expected.push("stowage.1".to_owned());
        expected.sort();
        assert_eq!(pages, expected);
        for page in pages {
            let text = fs::read_to_string(directory.path().join(&page)).unwrap();
            for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
                assert!(text.contains(section), "{page} lacks {section}");
            }
        }
    }

    #[test]
    fn every_argument_is_described() {
        let mut command = Arguments::command();
        command.build();
        for command in command.get_subcommands() {
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(
                    argument.get_help().is_some(),
                    "`stowage {}`: {} says nothing",
                    command.get_name(),
                    argument.get_id()
                );
            }
        }
    }
}
