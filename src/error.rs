//! Items that the errors of all stages share.
//! Vocabulary: names no stage.

use std::io;

/// The length of the longest message, in bytes: a message may quote a value of any length from a
/// document.
const LONGEST: usize = 16 << 10;

/// Returns an error and its causes, of which a message has at most 16 KiB. An unknown name that resembles a known one
/// is followed by a suggestion.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    if let Some(name) = meant(&text) {
        text += &format!("; did you mean `{name}`?");
    }
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}

/// Returns the known name that is meant by an unknown one, if the message is serde's about a field or variant.
fn meant(message: &str) -> Option<&str> {
    let after = |start| message.split_once(start).map(|(_, rest)| rest);
    let rest = after("unknown field `").or_else(|| after("unknown variant `"))?;
    let (written, known) = rest.split_once("`, expected ")?;
    nearest_of(known.split('`').skip(1).step_by(2), written)
}

/// Returns the one of the known names that is within two edits of what was written, if there is one.
pub fn nearest_of<'a>(known: impl Iterator<Item = &'a str>, written: &str) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    known
        .map(|name| (edits(&written, &name.to_ascii_lowercase()), name))
        .min()
        // Two edits turn any name of two bytes into any other.
        .filter(|(edits, name)| *edits <= 2 && *edits < name.len())
        .map(|(_, name)| name)
}

/// Computes the Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
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

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code)]
    enum Choice {
        None,
        Gzip,
        #[serde(rename = "zstd:chunked")]
        Chunked,
        By {
            first: u8,
        },
    }

    #[test]
    fn unknown_names_have_suggestions() {
        for (json, said) in [
            (
                r#""gzpi""#,
                "unknown variant `gzpi`, expected one of `none`, `gzip`, `zstd:chunked`, `by` at line 1 column 6; did you mean `gzip`?",
            ),
            (r#""zstd-chunked""#, "; did you mean `zstd:chunked`?"),
            (
                r#"{"by": {"frist": 1}}"#,
                "unknown field `frist`, expected `first` at line 1 column 15; did you mean `first`?",
            ),
            (r#""lz4""#, "`by` at line 1 column 5"),
            (r#""xz""#, "`by` at line 1 column 4"),
            (r#""`""#, "`by` at line 1 column 3"),
        ] {
            let error = with_causes(&serde_json::from_str::<Choice>(json).unwrap_err());
            assert!(error.ends_with(said), "{json}: {error}");
        }
    }
}
