//! Images in the keeping of other programs: each is sent what it lacks.
//! Stage: target.

mod containerd;
mod docker;
mod loopback;
mod skopeo;

pub use containerd::{ContainerdError, copy_to_containerd};
pub use docker::{DockerError, copy_to_docker_daemon};
pub use loopback::LoopbackError;
pub use skopeo::{SkopeoOptions, SkopeoTargetError, copy_with_skopeo};
