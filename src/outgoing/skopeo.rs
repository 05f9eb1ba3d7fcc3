//! Runs of the `skopeo` program, and what it has to say when one fails.
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
    /// Files that are needed during a copy could not be made.
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
            SkopeoError::Failed { .. } => None,
        }
    }
}

/// Runs a command of skopeo's that copies to `destination`, and waits for its end.
///
/// # Errors
/// [`SkopeoError::NoSkopeo`], or [`SkopeoError::Failed`] with what it printed.
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

/// Returns the message of the last line that skopeo printed, without the time and the level that
/// stand before it.
fn last_message(output: &str) -> String {
    let last = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let message = last.split_once("msg=\"").and_then(|(_, message)| message.rsplit_once('"'));
    match (last, message) {
        ("", _) => "it printed nothing".to_owned(),
        (_, Some((message, _))) => message.replace("\\\"", "\""),
        (last, None) => last.to_owned(),
    }
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
        ] {
            assert_eq!(last_message(output), message);
        }
    }
}
