use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Image, root_command, run, stderr, stowage};

/// A containerd with stores of its own, which ends with the test.
pub struct Containerd {
    daemon: Child,
    directory: tempfile::TempDir,
}

impl Containerd {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let group = nix::unistd::getegid();
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\ngid = {group}\n[ttrpc]\naddress = \"{}\"\n",
            path("root"),
            path("state"),
            path("socket"),
            path("ttrpc"),
        );
        std::fs::write(path("config.toml"), config).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let mut command = root_command("containerd");
        command.args(["--config", &path("config.toml")]).stdin(Stdio::null());
        let daemon = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let containerd = Self { daemon, directory };
        let start = Instant::now();
        while !containerd.ctr(&["version"]).output().unwrap().status.success() {
            assert!(start.elapsed() < Duration::from_secs(30), "containerd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    fn environment(&self, command: &mut Command) {
        command.env("CONTAINERD_ADDRESS", self.directory.path().join("socket"));
        command.env("CONTAINERD_NAMESPACE", "test");
    }

    pub fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.args(arguments).stdin(Stdio::null());
        self.environment(&mut command);
        command
    }

    fn copy(&self, image: &Image, name: &str) -> Value {
        let mut command = stowage(&["copy", "--json"]);
        command.arg(&image.spec_file).arg(format!("containerd:{name}"));
        self.environment(&mut command);
        serde_json::from_str(&run(&mut command)).unwrap()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // With sudo, another process has to end.
        let _ = root_command("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
        let _ = root_command("rm").arg("-rf").arg(self.directory.path().join("root")).status();
        let _ = root_command("rm").arg("-rf").arg(self.directory.path().join("state")).status();
    }
}

#[test]
fn containerd_pulls_what_it_lacks() {
    let containerd = Containerd::start();
    let (one, two) = (Image::named("smallApp1"), Image::named("smallApp2"));
    let first = containerd.copy(&one, "e2e/app:v1");
    assert_eq!(
        (&first["layersSkipped"], &first["reference"]),
        (&0.into(), &"docker.io/e2e/app:v1".into())
    );
    let second = containerd.copy(&two, "e2e/app:v2");
    assert!(second["bytesSent"].as_u64().unwrap() * 1000 < two.spec.size(), "{second}");

    // The images have their own names only.
    let names = run(&mut containerd.ctr(&["images", "list", "--quiet"]));
    assert_eq!(names, "docker.io/e2e/app:v1\ndocker.io/e2e/app:v2\n");
    let digest = second["manifestDigest"].as_str().unwrap();
    let manifest = run(&mut containerd.ctr(&["content", "get", digest]));
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config: Value =
        serde_json::from_str(&run(&mut containerd.ctr(&["content", "get", config]))).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(two.diff_ids()));
}

#[test]
fn no_containerd_is_said() {
    let image = Image::named("configOnly");
    let mut command = stowage(&["copy"]);
    command.arg(&image.spec_file).arg("containerd:a:b");
    let output = command.env("CONTAINERD_ADDRESS", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(
        error.starts_with("error: `ctr images pull ") && error.contains("\nhint: is containerd"),
        "{error}"
    );
}
