use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::schema;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// The names of the functions' files, in the order of the reference.
const FUNCTIONS: [&str; 8] = [
    "build-image",
    "build-layer",
    "build-index",
    "pull-image",
    "pull-image-from-manifest",
    "image-from-names",
    "popularity",
    "structure-test",
];

/// Compares a page with the text that is made from the sources, or writes the page if
/// `UPDATE_GOLDEN` is set.
fn compare(page: &str, generated: &str) {
    let file = Path::new(REPOSITORY).join("docs/reference").join(page);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, generated).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == generated,
        "{} is not what the sources say: UPDATE_GOLDEN=1 cargo test --test it reference",
        file.display()
    );
}

fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stowage"));
    command.args(arguments).arg("--help").env_clear();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn commands_are_described_as_they_are() {
    let all = help(&[]);
    let mut page = format!(
        "# Commands\n\nWhat `--help` says of each. This page is made from the program.\n\n```text\n{}\n```\n",
        all.trim_end()
    );
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in commands.take_while(|line| !line.is_empty()) {
        // The next lines of a description are indented further.
        let name = line.strip_prefix("  ").unwrap().split(' ').next().unwrap();
        if name.is_empty() || name == "help" {
            continue;
        }
        let text = help(&[name]);
        write!(page, "\n## `stowage {name}`\n\n```text\n{}\n```\n", text.trim_end()).unwrap();
    }
    assert!(page.contains("## `stowage serve`"));
    compare("commands.md", &page);
}

/// An argument of a function, with the comment before it.
struct Argument {
    name: String,
    default: Option<String>,
    description: String,
}

/// Reads the arguments of a file of `nix/`: those between the line `{` and `}@arguments`.
fn arguments(text: &str) -> Vec<Argument> {
    let mut found: Vec<Argument> = Vec::new();
    let mut comment = String::new();
    for line in text.lines().skip_while(|line| *line != "{").skip(1) {
        if line.starts_with('}') {
            break;
        }
        if let Some(text) = line.strip_prefix("  # ") {
            comment = format!("{comment} {text}");
            continue;
        }
        let Some(declared) = line.strip_prefix(", ").or_else(|| line.strip_prefix("  ")) else {
            continue;
        };
        let (name, default) = match declared.split_once(" ? ") {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (declared, None),
        };
        let description = std::mem::take(&mut comment).trim().to_owned();
        // Several arguments may share the comment above the first one.
        let description = match found.last() {
            Some(last) if description.is_empty() => last.description.clone(),
            _ => description,
        };
        found.push(Argument { name: name.to_owned(), default, description });
    }
    found
}

/// Reads the comment `/* … */` of a file: paragraphs, and the lines of its example.
fn header(text: &str) -> (String, String) {
    let (_, rest) = text.split_once("/* ").unwrap();
    let (comment, _) = rest.split_once("*/").unwrap();
    let (description, example) = comment.split_once("Example:\n").unwrap_or((comment, ""));
    let lines = |text: &str| -> String {
        text.lines().map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line))).collect()
    };
    let description = lines(description);
    let description: String = description.lines().filter(|line| !line.starts_with("Type: ")).fold(
        String::new(),
        |mut text, line| {
            // Leave one blank line in place of the type.
            if !(line.is_empty() && text.ends_with("\n\n")) {
                writeln!(text, "{line}").unwrap();
            }
            text
        },
    );
    (description.trim().to_owned(), lines(example).trim_end().to_owned())
}

#[test]
fn functions_are_described_as_they_are() {
    let mut page = "# Nix functions\n\nThe functions of `pkgs.stowage`, or of `nix/lib.nix`, and their arguments. \
                    This page is made from the sources.\n"
        .to_owned();
    for name in FUNCTIONS {
        let file = Path::new(REPOSITORY).join(format!("nix/{name}.nix"));
        let text = fs::read_to_string(&file).unwrap();
        let (description, example) = header(&text);
        let (_, function) = text.split_once("Type: ").unwrap();
        let function = function.split(' ').next().unwrap();
        write!(page, "\n## `{function}`\n\n{description}\n\n```nix\n{example}\n```\n").unwrap();
        page += "\n| argument | default | |\n| --- | --- | --- |\n";
        let arguments = arguments(&text);
        assert!(!arguments.is_empty(), "{name}");
        for Argument { name, default, description } in arguments {
            let default = match default {
                Some(default) if default.starts_with("throw") || default.contains("arguments") => {
                    String::new()
                }
                Some(default) => format!("`{default}`"),
                None => "required".to_owned(),
            };
            let description = description.replace('|', "\\|");
            writeln!(page, "| `{name}` | {default} | {description} |").unwrap();
        }
    }
    compare("functions.md", &page);
}

/// Returns the keys of a schema's objects, each as a line of a list with its type and description.
fn keys(schema: &Value, depth: usize, text: &mut String) {
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            keys(&schema[inner], depth, text);
        }
    }
    for (number, choice) in schema["anyOf"].as_array().into_iter().flatten().enumerate() {
        // Of a document and a list of them, the document is enough.
        if number > 0 && choice["items"].is_object() {
            continue;
        }
        keys(choice, depth, text);
    }
    let required = schema["required"].as_array();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let mut kind = match &property["type"] {
            Value::String(kind) => kind.clone(),
            Value::Array(kinds) => {
                kinds.iter().map(|kind| kind.as_str().unwrap()).collect::<Vec<_>>().join(" or ")
            }
            _ => String::new(),
        };
        if !required.is_some_and(|names| names.iter().any(|it| it == name)) {
            kind += ", optional";
        }
        let values: Vec<_> = property["enum"].as_array().into_iter().flatten().collect();
        let values: Vec<_> =
            values.iter().map(|value| format!("`{}`", value.as_str().unwrap())).collect();
        let indent = "  ".repeat(depth);
        let description = property["description"].as_str().unwrap_or_default();
        write!(text, "{indent}* `{name}` ({kind}): {description}").unwrap();
        if !values.is_empty() {
            write!(text, " {}.", values.join(", ")).unwrap();
        }
        text.push('\n');
        keys(property, depth + 1, text);
    }
}

#[test]
fn json_documents_are_described_as_their_schemas_are() {
    let directory = Path::new(REPOSITORY).join("docs/reference/schemas");
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let mut page = "# JSON documents\n\nThe documents that commands print for other programs, each with a \
                    [JSON schema](https://json-schema.org/draft/2020-12). This page is made from the schemas, with which the \
                    tests compare what the program prints. A new version may add keys; [what is stable](../stability.md).\n"
        .to_owned();
    for name in names {
        let schema = schema::read(&name);
        let text = |key: &str| schema[key].as_str().unwrap();
        let title = text("title").replace(", ", "`, `");
        write!(page, "\n## `{title}`\n\n{} [Schema](schemas/{name}.json)\n\n", text("description"))
            .unwrap();
        let mut list = String::new();
        keys(&schema, 0, &mut list);
        if list.is_empty() {
            writeln!(page, "```json\n{schema:#}\n```").unwrap();
        }
        page += &list;
    }
    compare("json.md", &page);
}

fn markdown_files() -> Vec<PathBuf> {
    let docs = Path::new(REPOSITORY).join("docs");
    let mut files = vec![
        Path::new(REPOSITORY).join("README.md"),
        Path::new(REPOSITORY).join("CONTRIBUTING.md"),
        Path::new(REPOSITORY).join("CHANGELOG.md"),
    ];
    for directory in [docs.clone(), docs.join("reference")] {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|file| file.extension().is_some_and(|kind| kind == "md")));
    }
    files.sort();
    files
}

/// Returns the anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}

/// Returns the targets of a page's links, without links to other sites.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.contains(' ')).collect()
}

#[test]
fn links_lead_somewhere() {
    let docs = Path::new(REPOSITORY).join("docs").canonicalize().unwrap();
    for file in markdown_files() {
        let text = fs::read_to_string(&file).unwrap();
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", file.display());
            // A page of the manual can only link to what is in the manual.
            let target = target.canonicalize().unwrap();
            let inside = !file.starts_with(&docs) || target.starts_with(&docs);
            assert!(inside, "{}: {link} is not in the manual", file.display());
            let found = anchor.is_empty() || anchors(&target).iter().any(|name| name == anchor);
            assert!(found, "{}: {link} has no such heading", file.display());
        }
    }
}

/// The address that users write for this repository. When there is a public one, it replaces this one
/// everywhere.
const ADDRESS: &str = "git+file:///where/you/cloned/stowage";

/// Checks that the manual, the examples and the template name the repository in one way.
#[test]
fn the_repository_has_one_address() {
    let top = Path::new(REPOSITORY);
    let mut files = markdown_files();
    files.push(top.join("template/flake.nix"));
    let examples = fs::read_dir(top.join("examples")).unwrap();
    files.extend(examples.map(|entry| entry.unwrap().path().join("flake.nix")));
    let mut count = 0;
    for file in files.iter().filter(|file| file.exists()) {
        let text = fs::read_to_string(file).unwrap();
        assert!(!text.contains("OWNER"), "{}", file.display());
        for (place, _) in text.match_indices("git+file://") {
            let rest = &text[place..];
            // Or the clone beside the reader's directory, which a command can name.
            let known = rest.starts_with(ADDRESS) || rest.starts_with("git+file://$PWD/../stowage");
            assert!(known, "{}: {:.60}", file.display(), rest);
            count += 1;
        }
    }
    assert!(count > 10, "only {count} places");
}

/// Checks that the table of contents has every page.
#[test]
fn every_page_is_in_the_table_of_contents() {
    let summary = fs::read_to_string(Path::new(REPOSITORY).join("docs/SUMMARY.md")).unwrap();
    let listed = links(&summary);
    let docs = Path::new(REPOSITORY).join("docs");
    for file in markdown_files() {
        let Ok(below) = file.strip_prefix(&docs) else { continue };
        let name = below.to_str().unwrap();
        assert!(name == "SUMMARY.md" || listed.contains(&name), "{name}");
    }
}
