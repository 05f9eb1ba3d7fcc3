//! Defines the commands that write an image to registries, daemons, archives and directories.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ProgressArgument, bytes};
use crate::outgoing::RepositoryName;
use crate::proof::AttachedFile;
use crate::target::{ParseTargetError, Target};

#[derive(Debug, Args)]
pub struct CopyArguments {
    /// The image spec, `image.json`, or an index spec
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// One or more targets: `docker-daemon:NAME:TAG`, `containerd:NAME:TAG`,
    /// `docker-archive:PATH[:NAME:TAG]`, `oci-archive:PATH[:REF]`, `oci:PATH[:REF]`, `dir:PATH`,
    /// `docker://NAME[:TAG]`, by skopeo `containers-storage:NAME[:TAG]`, and each of these on another
    /// machine, `ssh://[USER@]HOST[:PORT]/TARGET`
    #[arg(value_name = "TARGET", required = true)]
    pub targets: Vec<Target>,

    /// The program on machines that are reached by ssh: `stowage` there
    #[arg(long, value_name = "PATH", default_value = "stowage")]
    pub remote_program: String,

    #[command(flatten)]
    pub options: CopyOptions,
}

#[derive(Debug, Args)]
pub struct ReceiveArguments {
    /// Target on this machine, as for `stowage copy`
    #[arg(value_name = "TARGET")]
    pub target: Target,

    /// Format of the manifest, for targets that take both [default: oci]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<FormatArgument>,

    /// Directory that keeps layers, in which later images find their pieces [default:
    /// stowage/layers in the user's cache directory]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// Largest size of the kept layers, which are not compressed: the oldest are removed
    #[arg(long, value_name = "BYTES", default_value = "8G", value_parser = bytes)]
    pub cache_size: u64,
}

#[derive(Debug, Args)]
pub struct PushArguments {
    /// The image spec, `image.json`, or an index spec
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// One or more names in registries: `registry.example/team/hello:v1`
    #[arg(value_name = "NAME[:TAG]", required = true, value_parser = registry)]
    pub targets: Vec<Target>,

    #[command(flatten)]
    pub options: CopyOptions,
}

/// Parses the name of an image in a registry, which may begin with `docker://` as for `stowage
/// copy`.
fn registry(name: &str) -> Result<Target, String> {
    let name = name.strip_prefix("docker://").unwrap_or(name);
    format!("docker://{name}").parse().map_err(|error: ParseTargetError| error.to_string())
}

#[derive(Clone, Debug, Default, Args)]
pub struct CopyOptions {
    /// The program on machines that are reached by ssh, as [`CopyArguments`] names it.
    #[arg(skip)]
    pub remote_program: String,

    /// Format of the manifest, for targets that take both [default: oci]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<FormatArgument>,

    /// Write the digest of the image's manifest to a file
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<PathBuf>,

    /// Repository of the target's registry that may already have layers: they are mounted and not
    /// sent. Can be given more than once
    #[arg(long, value_name = "REPOSITORY")]
    pub mount_from: Vec<RepositoryName>,

    /// Use the compressed layers of the image that the tag stands for now (as by `docker push`), if
    /// their contents are the same. The new image's digest then depends on that image
    #[arg(long)]
    pub reuse_compressed: bool,

    /// Private key to sign the image in the registry with, in the forms of cosign 2 and 3: a file,
    /// or `env://VARIABLE`. COSIGN_PASSWORD holds the password of an encrypted key
    #[arg(long, value_name = "KEY")]
    pub sign_key: Option<String>,

    /// Document to attach to the image in a registry or an `oci:` layout, and its media type, such as
    /// `hello.spdx.json:application/spdx+json`. Can be given more than once
    #[arg(long, value_name = "FILE:TYPE")]
    pub attach: Vec<AttachedFile>,

    /// SBOM, or statement (in-toto), to push beside the image in an index, as BuildKit does: `docker
    /// buildx imagetools inspect` prints it. The tag then stands for the index. For
    /// registries. Can be given more than once
    #[arg(long, value_name = "FILE", conflicts_with = "reuse_compressed")]
    pub attestation: Vec<PathBuf>,

    #[command(flatten)]
    pub skopeo: SkopeoArguments,

    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,

    /// Way to show progress, on standard error [default: bars on a terminal; lines if CI is set;
    /// else nothing]
    #[arg(long, value_name = "HOW", conflicts_with = "quiet")]
    pub progress: Option<ProgressArgument>,

    /// Print nothing but errors and the result
    #[arg(long, short)]
    pub quiet: bool,
}

/// Options by skopeo's names, for users who know these.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "For registries, and targets by skopeo")]
pub struct SkopeoArguments {
    /// Require HTTPS and a valid certificate of the target
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dest_tls_verify: Option<bool>,

    /// Directory with certificates for the target
    #[arg(long, value_name = "DIR")]
    pub dest_cert_dir: Option<PathBuf>,

    /// User name and password for the target
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub dest_creds: Option<String>,

    /// File with credentials
    #[arg(long, visible_alias = "dest-authfile", value_name = "FILE")]
    pub authfile: Option<PathBuf>,

    /// Accepted like skopeo's option, and not needed: an index is copied with all of its images to
    /// every target that takes one
    #[arg(long, short)]
    pub all: bool,

    /// Number of times that skopeo tries again, for `containers-storage:`. Pushes try again in any
    /// case
    #[arg(long, value_name = "N")]
    pub retry_times: Option<u32>,
}

/// The format of a manifest.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatArgument {
    /// OCI's image manifest
    Oci,
    /// Docker's image manifest V2, schema 2
    V2s2,
}
