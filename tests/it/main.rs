//! Integration tests that need nothing but this machine: stores in temporary directories, and the
//! `stowage` program.

#![allow(clippy::unwrap_used)]

/// Annotations of manifests.
mod annotations;
/// The rule that no stage names a later one.
mod architecture;
/// The contents of a stream, and the reaction of receivers to an incomplete one.
mod archive;
/// Base images of every format, and errors in them.
mod base;
/// Images in the formats of other tools.
mod base_image;
/// The effect of a base image's directories and links on a layer.
mod base_tree;
/// Archives that are made to cost much memory or time.
mod bombs;
/// The program without features, as derivations run it.
mod builder;
/// Messages, exit codes, and files that are left behind after a failure.
mod cli;
/// Layers whose compressed digests are recorded when the image is built.
mod compressed;
/// The rule that the same inputs give the same bytes in any environment.
mod determinism;
/// Options of a build for dockerTools: owners and times of the store, tars on top.
mod docker_tools;
/// Programs and libraries that have nothing but what a loader reads.
mod elf;
/// `stowage explain` and `stowage diff`: the contents of an image, the reasons for them, and the
/// cost of an update.
mod explain;
/// `stowage flatten`: one tar of the files that a container sees.
mod flatten;
/// An image on a base, from `fromImage` to the stream.
mod from_image;
/// Mutations of valid input, for every parser.
mod fuzz;
/// A minimal HTTP client.
mod http;
/// Images for several platforms, and their index.
mod index;
/// Signals that end a copy. These tests wait by leases of files, which only Linux has.
#[cfg(target_os = "linux")]
mod interrupts;
/// Layers that can't be made again, and are kept.
mod kept_layers;
/// Programs that are killed.
mod kills;
/// A layer's bytes, entry by entry and as a digest.
mod layer;
/// The licences of dependencies, which `deny.toml` must allow.
mod licences;
/// `stowage lint`, before a copy and alone.
mod lint;
/// The memory that commands take.
mod memory;
/// `stowage merge`: several archives in one.
mod merge;
/// Images in an object storage, and failures of the storage.
mod object_storage;
/// Images on base images that this program made: by image spec, index spec and script.
mod own_base;
/// Modes and owners that `perms` sets.
mod permissions;
/// Plans of real closures, by digest.
mod plans;
mod popularity;
/// `stowage prefetch`, with registries that answer and others.
mod prefetch;
/// Layers that are not made again since an earlier image has them.
mod previous;
/// The progress of a copy, as it is shown.
mod progress;
/// Pushes to a registry that makes every mistake.
mod push;
/// A registry that makes any mistake on demand.
mod push_registry;
/// Registries with the unusual behaviour of real ones.
mod quirks;
/// Connections to registries, and credentials for registries.
mod reach;
/// The manual: pages that are made from the sources, and links.
mod reference;
/// The registry's answers, request by request.
mod registry;
mod remote;
/// Files that are copied to `/`: their links, and their layers.
mod roots;
/// An object storage for tests: S3, with one bucket and one user.
mod s3;
/// The schemas of JSON documents in the manual.
mod schema;
/// `stowage serve`, from its start to its end.
mod serve;
/// `stowage test`: container-structure-test's documents.
mod structure;
/// Real closures: the images that `benches/layering` plans.
#[allow(dead_code)] // it takes more of them than these tests do
#[path = "../../benches/layering/suite.rs"]
mod suite;
/// A store in a temporary directory, and the program run on it.
mod support;
/// The targets that are files or directories: their contents, and files that they must not have.
mod targets;
/// A listener that speaks TLS.
mod tls;
/// `stowage verify`, which names what changed.
mod verify;

/// Links the function into this program, where the standard library looks for it: with it, a command
/// of another directory is started by `posix_spawn`. Otherwise this process is forked with all its
/// memory, which took a sixth of the time of these tests.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[used]
static SPAWN_IN_DIRECTORY: unsafe extern "C" fn(
    *mut nix::libc::posix_spawn_file_actions_t,
    *const nix::libc::c_char,
) -> nix::libc::c_int = nix::libc::posix_spawn_file_actions_addchdir_np;
