//! Integration tests that need nothing but this machine: stores made in temporary
//! directories, and the `stowage` program.

#![allow(clippy::unwrap_used)]

/// No stage names a later one.
mod architecture;
/// What a stream holds, and what a receiver may conclude from half of one.
mod archive;
/// Base images of every format, and what is wrong with others.
mod base;
/// Images such as others make.
mod base_image;
/// What a layer makes of the directories and links of a base image.
mod base_tree;
/// Messages, exit codes, and what is left behind after a failure.
mod cli;
/// The same inputs give the same bytes, whatever differs around them.
mod compressed;
mod determinism;
mod docker_tools;
/// `stowage explain` and `stowage diff`: what is in an image, why, and what an update costs.
mod explain;
/// An image on a base, from `fromImage` to the stream.
mod flatten;
mod from_image;
/// HTTP, as plain as it can be.
mod http;
/// A layer's bytes, entry by entry and as a digest.
mod index;
mod kept_layers;
mod layer;
/// Dependencies have licences that `deny.toml` allows.
mod licences;
/// Plans of real closures, by digest.
mod lint;
mod merge;
mod permissions;
mod plans;
/// `stowage prefetch`: registries that answer, and others.
mod prefetch;
mod progress;
/// A store in a temporary directory, and the program run on it.
mod push;
mod registry;
/// `stowage serve`, from its start to its end.
mod serve;
/// Real closures: the images that `benches/layering` plans.
#[allow(dead_code)] // it takes more of them than these tests do
#[path = "../../benches/layering/suite.rs"]
mod suite;
mod support;
/// Every target that is a file or a directory: what is in it, and what never is.
mod targets;
/// `stowage verify` names what changed.
mod verify;
