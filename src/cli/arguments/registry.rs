//! What can be typed of images elsewhere: in registries, daemons, archives and directories.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ProgressArgument;
use crate::registry::on_demand::PackageSource;
use crate::target::{ParseTargetError, Target};

#[derive(Debug, Args)]
pub struct CopyArguments {
    /// The image spec, `image.json`, or an index spec
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Where to, one or more: `docker-daemon:NAME:TAG`, `containerd:NAME:TAG`, `docker-archive:PATH[:NAME:TAG]`,
    /// `oci-archive:PATH[:REF]`, `oci:PATH[:REF]`, `dir:PATH`, `docker://NAME[:TAG]`, and by skopeo
    /// `containers-storage:NAME[:TAG]`
    #[arg(value_name = "TARGET", required = true)]
    pub targets: Vec<Target>,

    #[command(flatten)]
    pub options: CopyOptions,
}

#[derive(Debug, Args)]
pub struct PushArguments {
    /// The image spec, `image.json`, or an index spec
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Where to, one or more: `registry.example/team/hello:v1`
    #[arg(value_name = "NAME[:TAG]", required = true, value_parser = registry)]
    pub targets: Vec<Target>,

    #[command(flatten)]
    pub options: CopyOptions,
}

/// `docker://` is what `stowage copy` has before it.
fn registry(name: &str) -> Result<Target, String> {
    let name = name.strip_prefix("docker://").unwrap_or(name);
    format!("docker://{name}").parse().map_err(|error: ParseTargetError| error.to_string())
}

#[derive(Clone, Debug, Args)]
pub struct CopyOptions {
    /// Whose manifest to write, where the target takes both [default: oci]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<FormatArgument>,

    /// Write the digest of the image's manifest to a file
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<PathBuf>,

    /// Repository of the target's registry that may have layers already: they are mounted and
    /// not sent. Can be given more than once
    #[arg(long, value_name = "REPOSITORY")]
    pub mount_from: Vec<String>,

    /// Where the tag's present image has the same layers compressed, as by `docker push`, use them
    /// and don't send ours. The image's digest then depends on what was there
    #[arg(long)]
    pub reuse_compressed: bool,

    #[command(flatten)]
    pub skopeo: SkopeoArguments,

    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,

    /// How to show what is being done, on standard error [default: bars on a terminal; lines where CI
    /// is set; else nothing]
    #[arg(long, value_name = "HOW", conflicts_with = "quiet")]
    pub progress: Option<ProgressArgument>,

    /// Print nothing but errors and the result
    #[arg(long, short)]
    pub quiet: bool,
}

/// By skopeo's own names, so that who knows these needs no others.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "For registries, and targets by skopeo")]
pub struct SkopeoArguments {
    /// Whether the target must have a certificate, and speak HTTPS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dest_tls_verify: Option<bool>,

    /// Directory with certificates for the target
    #[arg(long, value_name = "DIR")]
    pub dest_cert_dir: Option<PathBuf>,

    /// Who to be at the target
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub dest_creds: Option<String>,

    /// File with credentials
    #[arg(long, visible_alias = "dest-authfile", value_name = "FILE")]
    pub authfile: Option<PathBuf>,

    /// Taken as skopeo has it, and not needed: an index is copied whole to all that take one
    #[arg(long, short)]
    pub all: bool,

    /// How often skopeo tries again, for `containers-storage:`. Pushes do so by themselves
    #[arg(long, value_name = "N")]
    pub retry_times: Option<u32>,
}

#[derive(Debug, Args)]
pub struct PrefetchArguments {
    /// The image: `registry.example/team/hello:v1`, or by a digest
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Which of an index's images, by Go's name of the system [default: linux]
    #[arg(long, value_name = "OS", conflicts_with = "all")]
    pub os: Option<String>,

    /// Which of an index's images, by Go's name of the processor [default: this machine's]
    #[arg(long, value_name = "ARCH", conflicts_with = "all")]
    pub arch: Option<String>,

    /// All of an index's images
    #[arg(long)]
    pub all: bool,

    /// For the `pullImage` of dockerTools, here and in nixpkgs, which hashes an archive by skopeo
    #[arg(long)]
    pub docker_tools: bool,

    /// What the image is to be called [default: its name]
    #[arg(long, value_name = "NAME")]
    pub final_image_name: Option<String>,

    /// Which tag it is to have [default: its tag]
    #[arg(long, value_name = "TAG")]
    pub final_image_tag: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Whether the registry must have a certificate, and speak HTTPS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,

    /// Directory with certificates for the registry
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Who to be at the registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,

    /// File with credentials
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,

    /// Print nothing but errors and the result
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct ServeArguments {
    /// What to serve: `NAME:TAG=image.json`; an image spec, which is served by its file's name; or a
    /// directory, in which `REPOSITORY/TAG` is an image spec, or a link to one
    #[arg(value_name = "IMAGE|DIR", required_unless_present = "packages")]
    pub sources: Vec<String>,

    #[command(flatten)]
    pub packages: PackagesArguments,

    /// Where to listen: an address of this machine, or a name for one; port 0 is any that is free
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000", value_parser = host_and_port)]
    pub listen: String,

    /// Write the address to a file when there is an answer
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,

    /// Certificate to serve by HTTPS with, and those that it stands on, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Key of the certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Serve only the users in a file that `htpasswd -B` wrote
    #[arg(long, value_name = "FILE")]
    pub htpasswd: Option<PathBuf>,

    /// Keep layers in a directory once they were made
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// Remove what was not asked for for longest beyond so many bytes; K, M, G and T are powers
    /// of 1024
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = bytes, requires = "cache")]
    pub cache_size: u64,

    /// How long to go on with what was asked for, when told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub grace: u64,

    /// How many connections there may be at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_connections: u16,

    /// How to write the log, which goes to standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Log nothing but warnings and errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Images by the names of packages.
#[derive(Debug, Args)]
#[command(next_help_heading = "Images by the names of packages")]
pub struct PackagesArguments {
    /// Build images when they are asked for, of the packages that their names name; from
    /// `nixpkgs!CHANNEL`, `git!REPOSITORY!REVISION` or `path!DIRECTORY`
    #[arg(long, value_name = "SOURCE", requires = "library")]
    pub packages: Option<PackageSource>,

    /// Directory with stowage's Nix functions
    #[arg(long, value_name = "DIR", env = "STOWAGE_LIBRARY")]
    pub library: Option<PathBuf>,

    /// Which tags clients may ask for: `latest`, which is what SOURCE says; `branches` and tags of its
    /// repository as well; or `commits` that these have as well. Who can name a revision has its code evaluated
    #[arg(long, value_name = "WHICH", default_value = "latest", requires = "packages")]
    pub tags: TagsArgument,

    /// File or directory that the packages' code may read besides its own source; can be given more than
    /// once
    #[arg(long, value_name = "[NAME=]PATH", requires = "packages")]
    pub include: Vec<String>,

    /// Beginning of addresses that the packages' code may fetch while it is evaluated; can be given more
    /// than once
    #[arg(long, value_name = "URI", requires = "packages", value_parser = uri)]
    pub allowed_uri: Vec<String>,

    /// Refuse packages whose evaluation waits for a build (import from derivation)
    #[arg(long, requires = "packages")]
    pub no_import_from_derivation: bool,

    /// Directory for links to what is served, which Nix must not collect [default: a temporary one]
    #[arg(long, value_name = "DIR", requires = "packages")]
    pub roots: Option<PathBuf>,

    /// Keep images in an object storage, which other servers may share, and send clients there for
    /// blobs: `s3://BUCKET/PREFIX`, `gs://…`, `az://…` or `file:///DIR`; the environment says who asks
    #[arg(long, value_name = "URL", requires = "packages")]
    pub storage: Option<String>,

    /// Popularity data of the packages (`stowage popularity`), by which images share layers
    #[arg(long, value_name = "FILE", requires = "packages")]
    pub popularity: Option<PathBuf>,

    /// How many layers an image may have
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u16).range(1..=127))]
    pub max_layers: u16,

    /// How many packages an image may have, 1 to 100
    // `nix/package-names.nix` takes no more.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub max_packages: u16,

    /// How many bytes an image may have; K, M, G and T are powers of 1024
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = bytes)]
    pub max_image_size: u64,

    /// How many bytes Nix may fetch into the store for an image, compilers included, as far as it knows
    /// before it begins [default: --max-image-size and 2G]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub max_fetch: Option<u64>,

    /// How much memory evaluating an image's packages may take
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = bytes)]
    pub max_eval_memory: u64,

    /// How many images may be built at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_builds: u16,

    /// How many may wait for that
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub max_queue: u16,

    /// How long a build may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub build_timeout: u64,

    /// How long a builder may print nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub build_silence: u64,

    /// How many images are remembered
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_images: u16,

    /// How long an image is remembered whose packages may be others tomorrow: those of a commit
    /// never are
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub remember: u64,
}

/// Which tags clients may ask for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TagsArgument {
    /// What the server was told
    Latest,
    /// Branches and tags of the packages' repository as well
    Branches,
    /// Commits that these have as well
    Commits,
}

/// Nix has such in a list, with spaces between them.
fn uri(text: &str) -> Result<String, String> {
    match text.contains(char::is_whitespace) {
        false if text.contains(':') => Ok(text.to_owned()),
        _ => Err("expected the beginning of an address, such as `https://host/path/`".to_owned()),
    }
}

/// How a log is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// A JSON object a line
    Json,
    /// A line of text
    Text,
}

fn host_and_port(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match parts.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("expected a host and a port, such as `127.0.0.1:5000` or `[::1]:0`".to_owned()),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
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

/// Whose manifest is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatArgument {
    /// OCI's image manifest
    Oci,
    /// Docker's image manifest V2, schema 2
    V2s2,
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
