//! Copies images to archives, directories and daemons.
//! Stage: target. Input: an image spec and the store. Output: an image in its place.
//!
//! ```text
//! archive/    one file or stream: docker-archive, oci-archive, several archives merged, a root
//! directory/  an image layout (`oci:`), or a directory of skopeo's (`dir:`)
//! program/    a daemon or store that another program has: docker, ctr, skopeo
//! remote/     a target of another machine, by ssh
//! ```

mod archive;
#[cfg(feature = "registry")]
mod directory;
mod error;
mod image_layout;
#[cfg(feature = "registry")]
mod name;
#[cfg(feature = "registry")]
mod program;
#[cfg(feature = "registry")]
mod remote;

pub use archive::{
    Archive, copy_to_docker_archive, copy_to_oci_archive, is_stdout, merge_archives, write_archive,
    write_root_archive,
};
#[cfg(feature = "registry")]
pub use directory::{copy_to_dir, copy_to_oci};
pub use error::ArchiveError;
#[cfg(feature = "registry")]
pub use error::DirectoryError;
#[cfg(feature = "registry")]
pub use name::{ParseTargetError, Target};
#[cfg(feature = "registry")]
pub use program::{
    ContainerdError, DockerError, LoopbackError, SkopeoOptions, SkopeoTargetError,
    copy_to_containerd, copy_to_docker_daemon, copy_with_skopeo, layers_in_docker_daemon,
    save_from_docker_daemon,
};
#[cfg(feature = "registry")]
pub use remote::{
    Connected, ParseHostError, ReceiveError, ReceiveOutcome, RemoteError, RemoteHost, SshOptions,
    copy_to_remote, receive,
};
