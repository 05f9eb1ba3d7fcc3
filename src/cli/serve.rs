//! `stowage serve`: images behind an address, until a signal comes.

use std::io;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use super::Failure;
use super::arguments::{LogFormat, ServeArguments};
use super::commands::{print, write_file};
use super::interrupt::{self, Order};
use crate::store::Store;
use crate::transport::{
    Cache, Limits, Registry, ServerOptions, SetupError, Source, Sources, Users, read_tls,
};

/// How often to look for what changed.
const LOOK: Duration = Duration::from_secs(1);
/// How long a client may take for a request's headers, or have nothing to ask.
const HEADERS: Duration = Duration::from_secs(30);
/// How long a client may not read what it asked for.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn serve(store: &Store, arguments: &ServeArguments) -> Result<(), Failure> {
    log(arguments);
    let orders = interrupt::orders().map_err(Failure::Signals)?;
    let given: Result<Vec<_>, _> =
        arguments.sources.iter().map(|source| Source::parse(source)).collect();
    let mut sources = Sources::new(store.clone(), given?)?;
    let options = options(arguments)?;
    warn_of_openness(arguments);
    for problem in sources.reload(false).problems {
        tracing::error!("{problem}");
    }

    let address = arguments.listen;
    let registry = Registry::start(sources.catalog(), store.clone(), address, options)
        .map_err(|source| SetupError::Listen { address, source })?;
    let address = registry.address();
    tracing::info!(images = sources.count(), %address, "serving");
    let scheme = if arguments.tls_cert.is_some() { "https" } else { "http" };
    print(&format!("{scheme}://{address}"))?;
    if let Some(file) = &arguments.address_file {
        write_file(file, format!("{address}\n").as_bytes(), 0o644)?;
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
    }
    tracing::info!("ending");
    if !registry.stop(Duration::from_secs(arguments.grace)) {
        tracing::warn!(grace = arguments.grace, "broke off what was not sent in time");
    }
    Ok(())
}

fn options(arguments: &ServeArguments) -> Result<ServerOptions, SetupError> {
    let tls = arguments.tls_cert.as_deref().zip(arguments.tls_key.as_deref());
    let cache = arguments.cache.as_deref();
    Ok(ServerOptions {
        tls: tls.map(|(certificate, key)| read_tls(certificate, key)).transpose()?,
        users: arguments.htpasswd.as_deref().map(Users::read).transpose()?,
        cache: cache.map(|directory| Cache::open(directory, arguments.cache_size)).transpose()?,
        limits: Limits {
            connections: arguments.max_connections.into(),
            headers: HEADERS,
            patience: Some(PATIENCE),
        },
    })
}

/// Says who else can reach what is served.
fn warn_of_openness(arguments: &ServeArguments) {
    let address = arguments.listen;
    if address.ip().is_loopback() {
        return;
    }
    if arguments.htpasswd.is_none() {
        tracing::warn!(%address, "everybody who reaches this address can read every image (`--htpasswd`)");
    }
    if arguments.tls_cert.is_none() {
        tracing::warn!(
            %address,
            "everybody on the way can read, and change, what is sent, passwords included (`--tls-cert`)"
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
        // That nobody reads the log is no reason to end.
        .log_internal_errors(false);
    match arguments.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
}
