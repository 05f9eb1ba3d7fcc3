//! Defines the command that serves images as a registry.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::bytes;
use crate::registry::IpNetwork;
use crate::registry::on_demand::{PackageSource, TrustedKey};

#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Images to serve: `NAME:TAG=image.json`; an image spec, which is served under its file's
    /// name; or a directory, in which `REPOSITORY/TAG` is an image spec, or a link to one
    #[arg(value_name = "IMAGE|DIR", required_unless_present = "packages")]
    pub sources: Vec<String>,

    #[command(flatten)]
    pub packages: PackagesArguments,

    /// Address to listen at: a host of this machine and a port; port 0 is any free port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000", value_parser = host_and_port)]
    pub listen: String,

    /// Write the address to a file once the server answers
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,

    /// Certificate for HTTPS, and the certificates of its issuers, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Key of the certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Serve only the users in a file that `htpasswd -B` wrote
    #[arg(long, value_name = "FILE")]
    pub htpasswd: Option<PathBuf>,

    /// Keep layers in a directory once they are made
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// Size of that directory: beyond it, the layers that were not asked for for the longest time
    /// are removed; K, M, G and T are powers of 1024
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = bytes, requires = "cache")]
    pub cache_size: u64,

    /// Time to finish requests after a signal to end
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub grace: u64,

    /// Restrict repositories to users by a file of `REPOSITORIES: WHO…` lines, such as `team/*:
    /// ann bob`
    #[arg(long, value_name = "FILE")]
    pub permissions: Option<PathBuf>,

    /// Additional address for `/healthz` and `/metrics`, without TLS and passwords
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub admin_listen: Option<String>,

    /// Network of proxies that are trusted to name the client (`Forwarded`, `X-Forwarded-For`); can
    /// be given more than once
    #[arg(long, value_name = "CIDR")]
    pub trusted_proxy: Vec<IpNetwork>,

    /// Largest number of requests that are answered at a time; as many more may wait
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_connections: u16,

    /// Largest number of these requests for one client [default: three quarters]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub max_client_connections: Option<u16>,

    /// Format of the log, which goes to standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Log nothing but warnings and errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Options for images by the names of packages.
#[derive(Debug, Args)]
#[command(next_help_heading = "Images by the names of packages")]
pub struct PackagesArguments {
    /// Build images on demand, of the packages that their names list; the packages come from
    /// `nixpkgs!CHANNEL`, `git!REPOSITORY!REVISION` or `path!DIRECTORY`
    #[arg(long, value_name = "SOURCE", requires = "library")]
    pub packages: Option<PackageSource>,

    /// Directory with stowage's Nix functions
    #[arg(long, value_name = "DIR", env = "STOWAGE_LIBRARY")]
    pub library: Option<PathBuf>,

    /// Tags that clients may ask for: `latest`, the revision in SOURCE; `branches`, which adds
    /// branches and tags of the repository; or `commits`, which adds the commits in these. The code
    /// of a revision that a client names is evaluated
    #[arg(long, value_name = "WHICH", default_value = "latest", requires = "packages")]
    pub tags: TagsArgument,

    /// File or directory that the packages' code may read besides its own source; can be given more
    /// than once
    #[arg(long, value_name = "[NAME=]PATH", requires = "packages")]
    pub include: Vec<String>,

    /// Beginning of addresses that the packages' code may fetch during evaluation; can be given
    /// more than once
    #[arg(long, value_name = "URI", requires = "packages", value_parser = uri)]
    pub allowed_uri: Vec<String>,

    /// Refuse packages whose evaluation waits for a build (import from derivation)
    #[arg(long, requires = "packages")]
    pub no_import_from_derivation: bool,

    /// Build and serve only images whose store paths a trusted key signed, as `nix store verify
    /// --sigs-needed 1` has it: packages are fetched and not built
    #[arg(long, requires = "packages")]
    pub require_sigs: bool,

    /// Key that is trusted for --require-sigs, in Nix's form `NAME:BASE64`; can be given more than
    /// once [default: Nix's setting `trusted-public-keys`]
    #[arg(long, value_name = "KEY", requires = "require_sigs")]
    pub trusted_public_key: Vec<TrustedKey>,

    /// Build packages that no cache has, and require no signature of paths that this machine built
    #[arg(long, requires = "require_sigs")]
    pub allow_local_builds: bool,

    /// Directory for links to the images that are served, which Nix must not collect [default: a
    /// temporary one]
    #[arg(long, value_name = "DIR", requires = "packages")]
    pub roots: Option<PathBuf>,

    /// Keep images in an object storage, which servers can share, and send clients there for blobs:
    /// `s3://BUCKET/PREFIX`, `gs://…`, `az://…` or `file:///DIR`; credentials come from the
    /// environment
    #[arg(long, value_name = "URL", requires = "packages")]
    pub storage: Option<String>,

    /// Sign the pointers from names to manifests in the storage with a key that the servers share,
    /// and ignore pointers without a valid signature. If given more than once, the first key signs,
    /// and all keys are accepted
    #[arg(long, value_name = "FILE", requires = "storage")]
    pub storage_key: Vec<PathBuf>,

    /// Popularity data of the packages (`stowage popularity`), by which images share layers
    #[arg(long, value_name = "FILE", requires = "packages")]
    pub popularity: Option<PathBuf>,

    /// Largest number of layers of an image
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u16).range(1..=127))]
    pub max_layers: u16,

    /// Largest number of packages of an image, 1 to 100
    // `nix/package-names.nix` takes no more.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub max_packages: u16,

    /// Largest size of an image; K, M, G and T are powers of 1024
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = bytes)]
    pub max_image_size: u64,

    /// Largest number of bytes that Nix may fetch into the store for an image, compilers included,
    /// as far as Nix knows beforehand [default: 2G more than --max-image-size]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub max_fetch: Option<u64>,

    /// Largest amount of memory for evaluating an image's packages
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = bytes)]
    pub max_eval_memory: u64,

    /// Largest number of images that are built at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_builds: u16,

    /// Largest number of images that wait to be built
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub max_queue: u16,

    /// Longest time that a build may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub build_timeout: u64,

    /// Longest time for which a builder may print nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub build_silence: u64,

    /// Time for which a build continues after the last client that waits for it has left
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub abandoned_after: u64,

    /// Largest number of images that are remembered
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_images: u16,

    /// Time for which an image is remembered if its packages may change; packages of a commit never
    /// do
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub remember: u64,
}

/// The tags that clients may ask for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TagsArgument {
    /// The configured revision
    Latest,
    /// Branches and tags of the packages' repository as well
    Branches,
    /// Commits in these branches and tags as well
    Commits,
}

/// Parses the beginning of an address. Nix has these in a list, separated by spaces.
fn uri(text: &str) -> Result<String, String> {
    match text.contains(char::is_whitespace) {
        false if text.contains(':') => Ok(text.to_owned()),
        _ => Err("expected the beginning of an address, such as `https://host/path/`".to_owned()),
    }
}

/// The format of a log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// A JSON object in each line
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
