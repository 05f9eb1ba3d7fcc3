//! Runs Nix to build the image of some packages.
//! Stage: registry. Input: [`PackageRequest`]. Output: an image spec, or an error.
//!
//! There are three steps, each a program with limits of its own. First the packages' source is
//! fetched. Then the packages' code is evaluated in Nix's restricted mode, in which it can read
//! only its own source. At last the result is built.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::error::{OnDemandError, redacted};
use super::git_source::{GIT, GitError, GitSource};
use super::nix_result::{bytes_to_fetch, read_image, read_list};
use super::processes::{Ended, RunningBuilds, command, is_in, limit_memory};
use super::request::{PackageRequest, PackageSource};
use super::signatures::{PATHS_AT_ONCE, RequiredSignatures, VERIFIER, to_build, untrusted};
use crate::digest::Digest;
use crate::foreign::with_public_urls;
use crate::oci::{self, ImageSpec, read_popularity};
use crate::registry::error::SetupError;
use crate::store::Store;

/// The line that `nix/package-names.nix` lets Nix print before an error that the package set throws
/// for a package.
const UNAVAILABLE: &str = "trace: stowage: unavailable package";
/// The message of an evaluator that has no memory left.
const NO_MEMORY: &str = "out of memory";

/// The program that evaluates.
const EVALUATOR: &str = "nix-instantiate";
/// The program that builds, and adds files to the store.
const STORE: &str = "nix-store";

/// The settings for building images.
#[derive(Clone, Debug)]
pub struct NixBuild {
    /// The directory with `on-demand.nix`.
    pub library: PathBuf,
    /// The program that makes layers, which is this one.
    pub program: PathBuf,
    /// The number of layers that an image may have.
    pub max_layers: u16,
    /// Popularity data of the packages, by which images share layers.
    pub popularity: Option<PopularityFile>,
    /// The limits for Nix.
    pub limits: NixLimits,
    /// The things that the packages' code may read besides its own source.
    pub access: NixAccess,
    /// The signatures that store paths must have, if they must.
    pub signatures: Option<RequiredSignatures>,
    /// The store whose paths are in the images.
    pub store: Store,
    /// The directory for clones of repositories.
    pub clones: PathBuf,
    /// The builds that are running.
    pub running: RunningBuilds,
}

/// The limits for Nix.
#[derive(Clone, Copy, Debug)]
pub struct NixLimits {
    /// The longest time for an image, from fetching the packages' source to the end of the build.
    pub time: Duration,
    /// The longest time for which a builder may print nothing.
    pub silence: Duration,
    /// The size of the evaluator's heap in bytes.
    pub memory: u64,
    /// The number of bytes that may be fetched into the store for an image, as far as Nix knows it
    /// beforehand.
    pub fetched: u64,
}

/// The things that the packages' code may read besides its own source.
#[derive(Clone, Debug, Default)]
pub struct NixAccess {
    /// Files and directories, in the form of Nix's option `-I`.
    pub paths: Vec<String>,
    /// The beginnings of addresses that may be fetched during evaluation.
    pub uris: Vec<String>,
    /// True if evaluation may not wait for a build (import from derivation).
    pub no_import_from_derivation: bool,
}

/// A file with popularity data, as it was when the server started.
#[derive(Clone, Debug)]
pub struct PopularityFile {
    path: PathBuf,
    digest: Digest,
}

impl PopularityFile {
    /// Reads the file and checks that it is valid.
    ///
    /// # Errors
    /// Fails with [`oci::Error::Read`] or [`oci::Error::Json`] if it is not.
    pub fn new(path: PathBuf) -> Result<Self, oci::Error> {
        read_popularity(&path)?;
        let read = std::fs::read(&path);
        let bytes = read.map_err(|source| oci::Error::Read { file: path.clone(), source })?;
        Ok(Self { digest: Digest::of(&bytes), path })
    }
}

impl NixBuild {
    /// Checks that Nix is installed and, for packages from a repository, git.
    ///
    /// # Errors
    /// Fails with [`SetupError::NoNix`] if one of them is missing.
    pub fn check(source: &PackageSource, requires_signatures: bool) -> Result<(), SetupError> {
        // The C library uses this default if PATH is not set.
        let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        let git = matches!(source, PackageSource::Git { .. }).then_some(GIT);
        let verifier = requires_signatures.then_some(VERIFIER);
        let programs = [EVALUATOR, STORE].into_iter().chain(git).chain(verifier);
        match programs.into_iter().find(|program| !is_in(&path, program)) {
            None => Ok(()),
            Some(program) => {
                Err(SetupError::NoNix { program, path: path.to_string_lossy().into_owned() })
            }
        }
    }

    /// Returns a text that differs between servers that build different images of the same
    /// packages.
    pub fn settings(&self) -> String {
        let popularity = self.popularity.as_ref().map(|file| file.digest.to_string());
        let signatures = self.signatures.as_ref().map(RequiredSignatures::settings);
        let signatures = signatures.map(|settings| format!(" {settings}")).unwrap_or_default();
        format!("restricted {} {}{signatures}", self.max_layers, popularity.unwrap_or_default())
    }

    /// Ends all running builds.
    pub fn end(&self) {
        self.running.end();
    }

    /// Builds an image. `link` becomes a link that protects the image from garbage collection while
    /// it is served.
    ///
    /// # Errors
    /// Fails with [`OnDemandError::NoPackages`], [`OnDemandError::Unavailable`],
    /// [`OnDemandError::NoRevision`], [`OnDemandError::Timeout`], [`OnDemandError::TooMuchMemory`],
    /// [`OnDemandError::TooMuchToFetch`], [`OnDemandError::NotSigned`],
    /// [`OnDemandError::NotBuiltHere`], [`OnDemandError::Failed`] or [`OnDemandError::Internal`].
    pub async fn run(
        &self,
        request: &PackageRequest,
        link: &Path,
    ) -> Result<ImageSpec, OnDemandError> {
        self.in_time(self.build(request, link, false)).await
    }

    /// Builds an image and the list of its packages (SPDX).
    ///
    /// # Errors
    /// Fails as [`NixBuild::run`] does, and with [`OnDemandError::TooLarge`] if the list is too large.
    pub async fn list_packages(
        &self,
        request: &PackageRequest,
    ) -> Result<(ImageSpec, Vec<u8>), OnDemandError> {
        let roots = tempfile::tempdir().map_err(OnDemandError::Internal)?;
        let link = roots.path().join("image");
        let spec = self.in_time(self.build(request, &link, true)).await?;
        let list = roots.path().join("image-2");
        let list = tokio::task::spawn_blocking(move || read_list(&list)).await;
        Ok((spec, list.map_err(|error| OnDemandError::Internal(error.into()))??))
    }

    /// Waits for some work until the limit of time. At the limit the work is dropped, which ends the
    /// program that is running.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, OnDemandError>>,
    ) -> Result<T, OnDemandError> {
        let ended = timeout(self.limits.time, work).await;
        ended.map_err(|_| OnDemandError::Timeout(self.limits.time))?
    }

    /// Builds an image and, if asked for, the list of its packages. Its link is that of the image with `-2`, as Nix
    /// names the second link.
    async fn build(
        &self,
        request: &PackageRequest,
        link: &Path,
        with_list: bool,
    ) -> Result<ImageSpec, OnDemandError> {
        let source = self.fetch(request).await?;
        let evaluated = self.evaluate(request, &source, with_list).await?;
        // The image is first, the list of packages follows, and then the packages, each with its output unless that
        // is `out`.
        let mut derivations = evaluated.lines().map(str::trim).filter(|line| !line.is_empty());
        let results: Vec<_> = derivations.by_ref().take(1 + usize::from(with_list)).collect();
        let results = || results.iter().copied();
        let plan = self.plan(request, results()).await?;
        let bytes = bytes_to_fetch(&plan.stderr);
        if bytes > self.limits.fetched {
            let most = self.limits.fetched;
            return Err(OnDemandError::TooMuchToFetch { bytes, most });
        }
        if let Some(signatures) = &self.signatures {
            self.check_packages(request, signatures, &derivations.collect::<Vec<_>>()).await?;
        }
        let mut build = self.realise(results());
        build.arg("--add-root").arg(link).arg("--indirect");
        self.succeed(request, build).await?;
        let link = link.to_owned();
        let read = tokio::task::spawn_blocking(move || read_image(&link)).await;
        let spec = read.map_err(|error| OnDemandError::Internal(error.into()))??;
        if let Some(signatures) = &self.signatures {
            self.check_image(request, signatures, &spec).await?;
        }
        Ok(spec)
    }

    /// Asks Nix what it would fetch and build.
    async fn plan<'d>(
        &self,
        request: &PackageRequest,
        derivations: impl IntoIterator<Item = &'d str>,
    ) -> Result<Ended, OnDemandError> {
        let mut plan = self.realise(derivations);
        plan.arg("--dry-run");
        self.succeed(request, plan).await
    }

    /// Checks that a trusted key signed the closures of the packages, before the image is built.
    /// Nix fetches the packages, and builds none of them, unless packages that were built here need
    /// no signature.
    async fn check_packages(
        &self,
        request: &PackageRequest,
        signatures: &RequiredSignatures,
        packages: &[&str],
    ) -> Result<(), OnDemandError> {
        // Packages that don't exist are reported with the image.
        if packages.is_empty() {
            return Ok(());
        }
        // Without an output, Nix would take all of them.
        let outputs = packages.iter().map(|drv| match drv.contains('!') {
            true => (*drv).to_owned(),
            false => format!("{drv}!out"),
        });
        let packages: Vec<_> = outputs.collect();
        let packages = || packages.iter().map(String::as_str);
        let mut fetch = self.realise(packages());
        if !signatures.built_here {
            let plan = self.plan(request, packages()).await?;
            let built = to_build(&plan.stderr);
            if !built.is_empty() {
                return Err(OnDemandError::NotBuiltHere(built));
            }
            fetch.args(["--option", "max-jobs", "0", "--option", "builders", ""]);
        }
        let outputs = self.succeed(request, fetch).await?.stdout;
        let outputs: Vec<_> = outputs.lines().map(str::trim).collect();
        self.verify(request, signatures, &outputs, true).await
    }

    /// Checks that a trusted key signed each store path of an image.
    async fn check_image(
        &self,
        request: &PackageRequest,
        signatures: &RequiredSignatures,
        spec: &ImageSpec,
    ) -> Result<(), OnDemandError> {
        let layers = spec.layers.iter().filter_map(|layer| layer.contents());
        // The tree at `/` is made of links to packages, for this image.
        let paths: BTreeSet<_> = layers.flat_map(|contents| &contents.store_paths).collect();
        let paths: Vec<_> = paths.into_iter().map(|path| self.store.print(path)).collect();
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        self.verify(request, signatures, &paths, false).await
    }

    async fn verify(
        &self,
        request: &PackageRequest,
        signatures: &RequiredSignatures,
        paths: &[&str],
        closure: bool,
    ) -> Result<(), OnDemandError> {
        for paths in paths.chunks(PATHS_AT_ONCE) {
            let verify = signatures.verify(paths.iter().copied(), closure);
            let ended = self.running.run(verify).await.map_err(OnDemandError::Internal)?;
            if !ended.succeeded {
                log_failure(request, &ended.stderr);
                let names = untrusted(&ended.stderr);
                return Err(match names.is_empty() {
                    true => OnDemandError::Failed(redacted(&ended.stderr)),
                    false => OnDemandError::NotSigned(names),
                });
            }
        }
        Ok(())
    }

    /// Returns the directory from which the packages are imported: a directory of this machine if
    /// the server was given one, else a path in the store.
    async fn fetch(&self, request: &PackageRequest) -> Result<String, OnDemandError> {
        match &request.source {
            PackageSource::Path(directory) => Ok(directory.display().to_string()),
            PackageSource::Nixpkgs(_) => {
                let urls = request.archives();
                for (number, url) in urls.iter().enumerate() {
                    let ended = self.fetch_archive(url).await?;
                    if ended.succeeded {
                        // The path is printed as a Nix string.
                        return Ok(ended.stdout.trim().trim_matches('"').to_owned());
                    }
                    let missing = ended.stderr.contains(&format!("{url}': HTTP error 404"));
                    if missing && number + 1 < urls.len() {
                        continue;
                    }
                    let revision = request.named.as_ref().filter(|_| missing);
                    log_failure(request, &ended.stderr);
                    return Err(match revision {
                        Some(revision) => OnDemandError::NoRevision(revision.clone()),
                        None => OnDemandError::Failed(redacted(&ended.stderr)),
                    });
                }
                Err(OnDemandError::NoRevision(request.name.tag.clone()))
            }
            PackageSource::Git { repository, revision } => {
                let source = GitSource { repository, clones: &self.clones, running: &self.running };
                let directory = tempfile::tempdir().map_err(OnDemandError::Internal)?;
                let files = directory.path().join("source");
                source.check_out(revision, &files).await.map_err(|error| match error {
                    GitError::NoRevision if request.named.is_some() => {
                        OnDemandError::NoRevision(request.name.tag.clone())
                    }
                    GitError::NoRevision => OnDemandError::Failed(
                        "what `latest` stands for is not in the packages' repository".to_owned(),
                    ),
                    GitError::Failed(_) => OnDemandError::Failed(
                        "the packages' repository cannot be fetched".to_owned(),
                    ),
                    GitError::Io(error) => OnDemandError::Internal(error),
                })?;
                let mut add = command(STORE);
                add.arg("--add").arg(&files);
                Ok(self.succeed(request, add).await?.stdout.trim().to_owned())
            }
        }
    }

    /// Lets Nix fetch an archive, by code that is independent of the packages.
    async fn fetch_archive(&self, url: &str) -> Result<Ended, OnDemandError> {
        let mut fetch = command(EVALUATOR);
        fetch.args(["--eval", "--read-write-mode"]).arg(self.library.join("fetch-archive.nix"));
        fetch.args(["--argstr", "url", url]);
        fetch.args(["--option", "restrict-eval", "true", "--option", "allowed-uris", url]);
        fetch.arg("-I").arg(&self.library);
        self.running.run(fetch).await.map_err(OnDemandError::Internal)
    }

    /// Evaluates the packages' code, which can read only its own source. Returns the derivations to
    /// build and, if they need signatures, those of the packages: one a line.
    async fn evaluate(
        &self,
        request: &PackageRequest,
        source: &str,
        with_list: bool,
    ) -> Result<String, OnDemandError> {
        // Arguments are passed as data, not through a shell or as Nix code: clients choose them.
        let mut evaluate = command(EVALUATOR);
        evaluate.arg(self.library.join("on-demand.nix"));
        limit_memory(&mut evaluate, self.limits.memory);
        let program = self.program.display().to_string();
        let popularity = self.popularity.as_ref().map(|file| file.path.display().to_string());
        let yes = |asked| if asked { "yes" } else { "" };
        for (argument, value) in [
            ("program", &*program),
            ("name", request.name.repository.as_str()),
            ("packages", &request.packages()),
            ("source", source),
            ("maxLayers", &self.max_layers.to_string()),
            ("popularity", popularity.as_deref().unwrap_or_default()),
            ("sbom", yes(with_list)),
            ("listPackages", yes(self.signatures.is_some())),
        ] {
            evaluate.args(["--argstr", argument, value]);
        }
        let import = if self.access.no_import_from_derivation { "false" } else { "true" };
        for (option, value) in [
            ("restrict-eval", "true"),
            ("allowed-uris", &*self.access.uris.join(" ")),
            ("allow-unsafe-native-code-during-evaluation", "false"),
            ("allow-import-from-derivation", import),
        ] {
            evaluate.args(["--option", option, value]);
        }
        let library = self.library.display().to_string();
        let ours = [&*library, &*program, source].into_iter().chain(popularity.as_deref());
        // Give each path a name, so that an `=` in a path is not taken for a separator.
        for (number, path) in ours.enumerate() {
            evaluate.args(["-I", &format!("stowage-{number}={path}")]);
        }
        for path in &self.access.paths {
            evaluate.args(["-I", path]);
        }
        let ended = self.succeed(request, self.with_times(evaluate)).await?;
        Ok(ended.stdout)
    }

    fn realise<'d>(&self, derivations: impl IntoIterator<Item = &'d str>) -> Command {
        let mut realise = command(STORE);
        realise.arg("--realise").args(derivations);
        self.with_times(realise)
    }

    /// Lets Nix end a builder that takes too long, also on another machine.
    fn with_times(&self, mut nix: Command) -> Command {
        let (time, silence) = (self.limits.time.as_secs(), self.limits.silence.as_secs());
        nix.args(["--option", "timeout", &time.to_string()]);
        nix.args(["--option", "max-silent-time", &silence.to_string()]);
        nix
    }

    /// Runs one of Nix's programs, which must succeed.
    async fn succeed(
        &self,
        request: &PackageRequest,
        nix: Command,
    ) -> Result<Ended, OnDemandError> {
        let ended = self.running.run(nix).await.map_err(OnDemandError::Internal)?;
        if ended.succeeded {
            return Ok(ended);
        }
        log_failure(request, &ended.stderr);
        if ended.stderr.lines().any(|line| line.trim_end().ends_with(NO_MEMORY)) {
            return Err(OnDemandError::TooMuchMemory(self.limits.memory));
        }
        let said = redacted(&ended.stderr);
        Err(if ended.stderr.contains(UNAVAILABLE) {
            OnDemandError::Unavailable(said)
        } else {
            OnDemandError::Failed(said)
        })
    }
}

fn log_failure(request: &PackageRequest, output: &str) {
    tracing::warn!(
        name = request.name.repository.as_str(),
        output = with_public_urls(output),
        "Nix failed"
    );
}
