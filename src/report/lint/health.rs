//! Checks the programs that `Healthcheck` and `Shell` name.
//! Stage: report. Input: the config of an image. Output: [`Finding`]s.

use serde_json::Value;

use super::config_values::ConfigValues;
use super::finding::{Check, Finding, Level};
use super::start::{By, Program, StartProblem};
use super::surroundings::Surroundings;
use crate::image_path::split;

/// The words that shells know without a program.
const BUILTINS: [&str; 61] = [
    "!", ".", ":", "[", "[[", "alias", "bg", "break", "builtin", "case", "cd", "command",
    "continue", "declare", "echo", "eval", "exec", "exit", "export", "false", "fc", "fg", "for",
    "function", "getopts", "hash", "if", "jobs", "kill", "let", "local", "mapfile", "popd",
    "printf", "pushd", "pwd", "read", "readonly", "return", "select", "set", "shift", "shopt",
    "source", "suspend", "test", "time", "times", "trap", "true", "type", "typeset", "ulimit",
    "umask", "unalias", "unset", "until", "wait", "while", "then", "do",
];
/// The shell of `CMD-SHELL`, unless `Shell` names another (moby, `daemon/health.go`).
const SHELL: &str = "/bin/sh";

/// Checks `Healthcheck`, and `Shell`.
pub fn lint_health(
    surroundings: &Surroundings,
    config: &ConfigValues,
    findings: &mut Vec<Finding>,
) {
    let test = config.value("Healthcheck").and_then(|health| health.get("Test"));
    let test = test.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let test: Vec<_> = test.collect();
    let shell = config.list("Shell").first().copied();
    if let ["CMD", program, ..] = test[..] {
        let problem = surroundings.problem(program, By::Engine);
        findings
            .extend(problem.map(|problem| problem.finding(program, "`Healthcheck` runs it, and")));
    }
    if let ["CMD-SHELL", text, ..] = test[..] {
        let program = shell.unwrap_or(SHELL);
        let why = "`Healthcheck` runs a command by it, and";
        match surroundings.problem(program, By::Engine) {
            Some(problem) => findings.push(problem.finding(program, why)),
            None => lint_command(surroundings, program, text, findings),
        }
    } else if let Some(program) = shell
        && let Some(problem) = surroundings.problem(program, By::Engine)
    {
        // The shell is only used by builds on top of this image.
        let problem = StartProblem { level: Level::Warning, ..problem };
        findings.push(problem.finding(program, "`Shell` begins with it, and"));
    }
}

/// Checks the first word of a shell's command, if it is a plain word and not built into shells.
fn lint_command(surroundings: &Surroundings, shell: &str, text: &str, findings: &mut Vec<Finding>) {
    // These shells contain the usual programs, which then need no files in the image.
    match surroundings.find(shell, By::Engine) {
        Program::Here(file, _) => {
            let name = split(file.path.as_bytes()).1;
            if [&b"busybox"[..], b"toybox"].iter().any(|own| name.starts_with(own)) {
                return;
            }
        }
        Program::Nowhere(_) | Program::Unknown => return,
    }
    let word = text.split_whitespace().next().unwrap_or_default().trim_end_matches(';');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    if word.is_empty() || !word.chars().all(is_plain) || BUILTINS.contains(&word) {
        return;
    }
    if let Some(problem) = surroundings.problem(word, By::Program) {
        let message = format!("`Healthcheck` begins with it, and {}", problem.text);
        let check = if problem.level == Level::Error { problem.check } else { Check::MissingFile };
        findings.push(Finding::of_path(check, Level::Warning, word, message));
    }
}
