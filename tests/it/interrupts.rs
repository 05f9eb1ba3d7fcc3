use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{self, SigHandler, Signal, kill};
use nix::unistd::Pid;

use crate::support::{FakeStore, stderr};
use crate::targets::{files, images};

/// A lease on a file: other programs that open the file wait until the lease is dropped. (The
/// kernel breaks the lease after 45 seconds, `/proc/sys/fs/lease-break-time`.)
struct Lease {
    _file: fs::File,
}

impl Lease {
    fn on(path: &Path) -> Self {
        /// The value in `asm-generic/fcntl.h`, which the crate lacks.
        const F_SETSIG: libc::c_int = 10;
        let file = fs::File::open(path).unwrap();
        let set = |command, argument: libc::c_int| {
            // SAFETY: these commands take a number, and the descriptor is open.
            let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        };
        // The signal that the kernel sends when another process waits; it is ignored.
        set(F_SETSIG, libc::SIGURG);
        set(libc::F_SETLEASE, libc::F_WRLCK);
        Self { _file: file }
    }
}

/// Returns the size of the largest file that a program has open below a directory, in bytes. The
/// file may be without a name.
fn largest(program: u32, path: &Path) -> u64 {
    let open = fs::read_dir(format!("/proc/{program}/fd")).into_iter().flatten().flatten();
    let below = open
        .map(|file| file.path())
        .filter(|file| fs::read_link(file).is_ok_and(|target| target.starts_with(path)));
    below.filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).max().unwrap_or(0)
}

/// Lets signals end a program, whatever runs the tests: under nohup, or in the background of a
/// shell, signals are ignored, and a child inherits that.
fn heed_signals(command: &mut Command) {
    let heed = || {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            // SAFETY: no handler is set.
            unsafe { signal::signal(signal, SigHandler::SigDfl)? };
        }
        Ok(())
    };
    // SAFETY: between fork and exec this calls sigaction alone, which is async-signal-safe.
    unsafe { command.pre_exec(heed) };
}

/// Checks that Ctrl-C at any time, and SIGTERM too, leave nothing behind.
#[test]
fn an_interrupted_copy_leaves_nothing() {
    let mut store = FakeStore::new();
    store.add_file('1', "big", &[], &"big".repeat(1 << 20));
    store.add_file('2', "small", &[], "small");
    store.build(r#"{"layering": "largest-first"}"#);
    let second = store.store().physical_dir().join(format!("{}-small/file", "2".repeat(32)));
    for (target, signal, code) in [
        ("oci-archive:new/image.tar", Signal::SIGINT, 130),
        ("oci:new/layout", Signal::SIGTERM, 143),
        ("dir:new/dir", Signal::SIGHUP, 129),
        ("docker-archive:new/image.tar", Signal::SIGQUIT, 131),
        // A program can't handle this signal: empty directories are left.
        ("oci-archive:new/image.tar", Signal::SIGKILL, 128 + 9),
        ("oci:new/layout", Signal::SIGKILL, 128 + 9),
    ] {
        let new = store.root().join("new");
        fs::create_dir(&new).unwrap();
        // The copy gets as far as the second layer, and waits there until the signal was sent.
        let lease = Lease::on(&second);
        let mut command = store.stowage(&["copy", "image.json", target, "--digestfile", "digest"]);
        heed_signals(&mut command);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while largest(child.id(), &new) < 1 << 20 {
            assert!(start.elapsed() < Duration::from_secs(60));
            assert!(child.try_wait().unwrap().is_none(), "{target} was too fast");
            sleep(Duration::from_millis(1));
        }
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        drop(lease);
        let output = child.wait_with_output().unwrap();
        let ended = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
        assert_eq!(ended, Some(code), "{target}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{target}");
        assert_eq!(files(&new).keys().collect::<Vec<_>>(), [""; 0], "{target}");
        assert!(signal == Signal::SIGKILL || fs::read_dir(&new).unwrap().count() == 0, "{target}");
        assert!(!store.root().join("digest").exists());
        fs::remove_dir_all(&new).unwrap();
    }
}

/// Checks that an interrupted copy also ends the program that it runs, and removes the files of
/// that program.
#[test]
fn an_interrupted_copy_by_skopeo_leaves_nothing() {
    let (store, _) = images();
    let [programs, temporary, started] =
        ["programs", "temporary", "started"].map(|name| store.root().join(name));
    fs::create_dir(&programs).unwrap();
    fs::create_dir(&temporary).unwrap();
    let script =
        "#!/bin/sh\necho begun > \"$TMPDIR/begun\"\necho $$ > \"$STARTED\"\nexec sleep 1000\n";
    store.write("programs/skopeo", script);
    fs::set_permissions(programs.join("skopeo"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = store.stowage(&["copy", "image.json", "containers-storage:small:v1"]);
    heed_signals(&mut command);
    let path = [programs.display().to_string(), std::env::var("PATH").unwrap()].join(":");
    command.env("PATH", path).env("TMPDIR", &temporary).env("STARTED", &started);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let skopeo = loop {
        assert!(start.elapsed() < Duration::from_secs(60));
        assert!(child.try_wait().unwrap().is_none());
        match fs::read_to_string(&started).unwrap_or_default().strip_suffix('\n') {
            Some(id) => break Pid::from_raw(id.parse().unwrap()),
            None => sleep(Duration::from_millis(1)),
        }
    };
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*stderr(&output)), (Some(143), ""));
    assert_eq!(kill(skopeo, None), Err(Errno::ESRCH));
    let left: Vec<_> =
        fs::read_dir(&temporary).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["begun"], "which is not in the directory that skopeo is given");
}
