//! Store paths that are read many times and kept once.
//! Vocabulary: names no stage.

use std::collections::HashSet;

use super::StorePath;

/// The store paths that were met so far.
///
/// Only for looking up: in what order it has them is nobody's business.
#[derive(Debug, Default)]
pub struct SharedPaths(HashSet<StorePath>);

impl SharedPaths {
    /// This store path, in the memory of an equal one if there was any.
    pub fn share(&mut self, path: StorePath) -> StorePath {
        match self.0.get(&path) {
            Some(known) => known.clone(),
            None => {
                self.0.insert(path.clone());
                path
            }
        }
    }
}
