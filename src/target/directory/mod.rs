//! Directories that hold an image's blobs as files.
//! Stage: target.

mod blobs;
mod dir;
mod locked;
mod oci;

pub use dir::copy_to_dir;
pub use oci::copy_to_oci;
