//! What a plan goes by besides the closure, from files: an earlier plan, and popularity.
//! Stage: oci. Input: a file. Output: [`PreviousPlan`] or [`Popularity`].

use std::path::Path;

use super::Error;
use super::json_file;
use crate::layer::{Popularity, PreviousPlan};

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
