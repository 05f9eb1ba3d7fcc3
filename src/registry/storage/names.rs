//! Names the objects of a storage.
//! Stage: registry (pure). Input: digests, names of images. Output: names of objects.

use object_store::path::{Path, PathPart};

use super::image_key::ImageKey;
use crate::digest::BlobDigest;
use crate::outgoing::RepositoryName;

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
    pub fn image(&self, name: &RepositoryName, key: &ImageKey) -> Path {
        self.in_repository(name, [KEYS, key.as_str()])
    }

    /// Returns `images/<name>/_manifests/<hex>`: the object that says that a repository has a
    /// manifest.
    pub fn manifest(&self, name: &RepositoryName, digest: &BlobDigest) -> Path {
        let hex = digest.digest().hex();
        self.in_repository(name, [MANIFESTS, &hex])
    }

    /// Returns the prefix of the objects that list a repository's manifests.
    pub fn manifests(&self, name: &RepositoryName) -> Path {
        self.in_repository(name, [MANIFESTS])
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

    fn in_repository<'p>(
        &self,
        name: &'p RepositoryName,
        parts: impl IntoIterator<Item = &'p str>,
    ) -> Path {
        self.below(["images"].into_iter().chain(name.as_str().split('/')).chain(parts))
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
        let key = ImageKey::new(&"v1".parse().unwrap(), "settings");
        let (git, shell) = ("git".parse().unwrap(), "shell/git".parse().unwrap());
        assert_eq!(names.blob(&digest).as_ref(), format!("a/b/blobs/sha256/{hex}"));
        let image = format!("a/b/images/shell/git/_keys/{}", key.as_str());
        assert_eq!(names.image(&shell, &key).as_ref(), image);
        let manifest = format!("a/b/images/shell/git/_manifests/{hex}");
        assert_eq!(names.manifest(&shell, &digest).as_ref(), manifest);
        let names = Names::new(Path::default());
        let image = format!("images/git/_keys/{}", key.as_str());
        assert_eq!(names.image(&git, &key).as_ref(), image);
    }

    #[test]
    fn nothing_is_outside_of_its_place() {
        let names = Names::new(Path::from("a"));
        for part in ["..", ".", "../x", ""] {
            let path = names.below(["images", part, "x"]).to_string();
            assert!(path.starts_with("a/images/"), "{path}");
            assert!(path.split('/').all(|part| part != ".."), "{path}");
        }
    }
}
