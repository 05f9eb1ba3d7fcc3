//! Writes archives: one or several images in one file or stream.
//! Stage: target.

mod blocks;
mod docker;
mod file;
mod merge;
mod oci;
mod root;
mod writer;

pub use docker::{Archive, copy_to_docker_archive, write_archive};
pub use file::is_stdout;
pub use merge::merge_archives;
pub use oci::copy_to_oci_archive;
pub use root::write_root_archive;
#[cfg(feature = "registry")]
pub use writer::Written;
