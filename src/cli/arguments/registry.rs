//! Defines the commands for images in registries, daemons, archives and directories.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ProgressArgument, bytes};
use crate::outgoing::RepositoryName;
use crate::proof::AttachedFile;
use crate::registry::IpNetwork;
use crate::registry::on_demand::{PackageSource, TrustedKey};
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

#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell that reads the script
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArguments {
    /// Directory for `stowage.1` and a page for each command; it is made if it does not exist
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// The format of a manifest.
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
