//! End-to-end tests: images built by Nix in its sandbox, taken by real container
//! engines, run. `checks/test` installs what they need; `checks/test e2e NAME` runs one.

#![allow(clippy::unwrap_used)]

/// What people get wrong in Nix code, and what Nix then prints.
mod bad_input;
/// Base images: from archives, registries and each format of skopeo's.
mod base;
/// `nix build` and what its outputs refer to.
mod build;
/// containerd pulls what it lacks.
mod containerd;
/// Targets that skopeo reaches, and the programs for `nix run`.
mod copy;
/// The Docker daemon is sent what it lacks.
mod docker;
/// What dockerTools' users build.
mod docker_tools;
/// What an update costs by our account, and by those of Docker and of a registry; the page
/// that shows an image, in a browser.
mod explain;
/// Images for several platforms.
mod index;
/// Images of packages that are given by their names.
mod names;
/// What nix2container's users build.
mod nix2container;
/// Nix in an image.
mod nix_database;
/// Arguments of the Nix functions, other systems, `skopeo` with `nix:`, and what is rebuilt when.
mod nix_functions;
/// The flake's own image, with a Nix to work with, and its template.
mod nix_image;
/// `stowage serve --packages`, and whoever pulls.
mod on_demand;
/// podman and skopeo take the stream too.
mod podman;
/// What `pullImage` is told of an image.
mod prefetch;
/// Debian's registry.
mod registry;
/// An object storage as others have it: S3, with one bucket and one user.
#[allow(dead_code)] // other tests need more of it
#[path = "../it/s3.rs"]
mod s3;
/// The registry as a service: Docker, podman, skopeo and containerd pull.
mod serve;
/// Servers that share an object storage.
mod shared_storage;
/// Nix, engines of one's own, and images.
mod support;
/// skopeo reads what is copied to files and directories.
mod targets;
