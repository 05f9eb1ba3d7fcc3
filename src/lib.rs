//! Container images from Nix closures.
//!
//! Data flows one way, one directory a stage, in the order of the alphabet; no
//! stage names a later one (`tests/it/architecture.rs` checks that):
//!
//! ```text
//! closure/               layer/                      oci/                 transport/
//! registration ─→ graph ─→ plan ─→ tar + diff IDs ─→ image spec, config, ─→ archive stream,
//! (parse bytes)           (group)  (in parallel)     manifest, validate    files, Docker daemon
//! ```
//!
//! The plain files beside them are the vocabulary that every stage shares:
//! [`digest`], [`error`], [`sink`] and [`store`]. [`cli`] ties it together.

pub mod digest;
pub mod error;
pub mod sink;
pub mod store;

pub mod closure;
pub mod layer;
pub mod oci;
pub mod transport;

pub mod cli;
