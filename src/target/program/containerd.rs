//! Copies an image into containerd's own store: `ctr` pulls the missing layers from a registry of
//! this program.
//! Stage: target. Input: [`ImageSpec`]. Output: an image in containerd.
//!
//! `ctr` decides which containerd and which of its namespaces are used (`CONTAINERD_ADDRESS`,
//! `CONTAINERD_NAMESPACE`).

use std::io;
use std::process::Command;

use thiserror::Error;

use super::loopback::{Loopback, LoopbackError};
use crate::error::Hint;
use crate::oci::{Form, ImageSpec};
use crate::outgoing::{self, Copied, ImageReference, Unwatched, Watch, run_program};
use crate::store::Store;

/// Says why containerd did not take an image.
#[derive(Debug, Error)]
pub enum ContainerdError {
    /// A layer could not be made.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// The registry from which `ctr` pulls could not be opened.
    #[error(transparent)]
    Loopback(#[from] LoopbackError),
    /// The `ctr` program could not be run.
    #[error("cannot run `ctr`")]
    NoCtr(#[source] io::Error),
    /// A `ctr` command failed.
    #[error("`ctr images {command}` failed: {output}")]
    Failed {
        /// The command's arguments.
        command: String,
        /// The text that it printed.
        output: String,
    },
}

impl Hint for ContainerdError {
    fn hint(&self) -> Option<String> {
        match self {
            ContainerdError::Outgoing(error) => error.hint(),
            ContainerdError::Loopback(_) => None,
            ContainerdError::NoCtr(_) => {
                Some("it comes with containerd, and must be on PATH".to_owned())
            }
            ContainerdError::Failed { output, .. } => hint_for(output).map(str::to_owned),
        }
    }
}

/// Returns the known remedy for what `ctr` printed, if there is one.
fn hint_for(output: &str) -> Option<&'static str> {
    if !output.contains("failed to dial") {
        return None;
    }
    Some(if output.contains("permission denied") {
        "containerd's socket is root's: run this command as root, or set CONTAINERD_ADDRESS to the socket of a rootless containerd"
    } else {
        "is containerd running? CONTAINERD_ADDRESS says where it listens, such as /run/k3s/containerd/containerd.sock"
    })
}

/// Copies an image into containerd, under its whole name: `docker.io/library/hello:v1`.
///
/// # Errors
/// Fails with [`ContainerdError::NoCtr`] if `ctr` can't be run, with [`ContainerdError::Failed`],
/// which has what `ctr` printed, or if a layer can't be made.
pub fn copy_to_containerd(
    store: &Store,
    spec: &ImageSpec,
    reference: &ImageReference,
    watch: &dyn Watch,
) -> Result<Copied, ContainerdError> {
    let loopback = Loopback::open(store, spec.clone().into(), Form::Loadable)?;
    let (pulled, name) = (loopback.reference(), reference.whole());
    let result = ctr(&["pull", "--plain-http", &pulled], watch);
    loopback.check()?;
    result?;
    let result = ctr(&["tag", "--force", &pulled, &name], watch);
    // The name on the loopback port is of no use later: remove it, even if tagging failed.
    ctr(&["rm", &pulled], &Unwatched)?;
    result?;
    Ok(loopback.account(loopback.manifest_digest()))
}

/// Runs `ctr images …`.
fn ctr(arguments: &[&str], watch: &dyn Watch) -> Result<(), ContainerdError> {
    let mut command = Command::new("ctr");
    command.arg("images").args(arguments);
    let output = run_program(&mut command, watch).map_err(ContainerdError::NoCtr)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
    let output = last.trim().trim_start_matches("ctr: ").to_owned();
    Err(ContainerdError::Failed { command: arguments.join(" "), output })
}
