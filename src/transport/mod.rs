//! Where images go.
//! Stage: transport. Input: an image spec and the store. Output: bytes to a target.

mod checked_layer;
mod docker_archive;
mod docker_daemon;
mod reference;

use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, fcntl};
use thiserror::Error;

pub use docker_archive::{Archive, Written, write_archive};
pub use docker_daemon::{Copied, copy_to_docker_daemon};
pub use reference::{ImageReference, ParseReferenceError};

use crate::digest::Digest;
use crate::error::Hint;
use crate::layer;

/// Gives a pipe the largest buffer that a user may ask for: with the usual 64 KiB, writer
/// and reader of a layer spend their time waking each other.
///
/// Changes nothing if `out` is no pipe, or the system says no.
pub fn widen_pipe(out: &impl AsFd) {
    const SIZE: i32 = 1 << 20; // /proc/sys/fs/pipe-max-size, unless somebody changed it
    let _ = fcntl(out, FcntlArg::F_SETPIPE_SZ(SIZE));
}

/// Why an image did not arrive.
#[derive(Debug, Error)]
pub enum Error {
    /// A layer could not be made.
    #[error("layer {number} of {count}")]
    Layer {
        /// From 1, at the bottom.
        number: usize,
        /// Layers of the image.
        count: usize,
        /// What is wrong.
        source: layer::Error,
    },
    /// A layer came out other than when the image was built.
    #[error(
        "layer {number} of {count} ({names}) is not what it was: expected {expected} and {expected_size} bytes, \
         found {found}"
    )]
    LayerChanged {
        /// From 1, at the bottom.
        number: usize,
        /// Layers of the image.
        count: usize,
        /// What is in it.
        names: String,
        /// As recorded.
        expected: Digest,
        /// As recorded.
        expected_size: u64,
        /// What came instead.
        found: String,
    },
    /// The receiver of the archive failed.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    /// The `docker` program could not be run.
    #[error("cannot run `docker`")]
    NoDocker(#[source] io::Error),
    /// A `docker` command failed.
    #[error("`docker {command}` failed: {output}")]
    Docker {
        /// The command's arguments.
        command: String,
        /// What it printed.
        output: String,
    },
    /// Docker took the image, and has another one.
    #[error("Docker loaded {reference}, but its layers are not those that were sent")]
    LoadedWrong {
        /// The image's name.
        reference: String,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::Layer { source, .. } => source.hint(),
            Error::LayerChanged { .. } => Some(
                "a store path changed after the image was built: `stowage verify` on the image spec names it".to_owned(),
            ),
            Error::NoDocker(_) => Some(
                "the Docker client must be on PATH; without it, load the image's stream: `./result | podman load`"
                    .to_owned(),
            ),
            Error::Docker { output, .. } if output.contains("onnect to the Docker daemon") => {
                Some("is the daemon running? DOCKER_HOST or `docker context` says which one is asked".to_owned())
            }
            _ => None,
        }
    }
}
