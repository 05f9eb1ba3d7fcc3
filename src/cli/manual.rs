//! Checks what the manual says of the command line, and its blocks of data.
//! Only tests: the definitions of the arguments are private to this stage.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use saphyr_parser::Parser as YamlParser;

use super::arguments::Arguments;

/// A block of code, or a span of code in a line.
struct Code {
    /// The file and line, for messages.
    place: String,
    /// The language of a block; none of a span.
    language: Option<String>,
    text: String,
}

/// Returns the pages of the manual, and the files beside them at the top.
fn pages() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |directory: &Path| {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let pages = entries.filter(|file| file.extension().is_some_and(|kind| kind == "md"));
        pages.collect::<Vec<_>>()
    };
    let mut found =
        [files(top), files(&top.join("docs")), files(&top.join("docs/reference"))].concat();
    // The changelog names options that are gone.
    found.retain(|file| !file.ends_with("CHANGELOG.md"));
    found.sort();
    found
}

/// Returns all code of the pages.
fn code() -> Vec<Code> {
    let mut found = Vec::new();
    for file in pages() {
        let text = fs::read_to_string(&file).unwrap();
        let mut block: Option<Code> = None;
        for (number, line) in text.lines().enumerate() {
            let place = || format!("{}:{}", file.display(), number + 1);
            if let Some(language) = line.trim_start().strip_prefix("```") {
                match block.take() {
                    Some(block) => found.push(block),
                    None => {
                        let language = Some(language.to_owned());
                        block = Some(Code { place: place(), language, text: String::new() });
                    }
                }
            } else if let Some(block) = &mut block {
                block.text += line;
                block.text += "\n";
            } else {
                let spans = line.split('`').skip(1).step_by(2);
                found.extend(spans.map(|text| Code {
                    place: place(),
                    language: None,
                    text: text.to_owned(),
                }));
            }
        }
        assert!(block.is_none(), "{}: a block has no end", file.display());
    }
    found
}

fn blocks(language: &str) -> Vec<Code> {
    let found = code().into_iter().filter(|code| code.language.as_deref() == Some(language));
    found.collect()
}

/// Returns the commands that a shell would run for a line, each as its words.
fn shell_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    let mut quote = None;
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '|' | '&' | ';' | '>' | '<') => {
                commands.last_mut().unwrap().extend(word.take());
                match character {
                    ' ' => {}
                    // The name of a file follows.
                    '>' | '<' => commands.push(vec!["redirection".to_owned()]),
                    _ => commands.push(Vec::new()),
                }
            }
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    commands.last_mut().unwrap().extend(word);
    // Remove variables before a command, and programs that run another program.
    for command in &mut commands {
        while command.first().is_some_and(|word| word.contains('=') || word == "sudo") {
            command.remove(0);
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// Returns the words of each command of the program itself, with the place where it is found.
fn stowage_commands() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for block in blocks("console") {
        let text = block.text.replace("\\\n", " ");
        for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("$ ")) {
            for mut words in shell_commands(line) {
                if words.starts_with(&["nix", "run", ".#serve", "--"].map(str::to_owned)) {
                    // `nix/serve.nix` runs this command.
                    let serve = ["stowage", "serve", "--library", "nix"].map(str::to_owned);
                    words.splice(..4, serve);
                }
                if words[0] == "stowage" {
                    found.push((block.place.clone(), words));
                }
            }
        }
    }
    found
}

#[test]
fn commands_are_read_as_a_shell_reads_them() {
    let line = r#"A=1 stowage copy 'a b' "c\"d" e\ f && x | stowage serve > log # not this"#;
    assert_eq!(
        shell_commands(line),
        [
            vec!["stowage", "copy", "a b", "c\"d", "e f"],
            vec!["x"],
            vec!["stowage", "serve"],
            vec!["redirection", "log"]
        ]
    );
}

#[test]
fn the_program_takes_every_command_of_the_manual() {
    let commands = stowage_commands();
    assert!(commands.len() > 15, "only {} commands", commands.len());
    for (place, words) in commands {
        if let Err(error) = Arguments::try_parse_from(&words) {
            panic!("{place}: {words:?}: {error}");
        }
    }
}

/// Checks spans such as "`stowage sbom IMAGE --format F`": the command and its options exist.
#[test]
fn every_option_that_the_manual_names_exists() {
    let mut program = Arguments::command();
    program.build();
    let mut count = 0;
    for span in code().into_iter().filter(|code| code.language.is_none()) {
        let Some(rest) = span.text.strip_prefix("stowage ") else { continue };
        let mut words = rest.split_whitespace();
        let name = words.next().unwrap().trim_end_matches(',');
        if name == "help" || name.starts_with('-') || name.contains('…') {
            continue;
        }
        let command = program.find_subcommand(name);
        let command = command.unwrap_or_else(|| panic!("{}: no command `{name}`", span.place));
        for word in words {
            let Some(option) = word.trim_start_matches('[').strip_prefix("--") else { continue };
            let option = option.split(['=', ']', '|']).next().unwrap();
            let known = command.get_arguments().any(|argument| {
                argument.get_long() == Some(option)
                    || argument.get_all_aliases().unwrap_or_default().contains(&option)
            });
            assert!(
                known || option.is_empty(),
                "{}: `stowage {name}` has no --{option}",
                span.place
            );
            count += 1;
        }
    }
    assert!(count > 20, "only {count} options");
}

fn assert_yaml(place: &str, text: &str) {
    for event in YamlParser::new_from_str(text) {
        if let Err(error) = event {
            panic!("{place}: {error}");
        }
    }
}

/// Checks that an interactive bash, and zsh, would not replace words by those of earlier commands.
#[test]
fn exclamation_marks_are_quoted() {
    for block in blocks("console") {
        let text = block.text.replace("\\\n", " ");
        for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("$ ")) {
            // Every second part is within single quotes.
            for part in line.split('\'').step_by(2) {
                let expanded = part.split('!').skip(1).any(|rest| !rest.starts_with([' ', '=']));
                assert!(!expanded, "{}: {line}", block.place);
            }
        }
    }
}

#[test]
fn blocks_of_data_can_be_parsed() {
    for block in blocks("json") {
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&block.text) {
            panic!("{}: {error}", block.place);
        }
    }
    for block in blocks("toml") {
        if let Err(error) = toml::from_str::<toml::Table>(&block.text) {
            panic!("{}: {error}", block.place);
        }
    }
    blocks("yaml").iter().for_each(|block| assert_yaml(&block.place, &block.text));
    let recipes = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci")).unwrap();
    for recipe in recipes {
        let file = recipe.unwrap().path();
        assert_yaml(&file.display().to_string(), &fs::read_to_string(&file).unwrap());
    }
}

/// Checks that a block says its language: another one would not be checked.
#[test]
fn every_block_has_a_language_that_is_checked() {
    for block in code() {
        let known = ["console", "ini", "json", "nix", "text", "toml", "yaml"];
        if let Some(language) = &block.language {
            assert!(known.contains(&language.as_str()), "{}: `{language}`", block.place);
        }
    }
}
