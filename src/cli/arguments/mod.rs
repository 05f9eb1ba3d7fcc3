//! Defines the commands and their arguments.

#[cfg(feature = "registry")]
mod copy;
#[cfg(feature = "registry")]
mod registry;
#[cfg(feature = "report")]
mod report;
#[cfg(feature = "registry")]
mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::layer::{LayerBudget, Layering};
use crate::oci::Architecture;
use crate::oci::unpack::UnpackLimits;
use crate::outgoing::ImageReference;

#[cfg(feature = "registry")]
pub use copy::{
    CopyArguments, CopyOptions, FormatArgument, PushArguments, ReceiveArguments, SkopeoArguments,
};
#[cfg(feature = "registry")]
pub use registry::{PrefetchArguments, ProvenanceArguments, SignArguments, SourceArguments};
#[cfg(feature = "report")]
pub use report::{
    DiffArguments, ExplainArguments, LintArguments, ManifestArguments, SbomArguments, SbomFormat,
    TestArguments, VerifyArguments,
};
#[cfg(feature = "registry")]
pub use serve::{LogFormat, PackagesArguments, ServeArguments, TagsArgument};

/// Container images from Nix closures: no layer is stored, and only missing ones are sent
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,

    /// Directory that contains the store, as in Nix's `local?root=DIR`
    #[arg(long, value_name = "DIR", default_value = "/", global = true)]
    pub root: PathBuf,

    /// Number of threads that make layers [default: one for each processor]
    #[arg(long, short, value_name = "N", env = "NIX_BUILD_CORES", global = true)]
    pub jobs: Option<usize>,

    /// Largest size of an unpacked layer or archive from others; K, M, G and T are powers of 1024
    #[arg(long, value_name = "BYTES", default_value = "128G", value_parser = bytes, env = "STOWAGE_MAX_UNPACKED", global = true)]
    pub max_unpacked: u64,

    /// Largest ratio of unpacked to packed size for layers and archives from others, beyond 512 MiB
    #[arg(long, value_name = "N", default_value_t = UnpackLimits::RATIO, env = "STOWAGE_MAX_RATIO", global = true)]
    pub max_ratio: u64,
}

/// Parses a number of bytes, with or without a unit.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((end, 'K')) => (&text[..end], 10),
        Some((end, 'M')) => (&text[..end], 20),
        Some((end, 'G')) => (&text[..end], 30),
        Some((end, 'T')) => (&text[..end], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number of bytes".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too many bytes".to_owned())
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Plan and hash an image's layers, and write its image spec
    Build(BuildArguments),
    /// Act as a derivation's builder: build the image that the derivation describes
    #[command(hide = true)]
    Builder,
    /// Print which store paths would share a layer, from the bottom up
    Plan(PlanArguments),
    /// Count how many packages of a set need each package, so that different images share layers
    Popularity(PopularityArguments),
    /// Write an image to standard output, for `docker load` or `podman load`
    Stream(StreamArguments),
    /// Make one index of images for several platforms
    Index(IndexArguments),
    /// Copy an image to one or more targets, sending only what is missing there
    #[cfg(feature = "registry")]
    Copy(CopyArguments),
    /// Print how an image was built, by its flake, as a statement to sign (SLSA provenance)
    #[cfg(feature = "registry")]
    Provenance(ProvenanceArguments),
    /// Sign an image in a registry, as cosign does, or attach documents to it
    #[cfg(feature = "registry")]
    Sign(SignArguments),
    /// Print the arguments of `pullImage` for an image in a registry
    #[cfg(feature = "registry")]
    Prefetch(PrefetchArguments),
    /// Serve images as a registry does, for `docker pull` and other clients
    #[cfg(feature = "registry")]
    Serve(Box<ServeArguments>),
    /// Show the contents of an image, and the reason for each store path
    #[cfg(feature = "report")]
    Explain(ExplainArguments),
    /// Show what an update from one image to another costs
    #[cfg(feature = "report")]
    Diff(DiffArguments),
    /// Print an image's manifest, or write one of the blobs that it names
    #[cfg(feature = "report")]
    Manifest(ManifestArguments),
    /// Push an image to one or more registries
    #[cfg(feature = "registry")]
    Push(PushArguments),
    /// Receive an image from `stowage copy` on another machine, which runs this by ssh
    #[cfg(feature = "registry")]
    Receive(ReceiveArguments),
    /// Make every layer again, and report what differs from the image spec
    #[cfg(feature = "report")]
    Verify(VerifyArguments),
    /// List the packages of an image, as SPDX or CycloneDX (a software bill of materials)
    #[cfg(feature = "report")]
    Sbom(SbomArguments),
    /// Write the files that a container of an image sees as one tar
    Flatten(FlattenArguments),
    /// Merge several archives into one, for a single `docker load`
    Merge(MergeArguments),
    /// Print the TarSum of a tar from standard input, Docker's checksum before digests
    #[cfg(feature = "report")]
    Tarsum,
    /// Say whether an image's programs would start, without running them, and report other likely
    /// mistakes
    #[cfg(feature = "report")]
    Lint(LintArguments),
    /// Decide tests of an image's files and configuration, in container-structure-test's format,
    /// without running anything
    #[cfg(feature = "report")]
    Test(TestArguments),
    /// Print the script by which a shell completes commands and options
    #[cfg(feature = "registry")]
    Completions(CompletionsArguments),
    /// Write the manual pages
    #[cfg(feature = "registry")]
    #[command(hide = true)]
    Man(ManArguments),
}

#[derive(Debug, Args)]
pub struct BuildArguments {
    /// The closure: `registration` of `closureInfo`, or the JSON of `exportReferencesGraph`
    #[arg(long, value_name = "FILE")]
    pub closure: PathBuf,

    /// JSON with `config`, `fromImage`, `copyToRoot`, `directoryLinks`, `perms`, `storeAttributes`, `tars`, `layers`,
    /// `exclude`, `created`, `architecture`, `compression`, `maxLayers`, `maxLayersIsTotal`,
    /// `layering`, `layeringHints`, `popularity`, `previousPlan`, `previousImage`
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,

    /// File to write the image spec to
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The closure: `registration` of `closureInfo`, or the JSON of `exportReferencesGraph`
    #[arg(value_name = "FILE")]
    pub closure: PathBuf,

    /// Largest number of layers
    #[arg(long, value_name = "N", default_value_t)]
    pub max_layers: LayerBudget,

    /// Way to group store paths: `runs`, `auto`, `popularity`, `nixery`, `largest-first`, or one of
    /// nixpkgs' pipelines as JSON
    #[arg(long, value_name = "NAME", default_value_t)]
    pub layering: Layering,

    /// Hints about the packages: JSON like `layeringHints` of `buildImage`
    #[arg(long, value_name = "FILE")]
    pub hints: Option<PathBuf>,

    /// Popularity of packages in other images, as printed by `stowage popularity`
    #[arg(long, value_name = "FILE")]
    pub popularity: Option<PathBuf>,

    /// Plan whose layers are kept, as printed by this command, or the image spec of the last
    /// release
    #[arg(long, value_name = "FILE")]
    pub previous: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PopularityArguments {
    /// Closures of the set's packages, one or several packages in each file: `registration` of
    /// `closureInfo`, or the JSON of `exportReferencesGraph` or `nix path-info --json --recursive`.
    /// A path to which nothing in its file refers is taken for a package that an image may ask for
    #[arg(value_name = "FILE", required = true)]
    pub closures: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct StreamArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Name and tag under which the image is loaded; can be given more than once
    #[arg(long = "repo-tag", visible_alias = "repo_tag", short = 't', value_name = "NAME:TAG")]
    pub repo_tags: Vec<ImageReference>,

    /// Compress the whole archive; the bytes do not depend on the number of threads
    #[arg(long, value_name = "FORMAT", default_value = "none")]
    pub compress: CompressArgument,

    /// Do not compare layers with their digests, which `docker load`, `podman load` and skopeo do
    /// themselves: the system can then move large files without reading them here
    #[arg(long)]
    pub unchecked: bool,

    /// Name and tag if none is given: the image's own, which its script passes
    #[arg(long, hide = true, value_name = "NAME:TAG")]
    pub default_repo_tag: Option<ImageReference>,
}

#[derive(Debug, Args)]
pub struct IndexArguments {
    /// Image specs, each with annotations of its entry or without: `image.json,KEY=VALUE,KEY=VALUE`
    #[arg(value_name = "IMAGE[,KEY=VALUE]…", required = true)]
    pub images: Vec<String>,

    /// Annotation of the index itself; can be given more than once
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub annotations: Vec<String>,

    /// File to write the index spec to, for `stowage copy`
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

/// The compression of a whole archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressArgument {
    /// No compression
    None,
    /// gzip
    #[value(alias = "gz")]
    Gzip,
    /// Zstandard, which `docker load` reads since version 23
    #[value(alias = "zst")]
    Zstd,
}

/// The way to show progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressArgument {
    /// A bar for each layer that is being sent, and one for all of them
    Bars,
    /// A line for each layer that was sent
    Plain,
    /// A JSON object in each line
    Json,
    /// Nothing
    None,
}

#[derive(Debug, Args)]
pub struct FlattenArguments {
    /// The image: an image spec, `image.json`, or an archive or directory of any image
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// File to write the tar to
    #[arg(long, short, value_name = "FILE", default_value = "/dev/stdout")]
    pub output: PathBuf,

    /// Architecture of the image if there are several, by Go's name [default: this machine's]
    #[arg(long, value_name = "ARCHITECTURE")]
    pub arch: Option<Architecture>,
}

#[derive(Debug, Args)]
pub struct MergeArguments {
    /// Archives of `docker save`, stowage or dockerTools, compressed or not, or scripts of
    /// `buildImage`
    #[arg(value_name = "ARCHIVE", required = true)]
    pub archives: Vec<PathBuf>,

    /// File to write the archive to
    #[arg(long, short, value_name = "FILE", default_value = "/dev/stdout")]
    pub output: PathBuf,
}

#[cfg(feature = "registry")]
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell that reads the script
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[cfg(feature = "registry")]
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Directory for `stowage.1` and a page for each command; it is made if it does not exist
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes_are_read() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("2K", Some(2048)),
            ("10G", Some(10 << 30)),
            ("1T", Some(1 << 40)),
            ("", None),
            ("G", None),
            ("-1", None),
            ("1.5G", None),
            ("1g", None),
            ("99999999999T", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
    }
}
