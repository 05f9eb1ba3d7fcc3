//! The functions that fuzzers call with any bytes. They must not panic, hang or use much memory.
//!
//! `cargo fuzz run archives` runs one of them by libFuzzer, with a nightly compiler. `tests/it/fuzz.rs`
//! runs all of them by a simpler driver, with every compiler.

#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use stowage::closure::Closure;
use stowage::layer::{LayerBudget, LayerPlan, Layering};
use stowage::oci::unpack::{Budget, TarReader};
use stowage::oci::{self, Architecture, BuildOptions, Image, ImageSpec, IndexSpec};
use stowage::outgoing::{
    ImageReference, RefName, Reference, RegistryName, RepositoryName, Tag, TaggedName,
};
use stowage::registry::catalog::Catalog;
use stowage::registry::on_demand::{PackageRequest, PackageSource, ServedTags};
use stowage::registry::server::{Registry, ServerOptions};
use stowage::store::{Store, StorePath};
use stowage::{report, target};

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// The targets, by the names of their corpora.
pub const TARGETS: [(&str, Target); 8] = [
    ("registration", registration),
    ("attributes", attributes),
    ("specs", specs),
    ("archives", archives),
    ("documents", documents),
    ("programs", programs),
    ("http", http),
    ("names", names),
];

/// Parses a registration or a references graph, and plans layers for it.
pub fn registration(data: &[u8]) {
    let Ok(closure) = Closure::parse(data) else { return };
    for node in closure.nodes() {
        assert!(closure.references(node).all(|path| closure.get(path).is_some()));
    }
    if let Ok(plan) = LayerPlan::new(&closure, LayerBudget::default(), Layering::default().into()) {
        let planned: usize = plan.into_layers().into_iter().map(|layer| layer.len()).sum();
        assert_eq!(planned, closure.infos().len());
    }
}

/// Parses the options of a build.
pub fn attributes(data: &[u8]) {
    let _ = serde_json::from_slice::<BuildOptions>(data);
}

/// Parses an image spec and an index spec, and makes the documents of the image.
pub fn specs(data: &[u8]) {
    let _ = serde_json::from_slice::<IndexSpec>(data);
    let Ok(spec) = serde_json::from_slice::<ImageSpec>(data) else { return };
    let image = Image::new(&spec);
    assert!(!image.manifest.bytes.is_empty());
    let _ = spec.size();
    let again: ImageSpec = serde_json::from_slice(&spec.to_json()).expect("it was a spec before");
    assert_eq!(again.to_json(), spec.to_json());
    let _ = report::diff(&spec, &again);
}

/// Reads an archive in every way: as a layer, and as a base image that is flattened and merged.
pub fn archives(data: &[u8]) {
    let mut reader = TarReader::new(data);
    while let Ok(Some(mut member)) = reader.next_member() {
        let _ = member.check();
        let (size, read) = (member.size(), io::copy(&mut member, &mut io::sink()));
        assert!(read.is_err() || read.is_ok_and(|read| read == size));
    }
    let _ = oci::base::scan(data, &Budget::default());
    let _ = report::tarsum(data);
    if data.first() == Some(&b'{') {
        // An image spec may name any file.
        return;
    }
    let mut file =
        tempfile::NamedTempFile::new().expect("there is a directory for temporary files");
    file.write_all(data).expect("it has space");
    let architecture: Architecture = "amd64".parse().expect("it is one");
    if let Ok(image) = oci::image_of(&Store::default(), file.path(), &architecture) {
        let _ = oci::flatten(&Store::default(), &image.layers, io::sink());
        let _ = report::lint(&Store::default(), &image, |_| {});
    }
    let null = "/dev/null".as_ref();
    let _ = target::merge_archives(
        &Store::default(),
        &[file.path().to_owned()],
        null,
        &stowage::outgoing::Unwatched,
    );
}

/// Reads a document of tests.
pub fn documents(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = report::structure::Tests::parse(text);
    }
}

/// Reads the head of a program, and what its loader needs.
pub fn programs(data: &[u8]) {
    if let Some(elf) = report::Elf::read(data) {
        let texts = elf.needed.iter().chain(&elf.interpreter).chain(&elf.rpath).chain(&elf.runpath);
        assert!(texts.into_iter().all(|text| text.len() < data.len()));
    }
    let _ = report::head_of(&data[..data.len().min(256)]);
}

/// Sends bytes to a registry, and reads its answers.
pub fn http(data: &[u8]) {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = ServerOptions::default();
        Registry::start(Catalog::default(), Store::default(), address, options)
            .expect("there is a free port")
    });
    let ask = |data: &[u8], ends: bool| -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(registry.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // The server may answer and close before it read all.
        let _ = stream.write_all(data);
        if ends {
            // Unless the connection is closed for writing, the server waits for the rest of a
            // request. If it is closed, the server may take the client for gone.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(answer),
        }
    };
    let answer = ask(data, true).expect("the server closes the connection");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", answer.escape_ascii());
    let alive = ask(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false);
    let alive = alive.expect("the server is alive");
    assert!(alive.starts_with(b"HTTP/1.1 200"), "{}", alive.escape_ascii());
}

/// Parses names of images, packages and store paths.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = text.parse::<Reference>();
    let _ = text.parse::<ImageReference>();
    let _ = text.parse::<RegistryName>();
    let _ = text.parse::<RepositoryName>();
    let _ = text.parse::<Tag>();
    let _ = text.parse::<RefName>();
    let _ = text.parse::<PackageSource>();
    if let Ok(path) = text.parse::<StorePath>() {
        assert_eq!(Store::default().parse(&Store::default().print(&path)).ok(), Some(path));
    }
    let (name, tag) = text.rsplit_once(':').unwrap_or((&text, "latest"));
    let Ok(name) = TaggedName::parse(name, tag) else { return };
    let written = name.to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    assert!(written.chars().all(|c| is_plain(c) || c == ':'), "{text}");
    let source: PackageSource = "nixpkgs!nixos-unstable".parse().expect("it is one");
    if let Ok(request) = PackageRequest::new(&name, &source, ServedTags::Commits, 32) {
        let packages: Vec<String> = serde_json::from_str(&request.packages()).expect("it is JSON");
        assert_eq!(packages.join("/"), name.repository.as_str());
    }
}
