//! Accepts connections, with limits on their number and on slow clients.
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

/// The size of a request's line and headers in bytes. Clients of registries need some hundreds.
const HEADERS: usize = 64 << 10;
/// The time to wait if the system has no resources to accept a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Limits for clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The number of connections at a time; further ones wait.
    pub connections: usize,
    /// The time for a request's headers, from the end of the answer before: also the time for which
    /// a connection may be idle.
    pub headers: Duration,
    /// The time for which a client may stop reading an answer.
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
    /// The places for open connections.
    pub places: Arc<Semaphore>,
    /// True if the server is to stop.
    pub stop: watch::Receiver<bool>,
}

impl Connections {
    /// Accepts connections until the server is to stop.
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
        // The end of a body must not wait for further data.
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
                // Requests that are under way are finished, and no others begun.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %crate::error::with_causes(&error), "connection broken off");
        }
    }
}

/// Waits until the server is to stop. If the sender is gone, that means the same.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Returns whether the connection ended before it was accepted, which is not a problem of the
/// server.
fn is_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
