//! Connections, from the first byte to the last, and how many and how slow they may be.
//! Stage: registry. Input: a listening socket. Output: requests to answer.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::handle::handle;
use super::impatient::Impatient;
use super::shared::Shared;

/// Bytes of a request's line and headers, of which registries' clients need some hundreds.
const HEADERS: usize = 64 << 10;
/// How long to wait where the system has nothing left to open a connection with.
const PAUSE: Duration = Duration::from_millis(100);

/// Limits for clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; further ones wait.
    pub connections: usize,
    /// How long a request's headers may take from the end of the answer before: also how long a
    /// connection may be idle.
    pub headers: Duration,
    /// How long a client may not read what it asked for.
    pub patience: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 256, headers: Duration::from_secs(30), patience: None }
    }
}

/// The state that every connection needs.
#[derive(Clone)]
pub struct Connections {
    /// The state that requests are answered from.
    pub shared: Arc<Shared>,
    /// The limits.
    pub limits: Limits,
    /// Place for those that are open.
    pub places: Arc<Semaphore>,
    /// Whether to come to an end.
    pub stop: watch::Receiver<bool>,
}

impl Connections {
    /// Accepts them until it is told to stop.
    pub async fn accept(self, listener: TcpListener) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = stopped(&mut stop) => {}
            () = self.accept_all(listener) => {}
        }
    }

    async fn accept_all(self, listener: TcpListener) {
        while let Ok(place) = Arc::clone(&self.places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = self.clone();
                    tokio::spawn(async move {
                        connection.shared.metrics.connections.add(1);
                        connection.clone().serve(stream).await;
                        connection.shared.metrics.connections.decrement();
                        drop(place);
                    });
                }
                Err(error) if is_clients(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn serve(self, stream: TcpStream) {
        // The end of a body is not to wait for more.
        let _ = stream.set_nodelay(true);
        let stream = Impatient::new(stream, self.limits.patience);
        let Some(tls) = self.shared.tls.load_full() else { return self.answer(stream).await };
        match timeout(self.limits.headers, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.answer(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS in time"),
        }
    }

    async fn answer(mut self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let shared = &self.shared;
        let service = service_fn(|request: hyper::Request<_>| {
            let (head, _) = request.into_parts();
            let request = Request::from_parts(head, axum::body::Body::empty());
            async { Ok::<_, Infallible>(handle(shared, request).await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.headers)
                .max_buf_size(HEADERS)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut self.stop) => {
                // What is under way is finished, and nothing more begun.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %crate::error::with_causes(&error), "connection broken off");
        }
    }
}

/// Waits until it is time to end. That nobody is left to say so is as good.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Whether the connection ended before it began, which says nothing about the next one.
fn is_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
