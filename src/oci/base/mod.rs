//! Base images: what an image of ours stands on.
//! Stage: oci.

mod inherit;

pub use inherit::{inherit, inherit_history};
