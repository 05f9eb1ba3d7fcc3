//! Asks a daemon for the kind of its image store.

use super::client::{DockerError, docker, run};
use crate::oci::Form;
use crate::target::archive::Archive;

/// The kind of a daemon's image store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStore {
    /// Docker's own store: files of a storage driver, by the chain IDs of unpacked layers.
    Classic,
    /// containerd's store: blobs as they arrived, by their digests. The default since Docker 29.
    Containerd,
    /// Any other store: `docker` is podman's replacement, which does not report a storage driver.
    Other,
}

impl ImageStore {
    /// Returns the form of layers that a store of this kind loads.
    pub fn form(self) -> Form {
        match self {
            // The store later pushes what it has loaded: compressed, if the image says so.
            Self::Containerd => Form::AsStored,
            Self::Classic | Self::Other => Archive::FORM,
        }
    }
}

/// Asks the daemon for the kind of its image store.
pub fn image_store() -> Result<ImageStore, DockerError> {
    /// The format that prints the status of the storage driver as JSON.
    const DRIVER: &str = "{{json .DriverStatus}}";
    /// The text in the status if images are in containerd's store.
    const SNAPSHOTTER: &str = "io.containerd.snapshotter";
    let output = run(&["info", "--format", DRIVER])?;
    if !output.status.success() {
        // Without a daemon, old clients fail on the format. This command reports the cause in plain
        // words, and succeeds with podman.
        docker(&["image", "ls", "--quiet"])?;
        return Ok(ImageStore::Other);
    }
    let is_containerd = String::from_utf8_lossy(&output.stdout).contains(SNAPSHOTTER);
    Ok(if is_containerd { ImageStore::Containerd } else { ImageStore::Classic })
}
