//! Layers: which store paths go together, and the bytes and digests of each.
//! Stage: layer. Input: a closure. Output: [`Layer`]s.

mod archive;
mod base_tree;
mod build;
mod contents;
mod header;
mod nar;
mod nix_database;
mod node;
mod permissions;
mod pieces;
mod plan;
mod scan;
mod store_attributes;
mod tar;
mod tree;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use archive::write_layer;
pub use base_tree::{Attributes, BaseEntry, BaseLayerTree, BaseTree, LinkLoop};
pub use build::{Layer, build_layers, layer_at};
pub use contents::LayerContents;
pub use nar::{DirectoryNar, nar_hash};
pub use nix_database::{SCHEMA_VERSION, nix_database};
pub use permissions::{PermissionRule, unmatched_rules};
pub use plan::{
    LayerBudget, LayerPlan, Layering, LayeringHints, ParseBudgetError, ParseLayeringError,
    Pipeline, PipelineError, PlanError, PlanOptions, Popularity, PreviousPlan,
};
pub use store_attributes::StoreAttributes;
pub use tree::met_by;

use crate::error::Hint;

/// Why a layer could not be made.
#[derive(Debug, Error)]
pub enum Error {
    /// A file of the store could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file on this machine.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A store path isn't there.
    #[error("store path {} does not exist", path.display())]
    Missing {
        /// The store path on this machine.
        path: PathBuf,
    },
    /// A file is not as long as it said.
    #[error("{} changed while it was read: expected {expected} bytes, found {found}", path.display())]
    Changed {
        /// The file on this machine.
        path: PathBuf,
        /// Bytes by its metadata.
        expected: u64,
        /// Bytes that could be read.
        found: u64,
    },
    /// A kind of file that neither a Nix store nor a layer holds.
    #[error("{} is a {kind}: a layer may hold files, directories and symbolic links only", path.display())]
    Special {
        /// The file on this machine.
        path: PathBuf,
        /// "socket", "FIFO", "character device" …
        kind: &'static str,
    },
    /// A name that OCI gives another meaning.
    #[error("{} has a name that would delete files in an image: names beginning with `.wh.` are whiteouts", path.display())]
    Whiteout {
        /// The file on this machine.
        path: PathBuf,
    },
    /// Two entries of a directory have the same name, once what Nix appends to it on macOS is off.
    #[error("{} has the name of another file in its directory, without what macOS needs to tell them apart", path.display())]
    SameName {
        /// One of them on this machine.
        path: PathBuf,
    },
    /// `copyToRoot` with something that has no files to copy.
    #[error("`copyToRoot`: {} is not a directory", path.display())]
    NotADirectory {
        /// The store path on this machine.
        path: PathBuf,
    },
    /// Two `copyToRoot` entries disagree on a path in the image.
    #[error("`copyToRoot`: /{name} is in two store paths and differs: {} and {}", first.display(), second.display())]
    Conflict {
        /// The path in the image, without the leading slash.
        name: String,
        /// The file that came first.
        first: PathBuf,
        /// The file that came second.
        second: PathBuf,
    },
    /// Rules of `perms` disagree on a directory in the image.
    #[error("`perms`: /{name} is in two store paths whose rules give it another mode or owner each: {} and {}", first.display(), second.display())]
    PermissionConflict {
        /// The path in the image, without the leading slash.
        name: String,
        /// The file or directory that came first.
        first: PathBuf,
        /// The one that came second.
        second: PathBuf,
    },
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A directory of ours is where the base has links that lead to each other.
    #[error("{} has no place in the image: {link}", path.display())]
    LinkLoop {
        /// The directory on this machine.
        path: PathBuf,
        /// Which link.
        link: LinkLoop,
    },
    /// A directory of ours has a name in the base that no JSON can hold.
    #[error(
        "the base image's directory /{name}, which is in `copyToRoot` too, has a name that is not UTF-8"
    )]
    OddName {
        /// The path in the image, without the leading slash.
        name: String,
    },
    /// The receiver of the layer's bytes failed.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::Plan(error) => error.hint(),
            Error::Missing { path } => Some(format!(
                "it may have been garbage-collected: `nix-store --realise {}` fetches or builds it again",
                path.display()
            )),
            Error::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("files in the Nix store must be readable by everyone: `nix-store --verify --repair` may mend it".to_owned())
            }
            Error::Changed { .. } => Some(
                "store paths must not change: `nix-store --verify --check-contents --repair` may mend it".to_owned(),
            ),
            Error::NotADirectory { path } => Some(format!(
                "wrap it in a directory, such as `pkgs.linkFarm \"root\" {{ \"etc/file\" = {}; }}`",
                path.display()
            )),
            Error::Conflict { .. } => Some(
                "leave one of them out, or join them with `pkgs.buildEnv { ignoreCollisions = true; … }`, \
                 which keeps the first"
                    .to_owned(),
            ),
            Error::PermissionConflict { .. } => Some("let the rules for both give it the same".to_owned()),
            _ => None,
        }
    }
}
