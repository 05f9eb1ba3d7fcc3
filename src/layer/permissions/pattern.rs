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
    /// Compiles a pattern in the syntax of RE2 (<https://github.com/google/re2/wiki/Syntax>).
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        let compiled = Regex::new(&in_rust(text))?;
        Ok(Self { written: text.to_owned(), compiled })
    }

    /// Returns whether the pattern is found in a path.
    pub fn is_match(&self, path: &Path) -> bool {
        self.finds(path.as_os_str().as_bytes())
    }

    /// Returns whether the pattern is found in bytes.
    pub fn finds(&self, bytes: &[u8]) -> bool {
        self.compiled.is_match(bytes)
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

/// Translates a pattern to Rust's syntax, which differs in a few points: it has no `\Q…\E` and no
/// octal escapes, takes `\d`, `\w`, `\s` and `\b` beyond ASCII, has `\<`, `\>`, `\b{…}` and sets in
/// sets, and refuses a `{` that begins no repetition.
fn in_rust(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '\\' => escape(after, in_class, &mut result),
            '[' if in_class => class_in_class(rest, &mut result),
            '[' => {
                in_class = true;
                begin_class(after, &mut result)
            }
            ']' if in_class => {
                in_class = false;
                result.push(c);
                after
            }
            // Rust has operators of sets in classes.
            '&' | '~' if in_class => {
                result.extend(['\\', c]);
                after
            }
            '{' if !in_class && !is_repetition(after) => {
                result += "\\{";
                after
            }
            _ => {
                result.push(c);
                after
            }
        };
    }
    result
}

/// Translates what follows a backslash. Returns what is left.
fn escape<'t>(after: &'t str, in_class: bool, result: &mut String) -> &'t str {
    let Some(c) = after.chars().next() else {
        result.push('\\');
        return after;
    };
    let rest = &after[c.len_utf8()..];
    let ascii = match (c, in_class) {
        ('Q', false) => {
            let (literal, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            *result += &regex::escape(literal);
            return rest;
        }
        ('0'..='7', _) => {
            // `\0`, or as many as three digits; `\1` alone would be a reference to a group.
            let count =
                after.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            let digits = &after[..count];
            if c == '0' || count > 1 {
                let number = u32::from_str_radix(digits, 8).unwrap_or_default();
                *result += &format!("\\x{{{number:X}}}");
                return &after[count..];
            }
            None
        }
        ('x' | 'p' | 'P', _) if rest.starts_with('{') => {
            let end = rest.find('}').map_or(rest.len(), |end| end + 1);
            result.extend(['\\', c]);
            *result += &rest[..end];
            return &rest[end..];
        }
        ('d', true) => Some("0-9"),
        ('d', false) => Some("[0-9]"),
        ('D', _) => Some("[^0-9]"),
        ('w', true) => Some("0-9A-Za-z_"),
        ('w', false) => Some("[0-9A-Za-z_]"),
        ('W', _) => Some("[^0-9A-Za-z_]"),
        ('s', true) => Some(r"\t\n\f\r "),
        ('s', false) => Some(r"[\t\n\f\r ]"),
        ('S', _) => Some(r"[^\t\n\f\r ]"),
        // Nothing after this is in braces: `{` is a literal there.
        ('b', false) => Some(r"(?-u:\b)"),
        ('B', false) => Some(r"(?-u:\B)"),
        ('<', _) => Some("<"),
        ('>', _) => Some(">"),
        _ => None,
    };
    match ascii {
        Some(ascii) => *result += ascii,
        None => result.extend(['\\', c]),
    }
    rest
}

/// Translates the beginning of a class, after its `[`: a `]` there is literal.
fn begin_class<'t>(after: &'t str, result: &mut String) -> &'t str {
    result.push('[');
    let mut rest = after;
    if let Some(after) = rest.strip_prefix('^') {
        result.push('^');
        rest = after;
    }
    if let Some(after) = rest.strip_prefix(']') {
        *result += "\\]";
        rest = after;
    }
    rest
}

/// Translates a `[` in a class: it begins a class such as `[:alpha:]`, or is literal.
fn class_in_class<'t>(from: &'t str, result: &mut String) -> &'t str {
    let named = from.strip_prefix("[:").and_then(|rest| rest.split_once(":]"));
    match named {
        Some((name, rest)) if name.bytes().all(|c| c == b'^' || c.is_ascii_lowercase()) => {
            *result += &from[..from.len() - rest.len()];
            rest
        }
        _ => {
            *result += "\\[";
            &from[1..]
        }
    }
}

/// Returns whether a `{` begins a repetition, given what follows.
fn is_repetition(after: &str) -> bool {
    let Some((inner, _)) = after.split_once('}') else { return false };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && is_number(least) && is_number(most)
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
            ("{", false),
            (r"x{,2}", false),
            (r"\x{2f}var", true),
            (r"\057var", true),
            (r"[[]|a\.b", true),
            (r"[]x]-1", true),
            (r"[^]]-1$", true),
            (r"[a&&b]\.", true),
            (r"[\w+]+/var", true),
            (r"[^\W]-1", true),
            (r"\<var", false),
            (r"[[:alpha:]&]{3}/tmp", true),
            (r"(?s:.)var\B", false),
        ] {
            let compiled = Pattern::new(pattern).unwrap();
            assert_eq!(compiled.is_match(Path::new(PATH)), found, "{pattern}");
        }
    }

    /// Checks that what only Rust has is not taken for something else.
    #[test]
    fn texts_are_matched_as_in_go() {
        for (pattern, text, found) in [
            (r#"{"key": "value"}"#, r#"a {"key": "value"}"#, true),
            (r"\d", "\u{0663}", false),
            (r"\w", "\u{e9}", false),
            (r"\b{start}", "{start}", false),
            (r"\p{Lu}\x{e9}", "Éé", true),
            (r"a\b{x}", "a{x}", true),
            (r"\bé", "é", false),
            (".", "é", true),
            ("^.$", "é", true),
            ("(?i)É", "é", true),
            ("a$", "a\n", false),
            ("(?m)^a$", "b\na\n", true),
            ("[a[b]", "[", true),
            ("[a~~b]", "~", true),
        ] {
            let compiled = Pattern::new(pattern).unwrap();
            assert_eq!(compiled.finds(text.as_bytes()), found, "{pattern} in {text}");
        }
        for pattern in ["(", "a**b(", "[z-a]", r"\1", "(?<!a)b", r"\p{Nothing}"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
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
