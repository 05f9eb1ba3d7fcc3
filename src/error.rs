//! What every stage's errors share.
//! Vocabulary: names no stage.

use std::io;

/// An error and what it came of, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Advice that goes with an error, kept out of its message.
///
/// The message says what failed, on which path, line or layer, and why. The
/// hint, printed after a blank line, names a command or an attribute to try.
pub trait Hint: std::error::Error {
    /// What to do about it, if there is something to say.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Whether the reader of our output went away. Half an image is not
    /// success, so this still fails, but there is nobody left to tell.
    fn is_broken_pipe(&self) -> bool {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.kind() == io::ErrorKind::BrokenPipe;
            }
            cause = error.source();
        }
        false
    }
}
