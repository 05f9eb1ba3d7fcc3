use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use stowage::digest::Digest;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;

use crate::tls::TlsListener;

/// A registry that has every blob, takes every manifest, and remembers the requests.
pub struct Agreeable {
    /// The host and the port.
    pub host: String,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Shared {
    wants: Option<String>,
    requests: Mutex<Vec<String>>,
}

/// The settings of the registry.
#[derive(Clone, Default)]
pub struct Setup {
    /// The address that it listens at, in place of 127.0.0.1.
    pub address: Option<&'static str>,
    /// The only `Authorization` that is accepted.
    pub wants: Option<String>,
    /// The configuration for TLS; none for plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Agreeable {
    pub fn start(setup: Setup) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let address = format!("{}:0", setup.address.unwrap_or("127.0.0.1"));
        let listener = runtime.block_on(TcpListener::bind(&address)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared { wants: setup.wants, ..Shared::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        match setup.tls {
            None => drop(runtime.spawn(async move { axum::serve(listener, router).await })),
            Some(config) => {
                let listener = TlsListener::new(listener, config);
                drop(runtime.spawn(async move { axum::serve(listener, router).await }));
            }
        }
        Self { host, shared, _runtime: runtime }
    }

    /// Returns method and path of each request that was accepted, and the host that the request
    /// names.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name: &str| Some(parts.headers.get(name)?.to_str().unwrap().to_owned());
    let said = header("authorization");
    if let Some(wanted) = shared.wants.as_ref().filter(|wanted| said.as_ref() != Some(wanted)) {
        let scheme = wanted.split(' ').next().unwrap();
        let challenge = format!("{scheme} realm=\"http://127.0.0.1:1/token\"");
        return of(401, &[("www-authenticate", &challenge)], Body::empty());
    }
    let path = parts.uri.path();
    let seen = format!("{} {} {path}", header("host").unwrap_or_default(), parts.method);
    shared.requests.lock().unwrap().push(seen);
    match (parts.method, path.contains("/manifests/")) {
        (Method::PUT, true) => {
            let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let digest = Digest::of(&bytes).to_string();
            of(201, &[("docker-content-digest", &digest)], Body::empty())
        }
        (_, true) => of(404, &[], Body::empty()),
        // The registry has blobs of any length, so the answer has no length.
        (Method::HEAD, false) => {
            let nothing = tokio_stream::empty::<Result<axum::body::Bytes, std::io::Error>>();
            let digest = path.rsplit('/').next().unwrap();
            of(200, &[("docker-content-digest", digest)], Body::from_stream(nothing))
        }
        _ => of(200, &[], Body::empty()),
    }
}

fn of(status: u16, headers: &[(&str, &str)], body: Body) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body).unwrap()
}
