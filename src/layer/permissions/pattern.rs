//! Compiles regular expressions in the syntax of `perms`: RE2, as in Go.
//! Stage: layer (pure). Input: a pattern and a path. Output: whether the path matches.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use regex::bytes::Regex;

/// A regular expression that is searched for, without anchors.
#[derive(Clone, Debug)]
pub struct Pattern {
    written: String,
    compiled: Regex,
}

/// Patterns are equal if they are written in the same way.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Pattern {}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.written
    }
}

impl Pattern {
    /// Compiles a pattern in the syntax of RE2 (<https://github.com/google/re2/wiki/Syntax>), as
    /// far as it is useful for paths. Rust's syntax differs in three points: it has no `\Q…\E`,
    /// refuses `{` without a number after it, and takes `\d`, `\w` and `\b` beyond ASCII.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        let compiled = Regex::new(&unquoted(text))?;
        Ok(Self { written: text.to_owned(), compiled })
    }

    /// Returns whether the pattern is found in a path.
    pub fn is_match(&self, path: &Path) -> bool {
        self.compiled.is_match(path.as_os_str().as_bytes())
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

/// Escapes the text between `\Q` and `\E`, or between `\Q` and the end.
fn unquoted(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(escape) = rest.find('\\') {
        let (before, from) = rest.split_at(escape);
        result += before;
        if let Some(quoted) = from.strip_prefix("\\Q") {
            let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            result += &regex::escape(literal);
            rest = after;
        } else {
            // A doubled backslash begins no escape: `\\Q` is a backslash and a Q.
            let escaped = from.char_indices().nth(2).map_or(from.len(), |(end, _)| end);
            result += &from[..escaped];
            rest = &from[escaped..];
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with the answers of Go's `regexp.MatchString`.
    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        const PATH: &str = "/nix/store/00000000000000000000000000000000-a.b+c/var/tmp/x-1";
        for (pattern, found) in [
            ("", true),
            ("tmp", true),
            ("^tmp", false),
            ("tmp$", false),
            ("(/var)?/tmp", true),
            ("^/nix/store/[^/]*/var/tmp/x-1$", true),
            (r"^/nix/store/0{32}-a\.b\+c/var", true),
            (".*tmp.*", true),
            ("TMP", false),
            ("(?i)TMP", true),
            (r"x-\d$", true),
            (r"\bvar\b", true),
            (r"x\-1\z", true),
            (r"\/tmp", true),
            ("[[:digit:]]$", true),
            ("a|^$", true),
            ("(?P<name>v)ar", true),
            (r"\Qa.b+c\E/var", true),
            (r"\Qa.b+c", true),
            (r"\Qa.*c\E", false),
            (r"\\Q", false),
            ("v.*?r", true),
            ("(?U)v.*r", true),
            (r"\x2fvar", true),
        ] {
            let compiled = Pattern::new(pattern).unwrap();
            assert_eq!(compiled.is_match(Path::new(PATH)), found, "{pattern}");
        }
    }

    #[test]
    fn names_that_are_no_text_are_matched() {
        use std::ffi::OsStr;
        let path = Path::new(OsStr::from_bytes(b"/caf\xe9/tmp"));
        assert!(Pattern::new("/tmp$").unwrap().is_match(path));
        assert!(Pattern::new("^/caf").unwrap().is_match(path));
    }
}
