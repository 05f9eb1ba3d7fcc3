//! Items that the errors of all stages share.
//! Vocabulary: names no stage.

use std::io;

/// The length of the longest message, in bytes: a message may quote a value of any length from a
/// document.
const LONGEST: usize = 16 << 10;

/// Returns an error and its causes, of which a message has at most 16 KiB.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}

/// Advice that goes with an error, apart from the error's message.
///
/// The message says what failed, on which path, line or layer, and why. The hint, printed after a
/// blank line, names a command or an attribute to try.
pub trait Hint: std::error::Error {
    /// Returns what the user can do about the error, if there is anything to say.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Returns whether the error is that the reader of this program's output went away. The program
    /// must still fail, since half an image is no success, but need not print a message.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded() {
        let said = |length: usize| with_causes(&io::Error::other("é".repeat(length)));
        assert_eq!(said(LONGEST / 2), "é".repeat(LONGEST / 2));
        assert_eq!(said(LONGEST * 2), "é".repeat(LONGEST / 2) + "…");
    }
}
