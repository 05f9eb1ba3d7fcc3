//! Reads the files that a plan depends on: an earlier plan, popularity and hints.
//! Stage: oci. Input: a file. Output: [`PreviousPlan`], [`Popularity`] or [`LayeringHints`].

use std::path::Path;

use crate::layer::{LayeringHints, Popularity, PreviousPlan};
use crate::oci::Error;
use crate::oci::json_file;

/// Reads a plan as printed by `stowage plan`, or an image spec.
///
/// # Errors
/// Fails with [`Error::Read`] or [`Error::Json`] if the file is not valid.
pub fn read_previous_plan(file: &Path) -> Result<PreviousPlan, Error> {
    json_file::read(file, "a layer plan")
}

/// Reads popularity data as printed by `stowage popularity`.
///
/// # Errors
/// Fails with [`Error::Read`] or [`Error::Json`] if the file is not valid.
pub fn read_popularity(file: &Path) -> Result<Popularity, Error> {
    json_file::read_small(file, "popularity data")
}

/// Reads an author's hints about the packages.
///
/// # Errors
/// Fails with [`Error::Read`] or [`Error::Json`] if the file is not valid.
pub fn read_layering_hints(file: &Path) -> Result<LayeringHints, Error> {
    json_file::read_small(file, "layering hints")
}
