use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::http::{Method, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const BUCKET: &str = "images";
const ACCESS_KEY: &str = "AKIDOFTHETESTS";
pub const SECRET_KEY: &str = "the-secret-of-the-tests";

/// A server on a loopback port that speaks S3 and verifies signatures. It ends when the value is
/// dropped.
pub struct S3 {
    address: SocketAddr,
    directory: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

#[derive(Default)]
struct State {
    mode: Mode,
    /// The methods and paths of requests.
    requests: Vec<String>,
}

/// The way in which the server answers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Well,
    /// Writes are refused: the storage is full.
    Full,
    /// Requests are never answered.
    Silent,
}

impl S3 {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(directory.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = Arc::new(builder.build());
        let state = Arc::<Mutex<State>>::default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, service, Arc::clone(&state)));
        Self { address, directory, state, _runtime: runtime }
    }

    /// Returns the bucket's address, with a prefix.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/a/prefix")
    }

    /// Returns the environment of a process that uses the server.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&format!("http://{}", self.address))
    }

    pub fn set_mode(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    /// Returns the methods and paths of all requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Returns the path of an object's bytes.
    pub fn file(&self, object: &str) -> PathBuf {
        self.directory.path().join(BUCKET).join("a/prefix").join(object)
    }

    /// Returns the names of all objects, sorted.
    pub fn objects(&self) -> Vec<String> {
        objects(&self.file(""))
    }

    /// Returns the number of uploads that were begun and neither completed nor aborted.
    pub fn unfinished(&self) -> usize {
        let files = fs::read_dir(self.directory.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".upload-")).count()
    }
}

/// Returns the environment for an S3 server at that address.
pub fn environment(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Returns the names of all files below a directory, sorted.
pub fn objects(root: &Path) -> Vec<String> {
    fn walk(root: &Path, directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

async fn serve(listener: TcpListener, service: Arc<S3Service>, state: Arc<Mutex<State>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (service, state) = (Arc::clone(&service), Arc::clone(&state));
        let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (service, state) = (Arc::clone(&service), Arc::clone(&state));
            async move {
                let mode = {
                    let mut state = state.lock().unwrap();
                    state.requests.push(format!("{} {}", request.method(), request.uri()));
                    state.mode
                };
                let writes = matches!(*request.method(), Method::PUT | Method::POST);
                let bucket = request.uri().path().split('/').nth(1).unwrap_or_default();
                match mode {
                    // The file system's implementation would make any bucket that is asked for.
                    _ if bucket != BUCKET => Ok(refusal(StatusCode::NOT_FOUND, "NoSuchBucket")),
                    Mode::Full if writes => {
                        // MinIO answers in this way.
                        Ok(refusal(StatusCode::INSUFFICIENT_STORAGE, "XMinioStorageFull"))
                    }
                    Mode::Silent => std::future::pending().await,
                    _ => service.call(request.map(s3s::Body::from)).await,
                }
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
    }
}

fn refusal(status: StatusCode, code: &str) -> Response<s3s::Body> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>{code}</Code><Message>in the storage's words</Message></Error>"
    );
    let mut response = Response::new(s3s::Body::from(body));
    *response.status_mut() = status;
    response
}
