//! Runs programs that keep credentials: `docker-credential-…` (docker-credential-helpers).
//! Stage: registry. Runs a program. Input: the name of a registry. Output: [`Credentials`].

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use thiserror::Error;

use super::Credentials;
use super::auth_file::credentials;

/// The longest time that a helper may take: it may ask the user for a password first.
const LONGEST: Duration = Duration::from_secs(120);
/// The number of bytes of a helper's answer that are read. No credentials are larger.
const LARGEST: u64 = 1 << 20;
/// The number of characters of a helper's message that are quoted.
const LONGEST_MESSAGE: usize = 300;
/// The beginning of the message of a helper that has no credentials for a server: there is no other
/// sign.
const NOT_FOUND: &str = "credentials not found";

/// Says why a helper gave no credentials.
#[derive(Debug, Error)]
pub enum HelperError {
    /// The program could not be run.
    #[error("`{program}` cannot be run: {reason}")]
    Missing {
        /// The program.
        program: String,
        /// The error of the system.
        reason: io::Error,
    },
    /// The program failed, or gave an answer that can't be understood.
    #[error("`{program}` {reason}")]
    Failed {
        /// The program.
        program: String,
        /// The text that the program printed, or a description of what is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the program `docker-credential-HELPER` for the credentials of a server. Returns `None` if
/// it has none.
///
/// # Errors
/// Fails with [`HelperError`] if the program can't be run, fails, or gives an answer that can't be
/// parsed.
pub fn ask(helper: &str, server: &str) -> Result<Option<Credentials>, HelperError> {
    run(helper, server, LONGEST)
}

fn run(helper: &str, server: &str, longest: Duration) -> Result<Option<Credentials>, HelperError> {
    let program = format!("docker-credential-{}", helper.escape_debug());
    let missing = |reason| HelperError::Missing { program: program.clone(), reason };
    let failed = |reason: String| HelperError::Failed { program: program.clone(), reason };
    // A name with a slash would not be searched for in PATH.
    if helper.contains('/') {
        return Err(missing(io::Error::from(io::ErrorKind::InvalidFilename)));
    }
    let mut command = Command::new(format!("docker-credential-{helper}"));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(missing)?;
    let stdout = read(child.stdout.take());
    let stderr = read(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input reports by itself what is wrong.
        let _ = stdin.write_all(server.as_bytes());
    }
    let end = Instant::now() + longest;
    let said = wait_for(&stdout, end).and_then(|said| Ok((said, wait_for(&stderr, end)?)));
    let (said, complaint) = said.map_err(|reason| {
        stop(&mut child);
        failed(reason)
    })?;
    let status = child.wait().map_err(|source| failed(source.to_string()))?;
    let message = String::from_utf8_lossy(if complaint.is_empty() { &said } else { &complaint });
    if !status.success() {
        let said_so = [&said, &complaint];
        if said_so.iter().any(|text| String::from_utf8_lossy(text).contains(NOT_FOUND)) {
            return Ok(None);
        }
        return Err(failed(format!("failed ({status}): {}", shortened(&message))));
    }
    // The text is not quoted: it may contain a password.
    let answer: Answer = serde_json::from_slice(&said)
        .map_err(|_| failed("gave an answer that is not credentials in JSON".to_owned()))?;
    Ok(credentials(answer.username, answer.secret))
}

/// Reads a pipe to its end on a separate thread.
fn read(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // After an error, the bytes before it are used. The receiver may be gone.
            let _ = pipe.take(LARGEST).read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    receiver
}

fn wait_for(receiver: &Receiver<Vec<u8>>, end: Instant) -> Result<Vec<u8>, String> {
    match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
        Ok(bytes) => Ok(bytes),
        Err(RecvTimeoutError::Disconnected) => Ok(Vec::new()),
        Err(RecvTimeoutError::Timeout) => Err("did not answer in time".to_owned()),
    }
}

fn stop(child: &mut Child) {
    // The program may have ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// Returns the beginning of a message, on one line.
fn shortened(message: &str) -> String {
    let mut line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|c| !c.is_control());
    if line.is_empty() {
        return "it printed nothing".to_owned();
    }
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        for helper in ["nonesuch", "../x", ""] {
            let error = run(helper, "reg", LONGEST).unwrap_err();
            assert!(matches!(error, HelperError::Missing { .. }), "{error}");
        }
    }

    #[test]
    fn messages_are_cut_and_on_one_line() {
        for (message, expected) in [
            ("", "it printed nothing".to_owned()),
            (" a\n\tb\u{1b}[31m ", "a b[31m".to_owned()),
            (&*"x".repeat(301), format!("{}…", "x".repeat(300))),
        ] {
            assert_eq!(shortened(message), expected);
        }
    }
}
