//! Tests copies to another machine by ssh. The other machine is this one, reached by OpenSSH's server
//! on a loopback port.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::{User, getuid};
use serde_json::Value;

use crate::support::{Docker, Image, build_together, program_in, root_command, run, stowage};

/// A server for one test, which ends with the test.
struct Sshd {
    server: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Sshd {
    /// Starts a server, whose sessions have these environment variables.
    fn start(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(name)));
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host_key = fs::read_to_string(path("host.pub")).unwrap();
        fs::write(path("known"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        let variables: String =
            variables.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile {}\n\
             UsePAM no\nStrictModes no\nSetEnv{variables}\n",
            path("host").display(),
            path("user.pub").display(),
            path("pid").display(),
        );
        fs::write(path("config"), config).unwrap();
        // The server's own user, who does not exist on a machine without an installed server.
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let own = "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n";
        fs::write(path("passwd"), users + own).unwrap();
        let script = r#"mount --bind "$1/passwd" /etc/passwd
            mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "$2" -D -e -f "$1/config""#;
        let server = root_command("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(directory.path())
            .arg(program_in("bookworm", "sshd", "openssh-server").get_program())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let sshd = Self { server, directory, port };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(sshd.path("log")).unwrap();
            assert!(start.elapsed() < Duration::from_secs(60), "sshd does not answer:\n{log}");
            sleep(Duration::from_millis(50));
        }
        sshd
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Copies an image to a target on the other machine, and returns the result.
    fn copy(&self, image: &Image, target: &str) -> Value {
        let user = User::from_uid(getuid()).unwrap().unwrap().name;
        let target = format!("ssh://{user}@127.0.0.1:{}/{target}", self.port);
        let json = image.spec_file.to_str().unwrap();
        let program = format!("--remote-program={}", env!("CARGO_BIN_EXE_stowage"));
        let options = format!(
            "-F none -o BatchMode=yes -o IdentitiesOnly=yes -i {} -o UserKnownHostsFile={}",
            self.path("user").display(),
            self.path("known").display()
        );
        let mut command = stowage(&["copy", json, &target, "--json", &program]);
        serde_json::from_str(&run(command.env("NIX_SSHOPTS", options))).unwrap()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.path("pid")) {
            let _ = root_command("kill").arg(pid.trim()).status();
        }
        let _ = self.server.wait();
    }
}

/// Checks that an update costs a few kilobytes, also if the daemon has lost all layers: the other
/// machine keeps what it received.
#[test]
fn a_daemon_behind_ssh_is_sent_what_its_machine_lacks() {
    build_together(&["smallApp1", "smallApp2"]);
    let (one, two) = (Image::named("smallApp1"), Image::named("smallApp2"));
    let docker = Docker::start();
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().to_str().unwrap();
    let sshd = Sshd::start(&[("DOCKER_HOST", &docker.host()), ("XDG_CACHE_HOME", cache)]);
    let sent = |copied: &Value| copied["bytesSent"].as_u64().unwrap();
    let target = |image: &Image| format!("docker-daemon:{}", image.reference());

    let first = sshd.copy(&one, &target(&one));
    assert_eq!(first["layersSkipped"], 0, "{first}");
    let update = sshd.copy(&two, &target(&two));
    assert!(sent(&update) < 20_000 && sent(&update) * 50 < sent(&first), "{first} {update}");
    assert!(docker.container(&two.reference(), &[]).starts_with("app v2\n"));

    docker.run(&["rmi", &one.reference(), &two.reference()]);
    let again = sshd.copy(&two, &target(&two));
    assert!(sent(&again) < 20_000, "{again}");
    assert!(docker.container(&two.reference(), &[]).starts_with("app v2\n"));
}
