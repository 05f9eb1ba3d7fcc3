//! Runs programs for the server, each within limits and in a process group of its own.
//! Stage: registry. Input: a command. Output: its exit status, and the end of its output.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The number of bytes of a program's messages that are kept, from the end.
const TAIL: usize = 64 << 10;
/// The longest time that Nix may take to end its builders after a signal.
const PATIENCE: Duration = Duration::from_secs(10);
/// The memory of an evaluator besides its heap: code, the stacks of threads, and mapped files.
const BESIDES_HEAP: u64 = 1 << 30;

/// The process groups of running programs.
#[derive(Clone, Debug, Default)]
pub struct RunningBuilds(Arc<Mutex<BTreeSet<i32>>>);

impl RunningBuilds {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all running programs.
    pub fn end(&self) {
        self.lock().iter().for_each(|group| send(*group, Signal::SIGTERM));
    }

    /// Runs a program to its end. Dropping the future before that ends the program and its
    /// children.
    ///
    /// # Errors
    /// Fails if the program can't be run.
    pub async fn run(&self, mut command: Command) -> io::Result<Ended> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C at a terminal must only reach the server, which then ends its programs.
        let child = command.process_group(0).spawn().map_err(|error| {
            let program = command.as_std().get_program().to_string_lossy();
            io::Error::new(error.kind(), format!("cannot run {program}: {error}"))
        })?;
        Running::new(child, self.clone()).wait().await
    }
}

/// The result of a program.
#[derive(Clone, Debug)]
pub struct Ended {
    /// True if the program succeeded.
    pub succeeded: bool,
    /// The end of its standard output.
    pub stdout: String,
    /// The end of its standard error.
    pub stderr: String,
}

/// Returns a command with the environment variables that Nix and git need, and without secrets of
/// the server.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(env::vars_os().filter(|(name, _)| is_for_nix(name)));
    // Nix's search path only has the entries of `-I`.
    command.env("NIX_PATH", "");
    // git must not ask for a password, since there is no user to answer.
    command.env("GIT_TERMINAL_PROMPT", "0");
    command
}

/// Returns whether Nix, or git when Nix runs it, needs an environment variable.
fn is_for_nix(name: &OsStr) -> bool {
    const NAMES: [&str; 12] = [
        "CURL_CA_BUNDLE",
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "LOGNAME",
        "NO_PROXY",
        "PATH",
        "SSH_AUTH_SOCK",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "USER",
    ];
    const PREFIXES: [&str; 3] = ["GIT_", "NIX_", "XDG_"];
    let name = name.to_string_lossy();
    NAMES.contains(&&*name.to_uppercase()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Limits the memory of an evaluator: its garbage collector reports when the heap is full, and the
/// system limits the whole process.
pub fn limit_memory(command: &mut Command, bytes: u64) {
    command.env("GC_MAXIMUM_HEAP_SIZE", bytes.to_string());
    let most = bytes.saturating_add(BESIDES_HEAP);
    let limit = move || {
        let (_, hard) = getrlimit(Resource::RLIMIT_AS)?;
        let most = most.min(hard);
        setrlimit(Resource::RLIMIT_AS, most, most)?;
        Ok(())
    };
    // SAFETY: Between fork and exec the closure makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(limit) };
}

/// A running program. Dropping it ends its process group.
struct Running {
    /// The process; none after its end.
    child: Option<Child>,
    /// The process group of the program and its children; none after the end.
    group: Option<i32>,
    all: RunningBuilds,
}

impl Running {
    fn new(child: Child, all: RunningBuilds) -> Self {
        let group = child.id().and_then(|pid| i32::try_from(pid).ok());
        all.lock().extend(group);
        Self { child: Some(child), group, all }
    }

    async fn wait(mut self) -> io::Result<Ended> {
        let Some(child) = &mut self.child else { return Err(io::ErrorKind::NotFound.into()) };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr, status) = tokio::join!(tail(stdout), tail(stderr), child.wait());
        let succeeded = status?.success();
        // Forget the process group after its end: another process may soon have the number.
        self.child = None;
        self.forget();
        Ok(Ended { succeeded, stdout: stdout?, stderr: stderr? })
    }

    fn forget(&mut self) {
        if let Some(group) = self.group.take() {
            self.all.lock().remove(&group);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(group), Some(mut child)) = (self.group, self.child.take()) else { return };
        send(group, Signal::SIGTERM);
        let all = self.all.clone();
        // A builder that ignores the signal is killed. Until then the process group still exists.
        self.group = None;
        let end = async move {
            if timeout(PATIENCE, child.wait()).await.is_err() {
                send(group, Signal::SIGKILL);
                let _ = child.wait().await;
            }
            all.lock().remove(&group);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(end)),
            Err(_) => drop(self.all.lock().remove(&group)),
        }
    }
}

fn send(group: i32, signal: Signal) {
    // The process group may have ended just now.
    let _ = killpg(Pid::from_raw(group), signal);
}

/// Reads a stream to its end, and returns the last part of it.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let (mut tail, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&tail).into_owned());
        }
        tail.extend_from_slice(&buffer[..read]);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }
}

/// Returns whether a program is in one of the directories of a `PATH`.
pub fn is_in(path: &OsStr, program: &str) -> bool {
    env::split_paths(path).any(|directory| {
        let found = directory.join(program).metadata();
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_where_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = env::join_paths([std::path::Path::new("/nowhere"), directory.path()]).unwrap();
        assert!(!is_in(&path, "program"));
        let program = directory.path().join("program");
        std::fs::write(&program, "").unwrap();
        assert!(!is_in(&path, "program"));
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(is_in(&path, "program"));
    }

    #[test]
    fn nix_gets_no_secrets_of_the_server() {
        for (name, expected) in [
            ("PATH", true),
            ("NIX_CONFIG", true),
            ("GIT_SSH_COMMAND", true),
            ("https_proxy", true),
            ("AWS_SECRET_ACCESS_KEY", false),
            ("STOWAGE_USERS", false),
            ("DOCKER_AUTH_CONFIG", false),
        ] {
            assert_eq!(is_for_nix(OsStr::new(name)), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn the_end_of_messages_is_kept() {
        let text = format!("{}end", "x".repeat(100_000));
        let found = tail(Some(text.as_bytes())).await.unwrap();
        assert_eq!(found.len(), TAIL);
        assert!(found.ends_with("xend"));
    }

    #[tokio::test]
    async fn programs_end_with_who_waits_for_them() {
        let running = RunningBuilds::default();
        let mut command = command("sh");
        command.args(["-c", "trap '' TERM; echo started >&2; while :; do sleep 1; done"]);
        let waited = timeout(Duration::from_millis(300), running.run(command)).await;
        assert!(waited.is_err());
        // The group is still listed: the end of the server would end it too.
        assert_eq!(running.lock().len(), 1);
        let group = *running.lock().first().unwrap();
        send(group, Signal::SIGKILL);
        let begin = std::time::Instant::now();
        while !running.lock().is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(60), "it is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn memory_is_limited() {
        let mut command = command("sh");
        command.args(["-c", "ulimit -v"]);
        limit_memory(&mut command, 1 << 30);
        let ended = RunningBuilds::default().run(command).await.unwrap();
        assert_eq!(ended.stdout.trim(), (2 << 20).to_string(), "{}", ended.stderr);
    }
}
