//! Walks to a file of an image, through links, as the kernel does in a container.
//! Stage: report. Input: a path. Output: [`Found`].

use super::{FileKind, FilesError, ImageFile, ImageFiles};
pub use crate::image_path::Last;
use crate::image_path::{ImagePath, NodeKind, Obstacle, Stopped, Tree, resolve};
use crate::layer::Attributes;

/// The result of looking a path up.
#[derive(Clone, Debug)]
pub enum Found {
    /// The file, and the directories on the way to it.
    Here(ImageFile, Vec<Searched>),
    /// The image has no such file.
    Nowhere(Absent),
    /// The file may be in a layer that was not read.
    Unknown,
}

/// A directory that is searched on the way to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Searched {
    /// The path in the image.
    pub path: ImagePath,
    /// The mode and the owner.
    pub attributes: Attributes,
}

/// Says why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The file does not exist. The path differs from the one that was looked up if links are on the
    /// way.
    Nothing(ImagePath),
    /// A file on the way is not a directory.
    NoDirectory(ImagePath),
    /// Links lead in a circle.
    Circle,
}

impl ImageFiles<'_> {
    /// Looks a path up from the root.
    ///
    /// # Errors
    /// Fails if a file of the store can't be read.
    pub fn find(&self, path: impl AsRef<[u8]>, last: Last) -> Result<Found, FilesError> {
        let mut walk = Walk { files: self, searched: Vec::new() };
        let obstacle = match resolve(&mut walk, path.as_ref(), last) {
            Ok((_, file)) => return Ok(Found::Here(file, walk.searched)),
            Err(Stopped::Unreadable(error)) => return Err(error),
            Err(Stopped::Obstacle(obstacle)) => obstacle,
        };
        Ok(match obstacle {
            Obstacle::Missing(_) if self.is_incomplete() => Found::Unknown,
            Obstacle::Missing(path) | Obstacle::LongPath(path) => {
                Found::Nowhere(Absent::Nothing(path))
            }
            Obstacle::NotADirectory(path) => Found::Nowhere(Absent::NoDirectory(path)),
            Obstacle::ManyLinks | Obstacle::EmptyLink(_) => Found::Nowhere(Absent::Circle),
        })
    }
}

/// Looks files up, and notes the directories that are searched.
struct Walk<'f, 'i> {
    files: &'f ImageFiles<'i>,
    searched: Vec<Searched>,
}

impl Tree for Walk<'_, '_> {
    type Node = ImageFile;
    type Error = FilesError;

    fn node(&mut self, path: &ImagePath) -> Result<Option<ImageFile>, FilesError> {
        self.files.at(path)
    }

    fn kind(file: &ImageFile) -> NodeKind<'_> {
        match &file.kind {
            FileKind::Directory => NodeKind::Directory,
            FileKind::Symlink(target) => NodeKind::Symlink(target),
            FileKind::File(_) | FileKind::Special(_) => NodeKind::Other,
        }
    }

    fn search(&mut self, ImageFile { path, attributes, .. }: &ImageFile) {
        self.searched.push(Searched { path: path.clone(), attributes: *attributes });
    }
}
