//! Where images go.
//! Stage: transport. Input: an image spec and the store. Output: bytes to a target.

mod archive_writer;
mod blobs;
mod checked_layer;
mod containerd;
mod copied;
mod dir;
mod directory;
mod docker_archive;
mod docker_daemon;
mod file;
mod image_layout;
mod loopback;
mod merge;
mod object_storage;
mod oci;
mod oci_archive;
mod prefetch;
mod program;
mod push;
mod ref_name;
mod reference;
mod registry;
mod root_archive;
mod skopeo;
mod target;
mod temporary;
mod watch;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use thiserror::Error;

pub use archive_writer::Written;
pub use checked_layer::{CheckedBy, Hashing, write_checked_layer};
pub use containerd::copy_to_containerd;
pub use copied::Copied;
pub use dir::copy_to_dir;
pub use docker_archive::{Archive, copy_to_docker_archive, write_archive};
pub use docker_daemon::copy_to_docker_daemon;
pub use file::is_stdout;
pub use merge::merge_archives;
pub use object_storage::{
    BlobSource, BlobStream, Document, ObjectStorage, SignedUrl, StorageError, Stored,
    StoredManifest,
};
pub use oci::copy_to_oci;
pub use oci_archive::{copy_to_oci_archive, write_oci_archive};
pub use prefetch::{Platform, Prefetch, PrefetchError, Prefetched, PulledAs, prefetch};
pub use push::{Credentials, PushError, PushOptions, copy_to_registry};
pub use ref_name::{ParseRefNameError, RefName};
pub use reference::{ImageReference, ParseReferenceError};
pub use registry::{
    Cache, Catalog, CatalogError, Limits, NixBuild, OnDemandError, OnDemandOptions, PackageSource,
    ParseSourceError, PopularityFile, Registry, Reread, Served, ServerOptions, SetupError, Source,
    Sources, TlsAcceptor, Users, read_tls,
};
pub use root_archive::write_root_archive;
pub use skopeo::{SkopeoOptions, copy_with_skopeo};
pub use target::{ParseTargetError, Target};
pub use watch::{ImageLayer, LayerStep, Unwatched, Watch};

use crate::error::Hint;
use crate::{layer, oci as image};

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
        "layer {number} of {count} ({names}) is not what it was: expected {expected}, found {found}"
    )]
    LayerChanged {
        /// From 1, at the bottom.
        number: usize,
        /// Layers of the image.
        count: usize,
        /// What is in it.
        names: String,
        /// Its digest, checksum or size as recorded.
        expected: String,
        /// What came instead.
        found: String,
    },
    /// The receiver of the archive failed.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    /// A file of the target could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file, by the name that it would have had.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the target could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the target is not what its name says.
    #[error("{}: not {what}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// "an index of images" …
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is added to an archive.
    #[error("{} exists, and images are not added to an archive", .0.display())]
    Exists(PathBuf),
    /// An archive is a file.
    #[error("{} is a directory, and an archive is a file", .0.display())]
    IsDirectory(PathBuf),
    /// What isn't an archive is a directory.
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// A directory has other things in it.
    #[error("{} is neither empty nor {expected}", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// What it could have been.
        expected: &'static str,
    },
    /// Nobody wants to see this.
    #[error("{} is a terminal: an image is no text", .0.display())]
    Terminal(PathBuf),
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
    /// A registry did not take it.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The image can't be used.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// An image can't be taken from a registry.
    #[error(transparent)]
    Prefetch(#[from] PrefetchError),
    /// No registry could be opened for a copy.
    #[error("cannot open a registry on a loopback port")]
    Registry(#[source] Box<SetupError>),
    /// There is no place for files that are needed during a copy.
    #[error("cannot use {} for temporary files", path.display())]
    Temporary {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The `skopeo` program could not be run.
    #[error("cannot run `skopeo`")]
    NoSkopeo(#[source] io::Error),
    /// The `ctr` program could not be run.
    #[error("cannot run `ctr`")]
    NoCtr(#[source] io::Error),
    /// A `ctr` command failed.
    #[error("`ctr images {command}` failed: {output}")]
    Ctr {
        /// The command's arguments.
        command: String,
        /// What it printed.
        output: String,
    },
    /// skopeo could not copy the image.
    #[error("skopeo cannot copy to {destination}: {output}")]
    Skopeo {
        /// The target.
        destination: String,
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

impl Error {
    /// Where it was written to, if that is what failed.
    fn at(self, path: &Path) -> Self {
        match self {
            Error::Write(source) => Error::File { path: path.to_owned(), source },
            other => other,
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::Layer { source, .. } => source.hint(),
            Error::LayerChanged { .. } => Some(
                "a store path changed after the image was built: `stowage verify` on the image spec names it".to_owned(),
            ),
            Error::Exists(_) => Some("remove it first, or name another file".to_owned()),
            Error::IsDirectory(path) => Some(format!(
                "name a file in it, or write an image layout with `oci:{}`",
                path.display()
            )),
            Error::NotDirectory(_) => {
                Some("`oci:` and `dir:` write directories; `oci-archive:` and `docker-archive:` write files".to_owned())
            }
            Error::NotEmpty { .. } => Some("name a new directory: it will be made".to_owned()),
            Error::Unreadable { .. } => {
                Some("what is there stays as it is: repair it, or name a new directory".to_owned())
            }
            Error::Terminal(_) => Some("pipe it: `… | docker load`, or name a file".to_owned()),
            Error::NoDocker(_) => Some(
                "the Docker client must be on PATH; without it, load the image's stream: `./result | podman load`"
                    .to_owned(),
            ),
            Error::NoSkopeo(_) => Some(
                "for this target it must be on PATH; `docker-archive:FILE`, `oci:DIR` and `docker-daemon:NAME:TAG` need nothing"
                    .to_owned(),
            ),
            Error::Push(error) => error.hint(),
            Error::Image(error) => error.hint(),
            Error::Prefetch(error) => error.hint(),
            Error::NoCtr(_) => Some("it comes with containerd, and must be on PATH".to_owned()),
            Error::Ctr { .. } => Some(
                "is containerd running, and may this user talk to it? CONTAINERD_ADDRESS says where it listens".to_owned(),
            ),
            Error::Temporary { .. } => Some("set TMPDIR to a directory that can be written to".to_owned()),
            Error::Docker { output, .. } if output.contains("onnect to the Docker daemon") => {
                Some("is the daemon running? DOCKER_HOST or `docker context` says which one is asked".to_owned())
            }
            _ => None,
        }
    }
}
