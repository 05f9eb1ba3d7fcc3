//! The place of a file in a base image.
//! Stage: oci (pure).

use crate::image_path::ImagePath;

/// A file of the database or of accounts, with its place in the base image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// The file's name in the directory of the database.
    pub name: &'static str,
    /// The file's name in the layer's archive.
    pub(super) path: ImagePath,
    /// The index of the layer, from 0 at the bottom.
    pub(super) layer: usize,
}

impl StateFile {
    /// Describes a file of the database in a layer.
    pub fn new(name: &'static str, path: ImagePath, layer: usize) -> Self {
        Self { name, path, layer }
    }
}
