//! Runs the `skopeo` program, and explains its failures.
//! Stage: outgoing.

use std::io;
use std::path::PathBuf;
use std::process::Command;

use thiserror::Error;

use super::program::run_program;
use super::watch::Watch;
use crate::error::Hint;

/// Says why skopeo did not copy an image.
#[derive(Debug, Error)]
pub enum SkopeoError {
    /// The `skopeo` program could not be run.
    #[error("cannot run `skopeo`")]
    NoSkopeo(#[source] io::Error),
    /// skopeo could not copy the image.
    #[error("skopeo cannot copy to {destination}: {output}")]
    Failed {
        /// The destination, in skopeo's notation.
        destination: String,
        /// The message of the last line that skopeo printed.
        output: String,
    },
    /// Temporary files for a copy could not be made.
    #[error("cannot use {} for temporary files", path.display())]
    Temporary {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl Hint for SkopeoError {
    fn hint(&self) -> Option<String> {
        match self {
            SkopeoError::NoSkopeo(_) => Some(
                "for this target it must be on PATH; `docker-archive:FILE`, `oci:DIR` and `docker-daemon:NAME:TAG` need nothing"
                    .to_owned(),
            ),
            SkopeoError::Temporary { .. } => {
                Some("set TMPDIR to a directory that can be written to".to_owned())
            }
            SkopeoError::Failed { output, .. } => hint_for(output).map(str::to_owned),
        }
    }
}

/// Returns the known remedy for what skopeo printed, if there is one.
fn hint_for(output: &str) -> Option<&'static str> {
    const NO_IDS: &str = "this user has no range of user IDs for containers: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`, then `podman system migrate`; or copy as root";
    const HINTS: [(&str, &str); 4] = [
        ("/etc/subuid", NO_IDS),
        ("newuidmap", NO_IDS),
        ("newgidmap", NO_IDS),
        (
            "unshare(",
            "this user may not make user namespaces, which podman's storage needs: ask the administrator of this machine or container, or copy as root",
        ),
    ];
    HINTS.iter().find(|(text, _)| output.contains(text)).map(|(_, hint)| *hint)
}

/// Runs a command of skopeo's that copies to `destination`, and waits for its end.
///
/// # Errors
/// Fails with [`SkopeoError::NoSkopeo`] if skopeo can't be run, or with [`SkopeoError::Failed`],
/// which has what skopeo printed.
pub fn run_skopeo(
    command: &mut Command,
    destination: &str,
    watch: &dyn Watch,
) -> Result<(), SkopeoError> {
    let output = run_program(command, watch).map_err(SkopeoError::NoSkopeo)?;
    if output.status.success() {
        return Ok(());
    }
    let output = last_message(&String::from_utf8_lossy(&output.stderr));
    Err(SkopeoError::Failed { destination: destination.to_owned(), output })
}

/// Returns the message of the last line that skopeo printed, without the time and the level before
/// it. Skips lines that only say that there was an error.
fn last_message(output: &str) -> String {
    /// Parts of the messages that skopeo prints, after the reason, when it did not get a user
    /// namespace.
    const EMPTY_WORDS: [&str; 2] = ["nable to determine exit status", "rror parsing PID"];
    let mut said = output.lines().map(str::trim).filter(|line| !line.is_empty()).map(message);
    let last = said.clone().next_back();
    let telling = said.rfind(|message| !EMPTY_WORDS.iter().any(|words| message.contains(words)));
    telling.or(last).unwrap_or_else(|| "it printed nothing".to_owned())
}

/// Returns the message of one line.
fn message(line: &str) -> String {
    let message = line.split_once("msg=\"").and_then(|(_, message)| message.rsplit_once('"'));
    message.map_or_else(|| line.to_owned(), |(message, _)| message.replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skopeos_message_is_found() {
        for (output, message) in [
            ("", "it printed nothing"),
            ("odd\n", "odd"),
            (
                "time=\"2026\" level=fatal msg=\"writing \\\"x\\\": denied\"\n",
                "writing \"x\": denied",
            ),
            (
                "Error during unshare(CLONE_NEWUSER): Operation not permitted\n\
                 time=\"2026\" level=error msg=\"error parsing PID \\\"\\\": strconv.Atoi: parsing\"\n\
                 time=\"2026\" level=error msg=\"(Unable to determine exit status)\"\n",
                "Error during unshare(CLONE_NEWUSER): Operation not permitted",
            ),
            (
                "time=\"2026\" msg=\"(unable to determine exit status)\"\n",
                "(unable to determine exit status)",
            ),
        ] {
            assert_eq!(last_message(output), message);
        }
    }

    #[test]
    fn what_rootless_storage_lacks_is_named() {
        for (output, hint) in [
            (
                "adding layer: potentially insufficient UIDs or GIDs available in user namespace (requested 0:42 for /etc/shadow): Check /etc/subuid and /etc/subgid",
                Some("usermod --add-subuids"),
            ),
            ("cannot set up namespace using \"newuidmap\": exit status 1", Some("usermod")),
            ("Error during unshare(CLONE_NEWUSER): Operation not permitted", Some("namespaces")),
            ("writing blob: denied", None),
        ] {
            let found = hint_for(output);
            assert_eq!(found.is_some(), hint.is_some(), "{output}");
            assert!(found.unwrap_or_default().contains(hint.unwrap_or_default()), "{output}");
        }
    }
}
