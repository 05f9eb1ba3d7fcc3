//! End-to-end tests: Nix builds images in its sandbox, and real container engines load and run
//! them. `checks/test` installs the programs that this needs; `checks/test e2e NAME` runs one test.

#![allow(clippy::unwrap_used)]

/// Declared accounts, directories, files and links.
mod accounts;
/// Annotations, and the name of a base image in them.
mod annotations;
/// Mistakes in Nix code, and the errors that Nix prints.
mod bad_input;
/// Base images: from archives, registries and in each of skopeo's formats.
mod base;
/// A browser, for pages that people see.
mod browser;
/// `nix build`, and the references of its outputs.
mod build;
/// `stowage lint` beside what Docker starts, and `structureTest`.
mod checks;
/// Layers of which podman fetches pieces.
mod chunked;
/// Clients of other Debian releases: podman 5, skopeo 1.18 and oras.
mod clients;
/// containerd, which pulls the layers that it lacks.
mod containerd;
/// Targets that skopeo reaches, and the programs for `nix run`.
mod copy;
/// The Docker daemon, which is sent the layers that it lacks.
mod docker;
/// Images that users of dockerTools build.
mod docker_tools;
/// The flakes of `examples/`, each built and run.
mod examples;
/// The cost of an update by `stowage diff`, by Docker and by a registry; the page of `stowage
/// explain` in a browser.
mod explain;
/// A store in a temporary directory, as for the tests that need no Nix.
#[allow(dead_code)]
#[path = "../it/support.rs"]
mod fake_store;
/// A registry's garbage collections.
mod garbage;
/// Images for several platforms.
mod index;
/// The manual: mdBook builds it, and its Nix code can be parsed.
mod manual;
/// Modules for NixOS and flake-parts.
mod modules;
/// Images of packages by their names.
mod names;
/// Images that users of nix2container build.
mod nix2container;
/// Nix in an image.
mod nix_database;
/// Arguments of the Nix functions, other systems, `skopeo` with `nix:`, and the derivations that a
/// change rebuilds.
mod nix_functions;
/// The flake's own image, in which Nix works, and the flake's template.
mod nix_image;
/// `stowage serve --packages`, and clients that pull from it.
mod on_demand;
/// Manual pages and completions, in the package.
mod pages;
/// podman and skopeo, which read the stream too.
mod podman;
/// The arguments of `pullImage` for an image.
mod prefetch;
/// Signatures, attachments and proofs, by this program and by cosign of two Debian releases.
mod proof;
/// Debian's registry.
mod registry;
/// The workflow of a release.
mod release;
mod remote;
/// An object storage for tests: S3, with one bucket and one user.
#[allow(dead_code)] // other tests need more of it
#[path = "../it/s3.rs"]
mod s3;
/// Lists of an image's packages.
mod sbom;
/// The schemas of JSON documents in the manual.
#[allow(dead_code)]
#[path = "../it/schema.rs"]
mod schema;
/// `stowage serve` as a service: Docker, podman, skopeo and containerd pull from it.
mod serve;
/// Servers that share an object storage.
mod shared_storage;
/// Support for tests with Nix, engines and images.
mod support;
/// Copies to files and directories, which skopeo reads.
mod targets;
