use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stowage::oci::ImageSpec;

use crate::support::run;

/// A registry for one test, which ends with the test.
pub struct Registry {
    server: Child,
    /// The host and the port.
    pub host: String,
    directory: tempfile::TempDir,
}

impl Registry {
    pub fn start() -> Self {
        Self::with(|_, _| ())
    }

    /// Starts a registry that wants a name and a password.
    pub fn with_user(user: &str, password: &str) -> Self {
        Self::with(|config, directory| {
            let file = directory.join("htpasswd");
            // The smallest cost that bcrypt allows.
            let hash = bcrypt::hash(password, 4).unwrap();
            std::fs::write(&file, format!("{user}:{hash}\n")).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": file}});
        })
    }

    /// Starts a registry with HTTPS and a certificate that is not trusted by default: `ca.crt` in
    /// this directory.
    pub fn with_tls(trusted: &Path) -> Self {
        Self::with(|config, directory| {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            std::fs::write(trusted.join("ca.crt"), made.cert.pem()).unwrap();
            let (certificate, key) = (directory.join("cert"), directory.join("key"));
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            config["http"]["tls"] = json!({"certificate": certificate, "key": key});
        })
    }

    fn with(configure: impl FnOnce(&mut Value, &Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = free.local_addr().unwrap().to_string();
        drop(free);
        // JSON is also YAML.
        let mut config = json!({
            "version": 0.1,
            "storage": {
                "filesystem": {"rootdirectory": directory.path().join("data")},
                "delete": {"enabled": true},
            },
            "http": {"addr": host},
        });
        configure(&mut config, directory.path());
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(file).stdin(Stdio::null());
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while std::net::TcpStream::connect(&host).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "the registry does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { server, host, directory }
    }

    /// Deletes the manifest that a tag has.
    pub fn delete_manifest(&self, repository: &str, tag: &str) {
        let image = format!("docker://{}/{repository}:{tag}", self.host);
        run(Command::new("skopeo").args(["delete", "--tls-verify=false", &image]));
    }

    /// Removes the blobs that no manifest names.
    pub fn collect_garbage(&self) {
        let config = self.directory.path().join("config.yml");
        run(Command::new("docker-registry").arg("garbage-collect").arg(config));
    }

    /// Loses the files of all layers of an image, and returns how many these are.
    pub fn lose_blobs(&self, spec: &ImageSpec) -> u64 {
        let blobs = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        let digests: BTreeSet<_> =
            spec.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        for digest in &digests {
            let hex = &digest["sha256:".len()..];
            std::fs::remove_dir_all(blobs.join(&hex[..2]).join(hex)).unwrap();
        }
        digests.len() as u64
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
