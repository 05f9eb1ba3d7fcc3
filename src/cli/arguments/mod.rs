//! What can be typed.

#[cfg(feature = "registry")]
mod registry;
#[cfg(feature = "report")]
mod report;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::layer::{LayerBudget, Layering};
use crate::oci::Architecture;
use crate::outgoing::ImageReference;

#[cfg(feature = "registry")]
pub use registry::{
    CopyArguments, CopyOptions, FormatArgument, LogFormat, PackagesArguments, PrefetchArguments,
    PushArguments, ServeArguments, SkopeoArguments, TagsArgument,
};
#[cfg(feature = "report")]
pub use report::{
    DiffArguments, ExplainArguments, LintArguments, ManifestArguments, VerifyArguments,
};

/// Container images from Nix closures: no layer is stored, and only missing ones are sent.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,

    /// Directory below which the store's files are, as in Nix's `local?root=DIR`
    #[arg(long, value_name = "DIR", default_value = "/", global = true)]
    pub root: PathBuf,

    /// How many threads to make layers on [default: one for each processor]
    #[arg(long, short, value_name = "N", env = "NIX_BUILD_CORES", global = true)]
    pub jobs: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Plan and hash an image's layers, and write its image spec
    Build(BuildArguments),
    /// Build the image of the derivation that this is the builder of
    #[command(hide = true)]
    Builder,
    /// Print which store paths would share a layer, from the bottom up
    Plan(PlanArguments),
    /// Count how many packages of a set need each, for images of different names to share layers
    Popularity(PopularityArguments),
    /// Write an image to standard output, for `docker load` or `podman load`
    Stream(StreamArguments),
    /// Make one index of images for several platforms
    Index(IndexArguments),
    /// Copy an image to where it is to be run, sending only what is missing there
    #[cfg(feature = "registry")]
    Copy(CopyArguments),
    /// Print the arguments of `pullImage` for an image in a registry
    #[cfg(feature = "registry")]
    Prefetch(PrefetchArguments),
    /// Serve images as a registry does, for `docker pull` and the like
    #[cfg(feature = "registry")]
    Serve(Box<ServeArguments>),
    /// Show what an image is made of, and why
    #[cfg(feature = "report")]
    Explain(ExplainArguments),
    /// Say what an update from one image to another costs
    #[cfg(feature = "report")]
    Diff(DiffArguments),
    /// Print an image's manifest, or write one of the blobs that it names
    #[cfg(feature = "report")]
    Manifest(ManifestArguments),
    /// Push an image to a registry, or to several
    #[cfg(feature = "registry")]
    Push(PushArguments),
    /// Make every layer again and say what differs from the image spec
    #[cfg(feature = "report")]
    Verify(VerifyArguments),
    /// Write what a container of an image sees as one tar
    Flatten(FlattenArguments),
    /// Make one archive of several, for one `docker load`
    Merge(MergeArguments),
    /// Print the TarSum of a tar from standard input, as Docker had them before digests
    #[cfg(feature = "report")]
    Tarsum,
    /// Say what is most likely wrong with an image: files that its config lacks, programs for
    /// another machine, set-ID programs, odd owners
    #[cfg(feature = "report")]
    Lint(LintArguments),
}

#[derive(Debug, Args)]
pub struct BuildArguments {
    /// The closure: `registration` of `closureInfo`, or the JSON of `exportReferencesGraph`
    #[arg(long, value_name = "FILE")]
    pub closure: PathBuf,

    /// JSON with `config`, `fromImage`, `copyToRoot`, `perms`, `storeAttributes`, `tars`, `layers`,
    /// `exclude`, `created`, `architecture`, `compression`, `maxLayers`, `maxLayersIsTotal`,
    /// `layering`, `layeringHints`, `popularity`, `previousPlan`, `previousImage`
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,

    /// Where to write the image spec
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The closure: `registration` of `closureInfo`, or the JSON of `exportReferencesGraph`
    #[arg(value_name = "FILE")]
    pub closure: PathBuf,

    /// How many layers there may be
    #[arg(long, value_name = "N", default_value_t)]
    pub max_layers: LayerBudget,

    /// How store paths are grouped: `runs`, `auto`, `popularity`, `nixery`, `largest-first`,
    /// or a pipeline of nixpkgs' as JSON
    #[arg(long, value_name = "NAME", default_value_t)]
    pub layering: Layering,

    /// What you know of the packages: JSON as `layeringHints` of `buildImage`
    #[arg(long, value_name = "FILE")]
    pub hints: Option<PathBuf>,

    /// What other images are likely to have as well: what `stowage popularity` prints
    #[arg(long, value_name = "FILE")]
    pub popularity: Option<PathBuf>,

    /// A plan to keep to: what this prints, or the image spec of the last release
    #[arg(long, value_name = "FILE")]
    pub previous: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PopularityArguments {
    /// Closures of the set's packages, one file for each package, or for several: `registration` of `closureInfo`, or the JSON of
    /// `exportReferencesGraph` or `nix path-info --json --recursive`. What nothing in its file refers to is taken for a
    /// package that images are asked for by
    #[arg(value_name = "FILE", required = true)]
    pub closures: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct StreamArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Name and tag to load the image under; can be given more than once
    #[arg(long = "repo-tag", visible_alias = "repo_tag", short = 't', value_name = "NAME:TAG")]
    pub repo_tags: Vec<ImageReference>,

    /// Compress all of it; the same bytes for any number of threads
    #[arg(long, value_name = "FORMAT", default_value = "none")]
    pub compress: CompressArgument,

    /// Leave it to the receiver to compare each layer with its digest, as `docker load`,
    /// `podman load` and skopeo do: the system then moves large files by itself
    #[arg(long)]
    pub unchecked: bool,

    /// Name and tag where none is given: the image's own, as its script has it
    #[arg(long, hide = true, value_name = "NAME:TAG")]
    pub default_repo_tag: Option<ImageReference>,
}

#[derive(Debug, Args)]
pub struct IndexArguments {
    /// Image specs, each perhaps with annotations of its entry: `image.json,KEY=VALUE,KEY=VALUE`
    #[arg(value_name = "IMAGE[,KEY=VALUE]…", required = true)]
    pub images: Vec<String>,

    /// An annotation of the index itself; can be given more than once
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub annotations: Vec<String>,

    /// Where to write the index spec, for `stowage copy`
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

/// How a whole archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressArgument {
    /// Not at all
    None,
    /// gzip
    #[value(alias = "gz")]
    Gzip,
    /// Zstandard, which `docker load` takes as of version 23
    #[value(alias = "zst")]
    Zstd,
}

/// How it is shown what is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressArgument {
    /// A bar for each layer that is on its way, and one for all of them
    Bars,
    /// A line for each layer that was sent
    Plain,
    /// A JSON object a line
    Json,
    /// Not at all
    None,
}

#[derive(Debug, Args)]
pub struct FlattenArguments {
    /// The image: an image spec, `image.json`, or an archive or directory of any image
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Where to write the tar
    #[arg(long, short, value_name = "FILE", default_value = "/dev/stdout")]
    pub output: PathBuf,

    /// Which image of several, by Go's name for what it runs on [default: this machine's]
    #[arg(long, value_name = "ARCHITECTURE")]
    pub arch: Option<Architecture>,
}

#[derive(Debug, Args)]
pub struct MergeArguments {
    /// What `docker save`, stowage or dockerTools wrote, compressed or not
    #[arg(value_name = "ARCHIVE", required = true)]
    pub archives: Vec<PathBuf>,

    /// Where to write the archive
    #[arg(long, short, value_name = "FILE", default_value = "/dev/stdout")]
    pub output: PathBuf,
}
