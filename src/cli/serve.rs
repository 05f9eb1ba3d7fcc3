//! Runs `stowage serve`: serves images at an address until a signal arrives.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use tempfile::TempDir;
use tracing_subscriber::filter::LevelFilter;

use super::Failure;
use super::arguments::{LogFormat, PackagesArguments, ServeArguments, TagsArgument};
use super::commands::{print, write_file};
use super::interrupt::{self, Order};
use crate::error::with_causes;
use crate::registry::catalog::{Source, Sources};
use crate::registry::on_demand::{
    Access, NixBuild, NixLimits, OnDemandOptions, PopularityFile, ServedTags,
};
use crate::registry::server::{
    Cache, Limits, Registry, ServerOptions, TlsAcceptor, Users, read_tls,
};
use crate::registry::{Reread, SetupError};
use crate::store::Store;

/// The interval between looks for changes.
const LOOK: Duration = Duration::from_secs(1);
/// The longest time that a client may take for a request's headers, or send no request.
const HEADERS: Duration = Duration::from_secs(30);
/// The longest time that a client may stop reading an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of bytes that may be fetched for compilers and other tools, in addition to those of
/// an image.
const FOR_BUILDING: u64 = 2 << 30;

pub fn serve(store: &Store, arguments: &ServeArguments) -> Result<(), Failure> {
    log(arguments);
    let orders = interrupt::orders().map_err(Failure::Signals)?;
    let given: Result<Vec<_>, _> =
        arguments.sources.iter().map(|source| Source::parse(source)).collect();
    let mut sources = Sources::new(store.clone(), given?)?;
    let (mut files, mut options) = options(arguments)?;
    let (on_demand, _roots) = on_demand(&arguments.packages)?.unzip();
    options.on_demand = on_demand;
    for problem in sources.reload(false).problems {
        tracing::error!("{problem}");
    }

    let address = &arguments.listen;
    let registry = Registry::start(sources.catalog(), store.clone(), address, options)?;
    let address = registry.address();
    warn_of_openness(arguments, address);
    tracing::info!(images = sources.count(), %address, "serving");
    let scheme = if arguments.tls_cert.is_some() { "https" } else { "http" };
    print(&format!("{scheme}://{address}"))?;
    if let Some(file) = &arguments.address_file {
        write_file(file, 0o644, |out| writeln!(out, "{address}"))?;
    }

    loop {
        let all = match orders.recv_timeout(LOOK) {
            Ok(Order::Reload) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
        };
        let reload = sources.reload(all);
        for problem in reload.problems {
            tracing::error!("{problem}");
        }
        if reload.changed {
            registry.replace(sources.catalog());
            tracing::info!(images = sources.count(), "reloaded");
        }
        files.reload(&registry, all);
    }
    tracing::info!("ending");
    if !registry.stop(Duration::from_secs(arguments.grace)) {
        tracing::warn!(grace = arguments.grace, "broke off what was not sent in time");
    }
    Ok(())
}

/// Files that a running server reads again.
struct Files {
    tls: Option<Reread<TlsAcceptor>>,
    users: Option<Reread<Users>>,
}

impl Files {
    /// Reads changed files and applies them to the server. A file that is not valid leaves the
    /// server as it was.
    fn reload(&mut self, registry: &Registry, all: bool) {
        if let Some(tls) = again(&mut self.tls, all, "certificate") {
            registry.replace_tls(tls);
        }
        if let Some(users) = again(&mut self.users, all, "list of users") {
            registry.replace_users(users);
        }
    }
}

fn again<T>(files: &mut Option<Reread<T>>, all: bool, what: &'static str) -> Option<T> {
    match files.as_mut()?.again(all)? {
        Ok(found) => {
            tracing::info!(what, "read again");
            Some(found)
        }
        Err(error) => {
            tracing::error!("{}; the {what} of before stays in use", with_causes(&error));
            None
        }
    }
}

fn options(arguments: &ServeArguments) -> Result<(Files, ServerOptions), SetupError> {
    let ServeArguments { tls_cert, tls_key, htpasswd, .. } = arguments;
    let tls = tls_cert.clone().zip(tls_key.clone());
    let tls = first(tls.map(|(certificate, key)| vec![certificate, key]), |files| {
        read_tls(&files[0], &files[1])
    });
    let users = first(htpasswd.clone().map(|file| vec![file]), |files| Users::read(&files[0]));
    let ((tls_files, tls), (user_files, users)) = (tls?, users?);
    let cache = arguments.cache.as_deref();
    let options = ServerOptions {
        tls,
        users,
        cache: cache.map(|directory| Cache::open(directory, arguments.cache_size)).transpose()?,
        on_demand: None,
        limits: Limits {
            connections: arguments.max_connections.into(),
            headers: HEADERS,
            patience: Some(PATIENCE),
        },
    };
    Ok((Files { tls: tls_files, users: user_files }, options))
}

/// The directory for links, which is removed at the end if it is a temporary one.
type Roots = Option<TempDir>;

fn on_demand(arguments: &PackagesArguments) -> Result<Option<(OnDemandOptions, Roots)>, Failure> {
    let PackagesArguments { packages: Some(source), library: Some(library), roots, .. } = arguments
    else {
        return Ok(None);
    };
    let absolute = |path: &Path| {
        fs::canonicalize(path).map_err(|source| SetupError::Read { path: path.to_owned(), source })
    };
    let library = absolute(library)?;
    if !library.join("on-demand.nix").is_file() {
        return Err(Failure::Library(library));
    }
    NixBuild::check(source)?;
    let program = std::env::current_exe().map_err(Failure::Program)?;
    let (roots, temporary) = directory_for_links(roots.as_deref())?;
    let popularity = |file: &PathBuf| -> Result<_, Failure> {
        Ok(PopularityFile::new(absolute(file)?).map_err(SetupError::Spec)?)
    };
    let options = OnDemandOptions {
        source: source.clone(),
        tags: match arguments.tags {
            TagsArgument::Latest => ServedTags::Latest,
            TagsArgument::Branches => ServedTags::Branches,
            TagsArgument::Commits => ServedTags::Commits,
        },
        nix: NixBuild {
            library,
            program,
            max_layers: arguments.max_layers,
            popularity: arguments.popularity.as_ref().map(popularity).transpose()?,
            limits: NixLimits {
                time: Duration::from_secs(arguments.build_timeout),
                silence: Duration::from_secs(arguments.build_silence),
                memory: arguments.max_eval_memory,
                fetched: arguments
                    .max_fetch
                    .unwrap_or_else(|| arguments.max_image_size.saturating_add(FOR_BUILDING)),
            },
            access: Access {
                paths: arguments.include.clone(),
                uris: arguments.allowed_uri.clone(),
                no_import_from_derivation: arguments.no_import_from_derivation,
            },
            clones: directory_for_clones(&roots),
            running: Default::default(),
        },
        roots,
        storage: arguments.storage.clone(),
        builds: arguments.max_builds.into(),
        queue: arguments.max_queue.into(),
        most_packages: arguments.max_packages.into(),
        most_bytes: arguments.max_image_size,
        most_images: arguments.max_images.into(),
        remember: Duration::from_secs(arguments.remember),
    };
    Ok(Some((options, temporary)))
}

/// Returns the directory for clones: the user's cache directory, or the directory for links if
/// there is none.
fn directory_for_clones(roots: &Path) -> PathBuf {
    let of = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(|| roots.to_owned()).join("stowage/git")
}

/// Returns the named directory, and makes it if it does not exist; or makes a temporary one.
fn directory_for_links(roots: Option<&Path>) -> Result<(PathBuf, Roots), SetupError> {
    let links = |directory: &Path| {
        let directory = directory.to_owned();
        move |source| SetupError::Links { directory, source }
    };
    if let Some(roots) = roots {
        let made = fs::create_dir_all(roots).and_then(|()| fs::canonicalize(roots));
        return Ok((made.map_err(links(roots))?, None));
    }
    let path = std::env::temp_dir();
    let temporary = tempfile::Builder::new().prefix("stowage-").tempdir_in(&path);
    let temporary = temporary.map_err(links(&path))?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

/// Reads files for the first time, if any are given.
fn first<T>(
    files: Option<Vec<PathBuf>>,
    read: fn(&[PathBuf]) -> Result<T, SetupError>,
) -> Result<(Option<Reread<T>>, Option<T>), SetupError> {
    Ok(files.map(|files| Reread::new(files, read)).transpose()?.unzip())
}

/// Warns if others can reach what is served.
fn warn_of_openness(arguments: &ServeArguments, address: SocketAddr) {
    if address.ip().is_loopback() {
        return;
    }
    if arguments.htpasswd.is_none() {
        tracing::warn!(%address, "every client that reaches this address can read every image (`--htpasswd`)");
    }
    if arguments.tls_cert.is_none() {
        tracing::warn!(
            %address,
            "anyone on the network path can read and change what is sent, passwords included (`--tls-cert`)"
        );
    }
}

fn log(arguments: &ServeArguments) {
    let level = if arguments.quiet { LevelFilter::WARN } else { LevelFilter::INFO };
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false)
        // A log that can't be written is no reason to end.
        .log_internal_errors(false);
    match arguments.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
}
