//! The name of a manifest in its repository.
//! Stage: outgoing (pure). Input: text. Output: [`TagOrDigest`].

use std::fmt;
use std::str::FromStr;

use super::Tag;
use crate::digest::BlobDigest;

/// The name of a manifest in its repository: a tag or a digest (distribution-spec, `<reference>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagOrDigest {
    /// A tag.
    Tag(Tag),
    /// The digest of the manifest.
    Digest(BlobDigest),
}

/// Says why a text is not a [`TagOrDigest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseTagOrDigestError {
    /// The text has a colon, and is not a digest.
    Digest,
    /// The text has no colon, and is not a tag.
    Tag,
}

impl From<Tag> for TagOrDigest {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<BlobDigest> for TagOrDigest {
    fn from(digest: BlobDigest) -> Self {
        Self::Digest(digest)
    }
}

impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for TagOrDigest {
    type Err = ParseTagOrDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A text with an algorithm is meant to be a digest: no tag has a colon.
        if text.contains(':') {
            text.parse().map(Self::Digest).map_err(|_| ParseTagOrDigestError::Digest)
        } else {
            text.parse().map(Self::Tag).map_err(|_| ParseTagOrDigestError::Tag)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_tells_digests_from_tags() {
        let hex = "0".repeat(64);
        for (text, expected) in [
            ("v1", Ok(())),
            // A tag may look like the hex digits of a digest.
            (&*hex, Ok(())),
            (&*format!("sha256:{hex}"), Ok(())),
            ("sha256:0", Err(ParseTagOrDigestError::Digest)),
            (&*format!("sha512:{hex}"), Err(ParseTagOrDigestError::Digest)),
            ("a:b", Err(ParseTagOrDigestError::Digest)),
            (".v1", Err(ParseTagOrDigestError::Tag)),
            ("", Err(ParseTagOrDigestError::Tag)),
        ] {
            let parsed = text.parse::<TagOrDigest>();
            assert_eq!(parsed.clone().map(drop), expected, "{text}");
            if let Ok(parsed) = parsed {
                assert_eq!(parsed.to_string(), text);
                assert_eq!(matches!(parsed, TagOrDigest::Digest(_)), text.contains(':'));
            }
        }
    }
}
