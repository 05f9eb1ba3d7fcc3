//! The files and users that an image's `config` relies on.
//! Stage: report. Input: [`ImageSpec`], and the image's files. Output: [`Finding`]s.

use serde_json::Value;

use super::LARGEST_ID;
use super::config_values::ConfigValues;
use super::finding::{Check, Finding, Level};
use super::health::lint_health;
use super::identity::{Identity, NoSuchUser, identity_of, number_of, user_and_group};
use super::provided::Provided;
use super::start::By;
use super::surroundings::Surroundings;
use super::volumes::lint_volumes;
use crate::oci::ImageSpec;
use crate::report::image_files::{Absent, FileKind, Found, ImageFiles};

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
/// The mode of a directory in which every user may make files, and remove only their own.
const TMP_MODE: u32 = 0o1777;

/// Checks the config by the files of the image.
pub fn lint(files: &ImageFiles, spec: &ImageSpec) -> Vec<Finding> {
    let config = ConfigValues(spec);
    let mut findings = Vec::new();
    let volumes = spec.config.as_map().get("Volumes").and_then(Value::as_object);
    let provided = Provided::new(volumes.into_iter().flat_map(|it| it.keys()).map(String::as_str));

    let identity = identity_of(files, &provided, config.text("User"));
    lint_user(config.text("User"), &identity, &mut findings);
    let surroundings = Surroundings {
        files,
        provided: &provided,
        architecture: spec.architecture.as_oci(),
        identity: identity.unwrap_or(None),
        path: config.variable("PATH").unwrap_or(PATH).to_owned(),
        library_path: config.variable("LD_LIBRARY_PATH").unwrap_or_default().to_owned(),
        directory: config.text("WorkingDir").trim_end_matches('/').to_owned(),
    };
    lint_volumes(&surroundings, volumes.into_iter().flat_map(|it| it.keys()), &mut findings);
    lint_working_dir(&surroundings, &mut findings);
    let key = if config.list("Entrypoint").is_empty() { "Cmd" } else { "Entrypoint" };
    if let Some(program) = config.list(key).first()
        && let Some(problem) = surroundings.problem(program, By::Engine)
    {
        findings.push(problem.finding(program, &format!("`{key}` begins with it, and")));
    }
    lint_health(&surroundings, &config, &mut findings);
    lint_files(&surroundings, &config, &mut findings);
    lint_tmp(&surroundings, &config, &mut findings);
    findings
}

/// Checks `user[:group]`, each by name or by number.
fn lint_user(
    user: &str,
    identity: &Result<Option<Identity>, NoSuchUser>,
    findings: &mut Vec<Finding>,
) {
    if let Err(problem) = identity {
        let message = format!("`User` is {problem}");
        findings.push(Finding::of_config(Check::MissingUser, Level::Error, message));
    }
    if user.split(':').count() > 2 {
        let message = format!(
            "`User` is `{user}`: Docker ignores what is behind the second colon, and other engines start nothing"
        );
        findings.push(Finding::of_config(Check::MissingUser, Level::Warning, message));
    }
    let (name, group) = user_and_group(user);
    for (number, what) in [(name, "user"), (group, "group")] {
        let number = number_of(number).map_or(0, i64::unsigned_abs);
        if number > LARGEST_ID && identity.is_ok() {
            let message = format!(
                "`User` is {what} {number}: engines without root have none over {LARGEST_ID}"
            );
            findings.push(Finding::of_config(Check::MissingUser, Level::Warning, message));
        }
    }
    if let Ok(identity) = identity
        && !name.is_empty()
        && number_of(name).is_none()
        && name != "root"
    {
        let number = match identity {
            Some(Identity { uid, .. }) => format!("{uid}"),
            None => "its number".to_owned(),
        };
        let message = format!(
            "`User` is `{name}`: Kubernetes' `runAsNonRoot` takes numbers alone, here {number}"
        );
        findings.push(Finding::of_config(Check::RunAsNonRoot, Level::Note, message));
    }
}

/// Checks `WorkingDir`. Engines make one that is not there.
fn lint_working_dir(surroundings: &Surroundings, findings: &mut Vec<Finding>) {
    if surroundings.directory.is_empty() {
        return;
    }
    let text = match surroundings.look_up(&surroundings.directory) {
        Found::Here(directory, searched) if directory.kind == FileKind::Directory => {
            let may_search = |identity: &Identity| identity.may_search(directory.attributes);
            match (&surroundings.identity, surroundings.denied(&searched)) {
                (_, Some(denied)) => format!("it is in {denied}"),
                (Some(identity), None) if !may_search(identity) => {
                    let mode = directory.attributes.mode;
                    format!("{identity} may not search it (mode {mode:04o})")
                }
                _ => return,
            }
        }
        Found::Here(..) => "it is no directory".to_owned(),
        Found::Nowhere(Absent::NoDirectory(place)) => format!("{} is no directory", place),
        Found::Nowhere(Absent::Circle) => "its links lead in a circle".to_owned(),
        Found::Nowhere(Absent::Nothing(_)) | Found::Unknown => return,
    };
    let message = format!("`WorkingDir` is it, and {text}");
    findings.push(Finding::of_path(
        Check::WorkingDir,
        Level::Error,
        &surroundings.directory,
        message,
    ));
}

/// Checks the files that variables name.
fn lint_files(surroundings: &Surroundings, config: &ConfigValues, findings: &mut Vec<Finding>) {
    for (name, then) in FILES {
        let path = config.variable(name).filter(|path| path.starts_with('/'));
        // `/tmp` has a check of its own.
        let Some(path) = path.filter(|path| !is_tmp(path)) else { continue };
        if let Found::Nowhere(_) = surroundings.look_up(path) {
            let message = format!("`{name}` names it, and it is not in the image: {then}");
            findings.push(Finding::of_path(Check::MissingFile, Level::Warning, path, message));
        }
    }
}

fn is_tmp(path: &str) -> bool {
    path.trim_end_matches('/') == "/tmp"
}

/// Checks that every user may make temporary files.
fn lint_tmp(surroundings: &Surroundings, config: &ConfigValues, findings: &mut Vec<Finding>) {
    if surroundings.provided.may_have(b"tmp") {
        return;
    }
    let texts = ["Env", "Cmd", "Entrypoint"].map(|key| config.list(key)).concat();
    let is_named = texts.iter().any(|text| text.contains("/tmp"));
    let (level, message) = match surroundings.look_up("/tmp") {
        Found::Unknown => return,
        Found::Here(directory, _) if directory.kind == FileKind::Directory => {
            let mode = directory.attributes.mode;
            if mode == TMP_MODE {
                return;
            }
            let whom = match mode & 0o002 {
                0 => "users other than its owner can't make temporary files",
                _ => "every user may remove the files of others",
            };
            (Level::Warning, format!("has the mode {mode:04o}, and not 1777: {whom}"))
        }
        Found::Here(..) => (Level::Warning, "is no directory".to_owned()),
        Found::Nowhere(_) if is_named => {
            (Level::Warning, "the config names files in it, and it is not in the image".to_owned())
        }
        Found::Nowhere(_) => {
            (Level::Note, "is not in the image: programs that need temporary files fail".to_owned())
        }
    };
    findings.push(Finding::of_path(Check::Tmp, level, "/tmp", message));
}
