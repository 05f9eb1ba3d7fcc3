//! Tests of an image's files and configuration, in the format of container-structure-test.
//! Stage: report. Input: documents of tests, and [`ImageSpec`]. Output: [`TestReport`].

mod check;
mod document;
mod error;
mod node;
mod outcome;

pub use self::document::Tests;
pub use self::error::DocumentError;
pub use self::outcome::{FileOutcome, TestKind, TestOutcome, TestReport, TestVerdict};

use self::check::TestedImage;
use super::image_files::{FilesError, ImageFiles};
use crate::oci::ImageSpec;
use crate::store::Store;

/// Returns the results of tests. Each document comes with the name of its file. Nothing is run.
///
/// # Errors
/// Fails if a layer of the image can't be read.
pub fn decide(
    store: &Store,
    spec: &ImageSpec,
    documents: &[(String, Tests)],
) -> Result<TestReport, FilesError> {
    let files = ImageFiles::read(store, spec)?;
    let subject = TestedImage { files: &files, spec };
    let mut outcomes = Vec::new();
    for (file, tests) in documents {
        outcomes.push(FileOutcome { file: file.clone(), tests: subject.decide(tests)? });
    }
    Ok(TestReport::new(outcomes))
}
