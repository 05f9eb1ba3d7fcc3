//! Reads an image spec, or a tar, and reports on its contents. Only the command line names this
//! stage.
//! Stage: report. Input: [`ImageSpec`](crate::oci::ImageSpec). Output: answers for people and programs.

mod against;
mod diff;
mod elf;
mod explain;
mod image_files;
mod lint;
mod locations;
mod pieces;
pub mod sbom;
pub mod structure;
mod tarsum;
mod validate;

pub use against::{Comparison, LayerDifference, against};
pub use diff::{Diff, NewLayer, diff};
pub use elf::Elf;
pub use explain::{ExplainedLayer, ExplainedPath, Explanation, explain};
pub use image_files::{FilesError, ReadAt};
pub use lint::{Check, Finding, Head, Level, head_of, lint, lint_config};
pub use locations::{Locations, locations};
pub use pieces::{PieceCost, PiecesError, piece_cost, rebuild_cost};
pub use tarsum::tarsum;
pub use validate::{Difference, Report, validate};
