//! Tells the images of a repository apart in a storage.
//! Stage: registry (pure). Input: a tag and settings. Output: [`ImageKey`].

use crate::digest::Digest;
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
        Self(format!("{tag}-{}", &Digest::of(settings.as_bytes()).hex()[..HEX]))
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
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
    }
}
