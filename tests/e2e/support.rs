use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use stowage::oci::ImageSpec;

pub const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
const SYSTEM: &str = "x86_64-linux";

/// Returns the command `checks/nix ARGUMENTS`, run in the repository.
pub fn nix(arguments: &[&str]) -> Command {
    let mut command = Command::new(Path::new(REPOSITORY).join("checks/nix"));
    command.args(arguments).current_dir(REPOSITORY).stdin(Stdio::null());
    // The tested program builds the images.
    command.env("STOWAGE_PROGRAM", env!("CARGO_BIN_EXE_stowage"));
    command
}

/// Returns the command that runs a program as root, or through sudo.
pub fn root_command(program: &str) -> Command {
    let mut command = Command::new(Path::new(REPOSITORY).join("checks/as-root"));
    command.arg(program);
    command
}

/// Returns a program of another Debian release, which is downloaded but not installed.
pub fn program_of(release: &str, name: &str) -> Command {
    program_in(release, name, name)
}

/// Returns a program of a package of another name.
pub fn program_in(release: &str, name: &str, package: &str) -> Command {
    let mut command = Command::new(format!("{REPOSITORY}/checks/program"));
    Command::new(run(command.args([release, name, package])).trim())
}

/// Runs a command that must succeed, and returns its output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Results by name, each made once in a test run, by the first test that asks for it.
struct Shared<T>(Mutex<BTreeMap<String, Arc<OnceLock<T>>>>);

impl<T: Clone> Shared<T> {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Returns the result of that name. Other tests that ask for it at the same time wait.
    fn get(&self, name: &str, make: impl FnOnce() -> T) -> T {
        let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = Arc::clone(results.entry(name.to_owned()).or_default());
        drop(results);
        result.get_or_init(make).clone()
    }
}

/// Store paths of flake outputs.
static BUILT: Shared<PathBuf> = Shared::new();
/// Strings of flake outputs.
static EVALUATED: Shared<String> = Shared::new();
/// Images, whose specs were read and verified.
static IMAGES: Shared<Image> = Shared::new();

/// Builds a flake output, such as `checks.x86_64-linux.full`, and returns its store path.
pub fn build(attribute: &str) -> PathBuf {
    BUILT.get(attribute, || {
        // Nix 2.8 has no `--print-out-paths`.
        let json = run(&mut nix(&["build", "--no-link", "--json", &format!(".#{attribute}")]));
        let json: Value = serde_json::from_str(&json).unwrap();
        json[0]["outputs"]["out"].as_str().unwrap().into()
    })
}

/// Returns what the builder of a flake output said.
pub fn build_log(attribute: &str) -> String {
    let path = build(attribute);
    run(&mut nix(&["--exec", "nix-store", "--read-log", path.to_str().unwrap()]))
}

/// Evaluates a flake output that is a string.
pub fn evaluate(attribute: &str) -> String {
    EVALUATED.get(attribute, || run(&mut nix(&["eval", "--raw", &format!(".#{attribute}")])))
}

/// Returns the flake output of one of `checks`.
pub fn check(name: &str) -> String {
    format!("checks.{SYSTEM}.{name}")
}

/// Builds several of `checks` by one evaluation: after this, `build`, `Image::named` and
/// `Image::reference` have the results of each.
pub fn build_together(names: &[&str]) {
    // Also evaluate the attributes that tests ask for. Images have them; archives have no `spec`.
    let apply = format!(
        r#"checks: map
          (name: let image = checks.${{name}}; in {{
            inherit name;
            strings = {{ imageName = image.imageName or null; imageTag = image.imageTag or null; }};
            derivation = image.drvPath;
            spec = image.spec.drvPath or null;
          }}) [ {} ]"#,
        names.iter().map(|name| format!("\"{name}\" ")).collect::<String>()
    );
    let checks = format!(".#checks.{SYSTEM}");
    let images = run(&mut nix(&["eval", "--json", &checks, "--apply", &apply]));
    let images: Vec<Value> = serde_json::from_str(&images).unwrap();
    let mut derivations = Vec::new();
    for image in &images {
        let attribute = check(image["name"].as_str().unwrap());
        for name in ["imageName", "imageTag"] {
            if let Some(string) = image["strings"][name].as_str() {
                EVALUATED.get(&format!("{attribute}.{name}"), || string.to_owned());
            }
        }
        derivations.push((attribute.clone(), image["derivation"].as_str().unwrap()));
        if let Some(derivation) = image["spec"].as_str() {
            derivations.push((format!("{attribute}.spec"), derivation));
        }
    }
    let mut realise = nix(&["--exec", "nix-store", "--realise"]);
    let paths = run(realise.args(derivations.iter().map(|(_, derivation)| derivation)));
    let paths: Vec<_> = paths.lines().collect();
    assert_eq!(paths.len(), derivations.len(), "one output of each derivation");
    for ((attribute, _), path) in derivations.iter().zip(paths) {
        BUILT.get(attribute, || path.into());
    }
}

/// A built image of `images.nix`.
#[derive(Clone)]
pub struct Image {
    pub attribute: String,
    /// The script.
    pub path: PathBuf,
    /// The image spec, `image.json`.
    pub spec_file: PathBuf,
    pub spec: ImageSpec,
}

impl Image {
    pub fn named(name: &str) -> Self {
        Self::at(&check(name))
    }

    pub fn at(attribute: &str) -> Self {
        IMAGES.get(attribute, || {
            let path = build(attribute);
            let spec_file = build(&format!("{attribute}.spec"));
            let spec = ImageSpec::read(&spec_file).unwrap();
            let image = Self { attribute: attribute.to_owned(), path, spec_file, spec };
            image.verify();
            image
        })
    }

    /// Verifies the image, as is done for every image of every test.
    fn verify(&self) {
        run(stowage(&["verify"]).arg(&self.spec_file));
    }

    pub fn evaluate(&self, attribute: &str) -> String {
        evaluate(&format!("{}.{attribute}", self.attribute))
    }

    /// Returns `name:tag` as Nix code has it.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.evaluate("imageName"), self.evaluate("imageTag"))
    }

    pub fn diff_ids(&self) -> Vec<String> {
        self.spec.layers.iter().map(|layer| layer.diff_id.to_string()).collect()
    }

    /// Returns the program that `nix run .#IMAGE.copyToDockerDaemon` runs.
    pub fn copy_to_docker_daemon(&self) -> Command {
        let package = build(&format!("{}.copyToDockerDaemon", self.attribute));
        Command::new(package.join("bin/copy-to-docker-daemon"))
    }

    /// Runs the script, and writes its output to a file.
    pub fn stream_to(&self, file: &Path) {
        let out = std::fs::File::create(file).unwrap();
        run(Command::new(&self.path).stdout(out));
    }
}

/// Returns the program of this crate, as it was built for the tests.
pub fn stowage(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stowage"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A Docker daemon for one test, which ends with the test.
pub struct Docker {
    daemon: Child,
    directory: tempfile::TempDir,
}

/// Returns the group that may use the daemon: this process's own.
fn group() -> String {
    nix::unistd::getegid().to_string()
}

impl Docker {
    pub fn start() -> Self {
        Self::start_by(root_command("dockerd"))
    }

    /// Starts the daemon of another Debian release, with its images in Docker's classic store.
    pub fn of_release(release: &str) -> Self {
        Self::with_store(release, false)
    }

    /// Starts the daemon of another Debian release, with its images in containerd's store, as is
    /// usual since Docker 29.
    pub fn with_containerd_store(release: &str) -> Self {
        Self::with_store(release, true)
    }

    fn with_store(release: &str, is_containerd: bool) -> Self {
        let programs =
            run(Command::new(Path::new(REPOSITORY).join("checks/newer-docker")).arg(release));
        let path = format!("{}:{}", programs.trim(), std::env::var("PATH").unwrap());
        let mut command = root_command("env");
        command.arg(format!("PATH={path}")).arg("dockerd");
        let config = tempfile::NamedTempFile::new().unwrap();
        let features = serde_json::json!({"features": {"containerd-snapshotter": is_containerd}});
        std::fs::write(config.path(), features.to_string()).unwrap();
        command.arg("--config-file").arg(config.path());
        // When the daemon answers, it has read its configuration.
        Self::start_by(command)
    }

    fn start_by(mut command: Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let log = std::fs::File::create(path.join("log")).unwrap();
        let daemon = command
            .arg("--data-root")
            .arg(path.join("data"))
            .arg("--exec-root")
            .arg(path.join("exec"))
            .arg("--pidfile")
            .arg(path.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", path.join("socket").display()))
            .arg("--group")
            .arg(group())
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd can be started");
        let docker = Self { daemon, directory };
        docker.wait();
        docker
    }

    fn wait(&self) {
        let start = Instant::now();
        while !self.command(&["version"]).output().unwrap().status.success() {
            let log =
                || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "dockerd does not answer:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("socket").display())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments).env("DOCKER_HOST", self.host()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }

    /// Returns the output of a container of the image.
    pub fn container(&self, reference: &str, arguments: &[&str]) -> String {
        let mut all = vec!["run", "--rm", "--network=none", reference];
        all.extend(arguments);
        self.run(&all)
    }

    /// Runs `IMAGE | docker load`.
    pub fn load(&self, image: &Image) -> String {
        let mut stream = Command::new(&image.path).stdout(Stdio::piped()).spawn().unwrap();
        let output = run(self.command(&["load"]).stdin(stream.stdout.take().unwrap()));
        assert!(stream.wait().unwrap().success());
        output
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let path = self.directory.path();
        // The daemon ends its own containerd, and unmounts, when it is asked to end.
        if let Ok(pid) = std::fs::read_to_string(path.join("pid")) {
            let _ = root_command("kill").arg(pid.trim()).status();
        }
        let _ = self.daemon.wait();
        // The daemon's files belong to root.
        let _ = root_command("umount").arg(path.join("data")).stderr(Stdio::null()).status();
        let _ =
            root_command("rm").arg("-rf").arg(path.join("data")).arg(path.join("exec")).status();
    }
}
