//! Layers: which store paths go together, and the bytes and digests of each.
//! Stage: layer. Input: a closure. Output: [`Layer`]s.

mod archive;
mod base_tree;
mod build;
mod contents;
mod header;
mod inventory;
mod links;
mod nar;
mod nix_database;
mod node;
mod permissions;
mod pieces;
mod plan;
mod root_tree;
mod scan;
mod store_attributes;
mod store_modes;
mod tar;
mod tree;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use archive::{note_given, outline_layer, write_layer};
pub use base_tree::{
    ACCOUNT_FILES, AccountFile, Attributes, BadLink, BaseEntry, BaseLayerBuilder, BaseLayerTree,
    BaseTree, check_links,
};
pub use build::{Layer, LayerMaker, build_layers};
pub use contents::{LayerContents, MergedFiles};
pub use inventory::{LayerEntry, LayerFile, LayerFileKind, file_in_store, layer_entries};
pub use links::place_behind;
pub use nar::{DirectoryNar, nar_hash};
pub use nix_database::{
    DATABASE, DATABASE_DIR, DatabaseError, MergedDatabase, SCHEMA_FILE, SCHEMA_VERSION,
    merged_database, nix_database, valid_paths,
};
pub use permissions::{Pattern, PermissionRule, unmatched_rules};
pub use plan::{
    HintRule, LayerBudget, LayerPlan, Layering, LayeringHints, ParseBudgetError,
    ParseLayeringError, Pipeline, PipelineError, PlanError, PlanOptions, Popularity, PreviousPlan,
    RootLayer,
};
pub use root_tree::{Change, EntryId, EntryNames, LinkProblem, RootNode, RootTree};
pub use scan::Kind;
pub use store_attributes::StoreAttributes;
pub use store_modes::LINK_MODE;
pub use tree::{DirectoryLinks, RootLinks, RootOutline, met_by, root_links, root_outline};

use crate::error::Hint;

/// Says why a layer could not be made.
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
    /// A store path does not exist.
    #[error("store path {} does not exist", path.display())]
    Missing {
        /// The store path on this machine.
        path: PathBuf,
    },
    /// A file has another length than its metadata says.
    #[error("{} changed while it was read: expected {expected} bytes, found {found}", path.display())]
    Changed {
        /// The file on this machine.
        path: PathBuf,
        /// The number of bytes in the metadata.
        expected: u64,
        /// The number of bytes that could be read.
        found: u64,
    },
    /// The file is of a kind that neither a Nix store nor a layer can hold.
    #[error("{} is a {kind}: a layer may hold files, directories and symbolic links only", path.display())]
    Special {
        /// The file on this machine.
        path: PathBuf,
        /// The kind, such as "socket", "FIFO" or "character device".
        kind: &'static str,
    },
    /// The name has a special meaning in OCI layers.
    #[error("{} has a name that would delete files in an image: names beginning with `.wh.` are whiteouts", path.display())]
    Whiteout {
        /// The file on this machine.
        path: PathBuf,
    },
    /// Two entries of a directory have the same name after the suffix that Nix appends on macOS is removed.
    #[error("without its suffix for macOS, {} has the name of another file in its directory", path.display())]
    SameName {
        /// The path of one of them on this machine.
        path: PathBuf,
    },
    /// A path in `copyToRoot` is not a directory, and so has no files to copy.
    #[error("`copyToRoot`: {} is not a directory", path.display())]
    NotADirectory {
        /// The store path on this machine.
        path: PathBuf,
    },
    /// A path in the image has different files in two `copyToRoot` entries.
    #[error("`copyToRoot`: /{name} is in two store paths and differs: {} and {}", first.display(), second.display())]
    Conflict {
        /// The path in the image, without the leading slash.
        name: String,
        /// The file that came first.
        first: PathBuf,
        /// The file that came second.
        second: PathBuf,
    },
    /// A file of `copyToRoot` has the name of a directory in the base image.
    #[error("`copyToRoot`: /{name} is a file, but the base image has a directory there, or a link to one: {}", path.display())]
    FileOverDirectory {
        /// The path in the image, without the leading slash.
        name: String,
        /// The file on this machine.
        path: PathBuf,
    },
    /// A link of `copyToRoot` has the name of a directory in the base image.
    #[error("`copyToRoot`: /{name} is a link, but the base image has a directory there, or a link to one: {}", path.display())]
    LinkOverDirectory {
        /// The path in the image, without the leading slash.
        name: String,
        /// The link on this machine.
        path: PathBuf,
    },
    /// Rules of `perms` set different attributes for a directory in the image.
    #[error("`perms`: /{name} is in two store paths, whose rules set different modes or owners for it: {} and {}", first.display(), second.display())]
    PermissionConflict {
        /// The path in the image, without the leading slash.
        name: String,
        /// The file or directory that came first.
        first: PathBuf,
        /// The file or directory that came second.
        second: PathBuf,
    },
    /// The plan could not be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A directory of the layer is at a place where links of the base lead to no path.
    #[error("{} has no place in the image: {link}", path.display())]
    BadLink {
        /// The directory on this machine.
        path: PathBuf,
        /// The link.
        link: BadLink,
    },
    /// A directory of the layer has a name in the base that JSON can't represent.
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
            Error::FileOverDirectory { .. } => {
                Some("`directoryLinks = \"replace\"` hides what the base has there".to_owned())
            }
            Error::LinkOverDirectory { .. } => Some(
                "with `directoryLinks = \"merge\"` what is behind the link is linked to in the base's directory; \
                 `\"replace\"` hides what the base has there"
                    .to_owned(),
            ),
            Error::PermissionConflict { .. } => Some("let the rules for both give it the same".to_owned()),
            _ => None,
        }
    }
}
