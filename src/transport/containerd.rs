//! containerd's own store, by `ctr`: it pulls what it lacks from a registry of ours.
//! Stage: transport. Input: [`ImageSpec`]. Output: an image in containerd.
//!
//! Which containerd, and which of its namespaces, is `ctr`'s business (`CONTAINERD_ADDRESS`,
//! `CONTAINERD_NAMESPACE`).

use std::process::Command;

use super::Error;
use super::copied::Copied;
use super::loopback::Loopback;
use super::program;
use super::reference::ImageReference;
use super::watch::{Unwatched, Watch};
use crate::oci::{Form, ImageSpec};
use crate::store::Store;

/// Copies an image into containerd, under its whole name: `docker.io/library/hello:v1`.
///
/// # Errors
/// [`Error::NoCtr`], [`Error::Ctr`] with what it printed, or whatever kept a layer from being
/// made.
pub fn copy_to_containerd(
    store: &Store,
    spec: &ImageSpec,
    reference: &ImageReference,
    watch: &dyn Watch,
) -> Result<Copied, Error> {
    let loopback = Loopback::open(store, spec.clone().into(), Form::Loadable)?;
    let (pulled, name) = (loopback.reference(), reference.whole());
    let result = ctr(&["pull", "--plain-http", &pulled], watch);
    loopback.check()?;
    result?;
    let result = ctr(&["tag", "--force", &pulled, &name], watch);
    // By that name nobody finds it again, whatever came of the other.
    ctr(&["rm", &pulled], &Unwatched)?;
    result?;
    Ok(loopback.account(name, loopback.manifest_digest()))
}

/// `ctr images …`
fn ctr(arguments: &[&str], watch: &dyn Watch) -> Result<(), Error> {
    let mut command = Command::new("ctr");
    command.arg("images").args(arguments);
    let output = program::run(&mut command, watch).map_err(Error::NoCtr)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
    let output = last.trim().trim_start_matches("ctr: ").to_owned();
    Err(Error::Ctr { command: arguments.join(" "), output })
}
