//! The command line: what was asked for, done, and said.
//! Names every stage; no stage names it. The environment is read here and nowhere else.

mod arguments;
mod commands;
mod copy;
mod derivation;
mod explain;
mod interrupt;
mod limits;
mod prefetch;
mod progress;
mod registry_options;
mod serve;
mod watching;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use thiserror::Error;

use crate::digest::BlobDigest;
use crate::error::{Hint, with_causes};
use crate::outgoing::{ParseReferenceError, without_user_information};
use crate::registry::{self, client};
use crate::{closure, layer, oci, outgoing, target};
use arguments::{Arguments, Command, CopyArguments, PushArguments};

/// The shell's own number for a program that a broken pipe ended (128 + SIGPIPE).
const BROKEN_PIPE: u8 = 141;

/// Why a command did not do what was asked.
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
    #[error(transparent)]
    Client(#[from] client::ClientError),
    #[error(transparent)]
    Prefetch(#[from] client::PrefetchError),
    #[error(transparent)]
    Setup(#[from] registry::SetupError),
    #[error(transparent)]
    Archive(#[from] target::ArchiveError),
    #[error(transparent)]
    Directory(#[from] target::DirectoryError),
    #[error(transparent)]
    Docker(#[from] target::DockerError),
    #[error(transparent)]
    Containerd(#[from] target::ContainerdError),
    #[error(transparent)]
    Skopeo(#[from] target::SkopeoTargetError),
    #[error("cannot write {}", file.display())]
    Output { file: PathBuf, source: io::Error },
    #[error("{} has no `on-demand.nix`: it is not the directory of stowage's Nix functions", .0.display())]
    Library(PathBuf),
    #[error("cannot find out where this program is")]
    Program(#[source] io::Error),
    #[error("cannot read a tar from standard input")]
    Stdin(#[source] io::Error),
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    #[error("standard output is a terminal: an image is no text")]
    Terminal,
    #[error(
        "an image layout holds OCI's manifests alone: {target} can't have Docker's (`--format v2s2`)"
    )]
    Format { target: String },
    #[error("{layers} of {count} layers differ")]
    Differences { layers: usize, count: usize },
    #[error("`--digestfile` is for one target, and there are several")]
    OneDigestFile,
    #[error("{} does not exist", .0.display())]
    AuthFile(PathBuf),
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    #[error("`{0}` must be an annotation, `KEY=VALUE`")]
    Annotation(String),
    #[error("{0} warnings")]
    Lint(usize),
    #[error("{}: no blob of this image has the digest {digest}", file.display())]
    NoSuchBlob { file: PathBuf, digest: BlobDigest },
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
            Failure::Client(error) => error.hint(),
            Failure::Prefetch(error) => error.hint(),
            Failure::Archive(error) => error.hint(),
            Failure::Directory(error) => error.hint(),
            Failure::Docker(error) => error.hint(),
            Failure::Containerd(error) => error.hint(),
            Failure::Skopeo(error) => error.hint(),
            Failure::Setup(error) => error.hint(),
            Failure::Terminal => Some("pipe it: `… | docker load`, or into a file with `>`".to_owned()),
            Failure::Format { .. } => Some("`dir:` takes either".to_owned()),
            Failure::NoSuchBlob { .. } => Some("`stowage manifest` without `--blob` names them".to_owned()),
            Failure::NoSuchPath(_) => Some("`stowage explain` without `--why` lists them by size".to_owned()),
            Failure::Derivation { .. } => Some(
                "`stowage builder` is what a derivation of `nix/lib.nix` runs; by hand, use `stowage build`".to_owned(),
            ),
            _ => None,
        }
    }
}

/// Parses the command line, runs the command and maps its end to an exit code:
/// 0 done, 1 failed, 2 wrong usage, 141 the reader of our output went away, and 128 more
/// than a signal that ended us (130 for Ctrl-C).
pub fn main() -> ExitCode {
    limits::return_what_is_freed();
    limits::open_many_files();
    let arguments = Arguments::try_parse().unwrap_or_else(|error| without_secrets(error).exit());
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::from(BROKEN_PIPE),
        Err(failure) => {
            // Whatever failed, it was told to: who sent the signal knows why.
            if let Some(signal) = interrupt::received() {
                return ExitCode::from(128 + signal);
            }
            // Nobody is left to tell if this fails.
            let _ = report(&failure, &mut io::stderr().lock());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { command, root, jobs } = arguments;
    let store = crate::store::Store::below(root);
    let jobs = jobs.unwrap_or(0);
    rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build_global()
        .map_err(|source| Failure::Threads { jobs, source })?;
    match command {
        Command::Build(arguments) => commands::build(&store, &arguments),
        Command::Builder => derivation::build(&store),
        Command::Plan(arguments) => commands::plan(&arguments),
        Command::Popularity(arguments) => commands::popularity(&arguments),
        Command::Stream(arguments) => commands::stream(&store, &arguments),
        Command::Index(arguments) => commands::index(&store, &arguments),
        Command::Copy(CopyArguments { image, targets, options })
        | Command::Push(PushArguments { image, targets, options }) => {
            copy::copy(&store, &image, &targets, &options)
        }
        Command::Prefetch(arguments) => prefetch::prefetch(&arguments),
        Command::Serve(arguments) => serve::serve(&store, &arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Diff(arguments) => explain::diff(&arguments),
        Command::Manifest(arguments) => commands::manifest(&store, &arguments),
        Command::Verify(arguments) => commands::verify(&store, &arguments),
        Command::Flatten(arguments) => commands::flatten(&store, &arguments),
        Command::Merge(arguments) => commands::merge(&arguments),
        Command::Tarsum => commands::tarsum(),
        Command::Lint(arguments) => commands::lint(&store, &arguments),
    }
}

/// Removes from an error what may be a password in the value that it repeats.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let value = without_user_information(value);
        error.insert(ContextKind::InvalidValue, ContextValue::String(value));
    }
    error
}

/// One line for the cause, and after a blank one what to do about it.
fn report(failure: &Failure, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "error: {}", with_causes(failure))?;
    if let Some(hint) = failure.hint() {
        writeln!(out, "\nhint: {hint}")?;
    }
    Ok(())
}
