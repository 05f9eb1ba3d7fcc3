//! Finds a file of the image without unpacking it: in the sources of the image's layers.
//! Stage: report. Input: a path in the image. Output: the file on this machine.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::layer::LayerContents;
use crate::oci::ImageSpec;
use crate::oci::LayerSource;
use crate::store::Store;

/// The largest number of links that a path may lead through, as on Linux (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// The files of an image, by the sources of its layers.
pub struct Lookup<'i> {
    store: &'i Store,
    contents: Vec<&'i LayerContents>,
    /// True if the image also has layers without sources: those of a base.
    partial: bool,
}

/// The result of looking a path up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file or directory, and its place on this machine.
    Here(PathBuf),
    /// The image has no such file.
    Nowhere,
    /// The path may be in a layer that has no sources.
    Unknown,
}

impl<'i> Lookup<'i> {
    /// Prepares to find files of an image.
    pub fn new(store: &'i Store, spec: &'i ImageSpec) -> Self {
        Self {
            store,
            contents: spec.layers.iter().filter_map(|layer| layer.contents()).collect(),
            partial: spec.layers.iter().any(|layer| matches!(layer.source, LayerSource::Stored(_))),
        }
    }

    /// Looks a path up, and follows links as a container would.
    pub fn find(&self, path: &str) -> Found {
        let mut place = PathBuf::from("/");
        let mut here = None;
        // Components are taken from the end.
        let mut left: Vec<_> = components(Path::new(path));
        left.reverse();
        let mut links = 0;
        while let Some(component) = left.pop() {
            if component == ".." {
                place.pop();
                continue;
            }
            let next = place.join(&component);
            let Some(source) = self.source(&next) else { return self.absent() };
            match fs::read_link(&source) {
                Ok(target) => {
                    links += 1;
                    if links > LINKS {
                        return Found::Nowhere;
                    }
                    if target.is_absolute() {
                        place = PathBuf::from("/");
                    }
                    left.extend(components(&target).into_iter().rev());
                    here = None;
                }
                Err(_) => {
                    place = next;
                    here = Some(source);
                }
            }
        }
        match here.or_else(|| self.source(&place)) {
            Some(source) => Found::Here(source),
            None => self.absent(),
        }
    }

    fn absent(&self) -> Found {
        if self.partial { Found::Unknown } else { Found::Nowhere }
    }

    /// Returns the place on this machine of a file of the image, which may be a link.
    fn source(&self, place: &Path) -> Option<PathBuf> {
        let store_dir = Path::new(self.store.dir());
        if store_dir.starts_with(place) {
            return Some(self.store.physical_dir());
        }
        if let Ok(below) = place.strip_prefix(store_dir) {
            let mut below = below.iter();
            let name = below.next()?.to_str()?.parse().ok()?;
            if self.contents.iter().any(|contents| contents.store_paths.contains(&name)) {
                let mut file = self.store.physical(&name);
                // Joining an empty path would add a slash, `FILE/`, and a store path may be a file.
                if !below.as_path().as_os_str().is_empty() {
                    file.push(below.as_path());
                }
                return fs::symlink_metadata(&file).is_ok().then_some(file);
            }
        }
        let below = place.strip_prefix("/").unwrap_or(place);
        // A merged file takes the place of the others.
        let merged =
            |contents: &'i LayerContents| contents.merged.iter().map(|merged| &merged.path);
        let merged = self.contents.iter().copied().rev().flat_map(merged);
        let roots = merged.chain(self.contents.iter().flat_map(|contents| &contents.copy_to_root));
        let mut files = roots.map(|root| self.store.physical(root).join(below));
        files.find(|file| fs::symlink_metadata(file).is_ok())
    }
}

fn components(path: &Path) -> Vec<std::ffi::OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    names.collect()
}
