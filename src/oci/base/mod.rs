//! Reads base images, on which a build puts its own layers.
//! Stage: oci. Input: an image in any format. Output: [`BaseImage`].
//!
//! ```text
//! files ─→ formats (documents, platform) ─→ scan ─→ read ─→ image
//! (by name) (which config, which layers)   (bytes)  (checked)
//! spec ─→ own ─────────────────────────────────────┘
//! ```

mod beneath;
mod choice;
mod documents;
mod error;
mod files;
mod formats;
mod image;
mod inherit;
mod name;
mod nix_state;
mod own;
mod read;
mod scan;
mod state_file;

pub use error::{Error, ImageRole, Problem};
pub use image::BaseImage;
pub use inherit::{inherit, inherit_history};
pub use name::BaseName;
pub use read::read_base;
pub use scan::scan;
