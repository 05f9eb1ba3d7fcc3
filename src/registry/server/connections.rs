//! Accepts connections, with limits on their number and on slow clients.
//! Stage: registry. Input: a listening socket. Output: requests to answer.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::connection::{Connection, Role};
use super::guests::Guests;
use super::handle::handle;
use super::impatient::Impatient;
use super::shared::Shared;
use crate::registry::client_address::shared;

/// The size of a request's line and headers in bytes. Clients of registries need some hundreds.
const HEADERS: usize = 64 << 10;
/// The first and the longest pause after the system had no resources for another connection.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two warnings about this.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// The number of connections that may be open without a request that is answered or waits for its
/// turn.
const BESIDES: usize = 64;

/// Limits for clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The number of requests at a time. As many more may wait.
    pub connections: usize,
    /// The number of requests at a time of one client.
    pub client_connections: usize,
    /// The longest time from the end of an answer to the end of the next request's headers: also
    /// the longest time for which a connection may be idle.
    pub headers: Duration,
    /// The time for which a client may stop reading an answer.
    pub patience: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        let (connections, headers) = (256, Duration::from_secs(30));
        Self { connections, client_connections: connections, headers, patience: None }
    }
}

impl Limits {
    /// Returns the number of connections that may be open.
    pub fn open(&self) -> usize {
        self.connections.saturating_mul(2).saturating_add(BESIDES)
    }
}

/// The state that every connection needs.
#[derive(Clone)]
pub struct Connections {
    /// The state that requests are answered from.
    pub shared: Arc<Shared>,
    /// The kind of requests that are answered.
    pub role: Role,
    /// The limits.
    pub limits: Limits,
    /// The open connections.
    pub guests: Guests,
    /// Becomes true when the server is to stop.
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
        let mut trouble = Trouble::default();
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    trouble.over();
                    // Without room, the connection is closed.
                    match self.guests.admit(shared(peer.ip())) {
                        Some(guest) => {
                            let (guest, role) = (Arc::new(guest), self.role);
                            let connection = Connection { peer: peer.ip(), role, guest };
                            tokio::spawn(self.clone().serve(stream, connection));
                        }
                        None => self.shared.metrics.connections_refused.inc(),
                    }
                }
                Err(error) if is_clients(&error) => {}
                Err(error) => {
                    self.guests.make_room();
                    sleep(trouble.again(&error)).await;
                }
            }
        }
    }

    async fn serve(self, stream: TcpStream, connection: Connection) {
        let guest = Arc::clone(&connection.guest);
        tokio::select! {
            () = self.serve_all(stream, connection) => {}
            () = guest.told_to_end() => tracing::debug!("ended an idle connection for another one"),
        }
    }

    async fn serve_all(self, stream: TcpStream, connection: Connection) {
        // Send the end of a body at once.
        let _ = stream.set_nodelay(true);
        let stream = Impatient::new(stream, self.limits.patience);
        let tls = self.shared.tls.load_full().filter(|_| self.role == Role::Registry);
        let Some(tls) = tls else { return self.answer(stream, connection).await };
        match timeout(self.limits.headers, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.answer(stream, connection).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("no TLS in time"),
        }
    }

    async fn answer(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, connection: Connection) {
        let (shared, connection) = (&self.shared, &connection);
        let service = service_fn(|request: hyper::Request<_>| {
            let (head, _) = request.into_parts();
            let request = Request::from_parts(head, axum::body::Body::empty());
            async { Ok::<_, Infallible>(handle(shared, connection, request).await) }
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

/// Logs that connections can't be accepted: the first time, and then once in a while.
#[derive(Default)]
struct Trouble {
    pause: Option<Duration>,
    said: Option<Instant>,
    times: u64,
}

impl Trouble {
    fn over(&mut self) {
        self.pause = None;
    }

    /// Counts an error, and returns the time to wait.
    fn again(&mut self, error: &io::Error) -> Duration {
        self.times += 1;
        if self.said.is_none_or(|said| said.elapsed() >= SAID_AGAIN) {
            tracing::warn!(%error, times = self.times, "cannot accept a connection");
            (self.said, self.times) = (Some(Instant::now()), 0);
        }
        let pause = self.pause.map_or(PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.pause = Some(pause);
        pause
    }
}

/// Waits until the server is to stop, or the sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Returns whether the connection ended before it was accepted, which is not a problem of the
/// server.
fn is_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_once_in_a_while() {
        let mut trouble = Trouble::default();
        let error = io::Error::from_raw_os_error(nix::libc::EMFILE);
        let pauses: Vec<_> = (0..10).map(|_| trouble.again(&error).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
        assert_eq!(trouble.times, 9);
        trouble.over();
        assert_eq!(trouble.again(&error), PAUSE);
        assert_eq!(trouble.times, 10);
    }
}
