//! Makes the layers of an image for a receiver, checks them while they are written, and counts what
//! was sent. All bytes that leave the program go through this stage.
//! Stage: outgoing. Input: an image spec and the store. Output: bytes.

mod checked_layer;
mod copied;
mod error;
mod layer_ref;
mod names;
mod program;
mod ref_name;
mod reference;
mod skopeo;
mod temporary;
mod unnamed;
mod watch;

pub use checked_layer::{
    CheckedBy, Hashing, write_checked_layer, write_hashed_layer, write_sized_layer,
};
pub use copied::{Copied, Tally};
pub use error::{At, Error};
pub use layer_ref::{ImageLayer, LayerRef, SharedLayer, Turn};
pub use names::{
    ParseRegistryNameError, ParseRepositoryNameError, ParseTagError, ParseTagOrDigestError,
    ParseTaggedNameError, RegistryName, RepositoryName, Tag, TagOrDigest, TaggedName, is_loopback,
};
pub use program::run_program;
pub use ref_name::{ParseRefNameError, RefName};
pub use reference::{
    ImageReference, ParseReferenceError, Reference, ReferenceProblem, without_user_information,
};
pub use skopeo::{SkopeoError, run_skopeo};
pub use temporary::{NewFile, check_place, remove_stale};
pub use unnamed::{MODE, PREFIX, SUFFIX, UnnamedFile};
pub use watch::{LayerStep, Unwatched, Watch, Watched, WatchedLayer};
