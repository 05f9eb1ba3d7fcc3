//! Runs other programs, until they end or the copy is ended.
//! Stage: outgoing. Output: their exit status and what they printed.

use std::io::{self, Read};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::watch::Watch;

/// The interval at which `watch` is asked whether to end the program.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs a program without input, and collects its standard error. If `watch` ends the copy, the
/// program is told to end and waited for, so that the caller may remove the files that it wrote to.
///
/// # Errors
/// Fails if the program can't be run, or with the error of `watch`.
pub fn run_program(command: &mut Command, watch: &dyn Watch) -> io::Result<Output> {
    watch.hold();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stderr = child.stderr.take().expect("it is a pipe");
    let (sender, said) = channel();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stderr.read_to_end(&mut bytes).map(|_| bytes);
        // If the program was ended early, nothing waits for its output any more.
        let _ = sender.send(read);
    });
    let stderr = loop {
        match said.recv_timeout(PATIENCE) {
            Ok(read) => break read,
            Err(RecvTimeoutError::Disconnected) => break Err(io::ErrorKind::BrokenPipe.into()),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = watch.advance(0) {
                    let id = child.id().cast_signed();
                    // The program may have ended already.
                    let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
                    child.wait()?;
                    return Err(error);
                }
            }
        }
    };
    let status = child.wait()?;
    // The thread has sent its result, and ends.
    let _ = reader.join();
    Ok(Output { status, stdout: Vec::new(), stderr: stderr? })
}
