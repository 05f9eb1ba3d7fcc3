//! What a plan goes by besides the closure, from files: an earlier plan, popularity and hints.
//! Stage: oci. Input: a file. Output: [`PreviousPlan`], [`Popularity`] or [`LayeringHints`].

use std::path::Path;

use crate::layer::{LayeringHints, Popularity, PreviousPlan};
use crate::oci::Error;
use crate::oci::json_file;

/// Reads what `stowage plan` prints, or an image spec.
///
/// # Errors
/// [`Error::Read`] or [`Error::Json`].
pub fn read_previous_plan(file: &Path) -> Result<PreviousPlan, Error> {
    json_file::read(file, "a layer plan")
}

/// Reads what `stowage popularity` prints.
///
/// # Errors
/// [`Error::Read`] or [`Error::Json`].
pub fn read_popularity(file: &Path) -> Result<Popularity, Error> {
    json_file::read(file, "popularity data")
}

/// Reads what an author knows of the packages.
///
/// # Errors
/// [`Error::Read`] or [`Error::Json`].
pub fn read_layering_hints(file: &Path) -> Result<LayeringHints, Error> {
    json_file::read(file, "layering hints")
}
