//! Runs the `docker` client, and gives a reason and a remedy if it fails.

use std::io;
use std::process::{Command, Output, Stdio};

use thiserror::Error;

use crate::error::Hint;
use crate::outgoing;
use crate::target::program::loopback::LoopbackError;

/// Says why a Docker daemon did not take an image.
#[derive(Debug, Error)]
pub enum DockerError {
    /// A layer could not be made.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// The registry from which the daemon pulls could not be opened.
    #[error(transparent)]
    Loopback(#[from] LoopbackError),
    /// The `docker` program could not be run.
    #[error("cannot run `docker`")]
    NoDocker(#[source] io::Error),
    /// A `docker` command failed.
    #[error("`docker {command}` failed: {output}")]
    Failed {
        /// The command's arguments.
        command: String,
        /// The text that it printed.
        output: String,
    },
    /// Docker reported success, but has another image under the name.
    #[error("Docker loaded {reference}, but it is not the image that was sent")]
    LoadedWrong {
        /// The image's name.
        reference: String,
    },
}

impl Hint for DockerError {
    fn hint(&self) -> Option<String> {
        match self {
            DockerError::Outgoing(error) => error.hint(),
            DockerError::NoDocker(_) => Some(
                "the Docker client must be on PATH; without it, load the image's stream: `./result | podman load`"
                    .to_owned(),
            ),
            DockerError::Failed { output, .. } => hint_for(output).map(str::to_owned),
            DockerError::LoadedWrong { .. } | DockerError::Loopback(_) => None,
        }
    }
}

/// Returns the known remedy for what the `docker` client printed, if there is one.
fn hint_for(output: &str) -> Option<&'static str> {
    /// Known failures and their remedies. The order matters: clients up to 28 say "connect to the
    /// Docker daemon" also when permission is refused.
    const HINTS: [(&str, &str); 5] = [
        (
            "permission denied while trying to connect",
            "this user may not talk to the daemon: add the user to the group `docker` and log in again, run a rootless daemon, or set DOCKER_HOST",
        ),
        (
            "docker system dial-stdio",
            "the daemon is reached by ssh: `ssh HOST docker version` must work without a question, and that user must be in the group `docker` there",
        ),
        (
            "context not found",
            "`docker context ls` lists the contexts; DOCKER_CONTEXT or `docker context use` names one",
        ),
        (
            "onnect to the Docker daemon",
            "is the daemon running? DOCKER_HOST or `docker context` says which one is asked",
        ),
        (
            "no space left on device",
            "the daemon's disk is full: `docker system prune` removes what nothing uses, on the daemon's machine",
        ),
    ];
    HINTS.iter().find(|(text, _)| output.contains(text)).map(|(_, hint)| *hint)
}

/// Runs `docker`, and fails if the command fails.
pub fn docker(arguments: &[&str]) -> Result<String, DockerError> {
    let output = run(arguments)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let output = said(&String::from_utf8_lossy(&output.stderr));
    Err(DockerError::Failed { command: arguments.join(" "), output })
}

pub fn run(arguments: &[&str]) -> Result<Output, DockerError> {
    command(arguments).stdin(Stdio::null()).output().map_err(DockerError::NoDocker)
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Joins the lines that a program printed.
pub fn said(output: &str) -> String {
    let lines: Vec<_> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it printed nothing".to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the messages of clients 20.10, 26.1, 28.2 and 28.5.
    #[test]
    fn causes_have_ways_out() {
        for (output, hint) in [
            (
                "permission denied while trying to connect to the Docker daemon socket at unix:///run/d/docker.sock: Get \"http://%2Frun/v1.50/info\": dial unix /run/d/docker.sock: connect: permission denied",
                "the group `docker`",
            ),
            (
                "permission denied while trying to connect to the docker API at unix:///a",
                "rootless",
            ),
            (
                "Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?",
                "is the daemon running?",
            ),
            (
                "error during connect: Head \"http://docker.example.com/_ping\": command [ssh -T -l nobody -- 127.0.0.1 docker system dial-stdio] has exited with exit status 255: stderr=ssh: connect to host 127.0.0.1 port 22: Connection refused",
                "by ssh",
            ),
            (
                "Failed to initialize: unable to resolve docker endpoint: context \"missing\": context not found: open /c/meta.json: no such file or directory",
                "docker context ls",
            ),
            ("write /var/lib/docker/x: no space left on device", "disk is full"),
        ] {
            assert!(hint_for(output).unwrap_or_default().contains(hint), "{output}");
        }
        assert_eq!(hint_for("open /layer.tar: no such file or directory"), None);
    }
}
