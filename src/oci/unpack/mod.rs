//! Reads archives from others, with limits on time and memory.
//! Stage: oci. Input: an archive's bytes. Output: its members.
//!
//! Every archive is read by a [`TarReader`], every compressed stream by a [`Compression::reader`],
//! and every document by [`parse_json`]. Only these apply limits.
//!
//! [`Compression::reader`]: crate::oci::Compression::reader

mod document;
mod limits;
mod member;
mod pax;
mod tar_blocks;
mod tar_error;
mod tar_reader;

pub use document::{CONFIG, MANIFEST, parse_json, values};
pub use limits::{Budget, Counted, Limited, UnpackLimits};
pub use member::Member;
pub use pax::Records;
pub use tar_error::{MemberProblem, TarError};
pub use tar_reader::{TarReader, has_check_sum};
