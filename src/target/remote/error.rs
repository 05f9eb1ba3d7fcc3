//! The errors of both sides of a copy to another machine.
//! Stage: target. Output: messages.

use std::io;

use thiserror::Error;

use super::host::RemoteHost;
use super::wire::VERSION;
use crate::digest::{BlobDigest, DiffId};
use crate::error::Hint;
use crate::{oci, outgoing};

/// Says why an image did not arrive on another machine.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// A layer could not be made.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// The image is not for the other machine.
    #[error("{host}")]
    Image {
        /// The other machine.
        host: RemoteHost,
        /// The reason.
        source: Box<oci::Error>,
    },
    /// The `ssh` program could not be run.
    #[error("cannot run `ssh`")]
    NoSsh(#[source] io::Error),
    /// The connection ended, or the program on the other machine.
    #[error("`{}` ended before the image was there ({status})", host.login())]
    Ended {
        /// The other machine.
        host: RemoteHost,
        /// The exit status, for messages.
        status: String,
        /// The exit code.
        code: Option<i32>,
    },
    /// The other machine sent something else than `stowage receive` does.
    #[error("{host} does not answer as `stowage receive` does: {reason}")]
    Invalid {
        /// The other machine.
        host: RemoteHost,
        /// The reason, for people.
        reason: String,
    },
    /// The program on the other machine speaks another version of the protocol.
    #[error("stowage on {host} has version {version} of the protocol, and this program {VERSION}")]
    Version {
        /// The other machine.
        host: RemoteHost,
        /// The version.
        version: String,
    },
    /// The other machine reports a failure.
    #[error("{host}: {message}")]
    Failed {
        /// The other machine.
        host: RemoteHost,
        /// The error there.
        message: String,
        /// The advice that goes with it.
        hint: Option<String>,
    },
    /// The other machine reports another image than the one that was sent.
    #[error("{host} has another image than the one that was sent")]
    OtherImage {
        /// The other machine.
        host: RemoteHost,
    },
}

impl Hint for RemoteError {
    fn hint(&self) -> Option<String> {
        match self {
            RemoteError::Outgoing(error) => error.hint(),
            RemoteError::Image { source, .. } => source.hint(),
            RemoteError::NoSsh(_) => Some("OpenSSH's client must be on PATH".to_owned()),
            RemoteError::Ended { host, code, .. } => Some(match code {
                Some(127) => format!(
                    "stowage must be installed on {host}, on the PATH of commands by ssh, or named by `--remote-program`"
                ),
                Some(255) => format!(
                    "`{} true` must work without a question; NIX_SSHOPTS may have options for ssh",
                    host.login()
                ),
                Some(2) => format!(
                    "is stowage on {host} older than this program? `{} stowage --version`",
                    host.login()
                ),
                _ => format!(
                    "the lines above have the reason, if ssh or the program on {host} printed one"
                ),
            }),
            RemoteError::Invalid { host, .. } => Some(format!(
                "`{} stowage receive --help` must print the help and nothing else: is there output of a shell's start-up file?",
                host.login()
            )),
            RemoteError::Version { .. } => {
                Some("install the same version of stowage on both machines".to_owned())
            }
            RemoteError::Failed { hint, .. } => hint.clone(),
            RemoteError::OtherImage { .. } => None,
        }
    }
}

/// Says why an image could not be received.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// A file could not be written or read.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// The sender ended, or the connection.
    #[error("the sender ended before the image was complete")]
    Ended,
    /// The sender sent something that the protocol does not allow.
    #[error("what the sender sent is not valid: {0}")]
    Invalid(String),
    /// The sender's bytes could not be read.
    #[error("cannot read what the sender sends")]
    Read(#[source] io::Error),
    /// The sender could not be answered.
    #[error("cannot answer the sender")]
    Answer(#[source] io::Error),
    /// A piece has another digest than the sender said.
    #[error("layer {number} of {count}: a piece has another digest than the sender said")]
    Piece {
        /// The layer's number, from 1 at the bottom.
        number: usize,
        /// The number of the image's layers.
        count: usize,
    },
    /// A layer has another digest than the sender said.
    #[error("layer {number} of {count} is not the blob {digest} that the sender offered")]
    Blob {
        /// The layer's number, from 1 at the bottom.
        number: usize,
        /// The number of the image's layers.
        count: usize,
        /// The digest that the layer should have.
        digest: BlobDigest,
    },
    /// The tar in a layer has another digest than the sender said.
    #[error("layer {number} of {count} does not unpack to a tar with the diff ID {diff_id}")]
    DiffId {
        /// The layer's number, from 1 at the bottom.
        number: usize,
        /// The number of the image's layers.
        count: usize,
        /// The digest that the tar should have.
        diff_id: DiffId,
    },
}

impl From<io::Error> for ReceiveError {
    /// Takes the error for one of reading from the sender.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Ended,
            io::ErrorKind::InvalidData => Self::Invalid(error.to_string()),
            _ => Self::Read(error),
        }
    }
}

impl Hint for ReceiveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Outgoing(error) => error.hint(),
            _ => None,
        }
    }
}
