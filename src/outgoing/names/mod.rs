//! The parts of an image's name, each with its grammar.
//! Stage: outgoing (pure). Input: text. Output: [`RegistryName`], [`RepositoryName`], [`Tag`].

mod registry_name;
mod repository_name;
mod tag;
mod tag_or_digest;
mod tagged_name;

pub use registry_name::{ParseRegistryNameError, RegistryName, is_loopback};
pub use repository_name::{ParseRepositoryNameError, RepositoryName};
pub use tag::{ParseTagError, Tag};
pub use tag_or_digest::{ParseTagOrDigestError, TagOrDigest};
pub use tagged_name::{ParseTaggedNameError, TaggedName};
