//! Copies an image to another machine by ssh, and sends only the pieces that it lacks.
//! Stage: target. Input: [`ImageSpec`]. Output: an image in a target of the other machine.
//!
//! ```text
//! host, ssh    the other machine, and the program that reaches it
//! cut          a layer → literal bytes, and pieces that other layers may have as well
//! wire         messages between the two sides
//! kept         layers that a receiver keeps, and the pieces in them
//! send         the sender: answers what the receiver asks for
//! receive      the receiver (`stowage receive`): rebuilds layers, then copies as on any machine
//! ```
//!
//! The receiver asks, and the sender answers:
//!
//! ```text
//! receiver → sender   a greeting, with the architecture
//! sender → receiver   a greeting; from here on one Zstandard stream: the image spec
//! receiver → sender   the layers that it lacks
//! sender → receiver   for each of these a recipe: literal bytes, and digests of pieces
//! receiver → sender   for each recipe the pieces that it lacks
//! sender → receiver   these pieces
//! receiver → sender   the result
//! ```
//!
//! Neither side trusts the other: every length has a limit, and the receiver takes no piece and no
//! layer without computing its digest. Where a layer is cut only decides how much is sent.
//!
//! [`ImageSpec`]: crate::oci::ImageSpec

mod cut;
mod error;
mod host;
mod kept;
mod receive;
mod send;
mod ssh;
mod wire;

pub use error::{ReceiveError, RemoteError};
pub use host::{ParseHostError, RemoteHost};
pub use receive::{Connected, ReceiveOutcome, receive};
pub use send::copy_to_remote;
pub use ssh::SshOptions;
