//! Container images from Nix closures.
//!
//! Data flows one way. Each stage is a directory, in the order of the alphabet, and no stage names a
//! later one (`tests/it/architecture.rs` checks this):
//!
//! ```text
//! closure/   registration → references graph            Nix's data, parsed and checked
//! layer/     plan → tar and diff IDs                    groups of store paths, and their bytes
//! oci/       image spec, configuration, manifest        the documents of an image
//! outgoing/  layers, checked while they are sent        the way to every receiver of an image
//! proof/     digests and keys → signed documents        what proves an image to others
//! registry/  client, server, storage                    images in registries
//! report/    explain, diff, verify, lint                reports on an image
//! target/    archives, directories, daemons             images everywhere else
//! cli/       the command line, which uses all stages
//! ```
//!
//! Every stage may use [`date`], [`digest`], [`error`], [`foreign`], [`image_path`],
//! [`regular_file`], [`sink`], [`store`] and [`system`].
//!
//! The library serves the program and its tests. It is not published, and its interface may
//! change with every release.

pub mod date;
pub mod digest;
pub mod error;
#[cfg(feature = "registry")]
pub mod foreign;
pub mod image_path;
pub mod regular_file;
pub mod sink;
pub mod small_file;
pub mod store;
pub mod system;

pub mod closure;
pub mod layer;
pub mod oci;
pub mod outgoing;
#[cfg(feature = "registry")]
pub mod proof;
#[cfg(feature = "registry")]
pub mod registry;
#[cfg(feature = "report")]
pub mod report;
pub mod target;

pub mod cli;
