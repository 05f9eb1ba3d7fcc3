//! Names the objects of a storage.
//! Stage: registry (pure). Input: digests, names of images. Output: names of objects.

use object_store::path::{Path, PathPart};

use crate::digest::BlobDigest;

/// The component between an image's name and its key. No component of a repository's name is equal
/// to it (distribution-spec, "Pulling manifests"), so in a directory an image's file never has the
/// place of another image's directory.
const KEYS: &str = "_keys";

/// The component between a repository's name and the digest of one of its manifests.
const MANIFESTS: &str = "_manifests";

/// The names of objects, below a prefix.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: Path,
}

impl Names {
    /// Returns names that begin with a prefix, which may be empty.
    pub fn new(prefix: Path) -> Self {
        Self { prefix }
    }

    /// Returns `blobs/sha256/<hex>`, as in an image layout: for layers, configurations and
    /// manifests.
    pub fn blob(&self, digest: &BlobDigest) -> Path {
        let hex = digest.digest().hex();
        self.below(["blobs", "sha256", &hex])
    }

    /// Returns `images/<name>/_keys/<key>`: the object that names the manifest. Different names and
    /// keys have different objects.
    pub fn image(&self, name: &str, key: &str) -> Path {
        self.below(["images"].into_iter().chain(name.split('/')).chain([KEYS, key]))
    }

    /// Returns `images/<name>/_manifests/<hex>`: the object that says that a repository has a
    /// manifest.
    pub fn manifest(&self, name: &str, digest: &BlobDigest) -> Path {
        let hex = digest.digest().hex();
        self.below(["images"].into_iter().chain(name.split('/')).chain([MANIFESTS, &hex]))
    }

    /// Returns the prefix of the objects that list a repository's manifests.
    pub fn manifests(&self, name: &str) -> Path {
        self.below(["images"].into_iter().chain(name.split('/')).chain([MANIFESTS]))
    }

    /// Returns the object that is written to find out whether writing is possible.
    pub fn probe(&self) -> Path {
        self.below(["probe"])
    }

    /// Returns an object that is never written.
    pub fn missing(&self) -> Path {
        self.below(["missing"])
    }

    /// Returns the prefix of all objects.
    pub fn all(&self) -> Path {
        self.prefix.clone()
    }

    fn below<'p>(&self, parts: impl IntoIterator<Item = &'p str>) -> Path {
        // `PathPart` encodes `..` and the like.
        let below: Path = parts.into_iter().map(PathPart::from).collect();
        self.prefix.parts().chain(below.parts()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn objects_have_their_places() {
        let names = Names::new(Path::from("a/b"));
        let digest = BlobDigest::new(Digest::of(b""));
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(names.blob(&digest).as_ref(), format!("a/b/blobs/sha256/{hex}"));
        assert_eq!(names.image("shell/git", "v1").as_ref(), "a/b/images/shell/git/_keys/v1");
        let manifest = format!("a/b/images/shell/git/_manifests/{hex}");
        assert_eq!(names.manifest("shell/git", &digest).as_ref(), manifest);
        let names = Names::new(Path::default());
        assert_eq!(names.image("git", "v1").as_ref(), "images/git/_keys/v1");
    }

    #[test]
    fn nothing_is_outside_of_its_place() {
        let names = Names::new(Path::from("a"));
        for (name, key) in [("../..", "x"), ("git", "../../../x"), ("git", ""), ("", "..")] {
            let path = names.image(name, key).to_string();
            assert!(path.starts_with("a/images/"), "{path}");
            assert!(path.split('/').all(|part| part != ".."), "{path}");
        }
        assert_ne!(names.image("a", "b/_keys/c"), names.image("a/b", "c"));
    }
}
