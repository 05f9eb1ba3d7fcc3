//! The plan of an earlier image, from a file.
//! Stage: oci. Input: a file. Output: [`PreviousPlan`].

use std::fs;
use std::path::Path;

use super::Error;
use crate::layer::PreviousPlan;

/// Reads what `stowage plan` prints, or an image spec.
///
/// # Errors
/// [`Error::Read`] or [`Error::Json`].
pub fn read_previous_plan(file: &Path) -> Result<PreviousPlan, Error> {
    let bytes = fs::read(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json {
        file: file.to_owned(),
        what: "a layer plan",
        source,
    })
}
