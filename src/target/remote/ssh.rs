//! Runs `stowage receive` on another machine by ssh.
//! Stage: target. Input and output: bytes to and messages from the other machine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::host::RemoteHost;
use super::wire::{AHEAD, RECEIVER, ReceiverMessage};
use crate::outgoing::Watch;
use crate::system;

/// The interval at which `watch` is asked whether to end the copy.
const PATIENCE: Duration = Duration::from_millis(100);
/// The number of bytes before the greeting, such as a banner of the shell, that are passed over.
const MOST_JUNK: u64 = 64 << 10;

/// The way to reach another machine, and the program on it.
#[derive(Clone, Debug)]
pub struct SshOptions {
    /// More arguments of `ssh`.
    pub arguments: Vec<String>,
    /// The program on the other machine.
    pub program: String,
}

/// A message of the other side.
pub enum SessionEvent {
    /// The greeting, without its beginning.
    Greeting(String),
    /// A message after the greeting.
    Message(ReceiverMessage),
    /// Bytes that are no message.
    Invalid(String),
    /// The end. Holds the first line if it came before a greeting.
    End(Option<String>),
}

/// A running `stowage receive`. Dropping the value ends ssh.
pub struct SshSession<'a> {
    child: Child,
    pipe: Option<ChildStdin>,
    said: Receiver<SessionEvent>,
    watch: &'a dyn Watch,
    /// The number of bytes that were written.
    written: u64,
}

impl<'a> SshSession<'a> {
    /// Starts ssh, with the arguments of the other machine's `stowage`.
    ///
    /// # Errors
    /// Fails if ssh can't be run.
    pub fn open(
        host: &RemoteHost,
        options: &SshOptions,
        arguments: &[String],
        watch: &'a dyn Watch,
    ) -> io::Result<Self> {
        watch.hold();
        let mut command = Command::new("ssh");
        command.args(&options.arguments).arg("-T");
        if let Some(port) = host.port() {
            command.arg("-p").arg(port.to_string());
        }
        command.args(["--", host.destination()]).arg(shell_words(&options.program, arguments));
        // ssh's own messages, and questions for a password, are for the user.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let pipe = child.stdin.take();
        if let Some(pipe) = &pipe {
            system::widen_pipe(pipe);
            system::set_nonblocking(pipe)?;
        }
        let stdout = child.stdout.take().expect("it was asked for");
        let (sender, said) = sync_channel(AHEAD);
        thread::spawn(move || listen(stdout, &sender));
        Ok(Self { child, pipe, said, watch, written: 0 })
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// Fails with the error of `watch`.
    pub fn listen(&self) -> io::Result<SessionEvent> {
        loop {
            match self.said.recv_timeout(PATIENCE) {
                Ok(said) => return Ok(said),
                Err(RecvTimeoutError::Disconnected) => return Ok(SessionEvent::End(None)),
                Err(RecvTimeoutError::Timeout) => self.watch.advance(0)?,
            }
        }
    }

    /// Returns whether a message has arrived, and which one.
    pub fn heard(&self) -> Option<SessionEvent> {
        self.said.try_recv().ok()
    }

    /// Returns the number of bytes that were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Lets the other side read the end, and waits for ssh to end.
    ///
    /// # Errors
    /// Fails with the error of `watch`.
    pub fn end(&mut self) -> io::Result<ExitStatus> {
        self.pipe = None;
        // Read the rest, so that the other side can go on writing.
        while !matches!(self.listen()?, SessionEvent::End(_)) {}
        self.child.wait()
    }
}

impl Write for SshSession<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let pipe = self.pipe.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        loop {
            self.watch.advance(0)?;
            match pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    system::wait_for_room(pipe, PATIENCE)?;
                }
                written => {
                    self.written += written.as_ref().map_or(0, |written| *written as u64);
                    return written;
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SshSession<'_> {
    fn drop(&mut self) {
        self.pipe = None;
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // ssh may have ended already.
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// Passes on the messages of the other side, until it ends or nothing waits for them.
fn listen(stdout: ChildStdout, to: &SyncSender<SessionEvent>) {
    let mut from = BufReader::new(stdout);
    let greeting = greeting(&mut from);
    let goes_on = matches!(greeting, SessionEvent::Greeting(_));
    if to.send(greeting).is_err() || !goes_on {
        return;
    }
    loop {
        let said = match ReceiverMessage::read(&mut from) {
            Ok(answer) => SessionEvent::Message(answer),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                SessionEvent::Invalid(error.to_string())
            }
            Err(_) => SessionEvent::End(None),
        };
        let goes_on = matches!(said, SessionEvent::Message(_));
        if to.send(said).is_err() || !goes_on {
            return;
        }
    }
}

/// Reads the greeting, and passes over lines before it.
fn greeting(from: &mut impl BufRead) -> SessionEvent {
    let mut from = from.take(MOST_JUNK);
    let mut first = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = from.read_until(b'\n', &mut line);
        let text = String::from_utf8_lossy(&line);
        if let Some(greeting) = text.strip_prefix(RECEIVER).filter(|_| text.ends_with('\n')) {
            return SessionEvent::Greeting(greeting.trim().to_owned());
        }
        if !matches!(read, Ok(read) if read > 0) {
            let is_end = from.limit() > 0;
            let first = first.map(|line: String| format!("it printed `{}`", shown(&line)));
            return match first {
                Some(reason) if !is_end => SessionEvent::Invalid(reason),
                first => SessionEvent::End(first),
            };
        }
        first.get_or_insert_with(|| text.trim().to_owned());
    }
}

/// Returns the beginning of a text of the other side, without what could direct a terminal.
pub fn shown(text: &str) -> String {
    const MOST: usize = 2000;
    let mut shown = String::new();
    for c in text.chars().take(MOST) {
        if c.is_control() && c != '\n' { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Joins a program and its arguments for the shell of the other machine.
fn shell_words(program: &str, arguments: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/:=@+,%".contains(c);
    let word = |word: &str| match word {
        "" => "''".to_owned(),
        word if word.chars().all(is_plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let words = [program].into_iter().chain(arguments.iter().map(|it| &**it)).map(word);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting_in(text: &[u8]) -> Result<String, Option<String>> {
        match greeting(&mut &text[..]) {
            SessionEvent::Greeting(rest) => Ok(rest),
            SessionEvent::End(first) => Err(first),
            SessionEvent::Invalid(reason) => Err(Some(reason)),
            SessionEvent::Message(_) => unreachable!(),
        }
    }

    #[test]
    fn a_banner_is_passed_over() {
        assert_eq!(greeting_in(b"stowage receive 1 amd64\n").unwrap(), "1 amd64");
        assert_eq!(greeting_in(b"Hi!\n\xff\n\nstowage receive 2\r\nW").unwrap(), "2");
        assert_eq!(greeting_in(b"").unwrap_err(), None);
        assert_eq!(
            greeting_in(b"\x1b[2JHi\nyou").unwrap_err().unwrap(),
            r"it printed `\u{1b}[2JHi`"
        );
        assert!(greeting_in(b"stowage receive 1").is_err());
        assert!(greeting_in(&vec![b'a'; 1 << 20]).unwrap_err().is_some());
        assert!(greeting_in(&b"a\n".repeat(1 << 20)).unwrap_err().is_some());
    }

    #[test]
    fn the_other_shell_gets_the_words_as_they_are() {
        let words = ["receive", "oci:a b:v1", "it's", "", "$(x)", "docker-daemon:a/b:v1"];
        let line = shell_words("/nix/store/x/bin/stowage", &words.map(str::to_owned));
        let expected = r"/nix/store/x/bin/stowage receive 'oci:a b:v1' 'it'\''s' '' '$(x)' docker-daemon:a/b:v1";
        assert_eq!(line, expected);
    }
}
