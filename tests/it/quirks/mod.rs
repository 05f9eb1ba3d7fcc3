//! Tests pushes to registries with the quirks of real ones, one quirk at a time.

mod access;
mod authorization;
mod messages;
mod registry;
mod secure;
mod statuses;
mod there;

use std::process::Output;

use registry::{Quirks, Quirky};

use crate::support::{FakeStore, stderr};

/// An image of three layers, one of which is long enough for `Expect: 100-continue`.
pub struct Pushed {
    store: FakeStore,
    manifest: Vec<u8>,
}

impl Pushed {
    pub fn new() -> Self {
        Self::with_layers(3)
    }

    /// Makes an image of `count` layers, at most 60: one that is sent in a `PATCH`, and small ones.
    pub fn with_layers(count: usize) -> Self {
        Self::with_layers_of(count, 1)
    }

    /// Makes an image of `count` layers, at most 60; all but one have a file of `size` bytes.
    pub fn with_layers_of(count: usize, size: usize) -> Self {
        let mut store = FakeStore::new();
        let big: Vec<u8> = (0..3_u32 << 20).map(|place| (place >> 4) as u8).collect();
        store.add('0', "big", &[], |path| std::fs::write(path, big).unwrap());
        let digits: Vec<char> = ('1'..='9').chain('a'..='d').chain('f'..='n').collect();
        for number in 0..count.saturating_sub(1) {
            let digit = digits[number % digits.len()];
            let text = digit.to_string().repeat(size);
            store.add_file(digit, &format!("small-{number}"), &[], &text);
        }
        store.build(r#"{"layering": "popularity"}"#);
        let manifest = store.stowage(&["manifest", "image.json"]).output().unwrap().stdout;
        Self { store, manifest }
    }

    pub fn store(&self) -> &FakeStore {
        &self.store
    }

    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// Returns the digests of the layers and the configuration.
    pub fn blobs(&self) -> Vec<String> {
        let manifest: serde_json::Value = serde_json::from_slice(&self.manifest).unwrap();
        let blobs = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
        blobs.map(|blob| blob["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// Runs `stowage push image.json HOST/a/b:v1 FLAGS`, without any credentials of this machine's
    /// user.
    pub fn push(&self, host: &str, flags: &[&str]) -> Output {
        self.push_file("image.json", host, flags)
    }

    pub fn push_file(&self, file: &str, host: &str, flags: &[&str]) -> Output {
        let name = format!("{host}/a/b:v1");
        let mut command = self.store.stowage(&[&["push", file, &name], flags].concat());
        for variable in ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"] {
            command.env_remove(variable);
        }
        command.env("HOME", self.store.root().join("home"));
        command.env("XDG_CONFIG_HOME", self.store.root().join("home"));
        command.output().unwrap()
    }

    /// Pushes the image. Checks that this succeeds, and that the image can be pulled.
    pub fn arrives(&self, what: &str, registry: &Quirky, flags: &[&str]) -> String {
        let output = self.push(&registry.host(), flags);
        let said = stderr(&output);
        assert!(output.status.success(), "{what}: {said}\n{:#?}", registry.take_seen());
        registry.check("a/b", "v1", &self.manifest);
        said
    }

    /// Pushes the image to a new registry twice. If `known`, the second push must send nothing.
    pub fn arrives_twice(&self, what: &str, quirks: Quirks, flags: &[&str], known: bool) {
        let registry = Quirky::start(quirks);
        self.arrives(what, &registry, flags);
        let sent = registry.contents().received.len();
        self.arrives(what, &registry, flags);
        if known {
            assert_eq!(registry.contents().received.len(), sent, "{what}: sent again");
        }
    }

    /// Pushes the image, and checks that this fails. Returns standard error. `what` names the case
    /// in assertions.
    pub fn fails(&self, what: &str, registry: &Quirky, flags: &[&str]) -> String {
        let output = self.push(&registry.host(), flags);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(said.contains("error: "), "{what}: {said}");
        said
    }
}
