//! Other programs, run until they end or nobody wants them to.
//! Stage: outgoing. Output: what they say of their end.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::watch::Watch;

/// How soon a program is ended that nobody wants any more.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs a program that reads nothing, and of which only standard error is of interest. If
/// `watch` wants no more, the program is told to end, and waited for: what it writes to may be
/// removed then.
///
/// # Errors
/// If it can't be run, or what `watch` says.
pub fn run_program(command: &mut Command, watch: &dyn Watch) -> io::Result<Output> {
    watch.hold();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stderr = child.stderr.take().expect("it is a pipe");
    let (sender, said) = channel();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stderr.read_to_end(&mut bytes).map(|_| bytes);
        // Nobody listens when the program was given up.
        let _ = sender.send(read);
    });
    let stderr = loop {
        match said.recv_timeout(PATIENCE) {
            Ok(read) => break read,
            Err(RecvTimeoutError::Disconnected) => break Err(io::ErrorKind::BrokenPipe.into()),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = watch.advance(0) {
                    let id = child.id().cast_signed();
                    // It may have ended by itself.
                    let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
                    child.wait()?;
                    return Err(error);
                }
            }
        }
    };
    let status = child.wait()?;
    // It has sent what there is.
    let _ = reader.join();
    Ok(Output { status, stdout: Vec::new(), stderr: stderr? })
}

/// Gives a pipe the largest buffer that a user may ask for: with the usual 64 KiB, writer and
/// reader of a layer spend their time waking each other.
///
/// Changes nothing if `out` is no pipe, or the system says no.
pub fn widen_pipe(out: &impl AsFd) {
    const SIZE: i32 = 1 << 20; // /proc/sys/fs/pipe-max-size, unless somebody changed it
    let _ = fcntl(out, FcntlArg::F_SETPIPE_SZ(SIZE));
}
