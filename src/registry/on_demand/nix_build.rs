//! Nix, told to build the image of some packages.
//! Stage: registry. Input: [`PackageRequest`]. Output: an image spec, or why there is none.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::error::{OnDemandError, redacted};
use super::request::PackageRequest;
use crate::digest::Digest;
use crate::foreign::with_public_urls;
use crate::oci::{self, ImageSpec, read_popularity};
use crate::registry::error::SetupError;

/// The line that `nix/package-names.nix` has Nix print before an error that the package set throws for a package.
const UNAVAILABLE: &str = "trace: stowage: unavailable package";

/// The program that builds.
const PROGRAM: &str = "nix-build";
/// Bytes of Nix's messages that are kept, from the end.
const TAIL: usize = 64 << 10;
/// How long Nix may take to end its builders when it is told to.
const PATIENCE: Duration = Duration::from_secs(10);

/// How images are built.
#[derive(Clone, Debug)]
pub struct NixBuild {
    /// The directory with `on-demand.nix`.
    pub library: PathBuf,
    /// The program that layers are made by, which is this one.
    pub program: PathBuf,
    /// How many layers an image may have.
    pub max_layers: u16,
    /// Popularity data of the packages, by which images share layers.
    pub popularity: Option<PopularityFile>,
    /// How long it may take.
    pub time_limit: Duration,
    /// Those that are at work.
    pub running: RunningBuilds,
}

/// A file with popularity data, as it is when the server begins.
#[derive(Clone, Debug)]
pub struct PopularityFile {
    path: PathBuf,
    digest: Digest,
}

impl PopularityFile {
    /// Reads the file, to see that it is one.
    ///
    /// # Errors
    /// [`oci::Error::Read`] or [`oci::Error::Json`].
    pub fn new(path: PathBuf) -> Result<Self, oci::Error> {
        read_popularity(&path)?;
        let read = std::fs::read(&path);
        let bytes = read.map_err(|source| oci::Error::Read { file: path.clone(), source })?;
        Ok(Self { digest: Digest::of(&bytes), path })
    }
}

/// Builds under way, by their process groups.
#[derive(Clone, Debug, Default)]
pub struct RunningBuilds(Arc<Mutex<BTreeSet<i32>>>);

impl RunningBuilds {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NixBuild {
    /// Finds out whether there is a Nix to build with.
    ///
    /// # Errors
    /// [`SetupError::NoNix`].
    pub fn check() -> Result<(), SetupError> {
        // As the C library has it where nobody says it.
        let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        if is_in(&path, PROGRAM) {
            Ok(())
        } else {
            let path = path.to_string_lossy().into_owned();
            Err(SetupError::NoNix { program: PROGRAM, path })
        }
    }

    /// Returns a text that differs between servers whose images of the same packages differ.
    pub fn settings(&self) -> String {
        let popularity = self.popularity.as_ref().map(|file| file.digest.to_string());
        format!("{} {}", self.max_layers, popularity.unwrap_or_default())
    }

    /// Ends all that are at work.
    pub fn end(&self) {
        self.running.lock().iter().for_each(|group| send(*group, Signal::SIGTERM));
    }

    /// Builds an image. `link` will be a link to what Nix must not collect while the image is
    /// served.
    ///
    /// # Errors
    /// [`OnDemandError::NoPackages`], [`OnDemandError::Unavailable`],
    /// [`OnDemandError::NoRevision`], [`OnDemandError::Timeout`],
    /// [`OnDemandError::Failed`] or [`OnDemandError::Internal`].
    pub async fn run(
        &self,
        request: &PackageRequest,
        link: &Path,
    ) -> Result<ImageSpec, OnDemandError> {
        // Not a shell's, nor Nix's own language: what clients ask for is data all the way.
        let mut command = Command::new(PROGRAM);
        command.arg(self.library.join("on-demand.nix")).arg("--out-link").arg(link);
        let program = self.program.display().to_string();
        let source = request.source.to_string();
        let popularity = self.popularity.as_ref().map(|file| file.path.display().to_string());
        for (argument, value) in [
            ("program", &*program),
            ("name", &request.name),
            ("packages", &request.packages()),
            ("pkgSource", &source),
            ("maxLayers", &self.max_layers.to_string()),
            ("popularity", &popularity.unwrap_or_default()),
        ] {
            command.args(["--argstr", argument, value]);
        }
        // What evaluates the packages' code must not find the server's keys there.
        command.env_clear().envs(env::vars_os().filter(|(name, _)| is_for_nix(name)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C at a terminal is for the server, which then ends what it has begun.
        let child = command.process_group(0).spawn();
        let child = child.map_err(|error| {
            let message = format!("cannot run {PROGRAM}: {error}");
            OnDemandError::Internal(io::Error::new(error.kind(), message))
        })?;
        let mut running = Running::new(child, self.running.clone());
        let waited = timeout(self.time_limit, running.wait()).await;
        let Ok(ended) = waited else {
            running.end().await;
            return Err(OnDemandError::Timeout(self.time_limit));
        };
        let (succeeded, output) = ended.map_err(OnDemandError::Internal)?;
        if !succeeded {
            tracing::warn!(name = request.name, output = with_public_urls(&output), "Nix failed");
            if request.lacks_revision(&output) {
                return Err(OnDemandError::NoRevision(request.tag.clone()));
            }
            let failed = if output.contains(UNAVAILABLE) {
                OnDemandError::Unavailable
            } else {
                OnDemandError::Failed
            };
            return Err(failed(redacted(&output)));
        }
        let link = link.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&link)).await;
        read.map_err(|error| OnDemandError::Internal(error.into()))?
    }
}

/// Returns whether Nix, or git for it, needs an environment variable.
fn is_for_nix(name: &OsStr) -> bool {
    const NAMES: [&str; 12] = [
        "CURL_CA_BUNDLE",
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "LOGNAME",
        "NO_PROXY",
        "PATH",
        "SSH_AUTH_SOCK",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "USER",
    ];
    const PREFIXES: [&str; 3] = ["GIT_", "NIX_", "XDG_"];
    let name = name.to_string_lossy();
    NAMES.contains(&&*name.to_uppercase()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a program is in one of the directories of a `PATH`.
fn is_in(path: &OsStr, program: &str) -> bool {
    env::split_paths(path).any(|directory| {
        let found = directory.join(program).metadata();
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// Reads the result of `on-demand.nix`: the `json` of `buildImageFromNames`.
fn read(link: &Path) -> Result<ImageSpec, OnDemandError> {
    let odd = |what: &str| OnDemandError::Internal(io::Error::other(what.to_owned()));
    let bytes = std::fs::read(link).map_err(OnDemandError::Internal)?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|error| odd(&error.to_string()))?;
    if json.get("error").is_some() {
        let names = json["pkgs"].as_array().into_iter().flatten();
        let names = names.filter_map(|name| name.as_str().map(str::to_owned));
        return Err(OnDemandError::NoPackages(names.collect()));
    }
    let mut locations = json["layerLocations"].as_object().into_iter().flat_map(|map| map.values());
    let spec = locations.find_map(|location| location["spec"].as_str());
    let spec = spec.ok_or_else(|| odd("an image without layers"))?;
    ImageSpec::read_outline(Path::new(spec))
        .map_err(|error| odd(&crate::error::with_causes(&error)))
}

/// Nix at work: whoever is not interested any more ends it.
struct Running {
    child: Child,
    /// Its process group, which is its own.
    group: Option<i32>,
    all: RunningBuilds,
}

impl Running {
    fn new(child: Child, all: RunningBuilds) -> Self {
        let group = child.id().and_then(|pid| i32::try_from(pid).ok());
        all.lock().extend(group);
        Self { child, group, all }
    }

    /// Whether it succeeded, and what it printed last.
    async fn wait(&mut self) -> io::Result<(bool, String)> {
        let stderr = self.child.stderr.take();
        let (output, status) = tokio::join!(tail(stderr), self.child.wait());
        self.forget();
        Ok((status?.success(), output?))
    }

    async fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.signal(Signal::SIGKILL);
        }
        self.forget();
    }

    fn signal(&self, signal: Signal) {
        self.group.into_iter().for_each(|group| send(group, signal));
    }

    /// It has come to its end: its number may be another one's soon.
    fn forget(&mut self) {
        if let Some(group) = self.group.take() {
            self.all.lock().remove(&group);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.forget();
    }
}

fn send(group: i32, signal: Signal) {
    // It may have ended just now.
    let _ = killpg(Pid::from_raw(group), signal);
}

/// The end of what is printed.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let (mut tail, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&tail).into_owned());
        }
        tail.extend_from_slice(&buffer[..read]);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nix_gets_no_secrets_of_the_server() {
        for (name, expected) in [
            ("PATH", true),
            ("NIX_CONFIG", true),
            ("GIT_SSH_COMMAND", true),
            ("https_proxy", true),
            ("AWS_SECRET_ACCESS_KEY", false),
            ("STOWAGE_USERS", false),
            ("DOCKER_AUTH_CONFIG", false),
        ] {
            assert_eq!(is_for_nix(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn the_log_has_no_logins() {
        for (output, shown) in [
            ("error: no such file", "error: no such file"),
            (
                "fatal: unable to access 'https://user:PASSWORD@host/x/': refused",
                "fatal: unable to access 'https://host/x/': refused",
            ),
            (
                "while fetching git+https://token@host/a?ref=main",
                "while fetching git+https://host/a?…",
            ),
        ] {
            assert_eq!(with_public_urls(output), shown);
        }
    }

    #[test]
    fn programs_are_looked_for_where_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = env::join_paths([Path::new("/nowhere"), directory.path()]).unwrap();
        assert!(!is_in(&path, "program"));
        let program = directory.path().join("program");
        std::fs::write(&program, "").unwrap();
        assert!(!is_in(&path, "program"));
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(is_in(&path, "program"));
    }

    #[tokio::test]
    async fn the_end_of_messages_is_kept() {
        let text = format!("{}end", "x".repeat(100_000));
        let found = tail(Some(text.as_bytes())).await.unwrap();
        assert_eq!(found.len(), TAIL);
        assert!(found.ends_with("xend"));
    }
}
