//! Defines the commands that report on images.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::digest::BlobDigest;
use crate::oci::Architecture;
use crate::outgoing::ImageReference;
use crate::report::Check;
use crate::report::sbom::SUPPLIER;

#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The image spec, `image.json`; with `--key` an image's name in a registry, and with `--against` also
    /// `docker-daemon:NAME:TAG`, `oci:PATH[:REF]`, `dir:PATH`, or an archive
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Public key that must verify a signature of the image
    #[cfg(feature = "registry")]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Image spec to compare the image with, byte for byte
    #[cfg(feature = "registry")]
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,

    #[cfg(feature = "registry")]
    #[command(flatten)]
    pub source: super::SourceArguments,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ManifestArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Print `{ "manifest": …, "layerLocations": { DIGEST: … } }`: also the origin of each blob
    #[arg(long)]
    pub locations: bool,

    /// Write the bytes of a blob: a layer, or the configuration
    #[arg(long, value_name = "DIGEST", conflicts_with = "locations")]
    pub blob: Option<BlobDigest>,
}

#[derive(Debug, Args)]
pub struct LintArguments {
    /// The image: an image spec, `image.json`, the script that streams it, or an archive or
    /// directory of any image
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Fail if there is any warning. Errors make the command fail without it
    #[arg(long)]
    pub strict: bool,

    /// Leave out the findings of these checks
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub allow: Vec<Check>,

    /// Architecture of the image if there are several, by Go's name [default: this machine's]
    #[arg(long, value_name = "ARCHITECTURE")]
    pub arch: Option<Architecture>,

    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct TestArguments {
    /// The image: an image spec, `image.json`, the script that streams it, or an archive or
    /// directory of any image
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Documents of tests, YAML or JSON: container-structure-test's, `schemaVersion` 2.0.0
    #[arg(value_name = "TESTS", required = true)]
    pub tests: Vec<PathBuf>,

    /// Leave out `commandTests`, which would run programs of the image
    #[arg(long)]
    pub skip_commands: bool,

    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,

    /// File to write the results to as JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Architecture of the image if there are several, by Go's name [default: this machine's]
    #[arg(long, value_name = "ARCHITECTURE")]
    pub arch: Option<Architecture>,
}

#[derive(Debug, Args)]
pub struct SbomArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Format of the list
    #[arg(long, value_name = "FORMAT", default_value = "spdx")]
    pub format: SbomFormat,

    /// File with facts about packages by store path, such as licences, CPEs and addresses; for an
    /// image of Nix, its attribute `sbom.facts` is such a file
    #[arg(long, value_name = "FILE")]
    pub meta: Option<PathBuf>,

    /// Name of the image in the list
    #[arg(long, value_name = "NAME:TAG")]
    pub name: Option<ImageReference>,

    /// Supplier of packages that have none in `--meta`
    #[arg(long, value_name = "NAME", default_value = SUPPLIER)]
    pub supplier: String,

    /// SBOM of the base image (SPDX or CycloneDX, as JSON), to which the list refers. Can be given more
    /// than once
    #[arg(long, value_name = "FILE")]
    pub base: Vec<PathBuf>,
}

/// The format of an SBOM.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SbomFormat {
    /// SPDX 2.3
    Spdx,
    /// CycloneDX 1.6
    Cyclonedx,
}

#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Print only the reasons for a store path: a chain of references for each path that matches.
    /// PATH can be a name, or the beginning of one
    #[arg(long, value_name = "PATH")]
    pub why: Option<String>,

    /// Also say what an update costs by layers and by pieces in which every store path has another hash,
    /// for clients that fetch pieces of `zstd:chunked` layers. Makes all layers
    #[arg(long, conflicts_with = "why")]
    pub pieces: bool,

    /// Print everything as JSON
    #[arg(long, conflicts_with = "why")]
    pub json: bool,

    /// Write a page with a map of the image
    #[arg(long, value_name = "FILE", conflicts_with_all = ["why", "json"])]
    pub html: Option<PathBuf>,

    /// Name of the image on the page [default: by the file's name]
    #[arg(long, value_name = "NAME:TAG")]
    pub name: Option<ImageReference>,
}

#[derive(Debug, Args)]
pub struct DiffArguments {
    /// The image spec of the present image
    #[arg(value_name = "OLD")]
    pub old: PathBuf,

    /// The image spec of the image that replaces it
    #[arg(value_name = "NEW")]
    pub new: PathBuf,

    /// Also print what clients fetch that fetch pieces of `zstd:chunked` layers. Makes all layers of
    /// both images
    #[arg(long)]
    pub pieces: bool,

    /// Print everything as JSON
    #[arg(long)]
    pub json: bool,

    /// Write a page with a map of the new image, and the cost of the update
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub html: Option<PathBuf>,

    /// Name of the image on the page [default: by the file's name]
    #[arg(long, value_name = "NAME:TAG")]
    pub name: Option<ImageReference>,
}
