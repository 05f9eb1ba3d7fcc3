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
/// The program without features: what derivations run.
mod builder;
/// Messages, exit codes, and what is left behind after a failure.
mod cli;
/// Layers whose digests are known before anybody compresses them.
mod compressed;
/// The same inputs give the same bytes, whatever differs around them.
mod determinism;
/// What dockerTools needs of a build: owners and times of the store, tars on top.
mod docker_tools;
/// `stowage explain` and `stowage diff`: what is in an image, why, and what an update costs.
mod explain;
/// `stowage flatten`: one tar of what a container sees.
mod flatten;
/// An image on a base, from `fromImage` to the stream.
mod from_image;
/// HTTP, as plain as it can be.
mod http;
/// Images for several platforms, and their index.
mod index;
/// Layers that can't be made again, and are kept.
mod kept_layers;
/// A layer's bytes, entry by entry and as a digest.
mod layer;
/// Dependencies have licences that `deny.toml` allows.
mod licences;
/// `stowage lint`, before a copy and alone.
mod lint;
/// How much memory commands take.
mod memory;
/// `stowage merge`: archives in one.
mod merge;
/// Images in an object storage, and what happens if that fails.
mod object_storage;
/// Modes and owners that `perms` gives.
mod permissions;
/// Plans of real closures, by digest.
mod plans;
mod popularity;
/// `stowage prefetch`: registries that answer, and others.
mod prefetch;
/// What is not made again since an earlier image has it.
mod previous;
/// What is seen of a copy under way.
mod progress;
/// Pushes, to a registry that makes every mistake.
mod push;
/// A registry that makes every mistake, if it is told to.
mod push_registry;
/// Registries with the quirks of real ones.
mod quirks;
/// How registries are reached, and with which credentials.
mod reach;
/// The registry's answers, request by request.
mod registry;
/// An object storage as others have it: S3, with one bucket and one user.
mod s3;
/// `stowage serve`, from its start to its end.
mod serve;
/// Real closures: the images that `benches/layering` plans.
#[allow(dead_code)] // it takes more of them than these tests do
#[path = "../../benches/layering/suite.rs"]
mod suite;
/// A store in a temporary directory, and the program run on it.
mod support;
/// Every target that is a file or a directory: what is in it, and what never is.
mod targets;
/// `stowage verify` names what changed.
mod verify;
