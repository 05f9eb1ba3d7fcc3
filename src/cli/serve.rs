//! Runs `stowage serve`: serves images at an address until a signal arrives.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tracing_subscriber::filter::LevelFilter;

use super::Failure;
use super::arguments::{LogFormat, PackagesArguments, ServeArguments, TagsArgument};
use super::commands::write_file;
use super::environment::cache_directory;
use super::interrupt::{self, Order};
use super::output::print;
use crate::error::with_causes;
use crate::registry::catalog::{Catalog, Reach, Source, Sources, Watches};
use crate::registry::on_demand::{
    NixAccess, NixBuild, NixLimits, OnDemandOptions, PopularityFile, RequiredSignatures, ServedTags,
};
use crate::registry::server::{
    Cache, Certificate, Limits, Permissions, Registry, ServerOptions, Users, read_tls,
};
use crate::registry::storage::StorageKeys;
use crate::registry::{Reread, SetupError};
use crate::report;
use crate::store::Store;

/// The time after which certificates, users and permissions are checked for changes again.
const LOOK: Duration = Duration::from_secs(1);
/// The longest time that a client may take for a request's headers, or send no request.
const HEADERS: Duration = Duration::from_secs(30);
/// The longest time that a client may stop reading an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of bytes that may be fetched for compilers and other tools, in addition to those of
/// an image.
const FOR_BUILDING: u64 = 2 << 30;

/// The longest time to wait for the first contents of files and directories. After it, the server
/// begins without them.
const FIRST: Duration = Duration::from_secs(10);

pub fn serve(store: &Store, arguments: &ServeArguments) -> Result<(), Failure> {
    log(arguments);
    let orders = interrupt::orders().map_err(Failure::Signals)?;
    let (files, mut options) = options(arguments)?;
    let (on_demand, _roots) = on_demand(store, &arguments.packages)?.unzip();
    options.on_demand = on_demand;
    let loader = Loader::start(store.clone(), arguments.sources.clone(), files, orders);
    let Some((catalog, images)) = loader.first()? else { return Ok(()) };

    let address = &arguments.listen;
    let registry = Registry::start(catalog, store.clone(), address, options)?;
    let address = registry.address();
    warn_of_openness(arguments, address);
    tracing::info!(images, %address, "serving");
    if let Some(address) = registry.admin_address() {
        tracing::info!(%address, "answering for monitoring");
    }
    let scheme = if arguments.tls_cert.is_some() { "https" } else { "http" };
    print(&format!("{scheme}://{address}"))?;
    if let Some(file) = &arguments.address_file {
        write_file(file, 0o644, |out| writeln!(out, "{address}"))?;
    }

    loop {
        match loader.next() {
            Event::Order(Order::Reload) => loader.look(),
            Event::Order(Order::End) => break,
            Event::Catalog(catalog, images) => {
                registry.replace(catalog);
                tracing::info!(images, "reloaded");
            }
            Event::Tls(tls) => registry.replace_tls(tls),
            Event::Access(users, permissions) => registry.replace_access(users, permissions),
            Event::Failed(error) => tracing::error!("{}", with_causes(&error)),
        }
    }
    tracing::info!("ending");
    if !registry.stop(Duration::from_secs(arguments.grace)) {
        tracing::warn!(grace = arguments.grace, "broke off what was not sent in time");
    }
    Ok(())
}

/// An event that the server handles.
enum Event {
    Order(Order),
    Catalog(Catalog, usize),
    Tls(Certificate),
    /// Users, permissions or both are others than before.
    Access(Option<Users>, Option<Permissions>),
    Failed(SetupError),
}

/// Says how to look at files and directories.
enum Look {
    /// Read all files again.
    All,
    /// Read those that have changed: a change was noticed.
    Changes,
}

/// Reads files and directories again and again, in threads of their own: a file system that hangs
/// delays neither answers nor signals.
struct Loader {
    events: Receiver<Event>,
    looks: Sender<Look>,
    /// Makes the thread that reads certificates, users and permissions read them again.
    rereads: Sender<()>,
}

impl Loader {
    fn start(store: Store, given: Vec<String>, files: Files, orders: Receiver<Order>) -> Self {
        let (sender, events) = channel();
        let (looks, look) = channel();
        let noticed = looks.clone();
        let watches =
            Watches::start(&store, Reach::default(), move || noticed.send(Look::Changes).is_ok());
        let ordered = sender.clone();
        std::thread::spawn(move || {
            // Without signals, nothing else would end the server.
            let orders = orders.into_iter().chain([Order::End]);
            for order in orders {
                if ordered.send(Event::Order(order)).is_err() {
                    break;
                }
            }
        });
        let (rereads, reread) = channel();
        let found = sender.clone();
        std::thread::spawn(move || files.keep_reading(&found, &reread));
        std::thread::spawn(move || load(store, given, &sender, &look, watches));
        Self { events, looks, rereads }
    }

    /// Returns the first catalog with its number of images, or `None` if the server is to end.
    fn first(&self) -> Result<Option<(Catalog, usize)>, SetupError> {
        let begin = Instant::now();
        loop {
            match self.events.recv_timeout(FIRST.saturating_sub(begin.elapsed())) {
                Ok(Event::Catalog(catalog, images)) => return Ok(Some((catalog, images))),
                Ok(Event::Failed(error)) => return Err(error),
                Ok(Event::Order(Order::End)) | Err(RecvTimeoutError::Disconnected) => {
                    return Ok(None);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!("what is to be served cannot be read yet: beginning without it");
                    return Ok(Some(Default::default()));
                }
            }
        }
    }

    fn next(&self) -> Event {
        self.events.recv().unwrap_or(Event::Order(Order::End))
    }

    /// Makes the threads read all files again, whether they have changed or not.
    fn look(&self) {
        let _ = self.rereads.send(());
        let _ = self.looks.send(Look::All);
    }
}

/// Reads sources again and again, until the receiver of the events is gone.
fn load(
    store: Store,
    given: Vec<String>,
    events: &Sender<Event>,
    look: &Receiver<Look>,
    watches: Watches,
) {
    let given: Result<Vec<_>, _> =
        given.iter().map(|source| Source::parse(source, watches.reach())).collect();
    let mut sources = match given.and_then(|given| Sources::new(store, given, watches)) {
        Ok(sources) => sources,
        Err(error) => return drop(events.send(Event::Failed(error))),
    };
    let (mut all, mut is_first) = (false, true);
    loop {
        let reload = sources.reload(all);
        for problem in reload.problems {
            tracing::error!("{problem}");
        }
        if (reload.changed || is_first)
            && events.send(Event::Catalog(sources.catalog(), sources.count())).is_err()
        {
            return;
        }
        is_first = false;
        let ended = Instant::now();
        let mut next = ended + sources.pause();
        all = loop {
            let left = next.saturating_duration_since(Instant::now());
            match look.recv_timeout(left) {
                Ok(Look::All) => break true,
                Ok(Look::Changes) => {
                    next = next.min(Instant::now().max(ended) + sources.pause_after_notice());
                }
                Err(RecvTimeoutError::Timeout) => break false,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
    }
}

/// Files that a running server reads again.
struct Files {
    tls: Option<Reread<Certificate>>,
    users: Option<Reread<Users>>,
    permissions: Option<Reread<Permissions>>,
}

impl Files {
    /// Reads files again when they have changed, and all of them when asked to, until the sender is gone.
    fn keep_reading(mut self, events: &Sender<Event>, reread: &Receiver<()>) {
        loop {
            match reread.recv_timeout(LOOK) {
                Ok(()) => self.reload(events, true),
                Err(RecvTimeoutError::Timeout) => self.reload(events, false),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Sends an event for each file that has changed. If a file can't be used, the previous
    /// contents stay in use.
    fn reload(&mut self, events: &Sender<Event>, all: bool) {
        let users = again(&mut self.users, all, "list of users");
        let permissions = again(&mut self.permissions, all, "list of permissions");
        let is_other = users.is_some() || permissions.is_some();
        let found = [
            again(&mut self.tls, all, "certificate").map(Event::Tls),
            is_other.then_some(Event::Access(users, permissions)),
        ];
        for event in found.into_iter().flatten() {
            // If the receiver is gone, the caller notices when it sends its next event.
            let _ = events.send(event);
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
    let ServeArguments { tls_cert, tls_key, htpasswd, permissions, .. } = arguments;
    let tls = tls_cert.clone().zip(tls_key.clone());
    let tls = first(tls.map(|(certificate, key)| vec![certificate, key]), |files| {
        read_tls(&files[0], &files[1])
    });
    let one = |file: &Option<PathBuf>| file.clone().map(|file| vec![file]);
    let users = first(one(htpasswd), |files| Users::read(&files[0]));
    let permissions = first(one(permissions), |files| Permissions::read(&files[0]));
    let ((tls_files, tls), (user_files, users)) = (tls?, users?);
    let (permission_files, permissions) = permissions?;
    let cache = arguments.cache.as_deref();
    let connections = usize::from(arguments.max_connections);
    let client_connections = arguments.max_client_connections.map(usize::from);
    let options = ServerOptions {
        tls,
        users,
        permissions,
        trusted: arguments.trusted_proxy.clone(),
        admin: arguments.admin_listen.clone(),
        cache: cache.map(|directory| Cache::open(directory, arguments.cache_size)).transpose()?,
        on_demand: None,
        explain: Some(|spec, name| report::explain(spec).to_html(name, None)),
        limits: Limits {
            connections,
            client_connections: client_connections.unwrap_or((connections * 3 / 4).max(1)),
            headers: HEADERS,
            patience: Some(PATIENCE),
        },
    };
    Ok((Files { tls: tls_files, users: user_files, permissions: permission_files }, options))
}

/// The directory for links, which is removed at the end if it is a temporary one.
type Roots = Option<TempDir>;

fn on_demand(
    store: &Store,
    arguments: &PackagesArguments,
) -> Result<Option<(OnDemandOptions, Roots)>, Failure> {
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
    NixBuild::check(source, arguments.require_sigs)?;
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
            access: NixAccess {
                paths: arguments.include.clone(),
                uris: arguments.allowed_uri.clone(),
                no_import_from_derivation: arguments.no_import_from_derivation,
            },
            signatures: arguments.require_sigs.then(|| RequiredSignatures {
                keys: arguments.trusted_public_key.clone(),
                built_here: arguments.allow_local_builds,
            }),
            store: store.clone(),
            clones: directory_for_clones(&roots),
            running: Default::default(),
        },
        roots,
        storage: arguments.storage.clone(),
        storage_keys: StorageKeys::read(&arguments.storage_key).map_err(SetupError::from)?,
        builds: arguments.max_builds.into(),
        queue: arguments.max_queue.into(),
        grace: Duration::from_secs(arguments.abandoned_after),
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
    cache_directory().unwrap_or_else(|| roots.to_owned()).join("stowage/git")
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
