//! The command line: parses arguments, runs a command, and prints its result.
//! Names every stage; no stage names this one. Only this stage reads the environment.

mod arguments;
mod commands;
#[cfg(feature = "registry")]
mod copy;
mod derivation;
mod environment;
#[cfg(feature = "report")]
mod explain;
#[cfg(feature = "report")]
mod inspect;
mod interrupt;
mod limits;
#[cfg(all(test, feature = "registry"))]
mod manual;
mod output;
#[cfg(feature = "registry")]
mod pages;
#[cfg(feature = "registry")]
mod prefetch;
mod progress;
#[cfg(feature = "registry")]
mod proof;
#[cfg(feature = "registry")]
mod receive;
#[cfg(feature = "registry")]
mod registry_options;
#[cfg(feature = "report")]
mod sbom;
#[cfg(feature = "registry")]
mod serve;
#[cfg(feature = "report")]
mod structure;
mod watching;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::AutoStream;
use clap::Parser;
use clap::builder::Styles;
use clap::error::{ContextKind, ContextValue};
use thiserror::Error;

use crate::error::{Hint, with_causes};
use crate::oci::AnnotationError;
use crate::oci::unpack::UnpackLimits;
use crate::outgoing::{ParseReferenceError, without_user_information};
#[cfg(feature = "registry")]
use crate::proof::{KeyError, LockError};
#[cfg(feature = "registry")]
use crate::registry::{self, client};
#[cfg(feature = "report")]
use crate::report;
use crate::{closure, layer, oci, outgoing, system, target};
use arguments::{Arguments, Command};
#[cfg(feature = "registry")]
use arguments::{CopyArguments, CopyOptions, PushArguments};

/// The exit code that shells report for a program ended by a broken pipe (128 + SIGPIPE).
const BROKEN_PIPE: u8 = 141;

/// Says why a command failed.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Closure(#[from] closure::Error),
    #[error(transparent)]
    Plan(#[from] layer::PlanError),
    #[error(transparent)]
    Oci(#[from] oci::Error),
    #[error(transparent)]
    Layer(#[from] layer::Error),
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    #[cfg(feature = "report")]
    #[error(transparent)]
    Pieces(#[from] report::PiecesError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Client(#[from] client::ClientError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Prefetch(#[from] client::PrefetchError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Setup(#[from] registry::SetupError),
    #[error(transparent)]
    Archive(#[from] target::ArchiveError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Directory(#[from] target::DirectoryError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Docker(#[from] target::DockerError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Containerd(#[from] target::ContainerdError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Skopeo(#[from] target::SkopeoTargetError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Remote(#[from] target::RemoteError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Receive(#[from] target::ReceiveError),
    /// The image could not be received. The program that sent it was told the reason, and shows the reason to the user.
    #[cfg(feature = "registry")]
    #[error("the image was not received")]
    Told,
    #[cfg(feature = "registry")]
    #[error("standard input is a terminal: no image is sent")]
    NoSender,
    #[cfg(feature = "registry")]
    #[error("{0} is not a target for what another machine sends")]
    NotHere(String),
    #[cfg(feature = "registry")]
    #[error("there is no directory for layers: neither HOME nor XDG_CACHE_HOME is set")]
    NoCache,
    #[cfg(feature = "report")]
    #[error("cannot read {}", file.display())]
    Input { file: PathBuf, source: io::Error },
    #[cfg(feature = "report")]
    #[error("{}", file.display())]
    Facts { file: PathBuf, source: report::sbom::FactsError },
    #[cfg(feature = "report")]
    #[error("cannot refer to {}", file.display())]
    BaseList { file: PathBuf, source: report::sbom::BaseListError },
    #[error("cannot write {}", file.display())]
    Output { file: PathBuf, source: io::Error },
    #[cfg(feature = "registry")]
    #[error("{} has no `on-demand.nix`: it is not the directory of stowage's Nix functions", .0.display())]
    Library(PathBuf),
    #[cfg(feature = "registry")]
    #[error("cannot find the path of this program")]
    Program(#[source] io::Error),
    #[cfg(feature = "report")]
    #[error("cannot read a tar from standard input")]
    Stdin(#[source] io::Error),
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    #[error("standard output is a terminal: an image is binary data")]
    Terminal,
    #[cfg(feature = "registry")]
    #[error(
        "an image layout holds only OCI manifests: {target} can't have a Docker manifest (`--format v2s2`)"
    )]
    Format { target: String },
    #[cfg(feature = "report")]
    #[error("{layers} of {count} layers differ")]
    Differences { layers: usize, count: usize },
    #[cfg(feature = "registry")]
    #[error("{name}")]
    Key { name: String, source: KeyError },
    #[cfg(feature = "registry")]
    #[error("{}", file.display())]
    Lock { file: PathBuf, source: LockError },
    #[cfg(feature = "registry")]
    #[error("{} is neither an SBOM of SPDX or CycloneDX nor an in-toto statement", .0.display())]
    NoPredicate(PathBuf),
    #[cfg(feature = "registry")]
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[cfg(feature = "registry")]
    #[error("{} is in the Nix store, which everybody can read", .0.display())]
    KeyInStore(PathBuf),
    #[cfg(feature = "registry")]
    #[error("`{option}` is for targets in {places}, and {target} is not in one")]
    NotInRegistry { option: &'static str, places: &'static str, target: String },
    #[cfg(feature = "registry")]
    #[error("{0} is not in a registry, where the signatures of images are")]
    NoSignatures(String),
    #[cfg(feature = "registry")]
    #[error("there is no file {0}")]
    NoImageFile(String),
    #[cfg(feature = "registry")]
    #[error("{0} is no image spec, and there is nothing to verify it by")]
    NoProof(String),
    #[cfg(feature = "registry")]
    #[error("images in `{0}` can't be compared")]
    NotComparable(&'static str),
    #[cfg(feature = "registry")]
    #[error("{image} is not the image of {}", spec.display())]
    OtherImage { image: String, spec: PathBuf },
    #[cfg(feature = "registry")]
    #[error("`--digestfile` is for one target, and there are several")]
    OneDigestFile,
    #[cfg(feature = "registry")]
    #[error("{} does not exist", .0.display())]
    AuthFile(PathBuf),
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Registries(#[from] client::RegistriesError),
    #[error("`{}` must be an annotation, `KEY=VALUE`", .0.escape_debug())]
    Annotation(String),
    #[error("the set of annotations {0}")]
    AnnotationText(AnnotationError),
    #[cfg(feature = "report")]
    #[error("{}", counts(*errors, *warnings))]
    Lint { errors: usize, warnings: usize },
    #[cfg(feature = "report")]
    #[error("{}", file.display())]
    TestDocument { file: PathBuf, source: Box<report::structure::DocumentError> },
    #[cfg(feature = "report")]
    #[error("{}", file.display())]
    TestedImage { file: PathBuf, source: Box<report::FilesError> },
    #[cfg(feature = "report")]
    #[error("{}: {count} of `commandTests` run programs of the image, and nothing of an image is run here", file.display())]
    CommandTests { file: PathBuf, count: usize },
    #[cfg(feature = "report")]
    #[error("{failed} of {decided} tests failed")]
    Tests { failed: usize, decided: usize },
    #[cfg(feature = "report")]
    #[error("no test was decided")]
    NoTests,
    #[cfg(feature = "report")]
    #[error("{}: no blob of this image has the digest {digest}", file.display())]
    NoSuchBlob { file: PathBuf, digest: crate::digest::BlobDigest },
    #[cfg(feature = "report")]
    #[error("no store path of this image is called `{0}`")]
    NoSuchPath(String),
    #[error("{file}: {reason}", file = file.display())]
    Derivation { file: PathBuf, reason: String },
    #[error(
        "{} of the {of}: {reason}",
        option.as_ref().map_or("options".to_owned(), |option| format!("`{option}`"))
    )]
    Option { of: &'static str, option: Option<String>, reason: String },
    #[error("cannot start {jobs} threads")]
    Threads { jobs: usize, source: rayon::ThreadPoolBuildError },
    #[cfg(feature = "registry")]
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

impl Hint for Failure {
    fn hint(&self) -> Option<String> {
        match self {
            Failure::Closure(error) => error.hint(),
            Failure::Plan(error) => error.hint(),
            Failure::Oci(error) => error.hint(),
            Failure::Layer(error) => error.hint(),
            Failure::Outgoing(error) => error.hint(),
            #[cfg(feature = "report")]
            Failure::Pieces(report::PiecesError::Layer(error)) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Client(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Prefetch(error) => error.hint(),
            Failure::Archive(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Directory(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Docker(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Containerd(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Skopeo(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Remote(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Receive(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::NoSender => Some(
                "`stowage copy IMAGE ssh://HOST/TARGET` on another machine runs this command".to_owned(),
            ),
            #[cfg(feature = "registry")]
            Failure::NoCache => Some("name one by `--cache`".to_owned()),
            #[cfg(feature = "registry")]
            Failure::Setup(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Registries(error) => error.hint(),
            #[cfg(feature = "registry")]
            Failure::Key { source, .. } => source.hint(),
            #[cfg(feature = "registry")]
            Failure::KeyInStore(_) => Some("make another key, and keep it outside; `--sign-key env://VARIABLE` takes one from the environment".to_owned()),
            #[cfg(feature = "registry")]
            Failure::NoSignatures(_) => Some("push it, and name it by `docker://NAME`; `verify --against` compares it without a key".to_owned()),
            #[cfg(feature = "registry")]
            Failure::NoProof(_) => Some("`--key FILE` verifies a signature of an image in a registry, and `--against image.json` compares an image with what was built".to_owned()),
            #[cfg(feature = "registry")]
            Failure::NoImageFile(name) => Some(format!("an image in a registry is `docker://{name}`")),
            #[cfg(feature = "registry")]
            Failure::NotComparable(_) => Some("copy it to an archive, and name that: `docker-archive:FILE`".to_owned()),
            Failure::Terminal => Some("pipe it: `… | docker load`, or into a file with `>`".to_owned()),
            #[cfg(feature = "registry")]
            Failure::Format { .. } => Some("`dir:` takes either".to_owned()),
            #[cfg(feature = "report")]
            Failure::CommandTests { .. } => Some("`--skip-commands` decides all other tests; container-structure-test runs these".to_owned()),
            #[cfg(feature = "report")]
            Failure::NoSuchBlob { .. } => Some("`stowage manifest` without `--blob` names them".to_owned()),
            #[cfg(feature = "report")]
            Failure::NoSuchPath(_) => Some("`stowage explain` without `--why` lists them by size".to_owned()),
            Failure::Derivation { .. } => Some(
                "`stowage builder` is what a derivation of `nix/lib.nix` runs; by hand, use `stowage build`".to_owned(),
            ),
            _ => None,
        }
    }
}

/// Parses the command line, runs the command and returns an exit code: 0 for success, 1 for a
/// failure, 2 for wrong usage, 141 if the reader of the output went away, and 128 plus the number
/// of a signal that ended the program (130 for Ctrl-C).
pub fn main() -> ExitCode {
    limits::return_what_is_freed();
    limits::open_many_files();
    interrupt::survive_large_files();
    // The bars' own rules differ from clap's.
    console::set_colors_enabled_stderr(progress::has_colours());
    let done = match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(error) if error.use_stderr() => without_secrets(error).exit(),
        // The help and the version are output like any other: it may fail.
        Err(text) => print_help(&text).map_err(Failure::Stdout),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::from(BROKEN_PIPE),
        #[cfg(feature = "registry")]
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(failure) => {
            // After a signal, the failure is only its consequence: print nothing.
            if let Some(signal) = interrupt::received() {
                return ExitCode::from(128 + signal);
            }
            let stderr = io::stderr().lock();
            let mut out = if progress::has_colours() {
                AutoStream::always(stderr)
            } else {
                AutoStream::never(stderr)
            };
            // If this fails, there is no other way to report an error.
            let _ = tell(&failure, &mut out);
            ExitCode::FAILURE
        }
    }
}

fn print_help(text: &clap::Error) -> io::Result<()> {
    let mut stdout = system::stdout()?;
    text.print()?;
    stdout.flush()
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { command, root, jobs, max_unpacked, max_ratio } = arguments;
    let limits = UnpackLimits { total: max_unpacked, ratio: max_ratio };
    // A derivation has limits of its own.
    if !matches!(command, Command::Builder) {
        limits.choose();
    }
    let store = crate::store::Store::below(root);
    let jobs = jobs.unwrap_or(0);
    rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build_global()
        .map_err(|source| Failure::Threads { jobs, source })?;
    match command {
        Command::Build(arguments) => commands::build(&store, &arguments),
        Command::Builder => derivation::build(&store, limits),
        Command::Plan(arguments) => commands::plan(&arguments),
        Command::Popularity(arguments) => commands::popularity(&arguments),
        Command::Stream(arguments) => commands::stream(&store, &arguments),
        Command::Index(arguments) => commands::index(&store, &arguments),
        #[cfg(feature = "registry")]
        Command::Copy(CopyArguments { image, targets, remote_program, options }) => {
            copy::copy(&store, &image, &targets, &CopyOptions { remote_program, ..options })
        }
        #[cfg(feature = "registry")]
        Command::Push(PushArguments { image, targets, options }) => {
            copy::copy(&store, &image, &targets, &options)
        }
        #[cfg(feature = "registry")]
        Command::Receive(arguments) => receive::receive(&store, &arguments),
        #[cfg(feature = "registry")]
        Command::Prefetch(arguments) => prefetch::prefetch(&arguments),
        #[cfg(feature = "registry")]
        Command::Serve(arguments) => serve::serve(&store, &arguments),
        #[cfg(feature = "report")]
        Command::Explain(arguments) => explain::explain(&store, &arguments),
        #[cfg(feature = "report")]
        Command::Diff(arguments) => explain::diff(&store, &arguments),
        #[cfg(feature = "report")]
        Command::Manifest(arguments) => inspect::manifest(&store, &arguments),
        #[cfg(feature = "registry")]
        Command::Provenance(arguments) => proof::provenance(&arguments),
        #[cfg(feature = "registry")]
        Command::Sign(arguments) => proof::sign(&arguments),
        #[cfg(feature = "registry")]
        Command::Verify(arguments) if proof::is_elsewhere(&arguments) => {
            proof::verify(&store, &arguments)
        }
        #[cfg(feature = "report")]
        Command::Verify(arguments) => inspect::verify(&store, &arguments),
        #[cfg(feature = "report")]
        Command::Sbom(arguments) => sbom::sbom(&arguments),
        Command::Flatten(arguments) => commands::flatten(&store, &arguments),
        Command::Merge(arguments) => commands::merge(&store, &arguments),
        #[cfg(feature = "report")]
        Command::Tarsum => inspect::tarsum(),
        #[cfg(feature = "report")]
        Command::Lint(arguments) => inspect::lint(&store, &arguments),
        #[cfg(feature = "report")]
        Command::Test(arguments) => structure::test(&store, &arguments),
        #[cfg(feature = "registry")]
        Command::Completions(arguments) => pages::print_completions(arguments.shell),
        #[cfg(feature = "registry")]
        Command::Man(arguments) => pages::write_man_pages(&arguments.directory),
    }
}

/// Says how many errors and warnings there are.
#[cfg(feature = "report")]
fn counts(errors: usize, warnings: usize) -> String {
    let count = |count, what| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        count => Some(format!("{count} {what}s")),
    };
    let counts = [count(errors, "error"), count(warnings, "warning")];
    counts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

/// Removes what may be a password from the value that an error quotes.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let value = without_user_information(value);
        error.insert(ContextKind::InvalidValue, ContextValue::String(value));
    }
    error
}

/// Prints the error and its causes on one line, and after a blank line what the user can do. The
/// colours are those of clap's own errors.
fn tell(failure: &Failure, out: &mut impl Write) -> io::Result<()> {
    let styles = Styles::styled();
    let (error, tip) = (styles.get_error(), styles.get_valid());
    writeln!(out, "{error}error:{error:#} {}", with_causes(failure))?;
    if let Some(hint) = failure.hint() {
        writeln!(out, "\n{tip}hint:{tip:#} {hint}")?;
    }
    Ok(())
}
