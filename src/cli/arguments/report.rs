//! What can be typed to ask of an image.

use std::path::PathBuf;

use clap::Args;

use crate::digest::BlobDigest;

#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ManifestArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Print `{ "manifest": …, "layerLocations": { DIGEST: … } }`: with it, where each blob is from
    #[arg(long)]
    pub locations: bool,

    /// Write the bytes of a blob: a layer, or the configuration
    #[arg(long, value_name = "DIGEST", conflicts_with = "locations")]
    pub blob: Option<BlobDigest>,
}

#[derive(Debug, Args)]
pub struct LintArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Fail if there is anything to say
    #[arg(long)]
    pub strict: bool,

    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Print only what pulls a store path in; a name will do, or its beginning
    #[arg(long, value_name = "PATH")]
    pub why: Option<String>,

    /// Print everything as JSON
    #[arg(long, conflicts_with = "why")]
    pub json: bool,

    /// Write a page with a map of the image
    #[arg(long, value_name = "FILE", conflicts_with_all = ["why", "json"])]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DiffArguments {
    /// The image spec that is there
    #[arg(value_name = "OLD")]
    pub old: PathBuf,

    /// The image spec that is to take its place
    #[arg(value_name = "NEW")]
    pub new: PathBuf,

    /// Print everything as JSON
    #[arg(long)]
    pub json: bool,
}
