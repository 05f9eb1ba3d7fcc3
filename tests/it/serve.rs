/// Users, certificates, and changes of both.
mod access;
/// Requests of clients that try to harm the server or other clients.
mod attack;
/// Layers that are made once and kept.
mod cache;
/// Slow clients, too many clients, and the server's end.
mod clients;
/// The contents of the registry, and the messages about them.
mod content;
/// Images by the names of packages, with a program in place of Nix.
mod packages;
/// Several ranges in a request.
mod ranges;
/// Documents that refer to images.
mod referrers;
/// Settings with which the server can't start, and warnings.
mod setup;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stowage::oci::{Image, ImageSpec};

use crate::http::{self, Answer};
use crate::support::{FakeStore, odd_tree};

/// The longest wait, which no machine needs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A store with `one.json`, `two.json` (the same layers, and one more) and a directory.
struct Images {
    store: FakeStore,
    one: ImageSpec,
    two: ImageSpec,
}

impl Images {
    fn new() -> Self {
        let mut store = FakeStore::new();
        store.add('1', "tree", &[], odd_tree);
        // The file is larger than the buffers of a connection.
        store.add('2', "big", &[], |path| fs::write(path, vec![7; 32 << 20]).unwrap());
        let one = Self::build(&mut store, "one.json");
        store.add_file('3', "more", &[], "more");
        let two = Self::build(&mut store, "two.json");
        fs::create_dir_all(store.root().join("images/a/b")).unwrap();
        let images = Self { store, one, two };
        images.link("one.json", "a/b/v1");
        images.link("two.json", "a/v2");
        images
    }

    fn build(store: &mut FakeStore, name: &str) -> ImageSpec {
        store.build(r#"{"maxLayers": 5}"#);
        let file = store.root().join(name);
        fs::rename(store.root().join("image.json"), &file).unwrap();
        ImageSpec::read(&file).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.root().join(name)
    }

    /// Replaces a link in the directory, as `ln -sfT` and deployments do.
    fn link(&self, to: &str, name: &str) {
        let link = self.path("link");
        symlink(self.path(to), &link).unwrap();
        fs::rename(link, self.path("images").join(name)).unwrap();
    }

    fn serve(&self, arguments: &[&str]) -> Server {
        Server::start(self, arguments)
    }

    /// Returns the path of the largest layer's blob, and its size.
    fn big(&self, repository: &str) -> (String, u64) {
        let layer = self.one.layers.iter().max_by_key(|layer| layer.size).unwrap();
        (format!("/v2/{repository}/blobs/{}", layer.diff_id), layer.size)
    }
}

/// A `stowage serve` that ends with the test.
struct Server {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
}

impl Server {
    fn start(images: &Images, arguments: &[&str]) -> Self {
        Self::run(images, images.store.stowage(&["serve"]).args(arguments))
    }

    /// Starts a server with a command that lacks only the address file.
    fn run(images: &Images, command: &mut Command) -> Self {
        let file = images.path("address");
        let _ = fs::remove_file(&file);
        command.args(["--address-file", "address"]);
        if command.get_args().all(|argument| argument != "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        // The log is not a pipe, which would be full at some time.
        let log = images.path("log");
        let mut child =
            command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let begin = Instant::now();
        // The file is complete as soon as it exists.
        while !file.exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            assert!(begin.elapsed() < DEADLINE, "no address");
            std::thread::sleep(Duration::from_millis(10));
        }
        let address = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        Self { child, log, address }
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        http::ask(self.address, method, path, headers)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} in:\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn wait(&mut self) -> ExitStatus {
        until("it ends", || self.child.try_wait().unwrap())
    }

    /// Ends the server, and returns its log.
    fn end(mut self) -> String {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0));
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until there is an answer.
fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(begin.elapsed() < DEADLINE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn manifest_digest(spec: &ImageSpec) -> String {
    Image::new(spec).manifest.digest.to_string()
}

/// A client in the middle of a body.
struct Slow {
    stream: TcpStream,
    begin: Vec<u8>,
}

impl Slow {
    fn ask(server: &Server, path: &str) -> Self {
        Self::ask_with(server, path, "")
    }

    fn ask_with(server: &Server, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(http::request("GET", path, headers).as_bytes()).unwrap();
        let mut begin = vec![0; 4096];
        stream.read_exact(&mut begin).unwrap();
        Self { stream, begin }
    }

    fn finish(mut self) -> Answer {
        let _ = self.stream.read_to_end(&mut self.begin);
        Answer::parse(&self.begin)
    }
}

/// Makes a certificate for localhost, and its key.
fn certificate(images: &Images) -> PathBuf {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    images.store.write("key.pem", &made.signing_key.serialize_pem());
    images.store.write("cert.pem", &made.cert.pem())
}
