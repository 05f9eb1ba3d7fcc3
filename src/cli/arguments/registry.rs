//! Defines the commands that read from registries or sign images in them.

use std::path::PathBuf;

use clap::Args;

use crate::proof::AttachedFile;

/// The options for a registry from which an image is read.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "For registries")]
pub struct SourceArguments {
    /// Require HTTPS and a valid certificate of the registry
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,

    /// Directory with certificates for the registry
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// User name and password for the registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,

    /// File with credentials
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ProvenanceArguments {
    /// The image spec, `image.json`
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// The flake's lock file
    #[arg(long, value_name = "FILE", default_value = "flake.lock")]
    pub lock: PathBuf,

    /// The flake: `github:team/app/REVISION`
    #[arg(long, value_name = "URI")]
    pub flake: String,

    /// The attribute that was built
    #[arg(long, value_name = "NAME")]
    pub attribute: String,

    /// URI of the person or service that built the image
    #[arg(long = "builder-id", value_name = "URI")]
    pub builder: String,

    /// Nix's name of the system that the image was built on
    #[arg(long, value_name = "SYSTEM")]
    pub system: Option<String>,

    /// The derivation
    #[arg(long, value_name = "PATH")]
    pub drv: Option<String>,

    /// The version of Nix
    #[arg(long, value_name = "VERSION")]
    pub nix_version: Option<String>,
}

#[derive(Debug, Args)]
pub struct SignArguments {
    /// Name of the image: `registry.example/team/hello:v1`, or with a digest
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Private key to sign the image with, in the forms of cosign 2 and 3: a file, or
    /// `env://VARIABLE`. The key is in the form of PKCS#8, or encrypted by cosign; then
    /// COSIGN_PASSWORD holds its password
    #[arg(long, value_name = "KEY", required_unless_present = "attach")]
    pub key: Option<String>,

    /// Document to attach to the image, and its media type; can be given more than once
    #[arg(long, value_name = "FILE:TYPE")]
    pub attach: Vec<AttachedFile>,

    /// Document to sign as a statement about the image: an SBOM, or the output of `stowage
    /// provenance`. Can be given more than once
    #[arg(long, value_name = "FILE", requires = "key")]
    pub attest: Vec<PathBuf>,

    #[command(flatten)]
    pub source: SourceArguments,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,

    /// Print nothing but errors and the result
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct PrefetchArguments {
    /// Name of the image: `registry.example/team/hello:v1`, or with a digest
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Operating system of the image in an index, by Go's name [default: linux]
    #[arg(long, value_name = "OS", conflicts_with = "all")]
    pub os: Option<String>,

    /// Architecture of the image in an index, by Go's name [default: this machine's]
    #[arg(long, value_name = "ARCH", conflicts_with = "all")]
    pub arch: Option<String>,

    /// Print the arguments for the index with all of its images
    #[arg(long)]
    pub all: bool,

    /// Print the arguments for `pullImage` of dockerTools, here and in nixpkgs, which hashes an
    /// archive that skopeo makes
    #[arg(long)]
    pub docker_tools: bool,

    /// Name of the image after it is pulled [default: its name]
    #[arg(long, value_name = "NAME")]
    pub final_image_name: Option<String>,

    /// Tag of the image after it is pulled [default: its tag]
    #[arg(long, value_name = "TAG")]
    pub final_image_tag: Option<String>,

    /// Public key that must verify a signature of the image, by cosign or stowage, before anything
    /// is pulled
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub source: SourceArguments,

    /// Print nothing but errors and the result
    #[arg(long, short)]
    pub quiet: bool,
}
