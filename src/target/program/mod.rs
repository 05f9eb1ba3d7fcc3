//! Copies images into the stores of other programs, and sends the layers that these lack.
//! Stage: target.

mod containerd;
mod docker;
mod loopback;
mod skopeo;

pub use containerd::{ContainerdError, copy_to_containerd};
pub use docker::{
    DockerError, copy_to_docker_daemon, layers_in_docker_daemon, save_from_docker_daemon,
};
pub use loopback::LoopbackError;
pub use skopeo::{SkopeoOptions, SkopeoTargetError, copy_with_skopeo};
