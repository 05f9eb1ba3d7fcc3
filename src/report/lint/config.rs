//! The files and users that an image's `config` relies on.
//! Stage: report. Input: [`ImageSpec`]. Output: [`Finding`]s.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::lookup::{Found, Lookup};
use super::program::{HEAD, misfit};
use super::{Check, Finding, LARGEST_ID};
use crate::oci::ImageSpec;
use crate::store::Store;

/// Variables that name a file or directory that must exist, and what happens if it does not.
const FILES: [(&str, &str); 7] = [
    ("SSL_CERT_FILE", "TLS connections fail; is `cacert` in the image?"),
    ("NIX_SSL_CERT_FILE", "TLS connections fail; is `cacert` in the image?"),
    ("GIT_SSL_CAINFO", "TLS connections fail; is `cacert` in the image?"),
    ("CURL_CA_BUNDLE", "TLS connections fail; is `cacert` in the image?"),
    ("REQUESTS_CA_BUNDLE", "TLS connections fail; is `cacert` in the image?"),
    ("SSL_CERT_DIR", "TLS connections fail; is `cacert` in the image?"),
    (
        "TMPDIR",
        "programs that need temporary files fail; copy a directory to root, with `perms` of mode `1777`",
    ),
];
/// The directories that are searched for a program if `PATH` is not set (moby, `oci/defaults.go`).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Checks the config, and the rules of `perms`.
pub fn lint(store: &Store, spec: &ImageSpec) -> Vec<Finding> {
    let lookup = Lookup::new(store, spec);
    let config = spec.config.as_map();
    let mut findings = Vec::new();
    let mut found = |check, path: Option<&str>, message: String| {
        let path = path.map(str::to_owned);
        findings.push(Finding { check, layer: None, path, message, more: 0 });
    };
    let list = |key: &str| {
        let list = config.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).collect::<Vec<_>>()
    };
    let variables = list("Env");
    let variable = |name: &str| {
        let pairs = variables.iter().rev().filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    };

    let key = if list("Entrypoint").is_empty() { "Cmd" } else { "Entrypoint" };
    if let Some(program) = list(key).first() {
        match find_program(
            &lookup,
            program,
            variable("PATH").unwrap_or(PATH),
            config.get("WorkingDir"),
        ) {
            Found::Here(file) => {
                let misfit =
                    head(&file).and_then(|head| misfit(&head, &spec.architecture.as_oci()));
                if let Some(message) = misfit {
                    found(Check::Machine, Some(program), message);
                }
            }
            Found::Nowhere => {
                let message = format!("`{key}` begins with it, and it is not in the image");
                found(Check::MissingFile, Some(program), message);
            }
            Found::Unknown => {}
        }
    }
    for (name, then) in FILES {
        let path = variable(name).filter(|path| path.starts_with('/'));
        if let Some(path) = path.filter(|path| lookup.find(path) == Found::Nowhere) {
            let message = format!("`{name}` names it, and it is not in the image: {then}");
            found(Check::MissingFile, Some(path), message);
        }
    }
    let needs_tmp = variables
        .iter()
        .chain(&list("Cmd"))
        .chain(&list("Entrypoint"))
        .any(|text| text.contains("/tmp"));
    let has_volume = config.get("Volumes").is_some_and(|volumes| volumes.get("/tmp").is_some());
    if needs_tmp && !has_volume && lookup.find("/tmp") == Found::Nowhere {
        let message = "the config names files in it, and it is not in the image".to_owned();
        found(Check::MissingFile, Some("/tmp"), message);
    }
    let user = config.get("User").and_then(Value::as_str).unwrap_or_default();
    if let Some(message) = lint_user(&lookup, user) {
        found(Check::MissingUser, None, message);
    }
    findings
}

fn find_program(lookup: &Lookup, program: &str, path: &str, directory: Option<&Value>) -> Found {
    if program.starts_with('/') {
        return lookup.find(program);
    }
    if program.contains('/') {
        let directory = directory.and_then(Value::as_str).unwrap_or("/");
        return lookup.find(&format!("{directory}/{program}"));
    }
    let mut unknown = false;
    for directory in path.split(':') {
        match lookup.find(&format!("{directory}/{program}")) {
            Found::Nowhere => {}
            Found::Unknown => unknown = true,
            here => return here,
        }
    }
    if unknown { Found::Unknown } else { Found::Nowhere }
}

/// Returns a problem with `user[:group]`, each by name or by number. Numbers need no entry in a
/// file.
fn lint_user(lookup: &Lookup, user: &str) -> Option<String> {
    let (user, group) = user.split_once(':').map_or((user, ""), |(user, group)| (user, group));
    for (name, file, what) in [(user, "/etc/passwd", "user"), (group, "/etc/group", "group")] {
        if let Ok(number) = name.parse::<u64>() {
            if number > LARGEST_ID {
                return Some(format!(
                    "`User` is {what} {number}: engines without root have none over {LARGEST_ID}"
                ));
            }
            continue;
        }
        let known = match lookup.find(file) {
            _ if name.is_empty() => true,
            Found::Unknown => true,
            Found::Nowhere => false,
            Found::Here(file) => {
                let text = std::fs::read_to_string(file).unwrap_or_default();
                text.lines().any(|line| line.split(':').next() == Some(name))
            }
        };
        if !known {
            return Some(format!(
                "`User` is {what} `{name}`, and {file} of the image has none of that name"
            ));
        }
    }
    None
}

fn head(file: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(file).ok()?.take(HEAD as u64).read_to_end(&mut head).ok()?;
    Some(head)
}
