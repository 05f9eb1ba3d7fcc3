//! Tells the images of a repository apart in a storage.
//! Stage: registry (pure). Input: a tag or a digest, and settings. Output: [`ImageKey`].

use crate::digest::{BlobDigest, Digest};
use crate::outgoing::Tag;

/// The number of hex digits of the settings' digest in a key.
const HEX: usize = 16;

/// The key of an image among those of its repository: the tag, and a digest of the settings of the
/// servers for which the tag stands for this image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageKey(String);

impl ImageKey {
    /// Returns the key of a tag for servers with these settings. Changing it makes servers build
    /// again what is stored.
    pub fn new(tag: &Tag, settings: &str) -> Self {
        Self(format!("{tag}-{}", of_settings(settings)))
    }

    /// Returns the key of the list of packages of the image with this manifest. No tag has this key: a tag has no
    /// `+`.
    pub fn of_list(image: &BlobDigest, settings: &str) -> Self {
        Self(format!("{}+packages-{}", image.digest().hex(), of_settings(settings)))
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn of_settings(settings: &str) -> String {
    Digest::of(settings.as_bytes()).hex()[..HEX].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_a_tag_and_settings() {
        let key = |tag: &str, settings| ImageKey::new(&tag.parse().unwrap(), settings);
        assert_eq!(key("v1", "").as_str(), "v1-e3b0c44298fc1c14");
        assert_ne!(key("v1", "a"), key("v1", "b"));
        assert_ne!(key("v1", "a"), key("v2", "a"));
        let image = BlobDigest::new(Digest::of(b""));
        let list = ImageKey::of_list(&image, "");
        let hex = image.digest().hex();
        assert_eq!(list.as_str(), format!("{hex}+packages-e3b0c44298fc1c14"));
    }
}
