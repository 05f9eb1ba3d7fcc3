//! Container images from Nix closures.
//!
//! Data flows one way, one directory a stage, in the order of the alphabet; no stage names a
//! later one (`tests/it/architecture.rs` checks that):
//!
//! ```text
//! closure/   registration → references graph            what Nix wrote, parsed and checked
//! layer/     plan → tar and diff IDs                    which store paths go together; their bytes
//! oci/       image spec, configuration, manifest        what a build leaves behind
//! outgoing/  a layer's bytes, checked on their way      what every receiver of an image is given
//! registry/  client, server, storage                    images in registries
//! report/    explain, diff, verify, lint                what people ask of an image
//! target/    archives, directories, daemons             images everywhere else
//! cli/       the command line, which ties them together
//! ```
//!
//! [`digest`], [`error`], [`foreign`], [`sink`] and [`store`] are the vocabulary that every stage shares.
//!
//! The library serves the program and its tests. It is not published, and its interface may
//! change with every release.

pub mod digest;
pub mod error;
#[cfg(feature = "registry")]
pub mod foreign;
pub mod sink;
pub mod store;

pub mod closure;
pub mod layer;
pub mod oci;
pub mod outgoing;
#[cfg(feature = "registry")]
pub mod registry;
#[cfg(feature = "report")]
pub mod report;
pub mod target;

pub mod cli;
