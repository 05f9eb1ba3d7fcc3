//! What a plan goes by besides the closure, from files: an earlier plan, and popularity.
//! Stage: oci. Input: a file. Output: [`PreviousPlan`] or [`Popularity`].

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::Error;
use crate::layer::{Popularity, PreviousPlan};

/// Reads what `stowage plan` prints, or an image spec.
///
/// # Errors
/// [`Error::Read`] or [`Error::Json`].
pub fn read_previous_plan(file: &Path) -> Result<PreviousPlan, Error> {
    read(file, "a layer plan")
}

/// Reads what `stowage popularity` prints.
///
/// # Errors
/// [`Error::Read`] or [`Error::Json`].
pub fn read_popularity(file: &Path) -> Result<Popularity, Error> {
    read(file, "popularity data")
}

fn read<T: DeserializeOwned>(file: &Path, what: &'static str) -> Result<T, Error> {
    let bytes = fs::read(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json {
        file: file.to_owned(),
        what,
        source,
    })
}
