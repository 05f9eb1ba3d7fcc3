//! The text that `nix-store --load-db` reads and `closureInfo` writes.
//! Stage: closure (pure). Input: bytes. Output: records, not yet a closure.

use std::collections::BTreeSet;

use super::{Error, NarHash, ValidPathInfo};
use crate::store::{Store, StorePath};

/// Parses a registration: records of one field a line, without separators:
///
/// ```text
/// store path
/// NAR hash            (sha256:…)
/// NAR size            (bytes, decimal)
/// deriver             (a store path, or empty)
/// number of references
/// reference …         (one a line)
/// ```
///
/// Source: Nix, `decodeValidPathInfo` in `src/libstore/path-info.cc`.
///
/// # Errors
/// [`Error::Malformed`] with the line.
pub fn parse(bytes: &[u8]) -> Result<Vec<ValidPathInfo>, Error> {
    let mut lines = Lines::new(bytes);
    let mut infos = Vec::new();
    while !lines.at_end() {
        let path = lines.field("a store path", store_path)?;
        let nar_hash =
            lines.field("a NAR hash (`sha256:…`)", |text| text.parse::<NarHash>().ok())?;
        let nar_size = lines.field("a NAR size in bytes", decimal)?;
        lines.field("a deriver's store path or an empty line", |text| {
            (text.is_empty() || store_path(text).is_some()).then_some(())
        })?;
        let count: u64 = lines.field("a number of references", decimal)?;
        let mut references = BTreeSet::new();
        for number in 1..=count {
            let expected = format!("reference {number} of {count} (a store path)");
            references.insert(lines.field(&expected, store_path)?);
        }
        infos.push(ValidPathInfo { path, nar_hash, nar_size, references });
    }
    Ok(infos)
}

fn store_path(text: &str) -> Option<StorePath> {
    Store::default().parse(text).ok()
}

/// Digits alone: `u64::from_str` would take a sign as well.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

struct Lines<'a> {
    rest: &'a [u8],
    /// Of the line last read, counted from 1.
    number: usize,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, number: 0 }
    }

    fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads the next line as one field.
    fn field<T>(
        &mut self,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        self.number += 1;
        let malformed =
            |found| Error::Malformed { line: self.number, expected: expected.to_owned(), found };
        // Every line ends in a newline: one that doesn't was cut short, and what is
        // left of it may look valid (half a size is a size).
        let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') else {
            return Err(malformed(match self.rest {
                [] => "the end of the file".to_owned(),
                cut => format!("`{}` without a newline: the file was cut short", excerpt(cut)),
            }));
        };
        let (line, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        let value = std::str::from_utf8(line).ok().and_then(parse);
        let value = value.ok_or_else(|| malformed(format!("`{}`", excerpt(line))))?;
        self.rest = rest;
        Ok(value)
    }
}

/// A line as it may stand in a message.
fn excerpt(line: &[u8]) -> String {
    const SHOWN: usize = 120;
    let text = line[..line.len().min(SHOWN)].escape_ascii().to_string();
    if line.len() > SHOWN { text + "…" } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{info, path};
    use super::*;

    const HASH: &str = "sha256:0000000000000000000000000000000000000000000000000000";

    fn print(infos: &[ValidPathInfo]) -> String {
        let store = Store::default();
        let mut text = String::new();
        for info in infos {
            let ValidPathInfo { path, nar_hash, nar_size, references } = info;
            text +=
                &format!("{}\n{nar_hash}\n{nar_size}\n\n{}\n", store.print(path), references.len());
            for reference in references {
                text += &format!("{}\n", store.print(reference));
            }
        }
        text
    }

    #[test]
    fn reads_what_nix_writes() {
        let records = [
            info(path('a', "a"), 112, &[]),
            info(path('b', "b"), 7, &[path('a', "a"), path('b', "b")]),
        ];
        assert_eq!(parse(print(&records).as_bytes()).unwrap(), records);
    }

    #[test]
    fn a_deriver_is_read_over() {
        let text = print(&[info(path('a', "a"), 1, &[])]);
        let deriver = Store::default().print(&path('d', "a.drv"));
        let with = text.replacen("\n\n", &format!("\n{deriver}\n"), 1);
        assert_eq!(parse(with.as_bytes()).unwrap(), parse(text.as_bytes()).unwrap());
    }

    #[test]
    fn a_malformed_line_is_named() {
        let a = Store::default().print(&path('a', "a"));
        for (text, line, expected) in [
            ("/nix/store\n".to_owned(), 1, "a store path"),
            (format!("\n{a}\n"), 1, "a store path"),
            (format!("{a}\nsha256:0\n1\n\n0\n"), 2, "a NAR hash"),
            (format!("{a}\n{HASH}\n-1\n\n0\n"), 3, "a NAR size"),
            (format!("{a}\n{HASH}\n+1\n\n0\n"), 3, "a NAR size"),
            (format!("{a}\n{HASH}\n\n\n0\n"), 3, "a NAR size"),
            (format!("{a}\n{HASH}\n99999999999999999999\n\n0\n"), 3, "a NAR size"),
            (format!("{a}\n{HASH}\n1\nunknown\n0\n"), 4, "a deriver"),
            (format!("{a}\n{HASH}\n1\n\nmany\n"), 5, "a number of references"),
            (format!("{a}\n{HASH}\n1\n\n2\n{a}\n"), 7, "reference 2 of 2"),
            (format!("{a}\n{HASH}\n1\n\n18446744073709551615\n"), 6, "reference 1 of"),
            (format!("{a}\n{HASH}\n1\n\n0\n\u{e9}\n"), 6, "a store path"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            let Error::Malformed { line: found_line, expected: found, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(
                (*found_line, found.starts_with(expected)),
                (line, true),
                "{text:?}: {error}"
            );
        }
    }

    proptest! {
        /// A registration that was cut short anywhere but between two records is an error.
        #[test]
        fn no_truncation_goes_unnoticed(cut in 0usize..1000) {
            let records = [info(path('a', "a"), 123, &[]), info(path('b', "b"), 7, &[path('a', "a")])];
            let text = print(&records);
            let cut = cut % text.len();
            let boundary = print(&records[..1]).len();
            prop_assert_eq!(parse(&text.as_bytes()[..cut]).is_ok(), cut == 0 || cut == boundary);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
