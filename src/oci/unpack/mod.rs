//! Reads archives from others, with limits on time and memory.
//! Stage: oci. Input: an archive's bytes. Output: its members.
//!
//! Every reader of an archive is a [`TarReader`], every decoder a [`Compression::reader`], and every
//! document is parsed by [`parse_json`]: these are the only places that apply limits.
//!
//! [`Compression::reader`]: crate::oci::Compression::reader

mod document;
mod limits;
mod member;
mod pax;
mod tar_reader;

pub use document::{CONFIG, MANIFEST, parse_json};
pub use limits::{Budget, Counted, Limited, UnpackLimits};
pub use member::{Member, MemberProblem, PATH};
pub use tar_reader::{TarError, TarReader, has_check_sum, shown};
