//! Runs `stowage receive`: takes an image from `stowage copy` on another machine.

use std::io::{self, IsTerminal};

use super::Failure;
use super::arguments::{CopyOptions, ReceiveArguments};
use super::copy::{Beside, copy_to, format_for};
use super::environment::cache_directory;
use super::watching::Watching;
use crate::oci::{Artifact, ImageSpec};
use crate::store::Store;
use crate::system;
use crate::target::{self, Connected, Target};

pub fn receive(store: &Store, arguments: &ReceiveArguments) -> Result<(), Failure> {
    let ReceiveArguments { target, format, cache, cache_size } = arguments;
    if io::stdin().is_terminal() {
        return Err(Failure::NoSender);
    }
    if !target.may_be_remote() {
        return Err(Failure::NotHere(target.to_string()));
    }
    let format = format_for(target, *format)?;
    let in_cache = || Some(cache_directory()?.join("stowage/layers"));
    let directory = cache.clone().or_else(in_cache).ok_or(Failure::NoCache)?;
    let watch = Watching::new("sending", None, true);
    let known = |spec: &ImageSpec| match target {
        Target::DockerDaemon(_) => Ok(target::layers_in_docker_daemon(spec)?),
        _ => Ok(0),
    };
    let copy = |spec: &ImageSpec| {
        let artifact = Artifact::from(spec.clone());
        copy_to(
            store,
            &artifact,
            target,
            format,
            &CopyOptions::default(),
            &Beside::default(),
            &watch,
        )
    };
    let sender =
        Connected { from: io::stdin().lock(), to: system::stdout().map_err(Failure::Stdout)? };
    match target::receive(sender, store, (&directory, *cache_size), &watch, known, copy)? {
        target::ReceiveOutcome::Copied => Ok(()),
        target::ReceiveOutcome::Told => Err(Failure::Told),
    }
}
